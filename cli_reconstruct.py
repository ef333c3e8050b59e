"""`reenact reconstruct`: heads from photos and videos, their files, expression transfer and animation."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import Backend, MaxPixels, MaxSeconds, PrecisionName, limits
from .console import Debug, guarded, progress_bar, say, show_lost, tell, tell_where
from .errors import FaceNotFoundError, MediaError

if TYPE_CHECKING:
    from .runtime.reconstruct import Reconstructed, Reconstructor

__all__ = ["reconstruct"]


class TrackerName(StrEnum):
    """Who finds the faces."""

    built_in = "built-in"
    face_alignment = "face-alignment"


class RasterizerName(StrEnum):
    """What draws meshes."""

    built_in = "built-in"
    nvdiffrast = "nvdiffrast"


def reconstruct(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO...", help="Photos, videos, folders of them.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Gets a folder an input.", show_default=False),
    ],
    transfer: Annotated[
        Path | None,
        typer.Option(
            metavar="DRIVING",
            help="Give the heads the expression and jaw of this photo or video.",
            show_default=False,
        ),
    ] = None,
    animate: Annotated[
        bool, typer.Option("--animate", help="A movie of each head turned, and moving its face.")
    ] = False,
    tracker: Annotated[TrackerName, typer.Option(help="What finds the faces.")] = TrackerName.built_in,
    face: Annotated[
        int, typer.Option(min=0, metavar="N", help="Which face of a picture, 0 is the largest.")
    ] = 0,
    whole: Annotated[
        bool, typer.Option("--whole", help="Look at whole pictures, cropped to a face already.")
    ] = False,
    rasterizer: Annotated[
        RasterizerName, typer.Option(help="What draws the meshes; nvdiffrast needs a GPU and torch.")
    ] = RasterizerName.built_in,
    smooth: Annotated[
        bool, typer.Option("--smooth/--no-smooth", help="Filter the coefficients of videos.")
    ] = True,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="DECA's exported graphs; by default where reenact export puts them.",
            show_default=False,
        ),
    ] = None,
    backend: Backend = "auto",
    precision: Annotated[
        PrecisionName, typer.Option(help="Arithmetic of the networks that look at photos.")
    ] = PrecisionName.auto,
    max_pixels: MaxPixels = None,
    max_seconds: MaxSeconds = None,
    debug: Debug = False,
) -> None:
    """Reconstruct the heads in photos and videos with DECA: meshes, textures, coefficients, pictures of them."""
    finished: list[Reconstructed] = []
    with guarded(debug, finished):
        from .runtime.media.images import file_status
        from .runtime.models import ensure
        from .runtime.reconstruct import Reconstructor, inputs_of, place_of
        from .runtime.systems.protocol import SystemSettings

        sources = inputs_of(photos)
        if transfer is not None:
            file_status(transfer)
        for source in sources:
            place_of(output, source, sources if transfer is None else [*sources, transfer])
        readable = limits(max_pixels, max_seconds)
        if tracker is TrackerName.built_in and not whole:
            ensure(tell)
        with Reconstructor(
            SystemSettings(bundle, backend, precision.value),
            tracker=tracker.value,
            face=face,
            whole=whole,
            smooth=smooth,
            rasterizer=rasterizer.value,
            limits=readable,
        ) as reconstructor:
            tell_where(backend)
            failed = []
            for source in sources:
                try:
                    _results(reconstructor, source, output, transfer, animate, finished)
                except (FaceNotFoundError, MediaError) as error:
                    if debug or len(sources) == 1:
                        raise
                    failed.append(source)
                    tell(f"{error}; going on with the other inputs")
        if failed:
            raise MediaError(
                f"{len(failed)} of {len(sources)} inputs could not be reconstructed: {', '.join(map(str, failed))}; "
                "why is said above"
            )


def _results(
    reconstructor: "Reconstructor",
    source: Path,
    output: Path,
    transfer: Path | None,
    animate: bool,
    finished: "list[Reconstructed]",
) -> None:
    """All that is made of an input, into `finished` and told one by one, whatever comes of the next."""
    before = len(finished)
    try:
        with progress_bar(source.name) as progress:
            finished.append(reconstructor.run(source, output, progress=progress))
            if transfer is not None:
                finished.append(reconstructor.transfer(source, transfer, output, progress=progress))
            if animate:
                finished.append(reconstructor.animate(source, output, progress=progress))
    finally:
        for done in finished[before:]:
            _show(done)


def _show(done: "Reconstructed") -> None:
    if done.stats is None:
        say(f"{done.folder}: {len(done.files)} files of {done.source}")
        return
    say(f"{done.stats.output}: {done.stats.frames} frames, {done.stats.fps:.1f} fps")
    show_lost(done.stats, "the last one was held")
