"""The commands that make films: a photo driven by a video or a motion, and the demo."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .cli_options import Backend, MaxPixels, MaxSeconds, Precision, PrecisionName, limits
from .console import Debug, guarded, print_stages, progress_bar, say, show_stats, tell, tell_where
from .errors import ReenactError

if TYPE_CHECKING:
    from .runtime.stream import StreamStats

__all__ = ["RUN_EXAMPLES", "demo", "run"]


class MotionSourceName(StrEnum):
    """Who sees the driving's expression."""

    auto = "auto"
    tracker = "tracker"
    deca = "deca"


RUN_EXAMPLES = (
    "Examples: reenact run photo.jpg driving.mp4 -o out.mp4, or reenact run photo.jpg --motion nod -o out.mp4"
)


def run(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Photo, or a video whose first face is taken.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="PATH", help="Result: a movie, a .gif or a folder.", show_default=False
        ),
    ],
    driving: Annotated[
        Path | None,
        typer.Argument(metavar="DRIVING", help="Video, GIF or folder of pictures that gives the motion."),
    ] = None,
    motion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Instead of DRIVING: nod, look-around, smile, talk, blink, demo or FILE.json.",
        ),
    ] = None,
    relative: Annotated[
        bool,
        typer.Option("--relative/--absolute", help="Turn as much as the driving, or to where it looks."),
    ] = True,
    face: Annotated[
        int, typer.Option(min=0, metavar="N", help="Which face of SOURCE, 0 is the largest.")
    ] = 0,
    driving_face: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Which face of DRIVING, 0 is the largest.", show_default=False),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the driving at the left.")
    ] = False,
    crop: Annotated[bool, typer.Option("--crop", help="Show 512x512 pixels around the head only.")] = False,
    start: Annotated[float, typer.Option(min=0, metavar="S", help="Seconds of DRIVING to leave out.")] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0.001, metavar="S", help="Seconds of the result.", show_default=False)
    ] = None,
    strength: Annotated[
        float,
        typer.Option(min=0, max=3, metavar="0..3", help="How much of the motion: 0 nothing, 1 as seen."),
    ] = 1.0,
    pose_strength: Annotated[
        float | None,
        typer.Option(min=0, max=3, metavar="0..3", help="--strength of the head alone.", show_default=False),
    ] = None,
    expression_strength: Annotated[
        float | None,
        typer.Option(min=0, max=3, metavar="0..3", help="--strength of the face alone.", show_default=False),
    ] = None,
    reference_frame: Annotated[
        str,
        typer.Option(
            metavar="auto|N", help="Frame of DRIVING, from 0 at --start, that shows its face at rest."
        ),
    ] = "auto",
    system: Annotated[
        str, typer.Option(metavar="NAME", help="Method that makes the pictures: meshwarp or face2face_rho.")
    ] = "meshwarp",
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The system's exported graphs; by default where reenact export puts them.",
            show_default=False,
        ),
    ] = None,
    source_fit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="face2face_rho without tracking: landmark.txt and headpose.txt of a square SOURCE.",
            show_default=False,
        ),
    ] = None,
    driving_fit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of DRIVING: such files, or landmark/<n>.txt and headpose/<n>.txt.",
            show_default=False,
        ),
    ] = None,
    backend: Backend = "auto",
    precision: Precision = PrecisionName.auto,
    motion_source: Annotated[
        MotionSourceName,
        typer.Option(help="Who sees the driving's expression; auto is deca where its bundle can be used."),
    ] = MotionSourceName.auto,
    smooth: Annotated[bool, typer.Option("--smooth/--no-smooth", help="Filter the tracking.")] = True,
    codec: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="h264, hevc or vp9, as the file type allows.", show_default=False),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=63,
            metavar="N",
            help="Quality of a movie, 0 is the best; by default what suits the codec.",
            show_default=False,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=1, max=240, metavar="N", help="Even frame rate of the result.", show_default=False),
    ] = None,
    mark: Annotated[
        bool, typer.Option("--mark/--no-mark", help="Mark the result as AI-generated; see reenact verify.")
    ] = True,
    stats: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write times and counts to this JSON file.", show_default=False),
    ] = None,
    max_pixels: MaxPixels = None,
    max_seconds: MaxSeconds = None,
    debug: Debug = False,
) -> None:
    """Animate SOURCE by a DRIVING video or by a motion, and write the result."""
    if source_fit is not None or driving_fit is not None:
        _refuse_beside_fits(context)
        if source_fit is None or driving_fit is None:
            raise typer.BadParameter("goes together with --source-fit", param_hint="--driving-fit")
        with guarded(debug):
            _run_fits(
                *(source, source_fit, driving_fit, output, stats),
                settings={"bundle": bundle, "backend": backend, "precision": precision.value},
                how={
                    **{"fps": fps or 25.0, "codec": codec, "crf": crf, "mark": mark},
                    "limits": limits(max_pixels),
                },
            )
        return
    if (driving is None) == (motion is None):
        raise typer.BadParameter("give one of the two: a DRIVING video, or --motion", param_hint="DRIVING")
    reference = _reference(reference_frame)
    if motion is not None and (start or reference != "auto" or not relative or driving_face is not None):
        raise typer.BadParameter(
            "--start, --reference-frame, --absolute and --driving-face need a DRIVING", param_hint="--motion"
        )
    how: dict[str, Any] = {
        "pose_strength": strength if pose_strength is None else pose_strength,
        "expression_strength": strength if expression_strength is None else expression_strength,
        "duration": duration,
        "side_by_side": side_by_side,
        "fps": fps,
        "codec": codec,
        "crf": crf,
    }
    with guarded(debug):
        from .runtime.models import ensure
        from .runtime.reenactor import Reenactor

        ensure(tell)
        with Reenactor(
            source,
            system=system,
            bundle=bundle,
            backend=backend,
            precision=precision.value,
            motion_source=motion_source.value,
            face=face,
            driving_face=driving_face,
            crop=crop,
            smooth=smooth,
            limits=limits(max_pixels, max_seconds),
            mark=mark,
        ) as reenactor:
            tell_where(backend)

            def work() -> "StreamStats":
                with progress_bar(output.name) as progress:
                    if driving is None:
                        return reenactor.run_motion(motion or "", output, progress=progress, **how)
                    how.update(relative=relative, reference_frame=reference, start=start)
                    return reenactor.run(driving, output, progress=progress, **how)

            done = _recorded(work, stats)
        show_stats(done, "the motion was held, then eased back to rest")


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the two results.")
    ] = Path("reenact-demo"),
    mark: Annotated[bool, typer.Option("--mark/--no-mark", help="Mark the results as AI-generated.")] = True,
    debug: Debug = False,
) -> None:
    """Bring two public-domain portraits to life: one by a motion, the other driven by that result."""
    with guarded(debug):
        from .runtime import assets
        from .runtime.models import ensure
        from .runtime.reenactor import Reenactor

        began = time.perf_counter()
        first, second = output / "eileen_collins.mp4", output / "grace_hopper.mp4"
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReenactError(
                f"{output}: the folder cannot be made ({error.strerror}); name another with -o"
            ) from error
        ensure(tell)
        with (
            Reenactor(assets.portrait("eileen_collins"), mark=mark) as reenactor,
            progress_bar(first.name) as progress,
        ):
            tell_where("auto")
            moved = reenactor.run_motion("demo", first, progress=progress)
        say(f"{first}: Eileen Collins, moved by the motion 'demo': {moved.fps:.1f} fps")
        with (
            Reenactor(assets.portrait("grace_hopper"), mark=mark) as reenactor,
            progress_bar(second.name) as progress,
        ):
            driven = reenactor.run(first, second, progress=progress)
        say(f"{second}: Grace Hopper, driven by that video: {driven.fps:.1f} fps")
        print_stages(driven)
        say(f"Both took {time.perf_counter() - began:.1f} s. Your own: reenact run PHOTO VIDEO -o out.mp4")


# What can be said of a run from fits; everything else needs tracking.
_WITH_FITS = {
    *("source", "output", "source_fit", "driving_fit", "system", "bundle", "backend", "precision"),
    *("codec", "crf", "fps", "mark", "stats", "max_pixels", "debug"),
}


def _refuse_beside_fits(context: typer.Context) -> None:
    for name in context.params:
        given = context.get_parameter_source(name)
        if name not in _WITH_FITS and given is not None and given.name == "COMMANDLINE":
            raise typer.BadParameter(
                "has no effect with --source-fit and --driving-fit, which take the place of tracking",
                param_hint=name.replace("_", "-"),
            )
    if context.params["system"] != "face2face_rho":
        raise typer.BadParameter("fits are for face2face_rho", param_hint="--system")


def _run_fits(
    source: Path,
    source_fit: Path,
    driving_fit: Path,
    output: Path,
    stats: Path | None,
    *,
    settings: dict[str, Any],
    how: dict[str, Any],
) -> None:
    from .runtime.systems.face2face_rho.fits import reenact_fits
    from .runtime.systems.protocol import SystemSettings

    tell_where(settings["backend"])

    def work() -> "StreamStats":
        with progress_bar(output.name) as progress:
            return reenact_fits(
                source, source_fit, driving_fit, output, SystemSettings(**settings), progress=progress, **how
            )

    show_stats(_recorded(work, stats))


def _reference(text: str) -> Literal["auto"] | int:
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither auto nor a number", param_hint="--reference-frame")


def _recorded(work: "Callable[[], StreamStats]", file: Path | None) -> "StreamStats":
    """Run a stream and write its statistics to `file`, also after Ctrl-C."""
    from .runtime.stream import StreamInterrupted

    try:
        done = work()
    except StreamInterrupted as interrupt:
        _write_stats(interrupt.stats, file)
        raise
    _write_stats(done, file)
    return done


def _write_stats(stats: "StreamStats", file: Path | None) -> None:
    if file is None:
        return
    try:
        file.write_text(stats.to_json(), encoding="utf-8")
    except OSError as error:
        raise ReenactError(
            f"{file}: cannot be written ({error.strerror}); name another file for --stats"
        ) from error
