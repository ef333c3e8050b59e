"""The portrait that a live session shows, and the next one while it is made ready in the background."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ReenactError
from .framing import framed, scaled
from .media.frame import Image
from .media.limits import Limits
from .source import find_source
from .systems.protocol import Animator, Portrait
from .tracking.face import Face
from .tracking.tracker import Tracker

__all__ = ["PhotoState", "Portraits", "Ready", "described"]

PhotoState = Literal["none", "registering", "ready", "failed"]


@dataclass(frozen=True, eq=False)
class _Photo:
    """A photo in the output's size, and its face there."""

    image: Image
    face: Face


@dataclass(frozen=True, eq=False)
class Ready:
    """A portrait that can be animated; its results are `scale` of the output's size."""

    photo: _Photo
    portrait: Portrait
    scale: float


class Portraits:
    """Registers photos and other scales of the same photo, one after the other, in the thread that calls `run`.

    `current` stays what it is until the next is ready; of several photos that wait only the newest is registered.
    """

    current: Ready | None = None
    state: PhotoState = "none"
    error: str | None = None  # why the last photo was refused

    def __init__(
        self,
        animator: Animator[Any],
        finder: Tracker,
        size: tuple[int, int],
        *,
        whole: bool,
        limits: Limits,
        ready: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        """`ready` is called when `current` is another one, `tell` with a line for people when a photo is refused.

        Files of photos beyond `limits` are.
        """
        self._animator, self._finder = animator, finder
        self._size, self._whole, self._limits = size, whole, limits
        self._scale = 1.0
        self._is_ready, self._tell = ready, tell
        self._changed = threading.Condition()
        self._wanted: Image | Path | None = None
        self._closed = False

    def show(self, photo: Image | Path) -> None:
        """Register another photo, (H, W, 3) uint8 RGB or a file, which is read here too."""
        with self._changed:
            self._wanted, self.state, self.error = photo, "registering", None
            self._changed.notify_all()

    def rescale(self, scale: float) -> None:
        """Make results of that part of the output's size."""
        with self._changed:
            self._scale = scale
            self._changed.notify_all()

    def close(self) -> None:
        """End `run` and let the portrait go."""
        with self._changed:
            self._closed, self._wanted, self.current = True, None, None
            self._changed.notify_all()

    def run(self) -> None:
        """Register what is wanted until `close`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted is not None or self._off_scale())
                if self._closed:
                    return
                wanted, self._wanted = self._wanted, None
                scale, current = self._scale, self.current
            try:
                photo = current.photo if wanted is None and current is not None else self._found(wanted)
                made = Ready(photo, self._animator.register(*scaled(photo.image, photo.face, scale)), scale)
            except Exception as error:  # noqa: BLE001  one photo's fault is told, and ends nothing
                self._refuse(error, is_new=wanted is not None)
                continue
            self._replace(made, is_new=wanted is not None)

    def _off_scale(self) -> bool:
        return self.current is not None and self.current.scale != self._scale

    def _found(self, wanted: Image | Path | None) -> _Photo:
        assert wanted is not None  # there is a photo or a portrait, else nothing would be wanted
        found, face = find_source(wanted, self._finder, 0, self._limits)
        return _Photo(*framed(found, face, self._size, whole=self._whole))

    def _replace(self, made: Ready, *, is_new: bool) -> None:
        with self._changed:
            if self._closed:
                return
            self.current = made
            if is_new and self._wanted is None:
                self.state = "ready"
        self._is_ready()

    def _refuse(self, error: Exception, *, is_new: bool) -> None:
        reason, scale = described(error), self._scale
        with self._changed:
            if is_new and self._wanted is None:
                self.state, self.error = "failed", reason
            elif not is_new and self.current is not None:
                self._scale = self.current.scale  # not tried again and again
        what = "the photo cannot be used" if is_new else f"pictures cannot be made at {scale:.0%} of the size"
        self._tell(f"{what}: {reason}")


def described(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, ReenactError):
        return str(error)
    return f"{type(error).__name__}: {error}; this is a fault of reenact, run with --debug to see where"
