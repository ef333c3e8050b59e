"""Shows a live session: pictures to the preview and the outputs, keys to the session, until it is to end."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ..errors import ReenactError
from .files import free_name
from .garbage import loaded_objects_unscanned
from .live import LATENCY_S, LiveSession, Presented, Status
from .media.camera import CameraFeed
from .meters import Percentiles, Recent
from .outputs import FanOut, Output, Recording
from .overlay import CORNERS, HELP, badge, figures, panel
from .portraits import described
from .watermark import marked
from .window import Window

__all__ = ["LiveLoop", "LiveStats"]

WAIT_S = 0.02  # for a picture, before keys are looked at
NOTICE_S = 4.0  # that long a notice is shown
REFRESH_S = 0.25  # the figures, while no picture comes


@dataclass(frozen=True)
class LiveStats:
    """What a live run did."""

    pictures: int  # handed to the outputs
    seconds: float  # from the first picture to the end, without the closing
    status: Status  # at the end
    latency: dict[str, Percentiles]  # place -> from capture until a picture was there, of the last 10 s
    outputs_dropped: dict[str, int]  # output or "the window" -> pictures that it was too slow for
    recordings: tuple[str, ...]  # files that are there
    faults: tuple[str, ...]  # why outputs ended early
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
    latency: Recent = field(default_factory=lambda: Recent(LATENCY_S))
    missed: int = 0  # pictures


class LiveLoop:
    """Runs in the thread that owns the window and reads the session for it; outputs are fed by another thread."""

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
        self._fan_out, self._window = FanOut(session, outputs), window
        self._record_as, self._fps, self._mark = record, fps, mark
        self._recording: Recording | None = None
        self._recordings: list[Recording] = []
        self._finishing: list[threading.Thread] = []
        self._dropped: dict[str, int] = {}
        self._latency: dict[str, Percentiles] = {}
        self._faults: list[str] = []
        self._shown = _Shown()
        self._quit = self._interrupted = False
        self._picture: Presented | None = None  # that the window shows
        self._began: float | None = None  # the first picture was there
        self._ended: float | None = None

    def run(self, *, seconds: float | None = None, stop: threading.Event | None = None) -> LiveStats:
        """Until Q, Ctrl-C, the end of the file, `seconds` after the first picture, or `stop`.

        Recordings are complete then; one that was begun and holds nothing is among the faults. An output that fails is
        told and left behind while others go on. Raises what ended the session or the feed, and a first photo that
        cannot be used; `stats` tells what was done all the same.
        """
        try:
            with loaded_objects_unscanned():
                self._fan_out.start()
                self._session.set_photo(self._photos[0])
                if self._record_as is not None:
                    self._start_recording(self._record_as)
                while not self._over(seconds, stop):
                    self._step()
        except KeyboardInterrupt:
            self._interrupted = True
        finally:
            self._close()
        return self.stats

    @property
    def stats(self) -> LiveStats:
        """What was done so far; of the outputs, what those that have ended did."""
        dropped, latency = dict(self._dropped), dict(self._latency)
        now, shown = self._ended or time.perf_counter(), self._shown
        for name, count in (("the window", shown.missed), ("handing over", self._fan_out.missed)):
            if count:
                dropped[name] = count
        displayed = shown.latency.percentiles(now)
        if displayed is not None:
            latency = {"display": displayed, **latency}
        return LiveStats(
            self._fan_out.count,
            0.0 if self._began is None else now - self._began,
            self._session.status,
            latency,
            dropped,
            tuple(recording.name for recording in self._recordings if recording.kept),
            tuple(self._faults),
            self._interrupted,
        )

    def _over(self, seconds: float | None, stop: threading.Event | None) -> bool:
        feed = self._feed
        for error in (None if feed is None else feed.error, self._fan_out.error):
            if isinstance(error, Exception):
                raise error
            if error is not None:
                raise ReenactError(described(error)) from error
        status = self._session.status
        if feed is None and status.photo == "failed":
            raise ReenactError(status.photo_error or "the photo cannot be used")
        if self._window is None and not self._fan_out.outputs:
            return True  # the last one has failed
        ended = feed is not None and feed.ended and status.state == "waiting"
        began = self._began
        late = seconds is not None and began is not None and time.perf_counter() - began >= seconds
        return self._quit or ended or late or (stop is not None and stop.is_set())

    def _step(self) -> None:
        """One picture in the window and one look at its keys, or a short wait where there is no window."""
        for output in self._fan_out.outputs:
            if output.error is not None:
                self._drop_output(output)
        last, picture = self._picture, None
        if self._window is None:
            time.sleep(WAIT_S)
        else:
            picture = self._session.newest(last.number if last else 0, WAIT_S)
        if self._feed is None and (picture is not None or self._fan_out.count):
            self._began = time.perf_counter()
            self._feed = self._start_feed()
        if self._window is None:
            return
        if picture is not None:
            self._shown.missed += picture.number - last.number - 1 if last else 0
            self._picture = picture
        pressed = self._press(self._window.key())
        if self._quit:
            return  # what is drawn in a window that was closed opens another
        now = time.perf_counter()
        if picture is not None or pressed or now - self._shown.at > REFRESH_S:
            self._preview(now)
        if picture is not None:
            self._session.shown(picture)
            self._shown.latency.add(self._shown.at, self._shown.at - picture.captured)

    def _preview(self, began: float) -> None:
        if self._window is None or self._picture is None:
            return
        shown, status = self._shown, self._session.status
        picture = marked(self._picture.image)
        if shown.help:
            panel(picture, HELP, corner=shown.corner)
        elif shown.figures:
            panel(picture, self._figures(status, began), corner=shown.corner)
        if status.notices != shown.notices:
            shown.notices, shown.notice_until = status.notices, began + NOTICE_S
        if began < shown.notice_until:
            panel(picture, [status.notice], corner=shown.corner, bottom=True)
        badge(picture, shown.corner)
        self._window.show(picture)
        shown.at = time.perf_counter()
        shown.show.add(shown.at, shown.at - began)

    def _figures(self, status: Status, now: float) -> list[str]:
        mean = self._shown.show.mean(now)
        dropped = {output.name: output.dropped for output in self._fan_out.outputs}
        dropped |= {"the window": self._shown.missed, "handing over": self._fan_out.missed}
        lines = figures(status, None if mean is None else 1000 * mean, dropped)
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
        self._session.announce("not mirrored" if controls.mirror else "mirrored")

    def _choose(self, number: int) -> None:
        self._photo = number % len(self._photos)
        self._session.set_photo(self._photos[self._photo])

    def _press_record(self) -> None:
        if self._recording is not None:
            self._drop_output(self._recording)
            return
        try:
            name = self._record_as or Path(f"reenact-{datetime.now():%Y%m%d-%H%M%S}.mp4")
            self._start_recording(name)
        except ReenactError as error:  # nothing else needs to end because this cannot begin
            self._session.announce(str(error))

    def _start_recording(self, path: Path) -> None:
        """Under the next free name: what was recorded cannot be made again, so no file is replaced."""
        taken = {recording.name for recording in self._recordings}
        free = free_name(path, lambda name: str(name) in taken or name.exists())
        if free != path and not self._recordings:
            self._session.announce(f"{path} is there already; recording to {free}")
        session = self._session
        self._recording = Recording(free, session.size, self._fps, system=session.system, mark=self._mark)
        self._recordings.append(self._recording)
        self._fan_out.add(self._recording)

    def _drop_output(self, output: Output) -> None:
        """Go on without an output; it is finished in a thread of its own, which may take its time."""
        self._fan_out.remove(output)
        if output is self._recording:
            self._recording = None
        # Not a daemon: the file is completed also where this thread is interrupted again.
        thread = threading.Thread(target=self._finish, args=(output,), name="reenact-finish")
        self._finishing.append(thread)
        thread.start()

    def _finish(self, output: Output) -> None:
        ended, began_as = time.perf_counter(), output.name
        try:
            output.close()
            if isinstance(output, Recording) and not output.kept:
                raise ReenactError(f"{output.name}: nothing was recorded, no picture was made by then")
        except Exception as error:  # noqa: BLE001  told, and kept for the end
            self._faults.append(described(error))
            self._session.announce(described(error))
        if output.name != began_as:
            self._session.announce(f"{began_as} is there by now; what was recorded is {output.name}")
        self._dropped[output.name] = self._dropped.get(output.name, 0) + output.dropped
        latency = output.latency.percentiles(ended)
        if latency is not None:
            self._latency[output.goes_to] = latency

    def _finish_all(self) -> None:
        for output in self._fan_out.outputs:
            self._drop_output(output)
        for thread in self._finishing:
            while thread.is_alive():
                try:
                    thread.join()
                except KeyboardInterrupt:
                    self._interrupted = True
                    self._session.announce("the recording is being completed; a moment")

    def _close(self) -> None:
        """Outputs first, as they hold what cannot be made again; each part is closed whatever happens to the others."""
        self._ended = time.perf_counter()
        with ExitStack() as closing:  # the last one first
            if self._window is not None:
                closing.callback(self._window.close)
            if self._feed is not None:
                closing.callback(self._feed.close)
            closing.callback(self._finish_all)
            closing.callback(self._fan_out.close)
