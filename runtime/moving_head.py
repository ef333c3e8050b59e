"""A camera for machines without one: a packaged portrait, moved by a motion preset, seen as a face by any tracker."""

import threading
import time
from collections import Counter
from collections.abc import Callable

from .assets import portrait
from .framing import framed
from .media.images import read_image
from .media.inputs import LEFT_OUT, Captured
from .motion import load_motion
from .systems import registry
from .systems.protocol import Observation
from .tracking.tracker import Tracker

__all__ = ["MovingHead"]

REST_S = 1.5  # at the beginning and between two rounds: what is calibrated on


class MovingHead:
    """Gives a frame of `size` (width, height) at each of its times, made when it is due; never ends."""

    asked = ""

    def __init__(
        self,
        tracker: Tracker,
        *,
        size: tuple[int, int] = (640, 480),
        fps: float = 30.0,
        motion: str = "demo",
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """`tracker` finds the portrait's face, once. Raises ReenactError for an unknown motion."""
        self.lost: Counter[str] = Counter()
        self.name = "test (a generated moving head)"
        photo = read_image(portrait("eileen_collins"))
        self._animator = registry.create("meshwarp")
        self._portrait = self._animator.register(
            *framed(photo, tracker.find_faces(photo)[0], size, whole=False)
        )
        self._motion = load_motion(motion)
        self._period = 1 / fps
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        self._began: float | None = None
        self._count = 0

    def read(self) -> Captured:
        """The next frame; where making one takes too long, frames are left out as a camera does, and counted."""
        now = self._clock()
        if self._began is None:
            self._began = now
        following = max(self._count + 1, int((now - self._began) / self._period))
        if following > self._count + 1:
            self.lost[LEFT_OUT] += following - self._count - 1
        self._count = following
        due = self._began + self._count * self._period
        if due > now:
            self._sleep(due - now)
        at = (self._count * self._period) % (REST_S + self._motion.duration) - REST_S
        image = self._animator.animate(self._portrait, Observation(self._motion.at(max(at, 0.0))))
        return Captured(image, self._clock())

    def stop(self) -> None:
        """Wait for no frame's time any more."""
        self._stopped.set()

    def close(self) -> None:
        """Free the portrait."""
        self._animator.close()
