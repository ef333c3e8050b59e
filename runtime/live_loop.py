"""Shows a live session: pictures to the preview and the outputs, keys to the session, until it is to end."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ..errors import ReenactError
from .live import LiveSession, Presented, Status
from .media.camera import CameraFeed
from .meters import Recent
from .outputs import Output, Recording, free_name
from .overlay import CORNERS, HELP, badge, figures, panel
from .watermark import marked
from .window import Window

__all__ = ["LiveLoop", "LiveStats"]

WAIT_S = 0.02  # for a picture, before keys are looked at
NOTICE_S = 4.0  # that long a notice is shown
REFRESH_S = 0.25  # the figures, while no picture comes


@dataclass(frozen=True)
class LiveStats:
    """What a live run did."""

    pictures: int  # shown
    seconds: float
    status: Status  # at the end
    outputs_dropped: dict[str, int]  # output -> pictures that it was too slow for
    recordings: tuple[str, ...]
    interrupted: bool  # by Ctrl-C


@dataclass
class _Shown:
    """What the preview shows beside the picture."""

    figures: bool = True
    help: bool = False
    corner: int = 0  # of the badge
    notices: int = 0
    notice_until: float = 0.0
    at: float = 0.0  # when it was last drawn
    show: Recent = field(default_factory=lambda: Recent(2.0))


class LiveLoop:
    """Runs in the thread that owns the window; everything else has threads of its own."""

    def __init__(
        self,
        session: LiveSession,
        start_feed: Callable[[], CameraFeed],
        photos: Sequence[Path],
        *,
        outputs: Sequence[Output] = (),
        window: Window | None = None,
        record: Path | None = None,
        fps: float = 30.0,
        mark: bool = True,
    ) -> None:
        """`start_feed` is called when the first photo is ready, so that nothing of a film is missed.

        `photos` to choose from, the first is shown; `record` begins at once; `fps` is what is expected. With
        `mark` off recordings are not marked as AI-generated, which the log says; the preview always is.

        The loop owns the feed, the outputs and the window, and closes them; the session stays the caller's.
        """
        self._session, self._start_feed = session, start_feed
        self._feed: CameraFeed | None = None
        self._photos, self._photo = list(photos), 0
        self._outputs, self._window = list(outputs), window
        self._record_as, self._fps, self._mark = record, fps, mark
        self._recording: Recording | None = None
        self._recordings: list[str] = []
        self._dropped: dict[str, int] = {}
        self._faults: list[ReenactError] = []
        self._shown = _Shown()
        self._quit = self._interrupted = False
        self._picture: Presented | None = None
        self._count = 0

    def run(self, *, seconds: float | None = None, stop: threading.Event | None = None) -> LiveStats:
        """Until Q, Ctrl-C, the end of the file, `seconds`, or `stop`; the recording is complete afterwards.

        An output that fails is told and left behind while others go on. Raises what ended the session or the feed,
        a first photo that cannot be used, and at the end what an output failed with.
        """
        began = time.perf_counter()
        try:
            self._session.set_photo(self._photos[0])
            if self._record_as is not None:
                self._toggle_recording()
            while not self._over(began, seconds, stop):
                self._step()
        except KeyboardInterrupt:
            self._interrupted = True
        finally:
            self._close()
        if self._faults:
            raise self._faults[0]
        lasted = time.perf_counter() - began
        return LiveStats(
            self._count,
            lasted,
            self._session.status,
            dict(self._dropped),
            tuple(self._recordings),
            self._interrupted,
        )

    def _over(self, began: float, seconds: float | None, stop: threading.Event | None) -> bool:
        feed = self._feed
        if feed is not None and feed.error is not None:
            raise feed.error
        status = self._session.status
        if self._picture is None and status.photo == "failed":
            raise ReenactError(status.photo_error or "the photo cannot be used")
        if self._window is None and not self._outputs:
            return True  # the last one has failed
        ended = feed is not None and feed.ended and status.state == "waiting"
        late = seconds is not None and time.perf_counter() - began >= seconds
        return self._quit or ended or late or (stop is not None and stop.is_set())

    def _step(self) -> None:
        """One picture, or one look at the keys while there is none."""
        picture = self._session.newest(self._picture.number if self._picture else 0, WAIT_S)
        if picture is not None:
            self._picture = picture
            self._count += 1
            for output in self._outputs:
                output.put(picture)
        if self._feed is None and self._picture is not None:
            self._feed = self._start_feed()
        self._look_at_outputs()
        if self._window is not None:
            pressed = self._press(self._window.key())
            now = time.perf_counter()
            if picture is not None or pressed or now - self._shown.at > REFRESH_S:
                self._preview(now)
        if picture is not None:
            self._session.shown(picture)

    def _preview(self, began: float) -> None:
        if self._window is None or self._picture is None:
            return
        shown, status = self._shown, self._session.status
        picture = marked(self._picture.image)
        if shown.help:
            panel(picture, HELP)
        elif shown.figures:
            panel(picture, self._figures(status, began))
        if status.notices != shown.notices:
            shown.notices, shown.notice_until = status.notices, began + NOTICE_S
        if began < shown.notice_until:
            panel(picture, [status.notice], bottom=True)
        badge(picture, shown.corner)
        self._window.show(picture)
        shown.at = time.perf_counter()
        shown.show.add(shown.at, shown.at - began)

    def _figures(self, status: Status, now: float) -> list[str]:
        mean = self._shown.show.mean(now)
        lines = figures(status, None if mean is None else 1000 * mean)
        if self._recording is not None:
            lines.append(f"recording {self._recording.seconds:.0f} s to {Path(self._recording.name).name}")
        return lines

    def _press(self, key: str | None) -> bool:
        """Do what a key asks for; whether there was one."""
        if key is None:
            return False
        session, shown = self._session, self._shown
        actions: dict[str, Callable[[], None]] = {
            "q": self._end,
            "quit": self._end,
            "next": lambda: self._choose(self._photo + 1),
            "previous": lambda: self._choose(self._photo - 1),
            "x": session.reset_pose,
            "f": session.find_neutral,
            "m": self._mirror,
            "r": self._press_record,
            "i": lambda: setattr(shown, "figures", not shown.figures),
            "b": lambda: setattr(shown, "corner", (shown.corner + 1) % CORNERS),
            "h": lambda: setattr(shown, "help", not shown.help),
        }
        if key.isdecimal() and 1 <= int(key) <= len(self._photos):
            self._choose(int(key) - 1)
        elif key in actions:
            actions[key]()
        return True

    def _end(self) -> None:
        self._quit = True

    def _mirror(self) -> None:
        controls = self._session.controls
        self._session.controls = replace(controls, mirror=not controls.mirror)

    def _choose(self, number: int) -> None:
        self._photo = number % len(self._photos)
        self._session.set_photo(self._photos[self._photo])

    def _press_record(self) -> None:
        try:
            self._toggle_recording()
        except ReenactError as error:  # nothing else needs to end because this cannot begin
            self._session.announce(str(error))

    def _toggle_recording(self) -> None:
        if self._recording is not None:
            self._drop_output(self._recording)
            return
        name = self._record_as or Path(f"reenact-{datetime.now():%Y%m%d-%H%M%S}.mp4")
        if self._recordings:
            name = free_name(name)
        self._recording = Recording(
            name, self._session.size, self._fps, system=self._session.system, mark=self._mark
        )
        self._recordings.append(str(name))
        self._outputs.append(self._recording)

    def _drop_output(self, output: Output) -> None:
        """Finish one output and go on without it."""
        self._outputs.remove(output)
        if output is self._recording:
            self._recording = None
        try:
            output.close()
        except ReenactError as error:
            self._faults.append(error)
            self._session.announce(str(error))
        finally:
            self._dropped[output.name] = self._dropped.get(output.name, 0) + output.dropped

    def _look_at_outputs(self) -> None:
        for output in [output for output in self._outputs if output.error is not None]:
            self._drop_output(output)

    def _close(self) -> None:
        if self._feed is not None:
            self._feed.close()
        for output in list(self._outputs):
            self._drop_output(output)
        if self._window is not None:
            self._window.close()
