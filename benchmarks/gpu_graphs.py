"""A driving frame of Face2Face-rho on a GPU: torch as published, torch.compile, and our backend, at several sizes.

`python -m reenact.benchmarks.gpu_graphs FRAME.onnx... [--json FILE] [--markdown FILE]`, with `frame` graphs of bundles;
their sizes are read from them. Times of the graphs alone are by CUDA events; *whole* is the wall time of a call from
arrays on the host to the picture on the host, and *around* what of it is not the graph: copies, Python, waiting.
`--try` runs it on the CPU once, to see that it works.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.backends.torch.session import TorchSession
from ..runtime.engine import load
from ..runtime.graph import Graph, read_graph
from .face2face_rho import PublishedFrame, networks_by_rule
from .gpu_timing import median_ms

__all__ = ["Frame", "frames", "main", "table"]


@dataclass(frozen=True)
class Frame:
    """One way to make a frame of one size."""

    size: int
    contender: str
    ms: float  # the networks alone
    whole_ms: float | None  # a call from host to host; None where there is no such call
    psnr_db: float | None = None  # of our picture, against the same graph in float32 on the CPU
    note: str = ""  # why it did not run

    @property
    def fps(self) -> float:
        """Frames a second, of the networks alone."""
        return 1e3 / self.ms if self.ms else 0.0

    @property
    def around_ms(self) -> float | None:
        """What a call takes beside the networks."""
        return None if self.whole_ms is None else self.whole_ms - self.ms


def frames(path: Path, device: str, runs: int) -> Iterator[Frame]:
    """All contenders at the size of a `frame` graph; one that fails says why in its note."""
    graph = read_graph(path)
    size = 4 * (graph.inputs["x2_in"].shape[2] or 0)
    module, inputs = _published(size)
    contenders: dict[str, Callable[[], Frame]] = {
        "torch, float32": partial(_eager, module, inputs, size, device, torch.float32, runs),
        "torch, float16, channels last": partial(_eager, module, inputs, size, device, torch.float16, runs),
        "torch.compile, float16, CUDA graphs": partial(_compiled, module, inputs, size, device, runs),
        "reenact, torch backend, fp32": partial(_ours, graph, size, device, "fp32", runs),
        "reenact, torch backend, fp16": partial(_ours, graph, size, device, "fp16", runs),
    }
    for name, measured in contenders.items():
        if device == "cpu" and ("float16" in name or "fp16" in name):
            continue  # torch's CPU kernels have no half precision worth trying
        try:
            found = measured()
        except Exception as error:  # noqa: BLE001 - one contender must not cost the others their minutes
            said = str(error).splitlines()[:1] or [repr(error)]
            yield Frame(size, name, 0.0, None, note=said[0][:200])
        else:
            yield replace(found, contender=name)
        if device != "cpu":
            torch.cuda.empty_cache()


def table(rows: list[Frame]) -> str:
    """Markdown."""
    lines = [
        "| size | one frame on | ms | fps | whole, ms | around, ms | PSNR, dB | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in rows:
        ms, fps = (f"{entry.ms:.3f}", f"{entry.fps:.0f}") if entry.ms else ("-", "-")
        whole, around = ("-" if t is None else f"{t:.3f}" for t in (entry.whole_ms, entry.around_ms))
        psnr = "-" if entry.psnr_db is None else f"{entry.psnr_db:.1f}"
        cells = (entry.size, entry.contender, ms, fps, whole, around, psnr, entry.note or "-")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _published(size: int) -> tuple[nn.Module, list[Tensor]]:
    rendering, motion = networks_by_rule()
    random = torch.Generator().manual_seed(1)
    shapes = [(28, 4), (72, 8), (140, 16), (280, 16), (9, 16), (9, 8), (9, 4)]
    inputs = [torch.rand(1, c, size // s, size // s, generator=random) - 0.5 for c, s in shapes]
    return PublishedFrame(rendering, motion).eval(), [*inputs, torch.zeros(1, 6)]


def _eager(
    module: nn.Module, inputs: list[Tensor], size: int, device: str, dtype: torch.dtype, runs: int
) -> Frame:
    moved, given = _moved(module, inputs, device, dtype)
    with torch.inference_mode():
        return Frame(size, "", median_ms(lambda: moved(*given), runs=runs), None)


def _compiled(module: nn.Module, inputs: list[Tensor], size: int, device: str, runs: int) -> Frame:
    moved, given = _moved(module, inputs, device, torch.float16)
    quick = torch.compile(moved, mode="reduce-overhead")

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        quick(*given)

    with torch.inference_mode():
        return Frame(size, "", median_ms(step, warm=10, runs=runs), None)


def _moved(
    module: nn.Module, inputs: list[Tensor], device: str, dtype: torch.dtype
) -> tuple[nn.Module, list[Tensor]]:
    layout = torch.channels_last if dtype == torch.float16 else torch.contiguous_format
    there = module.to(device=device, dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]
    given = [
        t.to(device, dtype).contiguous(memory_format=layout) if t.ndim == 4 else t.to(device, dtype)
        for t in inputs
    ]
    return there, given


def _ours(graph: Graph, size: int, device: str, precision: str, runs: int) -> Frame:
    session = TorchSession(graph, precision, device)
    random = np.random.default_rng(1)
    arrays = {
        name: _some(random, [length or 1 for length in spec.shape], spec.dtype)
        for name, spec in graph.inputs.items()
    }
    given: dict[str, Any] = {
        # Features stay where they are computed with; the drawings and the pose come with every frame.
        name: array if name.startswith("driving") or name == "head_pose" else session.hold(array)
        for name, array in arrays.items()
    }
    made = session.run(given)["image"].astype(np.float64)
    with load(onnx.load_from_string(graph.content), backend="cpu") as engine:
        error = float(np.mean((engine.run(arrays)["image"] - made) ** 2))
    psnr = 99.0 if error == 0 else 10 * np.log10(255**2 / error)
    alone = median_ms(session.launch, runs=runs)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(given)
        taken.append(1e3 * (time.perf_counter() - start))
    session.close()
    return Frame(size, "", alone, statistics.median(taken), psnr)


def _some(random: np.random.Generator, shape: list[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.normal(scale=0.1, size=shape).astype(dtype)


def main() -> None:
    """Print the table; write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("graphs", nargs="+", type=Path, metavar="FRAME.onnx")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--try", dest="tried", action="store_true", help="on the CPU, once")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tried:
        sys.exit("Error: torch finds no GPU")
    device, runs = ("cpu", 1) if options.tried else ("cuda", 50)
    rows = [entry for path in options.graphs for entry in frames(path, device, runs)]
    text = table(rows)
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(
            json.dumps([asdict(e) | {"fps": e.fps, "around_ms": e.around_ms} for e in rows], indent=1) + "\n"
        )
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
