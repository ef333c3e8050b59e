"""The command that builds engines ahead, for the GPU that is here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from .console import INTERRUPTED, Debug, guarded, phase_bars, say, tell
from .errors import ReenactError

if TYPE_CHECKING:
    from .export.tensorrt import Built, Options, Typed
    from .runtime.backends.engine_cache import Range
    from .runtime.engine import Tensors
    from .runtime.graph import Graph

__all__ = ["build"]


class Buildable(StrEnum):
    """Backends whose engines are built ahead."""

    tensorrt = "tensorrt"


class EnginePrecision(StrEnum):
    """Arithmetic of an engine."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def build(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or one ONNX file.", show_default=False),
    ],
    backend: Annotated[Buildable, typer.Option(help="What the engines are for.")] = Buildable.tensorrt,
    precision: Annotated[
        EnginePrecision, typer.Option(help="Graphs that the bundle marks as whole are built as they are.")
    ] = EnginePrecision.fp16,
    graph: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this graph; repeatable.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHAPE",
            help="Where axes are free: image=1x128x128x3, or LEAST:BEST:MOST; repeatable.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        int, typer.Option(min=0, max=5, metavar="N", help="How long to look for fast kernels, 0 to 5.")
    ] = 3,
    aux_streams: Annotated[
        int, typer.Option(min=0, max=8, metavar="N", help="Streams for layers that may run side by side.")
    ] = 0,
    workspace: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="MIB", help="Memory that a layer may use; by default all.", show_default=False
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build also what is there already.")] = False,
    debug: Debug = False,
) -> None:
    """Build a bundle's engines for the GPU that is here; run, live and serve then find them."""
    del backend  # there is one
    with guarded(debug):
        try:
            from .runtime.backends.tensorrt_compat import library

            library()  # no GPU, no work
            building = _building()
            chosen = dict(building.shape_range(text) for text in shape or [])
            options = building.Options(level, aux_streams, workspace)
            works = _works(bundle, precision.value, graph or [])
            _check_names(chosen, works)
            for work in works:
                _build_one(building, work, chosen, options, rebuild)
        except KeyboardInterrupt:
            tell("stopped by Ctrl-C; only what was said to be ready is kept")
            raise typer.Exit(INTERRUPTED) from None


@dataclass(frozen=True, eq=False)
class _Work:
    """One engine to be built."""

    name: str
    graph: "Graph"
    precision: str
    calibration: "Callable[[], Sequence[Tensors]]"


def _building() -> ModuleType:
    try:
        from .export import tensorrt
    except ImportError as error:
        raise ReenactError(
            f"this command needs {error.name}, which cannot be imported ({error}); install it with "
            '`pip install ".[export]"` in the folder of the sources'
        ) from error
    return tensorrt


def _works(place: Path, precision: "Typed", named: Sequence[str]) -> list[_Work]:
    """What is to be built of a bundle or an ONNX file; BundleError or ReenactError where it is not there."""
    from .export.calibration import bundle_inputs, graph_inputs
    from .runtime.backends.reading import written_in
    from .runtime.bundle import Bundle
    from .runtime.graph import read_graph

    if place.is_file():
        if named:
            raise ReenactError(
                f"--graph {named[0]}: {place} is one graph; name a bundle's folder, or leave --graph out"
            )
        graph = read_graph(place)
        return [_Work(place.name, graph, precision, partial(graph_inputs, graph))]
    opened = Bundle.open(place)
    known = opened.manifest.graphs
    for name in named:
        if name not in known:
            raise ReenactError(f"--graph {name}: {place} has the graphs {', '.join(known)}")
    works = []
    for name in named or known:
        graph = read_graph(place / known[name].file)
        wanted = written_in(graph) if known[name].whole else precision
        if known[name].whole and name in named and wanted != precision:
            tell(f"{name}: the bundle marks it as whole, so it is built in {wanted} and not in {precision}")
        works.append(_Work(name, graph, wanted, partial(bundle_inputs, opened, graph)))
    return works


def _check_names(chosen: "Mapping[str, Range]", works: Sequence[_Work]) -> None:
    known = {name for work in works for name in work.graph.inputs}
    for name in chosen.keys() - known:
        raise ReenactError(
            f"--shape {name}: no graph here has such an input; expected {', '.join(sorted(known))}"
        )


def _build_one(
    building: ModuleType, work: _Work, chosen: "Mapping[str, Range]", options: "Options", rebuild: bool
) -> None:
    with phase_bars(f"{work.name} {work.precision}") as progress:
        built = building.build(
            work.graph,
            work.precision,
            shapes={name: shapes for name, shapes in chosen.items() if name in work.graph.inputs},
            options=options,
            calibration=work.calibration,
            rebuild=rebuild,
            progress=progress,
        )
    _show(work, built)


def _show(work: _Work, built: "Built") -> None:
    """What was built, what half precision costs and what the engine is made of."""
    manifest = built.filed.manifest
    where = f"{manifest.target.gpu}, TensorRT {manifest.target.tensorrt}"
    if built.cached:
        say(
            f"{work.name}: an engine in {work.precision} for {where} is there already; --rebuild builds it again"
        )
        return
    size = manifest.plan_bytes / 2**20
    say(f"{work.name}: ready in {work.precision} for {where}: {size:.1f} MiB, built in {built.seconds:.0f} s")
    for error in built.report.errors if built.report else ():
        picture = "" if error.psnr_db is None else f", {error.psnr_db:.1f} dB"
        say(f"    {error.output}: at most {error.largest:.2g} from float32 (of {error.scale:.2g}){picture}")
    if built.report:
        say(f"    {len(built.report.float32)} of {built.report.nodes} nodes stay in float32")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(built.kinds.items(), key=lambda k: -k[1]))
    say(f"    layers: {kinds}")
