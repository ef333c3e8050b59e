"""Builds TensorRT engines for the GPU that is here, from graphs of a bundle, and files them where the runtime looks."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import onnx
from numpy.typing import NDArray

from ..errors import BackendError, ReenactError
from ..kernels import plugins
from ..runtime.backends import device
from ..runtime.backends.engine_cache import (
    Filed,
    Range,
    file_engine,
    find_exact,
    keep_timings,
    read_timings,
    target,
)
from ..runtime.backends.reading import written_in
from ..runtime.backends.tensorrt_compat import (
    deserialise,
    dtype_name,
    layers,
    library,
    logger,
    new_network,
    refused,
    release,
)
from ..runtime.graph import Graph
from .precision import Report, convert
from .tensorrt_graph import ParserCopy, Sampling, fused_maps, no_plugins_for, parser_copy, with_plugins

__all__ = ["Built", "Options", "Progress", "Typed", "build", "shape_range"]

_log = logging.getLogger(__name__)
_SAMPLES_VOLUMES = (11, 2)  # the first version whose GridSample takes five axes
Typed = Literal["fp32", "fp16", "bf16"]
Inputs = Mapping[str, NDArray[Any]]
Progress = Callable[[str, int, int], None]
"""Told from any thread what TensorRT is at, how many of its steps are done and how many there are."""


@dataclass(frozen=True)
class Options:
    """What the builder is told."""

    level: int = 3  # 0 to 5: how long it looks for faster kernels
    aux_streams: int = 0  # for layers that may run side by side; 0 needs least memory
    workspace_mib: int | None = None  # what a layer may use; None: the whole GPU
    plugins: bool = True  # fused kernels in the place of regions that have one, where they can be compiled

    def as_key(self) -> dict[str, int | str]:
        """As engines are filed."""
        return {
            "level": self.level,
            "aux_streams": self.aux_streams,
            "workspace_mib": self.workspace_mib or 0,
            "plugins": int(self.plugins),
        }


@dataclass(frozen=True)
class Built:
    """An engine that is filed now, and what can be said of it."""

    filed: Filed
    cached: bool  # it was there already, and nothing was built
    seconds: float
    kinds: dict[str, int]  # layers of the engine by kind
    report: Report | None  # what half precision costs; None where the graph was built in its own precision


def build(
    graph: Graph,
    precision: Typed,
    *,
    shapes: Mapping[str, Range] | None = None,
    options: Options | None = None,
    calibration: Callable[[], Sequence[Inputs]],
    rebuild: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Build `graph` in a precision and file the engine; a graph that is written in half stays in that.

    `shapes` says what the free axes may be, input by input. `calibration` gives sets of inputs on which half precision
    is measured; it is asked only when that is needed. An engine that is there already is kept unless `rebuild`.

    Raises BackendError where TensorRT refuses something, ReenactError where the graph cannot be brought to the
    precision, KeyboardInterrupt after Ctrl-C; nothing is filed then.
    """
    options, told = options or Options(), progress or _untold
    trt, gpu = library(), device.device()
    outlined = onnx.load_from_string(graph.outlined)
    options = replace(options, plugins=options.plugins and _can_have_plugins(graph, outlined, precision))
    here = target(graph.content, precision, trt.__version__, gpu)
    ranges = _ranges(graph, shapes or {})
    there = None if rebuild else find_exact(here, ranges, options.as_key())
    if there is not None:
        return Built(there, True, 0.0, {}, None)
    began = time.perf_counter()
    model, report, written = outlined, None, written_in(graph)
    if not options.plugins:
        model = onnx.load_from_string(graph.content)
    if precision != written:
        if written != "fp32" or precision == "fp32":
            raise ReenactError(
                f"{graph.name}: written in {written}, cannot be built in {precision}; use {written}"
            )
        told(f"measuring {precision}", 0, 1)
        made = convert(model, dtype=precision, calibration=calibration())
        model, report = made.model, made.report
        told(f"measuring {precision}", 1, 1)
    if options.plugins:
        major, minor = gpu.compute_capability
        names = {number: plugins.register_warp(number, 10 * major + minor) for number in fused_maps(model)}
        model = with_plugins(model, names)
    copy = parser_copy(model)
    _check_rank(trt, graph, copy)
    plan, timings = _in_background(
        lambda cancelled: _plan(trt, gpu, graph, copy, ranges, options, told, cancelled)
    )
    runtime, engine = deserialise(trt, plan, graph.name)
    kinds = Counter(kind or "unknown" for _, kind in layers(trt, engine))
    del engine, runtime
    filed = file_engine(here, ranges, options.as_key(), plan)
    keep_timings(trt.__version__, gpu, timings)
    return Built(filed, False, time.perf_counter() - began, dict(kinds), report)


def shape_range(text: str) -> tuple[str, Range]:
    """An input's name and shapes from "image=1x128x128x3", or "image=LEAST:BEST:MOST"; ReenactError for others."""
    name, _, rest = text.partition("=")
    parts = rest.split(":")
    try:
        least, best, most = (tuple(int(size) for size in part.split("x")) for part in (parts * 3)[:3])
    except ValueError:
        least = best = most = ()
    ordered = len(least) == len(best) == len(most) and all(
        0 <= low <= middle <= high for low, middle, high in zip(least, best, most, strict=True)
    )
    if not name or not least or len(parts) not in (1, 3) or not ordered:
        raise ReenactError(
            f"the shape {text!r} is not NAME=1x3x256x256 or NAME=LEAST:BEST:MOST of such shapes"
        )
    return name, Range(least=least, best=best, most=most)


def _can_have_plugins(graph: Graph, outlined: onnx.ModelProto, precision: Typed) -> bool:
    """Whether something of the graph has a fused kernel, and it can be compiled into an engine here."""
    if not fused_maps(outlined):
        return False
    reason = no_plugins_for(graph, precision) or plugins.missing()
    if reason:
        _log.info("%s: TensorRT's own layers sample, not our kernels: %s", graph.name, reason)
    return reason is None


def _ranges(graph: Graph, shapes: Mapping[str, Range]) -> dict[str, Range]:
    """The shapes of every input; ReenactError where one is not known or not the graph's."""
    for name in shapes.keys() - graph.inputs.keys():
        raise ReenactError(f"{graph.name}: has no input {name}; expected {', '.join(graph.inputs)}")
    ranges = {}
    for name, spec in graph.inputs.items():
        if name not in shapes:
            if None in spec.shape:
                raise ReenactError(
                    f"{graph.name}: input {spec} has axes of any length; say which with --shape {name}=1x3x256x256, "
                    "or --shape with the least, the best and the largest"
                )
            fixed = tuple(size for size in spec.shape if size is not None)
            ranges[name] = Range(least=fixed, best=fixed, most=fixed)
            continue
        chosen = shapes[name]
        fits = len(chosen.least) == len(spec.shape) and all(
            size in (None, low) and size in (None, high)
            for size, low, high in zip(spec.shape, chosen.least, chosen.most, strict=True)
        )
        if not fits:
            raise ReenactError(
                f"{graph.name}: --shape says {chosen.least} to {chosen.most}, the graph {spec}"
            )
        ranges[name] = chosen
    return ranges


def _check_rank(trt: Any, graph: Graph, copy: ParserCopy) -> None:
    if release(trt) < _SAMPLES_VOLUMES and any(sampling.rank > 4 for sampling in copy.sampling.values()):
        raise BackendError(
            f"{graph.name}: samples volumes, which TensorRT {trt.__version__} cannot; install 11.2 or newer, or use "
            "--backend cuda"
        )


def _in_background(work: Callable[[threading.Event], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Let `work` run in a thread, so that Ctrl-C is heard here; it then sets the event and waits for the end."""
    cancelled = threading.Event()
    done: list[tuple[bytes, bytes]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work(cancelled))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=run, name="tensorrt build", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        cancelled.set()
        thread.join()
        raise
    if failed:
        raise failed[0]
    return done[0]


def _plan(
    trt: Any,
    gpu: device.Device,
    graph: Graph,
    copy: ParserCopy,
    ranges: Mapping[str, Range],
    options: Options,
    progress: Progress,
    cancelled: threading.Event,
) -> tuple[bytes, bytes]:
    """The plan, and what was measured while it was made."""
    builder = trt.Builder(logger(trt))
    network = new_network(trt, builder)
    _parse(trt, network, graph, copy)
    config = builder.create_builder_config()
    config.builder_optimization_level = options.level
    config.max_aux_streams = options.aux_streams
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the inspector knows names only
    # It has no more digits than fp16: float32 islands would be none.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    _use_timings(trt, config, read_timings(trt.__version__, gpu))
    if any(None in spec.shape for spec in graph.inputs.values()):
        _add_profile(trt, builder, config, graph, ranges)
    monitor = _monitor(trt, progress, cancelled)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise refused(trt, f"{graph.name}: TensorRT builds no engine")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _parse(trt: Any, network: Any, graph: Graph, copy: ParserCopy) -> None:
    parser = trt.OnnxParser(network, logger(trt))
    if not parser.parse(copy.model.SerializeToString()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(f"{e.desc()} (node {e.node_name()}, {e.node_operator()})" for e in errors)
        logger(trt).taken()
        raise BackendError(
            f"{graph.name}: TensorRT {trt.__version__} cannot read it: {said or 'no reason given'}"
        )
    _check_borders(network, graph)
    _set_sampling(trt, network, graph, copy.sampling)


def _check_borders(network: Any, graph: Graph) -> None:
    """Names and types are the graph's own, whatever precision is inside."""
    given = [network.get_input(index) for index in range(network.num_inputs)]
    made = [network.get_output(index) for index in range(network.num_outputs)]
    for tensors, specs in ((given, graph.inputs), (made, graph.outputs)):
        found = {tensor.name: dtype_name(tensor.dtype) for tensor in tensors}
        expected = {name: spec.dtype.name for name, spec in specs.items()}
        if found != expected:
            raise BackendError(f"{graph.name}: TensorRT reads {found}, the graph has {expected}")


def _set_sampling(trt: Any, network: Any, graph: Graph, sampling: Mapping[str, Sampling]) -> None:
    """Every sampling layer samples as its node says, whatever the parser made of it."""
    modes = {"nearest": "NEAREST", "bilinear": "LINEAR", "bicubic": "CUBIC"}
    paddings = {"zeros": "FILL", "border": "CLAMP", "reflection": "REFLECT"}
    every = (network.get_layer(index) for index in range(network.num_layers))
    found = [layer for layer in every if layer.type == trt.LayerType.GRID_SAMPLE]
    for layer, wanted in _matched(graph, found, sampling):
        mode = getattr(trt.InterpolationMode, modes[wanted.mode])
        layer.__class__ = trt.IGridSampleLayer  # what the parser made is one, but comes as its base
        if layer.interpolation_mode != mode:
            taken = layer.interpolation_mode.name
            _log.warning("%s: the parser took %s where the graph says %s", layer.name, taken, wanted.mode)
        layer.interpolation_mode = mode
        layer.sample_mode = getattr(trt.SampleMode, paddings[wanted.padding])
        layer.align_corners = wanted.align_corners


def _matched(
    graph: Graph, found: list[Any], sampling: Mapping[str, Sampling]
) -> Iterator[tuple[Any, Sampling]]:
    """Each sampling layer with what its node says; where all say the same, it does not matter which is which."""
    names = [layer.name for layer in found]
    alike = len({(s.mode, s.padding, s.align_corners) for s in sampling.values()}) == 1
    if sorted(names) == sorted(sampling):
        yield from ((layer, sampling[layer.name]) for layer in found)
    elif alike and len(found) == len(sampling):
        yield from zip(found, sampling.values(), strict=True)
    elif found or sampling:
        raise BackendError(
            f"{graph.name}: TensorRT made the sampling layers {sorted(names)} of the nodes {sorted(sampling)}, so that "
            "how they sample cannot be checked"
        )


def _use_timings(trt: Any, config: Any, content: bytes) -> None:
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        logger(trt).taken()
        _log.info("the timing cache fits this TensorRT or GPU no more: everything is measured anew")
        if not config.set_timing_cache(config.create_timing_cache(b""), False):
            raise refused(trt, "TensorRT takes no timing cache")


def _add_profile(trt: Any, builder: Any, config: Any, graph: Graph, ranges: Mapping[str, Range]) -> None:
    profile = builder.create_optimization_profile()
    for name, spec in graph.inputs.items():
        if None in spec.shape:
            profile.set_shape(name, ranges[name].least, ranges[name].best, ranges[name].most)
    if config.add_optimization_profile(profile) < 0:
        raise refused(trt, f"{graph.name}: TensorRT refuses the shapes")


def _monitor(trt: Any, progress: Progress, cancelled: threading.Event) -> Any:
    """Tells `progress` what the builder does and cancels it; called from several threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 1)
            progress(phase_name, steps, steps)

    return Monitor()


def _untold(phase: str, done: int, steps: int) -> None:
    _log.debug("%s: %d of %d", phase, done, steps)
