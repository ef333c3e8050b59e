#!/usr/bin/env python3
"""Everything that wants a GPU, in one run of a few minutes: installs, tests, times, and writes what it saw.

`python benchmarks/gpu_check.py [--graphs FRAME.onnx...] [--out FOLDER] [--minutes 8]`, from the repository's root, on a
machine with a GPU, CUDA, torch, cuda-python, onnx, numpy, opencv and pytest; no network is used. Only Python's own
library is needed to start it. It writes gpu_<name>.json and gpu_<name>.md, and exits 1 when a test fails.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/kernels", "tests/runtime/backends/torch")

STAND_INS = {
    # The CPU's kernels are numba's; without it they run as plain Python, slowly and with the same results.
    "numba": """
def njit(*given, **options):
    return given[0] if given and callable(given[0]) else lambda function: function

prange = range
""",
    "platformdirs": """
from pathlib import Path

def user_cache_path(name):
    return Path.home() / ".cache" / name
""",
}
"""What of the core's dependencies may be absent here, and what is enough of it."""


class Clock:
    """Keeps the run inside its time."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self, most: float) -> float:
        """Seconds for the next step."""
        return max(5.0, min(most, self.end - time.monotonic()))


def main() -> None:
    """Run all steps; later ones go on where an earlier one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--graphs", nargs="*", type=Path, default=[], help="`frame` graphs of Face2Face-rho")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    clock, report = Clock(options.minutes), {"date": datetime.now(UTC).date().isoformat(), **facts()}
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_in(Path(folder))
        report["install"] = install(environment, clock)
        if report["install"] != "ok":
            # The root is the package: found under its name it runs as well, and the time is not lost.
            (Path(folder) / "plain").mkdir(exist_ok=True)
            (Path(folder) / "plain/reenact").symlink_to(ROOT)
            add_path(environment, Path(folder) / "plain")
        report["tests"] = run_tests(environment, clock)
        tables = []
        for name, arguments, most in (
            ("kernels", ["reenact.benchmarks.gpu_kernels"], 150.0),
            ("frames", ["reenact.benchmarks.gpu_graphs", *map(str, options.graphs)], 240.0),
        ):
            if name == "frames" and not options.graphs:
                continue
            found = measured(name, arguments, environment, Path(folder), clock.left(most))
            report[name] = found["rows"]
            tables.append(found["table"])
    options.out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "_", str(report.get("gpu", "none")).lower()).strip("_")
    (options.out / f"gpu_{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    text = page(report, tables)
    (options.out / f"gpu_{stem}.md").write_text(text)
    sys.stdout.write(text)
    sys.exit(0 if report["tests"]["passed"] and report["install"] == "ok" else 1)


def facts() -> dict[str, Any]:
    """The GPU and the versions that count."""
    asked = "name,driver_version,memory.total,clocks.max.sm"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        name, driver, memory, clock = (part.strip() for part in done.stdout.splitlines()[0].split(","))
        gpu = {"gpu": name, "driver": driver, "memory": memory, "largest_clock": clock}
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        gpu = {"gpu": "none", "why": str(error)}
    versions = {name: version_of(name) for name in ("torch", "cupy", "onnx", "onnxruntime", "numpy", "numba")}
    return {**gpu, "python": sys.version.split()[0], "versions": versions}


def version_of(package: str) -> str | None:
    """Asked of the package's metadata; importing everything takes time."""
    from importlib import metadata

    for name in (package, f"{package}-cuda13x", f"{package}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def environment_in(folder: Path) -> dict[str, str]:
    """The environment of all steps: an own cache, and stand-ins for what is absent."""
    environment = dict(os.environ, REENACT_HOME=str(folder / "home"), PYTHONUNBUFFERED="1")
    for name, text in STAND_INS.items():
        if importlib.util.find_spec(name) is None:
            (folder / "plain").mkdir(exist_ok=True)
            (folder / f"plain/{name}.py").write_text(text)
            add_path(environment, folder / "plain")
    return environment


def add_path(environment: dict[str, str], folder: Path) -> None:
    """Let Python look for modules in a folder first."""
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(folder), environment.get("PYTHONPATH", "")])
    )


def install(environment: dict[str, str], clock: Clock) -> str:
    """This repository without its dependencies."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-build-isolation",
        "--no-deps",
        ".",
    ]
    done = run(command, environment, clock.left(120))
    return "ok" if done.returncode == 0 else done.stdout[-2000:]


def run_tests(environment: dict[str, str], clock: Clock) -> dict[str, Any]:
    """The tests of device code and of the GPU's backends; what the rest of the suite needs is not looked for."""
    folders = [folder for folder in TESTS if (ROOT / folder).is_dir()]
    lines, passed = [], bool(folders)
    for folder in folders:
        # The suite's own conftest needs packages that are not here; each folder has what it needs.
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--maxfail=20",
            f"--confcutdir={folder}",
            "-p",
            "no:cacheprovider",
            folder,
        ]
        done = run(command, environment, clock.left(240))
        sys.stdout.write(done.stdout[-6000:])
        summary = done.stdout.strip().splitlines()[-1:] or ["no output"]
        lines.append(f"{folder}: {summary[0]}")
        passed &= done.returncode == 0
    return {"passed": passed, "summary": lines}


def measured(
    name: str, arguments: list[str], environment: dict[str, str], folder: Path, seconds: float
) -> dict[str, Any]:
    """One measuring module in a process of its own; what it printed last where it failed."""
    stored, printed = folder / f"{name}.json", folder / f"{name}.md"
    command = [sys.executable, "-m", *arguments, "--json", str(stored), "--markdown", str(printed)]
    done = run(command, environment, seconds, away=folder)
    sys.stdout.write(done.stdout[-6000:])
    if done.returncode or not stored.exists():
        return {"rows": {"failed": done.stdout[-2000:]}, "table": f"{name}: failed, see the JSON file.\n"}
    return {"rows": json.loads(stored.read_text()), "table": printed.read_text()}


def run(
    command: list[str], environment: dict[str, str], seconds: float, away: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """A command with both outputs in one; running out of time is a failure, not an exception."""
    sys.stdout.write(f"== {' '.join(command)}\n")
    try:
        return subprocess.run(
            command,
            cwd=away,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (
            error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        )
        return subprocess.CompletedProcess(command, 124, f"{said}\nout of time after {seconds:.0f} s\n")


def page(report: dict[str, Any], tables: list[str]) -> str:
    """Markdown: what it ran on, whether tests passed, and the tables."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    head = f"{report['date']}, {report.get('gpu')}, driver {report.get('driver', '-')}, {versions}."
    tests = "; ".join(report["tests"]["summary"])
    return "\n".join([head, "", f"Tests: {tests}.", "", *tables])


if __name__ == "__main__":
    main()
