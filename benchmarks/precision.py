"""How exact half precision is: a bundle's picture in bfloat16 against float32, on the portrait that export checks with.

`python -m reenact.benchmarks.precision BUNDLE... [--json FILE] [--markdown FILE]`. A CPU without bfloat16 emulates it,
slowly and with the same rounding. *whole*: everything in bfloat16; *halves*: positions in float32, as the runtime does.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ReenactError
from ..export import face2face_rho
from ..export.face2face_rho_graphs import Sizes
from ..runtime.backends.openvino import OpenVinoSession, best_precision, session
from ..runtime.bundle import Bundle
from ..runtime.graph import read_graph

__all__ = ["Exactness", "measure"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Exactness:
    """One bundle; PSNR in dB of the uint8 picture against float32."""

    system: str
    size: int
    weights: str  # what the bundle says of their licence
    native: bool  # False: bfloat16 was emulated
    whole: float
    halves: float


def measure(folder: Path) -> Exactness:
    """Run a bundle of Face2Face-rho in float32 and twice in bfloat16."""
    bundle = Bundle.open(folder)
    size = bundle.manifest.resolution
    source, frame = (read_graph(folder / bundle.manifest.graphs[name].file) for name in ("source", "frame"))
    photo, driving = (
        {name: tensor.numpy() for name, tensor in inputs.items()}
        for inputs in dict(face2face_rho.samples(Sizes.of(size)))["portrait"]
    )
    inputs = OpenVinoSession(source, "fp32", None).run(photo) | driving
    exact = OpenVinoSession(frame, "fp32", None).run(inputs)["image"]
    whole = OpenVinoSession(frame, "bf16", None).run(inputs)["image"]
    if np.array_equal(whole, exact):
        raise ReenactError("OpenVINO does not even emulate bfloat16 on this CPU; use one with AVX-512")
    return Exactness(
        system=bundle.manifest.system,
        size=size,
        weights=bundle.manifest.weights.licence,
        native=best_precision() == "bf16",
        whole=_psnr(whole, exact),
        halves=_psnr(session(frame, "bf16", None).run(inputs)["image"], exact),
    )


def _psnr(found: Array, exact: Array) -> float:
    """Of two uint8 pictures, dB; 99 where they are equal."""
    square = float(np.mean((found.astype(np.float64) - exact) ** 2))
    return 99.0 if square == 0 else float(10 * np.log10(255**2 / square))


def markdown(rows: list[Exactness]) -> str:
    """The results as a markdown table."""
    lines = ["| system | size | weights | bfloat16 | whole, dB | halves, dB |", "| --- |" + " --- |" * 5]
    for row in rows:
        how = "native" if row.native else "emulated"
        lines.append(
            f"| {row.system} | {row.size} | {row.weights} | {how} | {row.whole:.1f} | {row.halves:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    try:
        rows = [measure(folder) for folder in options.bundles]
    except ReenactError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(markdown(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()
