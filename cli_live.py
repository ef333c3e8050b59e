"""The command that brings a photo to life in front of a camera."""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import Backend, MaxPixels, Precision, PrecisionName, limits
from .console import INTERRUPTED, Debug, guarded, say, tell, tell_where
from .errors import ReenactError

if TYPE_CHECKING:
    from .runtime.engines import Engines
    from .runtime.live import LiveSession
    from .runtime.live_loop import LiveLoop, LiveStats
    from .runtime.media.camera import OpenInput
    from .runtime.media.inputs import CameraRequest
    from .runtime.media.limits import Limits
    from .runtime.outputs import Output
    from .runtime.window import PreviewWindow

__all__ = ["live"]

MISUSE = 2
TEST = "test"


def live(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PHOTO...", help="Photos to choose from while live; by default two that come along."
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="N|NAME|PATH|URL|test",
            help="Camera by number, by part of its name or by device path; a video file, an address, or a "
            "generated head in its place. Without it all cameras are listed.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record what is shown.", show_default=False)
    ] = None,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Be a camera for other programs.")
    ] = False,
    virtual_device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which virtual camera, such as /dev/video4.", show_default=False),
    ] = None,
    preview: Annotated[bool, typer.Option("--preview/--no-preview", help="Show a window.")] = True,
    size: Annotated[
        str, typer.Option(metavar="N|WxH", help="Pixels of the result; the photo is cut around the head.")
    ] = "512",
    whole: Annotated[bool, typer.Option("--whole", help="Show the whole photo, not the head alone.")] = False,
    fps: Annotated[
        float, typer.Option(min=1, max=240, metavar="N", help="Frames a second, asked for and at most shown.")
    ] = 30.0,
    resolution: Annotated[
        str, typer.Option(metavar="WxH", help="Size that the camera is asked for.")
    ] = "1280x720",
    mjpeg: Annotated[
        bool, typer.Option("--mjpeg/--no-mjpeg", help="Ask the camera for compressed pictures.")
    ] = True,
    once: Annotated[bool, typer.Option("--once", help="Play a file once, not again and again.")] = False,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A host from which a stream may be read; repeatable.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="S", help="End so long after the first picture.", show_default=False),
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Move as a mirror image does.")] = False,
    strength: Annotated[
        float,
        typer.Option(min=0, max=3, metavar="0..3", help="How much of the motion: 0 nothing, 1 as seen."),
    ] = 1.0,
    smoothing: Annotated[
        float, typer.Option(min=0, max=4, metavar="0..4", help="Of the tracking: 0 none, 1 as usual.")
    ] = 1.0,
    system: Annotated[
        str, typer.Option(metavar="NAME", help="Method that makes the pictures: meshwarp or face2face_rho.")
    ] = "meshwarp",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The system's exported graphs.", show_default=False),
    ] = None,
    backend: Backend = "auto",
    precision: Precision = PrecisionName.auto,
    mark: Annotated[
        bool, typer.Option("--mark/--no-mark", help="Mark what leaves as AI-generated; see reenact verify.")
    ] = True,
    max_pixels: MaxPixels = None,
    debug: Debug = False,
) -> None:
    """Bring a photo to life in front of a camera: in a window, as a virtual camera, into a file."""
    picture = _size(size, "--size")
    wanted = _size(resolution, "--resolution")
    if virtual_device is not None and not virtual_camera:
        raise typer.BadParameter("goes together with --virtual-camera", param_hint="--virtual-device")
    if not (preview or virtual_camera or record):
        raise typer.BadParameter(
            "nothing is left to show it: add --record or --virtual-camera", param_hint="--no-preview"
        )
    with guarded(debug):
        from .runtime.controls import Controls
        from .runtime.engines import Engines
        from .runtime.live import LiveSession
        from .runtime.media.inputs import CameraRequest
        from .runtime.models import ensure
        from .runtime.systems.protocol import SystemSettings

        request = CameraRequest(*wanted, fps=fps, mjpeg=mjpeg)
        readable = limits(max_pixels)
        chosen = camera or _chosen_camera(preview)
        open_input = None if chosen == TEST else _open_input(chosen, request, once, allow_url or [], readable)
        controls = Controls(
            pose_strength=strength, expression_strength=strength, smoothing=smoothing, mirror=mirror
        )
        settings = SystemSettings(bundle, backend, precision.value)
        tell_where(backend)
        with ExitStack() as opened:
            # Both are closed by the loop, and here where it does not come to that.
            window = _window(picture) if preview else None
            if window is not None:
                opened.callback(window.close)
            ensure(tell)
            outputs = [_virtual_camera(picture, fps, virtual_device, mark)] if virtual_camera else []
            for output in outputs:
                opened.callback(output.close)
            engines = opened.enter_context(Engines(system, settings))
            session = LiveSession(
                engines, size=picture, fps=fps, whole=whole, limits=readable, controls=controls, tell=tell
            )
            opened.enter_context(session)
            open_input = open_input or _moving_head(engines, fps)
            with _ended_by_signals() as ended:
                loop = _loop(session, open_input, _photos(photos), outputs, window, record, fps, mark)
                try:
                    loop.run(seconds=seconds, stop=ended)
                finally:
                    stats = loop.stats
                    if stats.pictures:
                        _show(stats)
                interrupted = ended.is_set() or stats.interrupted
                opened.close()  # here, where being told to end once more ends nothing in its middle
        if stats.faults:
            raise ReenactError(stats.faults[0])
        if interrupted:
            raise typer.Exit(INTERRUPTED)


@contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, the end of the terminal and a request to end set, in place of what they do else.

    Where the caller has them ignored, as `nohup` does, they stay so.
    """
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # The process ends by itself now: one Ctrl-C too many does not turn that into a failure.
            signal.signal(number, signal.SIG_IGN if stop.is_set() and number == signal.SIGINT else handler)


def _loop(
    session: "LiveSession",
    open_input: "OpenInput",
    photos: list[Path],
    outputs: "list[Output]",
    window: "PreviewWindow | None",
    record: Path | None,
    fps: float,
    mark: bool,
) -> "LiveLoop":
    import cv2

    from .runtime.live_loop import LiveLoop
    from .runtime.media.camera import CameraFeed
    from .runtime.running import threads_a_stage

    cv2.setNumThreads(threads_a_stage())
    return LiveLoop(
        session,
        lambda: CameraFeed(open_input, session.offer, session.announce),
        photos,
        outputs=outputs,
        window=window,
        record=record,
        fps=fps,
        mark=mark,
    )


def _size(text: str, option: str) -> tuple[int, int]:
    """(width, height) pixels of "512" or "640x480"."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write 512 or 640x480", param_hint=option)
    return int(match[1]), int(match[2] or match[1])


def _photos(given: list[Path] | None) -> list[Path]:
    from .runtime import assets

    return given or [assets.portrait("eileen_collins"), assets.portrait("grace_hopper")]


def _open_input(
    choice: str, request: "CameraRequest", once: bool, hosts: list[str], readable: "Limits"
) -> "OpenInput":
    from .runtime.media.camera import choose_input

    return choose_input(choice, request, loop=not once, allowed_hosts=hosts, limits=readable)


def _moving_head(engines: "Engines", fps: float) -> "OpenInput":
    from .runtime.moving_head import MovingHead

    return lambda: MovingHead(engines.tracker.sibling(smooth=False), fps=fps)


def _window(size: tuple[int, int]) -> "PreviewWindow":
    from .runtime.window import PreviewWindow

    return PreviewWindow("reenact live", size)


def _virtual_camera(size: tuple[int, int], fps: float, device: str | None, mark: bool) -> "Output":
    from .runtime.outputs import VirtualCamera

    made = VirtualCamera(size, fps, device, mark=mark)
    tell(f"virtual camera: {made.name}")
    return made


def _chosen_camera(preview: bool) -> str:
    """All cameras as lines and, with a display, as pictures to choose from; ends with misuse where none is chosen."""
    from .runtime.camera_choice import choose_camera, described, pictures_of
    from .runtime.media.camera import list_cameras
    from .runtime.window import PreviewWindow, why_no_window

    cameras = list_cameras()
    if not cameras:
        raise ReenactError(
            "no camera is found here; plug one in, or give --camera a video file, an address, or `test` for a "
            "generated head"
        )
    for camera in cameras:
        for line in described(camera):
            say(line)
    if preview and why_no_window() is None:
        window = PreviewWindow("reenact live: press the number of a camera", (960, 480))
        chosen = choose_camera(cameras, pictures_of(cameras), window)
        if chosen is not None:
            return str(chosen.index)
    tell("choose a camera: reenact live --camera N")
    raise typer.Exit(MISUSE)


def _show(stats: "LiveStats") -> None:
    status = stats.status
    rate = stats.pictures / stats.seconds if stats.seconds > 0 else 0.0
    say(f"{stats.pictures} pictures in {stats.seconds:.1f} s, {rate:.1f} fps")
    for place, latency in stats.latency.items():
        say(
            f"latency from capture to {place}: p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms, "
            f"p99 {latency.p99:.0f} ms, of the last 10 s"
        )
    for cause, count in status.drops.items():
        say(f"dropped: {count} frames, cause: {cause}")
    for output, count in stats.outputs_dropped.items():
        if count:
            say(f"dropped: {count} pictures, cause: {output} was too slow")
    if status.degraded:
        say(f"at the end: {status.degraded}")
    for recording in stats.recordings:
        say(f"recorded: {recording}")
