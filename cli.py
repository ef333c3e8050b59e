"""The `reenact` command: which commands there are, and in which order they are shown.

Exit codes: 0 done, 1 failed, 2 misuse, 130 ended by Ctrl-C. What is heavy is imported by the command that
needs it.
"""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from .cli_build import add_model, export, train
from .cli_gpu import build
from .cli_live import live
from .cli_models import models_list, models_path, models_pull
from .cli_reconstruct import reconstruct
from .cli_run import RUN_EXAMPLES, demo, run
from .cli_serve import serve
from .cli_verify import VERIFY_EXAMPLES, verify
from .console import Debug, guarded, say, show_doctor

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its code."""
    # The matrices here are tiny; threads of a linear-algebra library would only keep cores from the networks.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            say(f"reenact {version('reenact')}")
        except PackageNotFoundError:
            say("reenact, run from its sources without being installed")
        raise typer.Exit


def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Face animation that runs: a portrait photo comes alive, driven by a video or by a motion."""


def doctor(debug: Debug = False) -> None:
    """Say what is installed, which backend will be used and why the others are not."""
    with guarded(debug):
        from .runtime.doctor import report

        show_doctor(report())


app = typer.Typer(
    name="reenact",
    callback=root,
    epilog="Start with: reenact demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(
    help="Network weights: the tracker's, and checkpoints that you bring.", no_args_is_help=True
)

USE, FILES, SYSTEMS = "Photos that move", "Files and this machine", "Systems with checkpoints of their own"
LIVE_EXAMPLES = "Examples: reenact live photo.jpg --camera 0, or without a camera: reenact live --camera test"
_COMMANDS: tuple[tuple[Callable[..., None], str, str], ...] = (
    (run, USE, RUN_EXAMPLES),
    (demo, USE, "Example: reenact demo -o demo"),
    (live, USE, LIVE_EXAMPLES),
    (serve, USE, "Example: reenact serve"),
    (reconstruct, USE, "Example: reenact reconstruct photo.jpg -o heads --animate"),
    (verify, FILES, VERIFY_EXAMPLES),
    (doctor, FILES, "Example: reenact doctor"),
    (export, SYSTEMS, "Example: reenact export face2face_rho --checkpoint checkpoints/voxceleb --size 512"),
    (build, SYSTEMS, "Example: reenact build ~/.cache/reenact/bundles/face2face_rho --precision fp16"),
    (train, SYSTEMS, "Example: reenact train face2face_rho --config voxceleb.ini --vgg vgg19-dcbb9e9d.pth"),
)
for _command, _panel, _example in _COMMANDS:
    app.command(epilog=_example, rich_help_panel=_panel)(_command)
app.add_typer(models, name="models", epilog="Example: reenact models pull", rich_help_panel=FILES)
models.command("list", epilog="Example: reenact models list")(models_list)
models.command("pull", epilog="Example: reenact models pull")(models_pull)
models.command("path", epilog="Example: reenact models path face_landmark")(models_path)
models.command("add", epilog="Example: reenact models add face2face_rho checkpoints/voxceleb")(add_model)
