"""Checks the reference networks against golden files: `python -m reenact.reference.parity FILE.json...`.

Exit codes: 0 all that could be checked agrees, 1 something does not or failed, 2 misuse.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..errors import ReenactError
from .golden import Compared, Golden, compare, read_golden
from .parts import NotCheckedError, Outputs, Part, Run, find_part

__all__ = ["Report", "app", "check", "main"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True)
class Report:
    """How one golden compares."""

    golden: Golden
    outputs: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within its bound."""
        return all(output.passed for output in self.outputs)


def check(golden: Golden, *, data: Path | None = None, tolerance: float | None = None) -> Report:
    """Compute a golden's part and compare every output.

    `data` is a folder with pictures that goldens refer to; `tolerance` replaces the part's own for outputs
    that have none to themselves. Raises ReenactError where the part has no adapter, the network's state or a
    shape differs or an output is missing, and NotCheckedError where a picture is missing.
    """
    part = find_part(golden.system, golden.part)
    if tolerance is not None:
        part = replace(part, bound=replace(part.bound, tolerance=tolerance))
    with torch.set_grad_enabled(part.gradients):
        ours = part.run(Run(golden, data))
    return Report(golden, tuple(_compared(golden, part, ours)))


def _array(output: Tensor | NDArray[Any]) -> NDArray[Any]:
    return output.detach().numpy() if isinstance(output, Tensor) else output


def _compared(golden: Golden, part: Part, ours: Outputs) -> list[Compared]:
    bounds = {name: part.bounds.get(name, part.bound) for name in golden.outputs}
    masks = {bound.mask for bound in bounds.values()}
    wanted = [name for name in golden.outputs if name not in part.given and name not in masks]
    missing = [name for name in wanted if name not in ours]
    surplus = [name for name in ours if name not in golden.outputs]
    if missing or surplus:
        raise ReenactError(
            f"the adapter of {golden.part} does not give the golden's outputs; missing are "
            f"{', '.join(missing) or 'none'}, surplus are {', '.join(surplus) or 'none'}"
        )
    return [compare(golden, name, _array(ours[name]), bounds[name]) for name in wanted]


def main() -> None:
    """Run the command line and exit with its code."""
    app()


@app.command(epilog="Example: python -m reenact.reference.parity goldens/face2face_rho/*.json")
def parity(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE.json...", exists=True, dir_okay=False, help="Golden files."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Pictures that goldens refer to."),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="Allowed error, in place of the part's own (1e-4).")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The goldens' system, where their folder does not bear its name.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for the networks.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Compute what golden files hold and print the relative error of every output."""
    if threads is not None:
        torch.set_num_threads(threads)
    failed = 0
    for file in files:
        try:
            report = check(read_golden(file, system), data=data, tolerance=tolerance)
        except NotCheckedError as missing:
            _say(f"{file}: NOT CHECKED, {missing}")
            continue
        except Exception as error:
            if debug:
                raise
            fault = "" if isinstance(error, ReenactError) else f"{type(error).__name__}: "
            _tell(f"{file}: {fault}{error}")
            failed += 1
            continue
        _show(report)
        failed += not report.passed
    if failed:
        _tell(f"{failed} of {len(files)} failed")
        raise typer.Exit(1)


def _show(report: Report) -> None:
    golden = report.golden
    state = f", {len(golden.state)} entries of the state agree" if golden.state else ""
    verdict = "agrees" if report.passed else "DIFFERS"
    _say(f"{golden.system}/{golden.part}: {verdict}{state}")
    table = Table("output", "shape", box=None, pad_edge=False)
    for heading in ("error", "allowed", "beyond", ""):
        table.add_column(heading, justify="right")
    for output in report.outputs:
        table.add_row(
            output.name,
            " x ".join(map(str, output.shape)) or "one number",
            f"{output.error:.2e}",
            f"{output.tolerance:.0e}",
            f"{output.beyond:.2%}",
            "ok" if output.passed else "DIFFERS",
        )
    Console(highlight=False, markup=False, width=120).print(table)


def _say(line: str) -> None:
    Console(highlight=False).print(line, markup=False, soft_wrap=True)


def _tell(line: str) -> None:
    Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
