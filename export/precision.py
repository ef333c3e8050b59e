"""Brings float32 graphs to half precision or int8 and says what that costs; what costs too much stays in float32.

The published converters clamp what overflows, know no bfloat16 or functions and measure nothing; hence an own one.
"""

import tempfile
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import inliner

from ..errors import ReenactError
from ..runtime.bundle import Bundle, write_bundle
from ..runtime.engine import Tensors, load
from ..runtime.graph import DOMAIN, read_graph
from .calibration import bundle_inputs
from .emulation import emulated
from .plain import Half, Plain, prepared
from .typed import typed

__all__ = ["Converted", "Half", "OutputError", "Report", "convert", "quantise", "write_halved"]

Inputs = Mapping[str, NDArray[Any]]
_UNITS = 32  # groups of nodes that the search for what costs too much looks at; it runs a little more often
_ALLOWED: dict[Half, tuple[float, float]] = {"fp16": (45.0, 0.01), "bf16": (38.0, 0.05)}


@dataclass(frozen=True)
class OutputError:
    """How far one output is from float32, over all calibration inputs."""

    output: str
    largest: float  # absolute; levels of a uint8 picture, else in the output's own units
    mean: float
    scale: float  # the largest absolute value in float32; 255 of a uint8 picture
    psnr_db: float | None  # of a uint8 picture, infinite where it is equal; None of others

    def __str__(self) -> str:
        if self.psnr_db is not None:
            return f"{self.output} {self.psnr_db:.1f} dB, at most {self.largest:.0f} levels off"
        return f"{self.output} at most {self.largest:.1e} off, in values up to {self.scale:.1e}"

    def excess(self, floor_db: float, tolerance: float) -> float:
        """The error as a part of what is allowed; above 1 it is too much."""
        if self.psnr_db is not None:
            return float(10 ** ((floor_db - self.psnr_db) / 10))
        return self.largest / (tolerance * self.scale) if self.scale else self.largest


@dataclass(frozen=True)
class Report:
    """What became of a graph."""

    precision: str  # "fp16", "bf16" or "int8"
    errors: tuple[OutputError, ...]
    nodes: int  # of the float32 graph
    float32: Mapping[str, str]  # the nodes, and functions of the domain reenact, kept in float32, and why
    trials: int  # how many forms of the graph were measured

    def __str__(self) -> str:
        errors = "; ".join(map(str, self.errors))
        return f"{self.precision}: {errors}, from float32; {len(self.float32)} of {self.nodes} nodes stay in float32"


@dataclass(frozen=True, eq=False)
class Converted:
    """A graph and what it costs."""

    model: onnx.ModelProto
    report: Report


def convert(
    model: onnx.ModelProto,
    *,
    dtype: Half,
    calibration: Sequence[Inputs],
    floor_db: float | None = None,
    tolerance: float | None = None,
    half_io: Collection[str] = (),
) -> Converted:
    """The graph in half precision with islands of float32; inputs and outputs keep their types but for `half_io`.

    `calibration` holds sets of inputs by name, as the float32 graph takes them. A uint8 output is at least `floor_db`
    from float32 (PSNR; None is 45 dB in fp16, 38 in bf16), any other at most `tolerance` of its largest value (None is
    0.01 in fp16, 0.05 in bf16). Where that fails all that leads to sampling positions goes back to float32, and then
    the groups of nodes that cost most by themselves. The same graph and inputs always give the same. Raises
    ReenactError for a graph that cannot be converted, BundleError for inputs that it does not take.
    """
    plain = prepared(model, dtype)
    known = [value.name for value in (*model.graph.input, *model.graph.output)]
    if not set(half_io) <= set(known) or (half_io and dtype != "fp16"):
        raise ReenactError(
            f"half_io is {', '.join(sorted(half_io))} in {dtype}; expected, in fp16 only, some of {', '.join(known)}"
        )
    least, most = _ALLOWED[dtype]
    search = _Search(
        plain,
        _Meter(model, calibration),
        half_io,
        least if floor_db is None else floor_db,
        most if tolerance is None else tolerance,
    )
    chosen, added = search.result()
    kept = {**plain.main.islands, **added}
    return Converted(chosen.model, Report(dtype, chosen.errors, len(plain.main.nodes), kept, search.trials))


def write_halved(bundle: Bundle, half: Half, folder: Path) -> tuple[Bundle, dict[str, Report]]:
    """Write a float32 bundle in half precision, and say by graph what that costs; those marked whole stay as they are.

    Raises what `convert` and `write_bundle` raise.
    """
    graphs: dict[str, Path | onnx.ModelProto] = {}
    reports = {}
    for name, entry in bundle.manifest.graphs.items():
        path = bundle.folder / entry.file
        graphs[name] = path
        if not entry.whole:
            made = convert(onnx.load(path), dtype=half, calibration=bundle_inputs(bundle, read_graph(path)))
            graphs[name], reports[name] = made.model, made.report
    manifest = bundle.manifest
    groups = [file.removesuffix(".npz") for file in manifest.files if file.endswith(".npz")]
    written = write_bundle(
        folder,
        system=manifest.system,
        resolution=manifest.resolution,
        graphs=graphs,
        preprocessing=manifest.preprocessing,
        precision=half,
        weights=manifest.weights,
        arrays={name: bundle.arrays(name) for name in groups},
        whole=[name for name, entry in manifest.graphs.items() if entry.whole],
    )
    return written, reports


def quantise(model: onnx.ModelProto, calibration: Sequence[Inputs]) -> Converted:
    """The graph with its layers in int8, by ONNX Runtime's static quantisation; all else stays in float32.

    Weights by channel, everything symmetric (zero point 0, as GPUs want it), biases float32; what leads to sampling
    positions is left out. Functions are inlined. Nothing is allowed or refused: the report says what it costs.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Inputs | None:
            return next(self.left, None)

    meter = _Meter(model, calibration)
    plain = prepared(inliner.inline_local_functions(model), "fp16")
    kept = dict.fromkeys(plain.main.leading, "leads to positions")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            plain.model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(kept),
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )
        made = onnx.load(path)
    return Converted(
        made, Report("int8", meter.errors(_unfused(made, calibration)), len(plain.main.nodes), kept, 1)
    )


def _unfused(model: onnx.ModelProto, calibration: Sequence[Inputs]) -> Iterator[Tensors]:
    """What an int8 graph gives when its layers are summed exactly, as GPUs do it: in float32 between two roundings.

    Fused, ONNX Runtime sums pairs of products in 16 bits on CPUs without instructions for int8; these overflow.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    for inputs in calibration:
        yield dict(zip(names, session.run(names, dict(inputs)), strict=True))


class _Meter:
    """What the float32 graph gives on the calibration inputs, and how far another is from it."""

    def __init__(self, model: onnx.ModelProto, calibration: Sequence[Inputs]) -> None:
        if not calibration:
            raise ReenactError(
                "precision is measured on calibration inputs; expected at least one set of them"
            )
        self.calibration = calibration
        self.expected = list(self.runs(model))

    def errors(self, found: Iterable[Tensors]) -> tuple[OutputError, ...]:
        """Of every output, from what another graph gives."""
        pairs = list(zip(self.expected, found, strict=True))
        return tuple(
            _error(name, [(expected[name], found[name]) for expected, found in pairs])
            for name in self.expected[0]
        )

    def runs(self, model: onnx.ModelProto) -> Iterator[Tensors]:
        """What a graph gives on every set of inputs."""
        with load(model, backend="cpu", precision="fp32") as engine:
            for inputs in self.calibration:
                yield engine.run(inputs)


def _error(name: str, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> OutputError:
    picture = pairs[0][0].dtype == np.uint8
    apart = [np.abs(found.astype(np.float64) - expected.astype(np.float64)) for expected, found in pairs]
    apart = [np.where(np.isnan(difference), np.inf, difference) for difference in apart]
    scale = 255.0 if picture else max(float(np.abs(expected).max(initial=0)) for expected, _ in pairs)
    square = max(float(np.square(difference).mean()) for difference in apart)  # of the worst picture
    psnr = (float(10 * np.log10(255**2 / square)) if square else float("inf")) if picture else None
    return OutputError(
        output=name,
        largest=max(float(difference.max(initial=0)) for difference in apart),
        mean=max(float(difference.mean()) for difference in apart),
        scale=scale,
        psnr_db=psnr,
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    model: onnx.ModelProto
    errors: tuple[OutputError, ...]
    excess: float  # at most 1 where it is exact enough


class _Search:
    """Looks for what must stay in float32 beyond the islands."""

    def __init__(
        self, plain: Plain, meter: _Meter, half_io: Collection[str], floor_db: float, tolerance: float
    ) -> None:
        self.plain, self.meter, self.half_io = plain, meter, half_io
        self.floor_db, self.tolerance = floor_db, tolerance
        self.trials = 0

    def result(self) -> tuple[_Trial, dict[str, str]]:
        """A graph that is exact enough, and why each further node is in float32; ReenactError where there is none."""
        trial = self._tried(())
        leading = {name: "leads to positions" for name in self._halves() if name in self.plain.main.leading}
        if trial.excess > 1 and leading:
            trial = self._tried(leading)
        else:
            leading = {}
        if trial.excess <= 1:
            return trial, leading
        units = self._units(leading)
        alone = [self._tried(set(self._halves()) - set(unit)).excess for unit in units]
        worst = sorted(range(len(units)), key=lambda i: -alone[i])
        enough, too_few, best = len(units), 0, None
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            tried = self._tried({*leading, *(name for i in worst[:middle] for name in units[i])})
            if tried.excess <= 1:
                enough, best = middle, tried
            else:
                too_few = middle
        if best is None:
            errors = "; ".join(map(str, trial.errors))
            raise ReenactError(
                f"the graph cannot be brought to {self.plain.half}: {errors}, and no part of it may stay in half; keep "
                "fp32, or allow more error"
            )
        reasons = {
            name: f"{alone[i]:.2g} of the error allowed, with the nodes beside it"
            for i in worst[:enough]
            for name in units[i]
        }
        return best, leading | reasons

    def _tried(self, float32: Collection[str]) -> _Trial:
        self.trials += 1
        model = typed(self.plain, float32, self.half_io)
        errors = self.meter.errors(self.meter.runs(emulated(model, self.plain.half)))
        return _Trial(model, errors, max(e.excess(self.floor_db, self.tolerance) for e in errors))

    def _halves(self) -> list[str]:
        """The nodes and functions that would be half, in order."""
        main = self.plain.main
        named = [
            node.op_type if node.domain == DOMAIN else node.name for node in main.nodes if main.floats(node)
        ]
        return [name for name in dict.fromkeys(named) if name not in main.islands]

    def _units(self, leading: Container[str]) -> list[list[str]]:
        """Groups of nodes that follow each other."""
        names = [name for name in self._halves() if name not in leading]
        size = -(-len(names) // _UNITS)
        return [names[i : i + size] for i in range(0, len(names), size)]
