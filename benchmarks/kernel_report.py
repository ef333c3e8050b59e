"""What the CUDA kernels ask of every GPU architecture: registers a thread, and that none spills to memory.

`python -m reenact.benchmarks.kernel_report [--json FILE] [--markdown FILE]`. Needs nvcc on the PATH, and no GPU.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ReenactError
from ..kernels import cuda

__all__ = ["Resources", "main", "measure", "parsed", "table"]

CSRC = Path(cuda.__file__).parent / "csrc"
_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<capability>\d+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Resources:
    """One kernel on one architecture."""

    file: str
    kernel: str
    capability: int  # times ten: 90 is sm_90
    registers: int  # a thread
    spilled: int  # bytes written to and read from memory for want of registers


def measure(file: Path) -> list[Resources]:
    """Compile a kernel file for every architecture; ReenactError where nvcc is absent or refuses it."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in cuda.ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "nvcc",
            "-O3",
            "-std=c++17",
            "-fatbin",
            "-Xptxas=-v",
            "-Werror=all-warnings",
            "--threads=0",
        ]
        command += [*targets, "-o", f"{folder}/all.fatbin", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ReenactError(f"nvcc cannot be started ({error}); install the CUDA toolkit") from error
    if done.returncode:
        raise ReenactError(f"{file.name} does not compile:\n{done.stderr}")
    return parsed(file.name, done.stderr)


def parsed(file: str, log: str) -> list[Resources]:
    """What ptxas says of each kernel, in its verbose log."""
    return [
        Resources(
            file=file,
            kernel=entry["kernel"],
            capability=int(entry["capability"]),
            registers=int(entry["registers"]),
            spilled=int(entry["stores"]) + int(entry["loads"]),
        )
        for entry in _ENTRY.finditer(log)
    ]


def table(rows: Sequence[Resources], compiler: str) -> str:
    """Markdown: a row a kernel, registers by architecture, spilled bytes in all."""
    kernels = sorted({(row.file, row.kernel) for row in rows})
    registers = {(row.kernel, row.capability): row.registers for row in rows}
    lines = [
        f"Compiled by {compiler}. Registers a thread, in blocks of 256; spilled: bytes, over all architectures.",
        "",
        "| file | kernel | " + " | ".join(f"sm_{a}" for a in cuda.ARCHITECTURES) + " | spilled |",
        "| --- | --- |" + " --- |" * (len(cuda.ARCHITECTURES) + 1),
    ]
    for file, kernel in kernels:
        numbers = [str(registers.get((kernel, a), "-")) for a in cuda.ARCHITECTURES]
        spilled = sum(row.spilled for row in rows if row.kernel == kernel)
        lines.append(f"| {file} | {kernel} | {' | '.join(numbers)} | {spilled} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table; write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    try:
        rows = [row for file in sorted(CSRC.glob("*.cu")) for row in measure(file)]
    except ReenactError as error:
        sys.exit(f"Error: {error}")
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release [\d.]+, V([\d.]+)", version)
    text = table(rows, f"nvcc {release[1] if release else 'of unknown version'}")
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
