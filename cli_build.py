"""The commands for those who have checkpoints: keep one, export a bundle, train. They need torch."""

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from .console import INTERRUPTED, guarded, say, show_checked, tell
from .errors import ReenactError

__all__ = ["add_model", "export", "train"]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
System = Annotated[str, typer.Argument(metavar="SYSTEM", help="face2face_rho.", show_default=False)]
Suffix = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What the files begin with: 105, latest, iter_10000; by default latest, else the highest.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="INI", help="Settings of networks other than the released ones.", show_default=False
    ),
]


def add_model(
    system: System,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With the published files.", show_default=False)
    ],
    suffix: Suffix = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Check a published checkpoint, without executing what is in it, and keep it for later exports."""
    with guarded(debug):
        _require_torch()
        from .export import exporter

        place = exporter(system).add_checkpoint(folder, suffix=suffix, config=config)
        say(f"{system}: checked and kept in {place}; next: reenact export {system} --size 512")


def export(
    system: System,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With the published files; by default what reenact models add has kept.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the networks' pictures, a multiple of 16.")
    ] = 512,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="BUNDLE",
            help="Folder for the bundle; by default where reenact run looks for it.",
            show_default=False,
        ),
    ] = None,
    suffix: Suffix = None,
    config: Config = None,
    licence: Annotated[
        str, typer.Option(metavar="TEXT", help="What the bundle says of the weights' licence.")
    ] = "not stated; see where the checkpoint came from",
    debug: Debug = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs, each checked against the PyTorch reference."""
    with guarded(debug):
        _require_torch()
        from .export import exporter
        from .runtime.files import bundle_home

        maker = exporter(system)
        folder = output or bundle_home(system)
        replaced = (folder / "manifest.json").is_file()
        bundle, checked = maker.export(
            maker.read_checkpoint(checkpoint, suffix=suffix, config=config),
            size,
            folder,
            licence,
        )
        show_checked(checked)
        named = f" --bundle {bundle.folder}" if output else ""
        ready = "is ready, in place of the bundle that was there" if replaced else "is ready"
        say(f"{bundle.folder} {ready}; next: reenact run PHOTO VIDEO --system {system}{named} -o out.mp4")


class TrainPrecision(StrEnum):
    """Arithmetic of the networks in training."""

    fp32 = "fp32"
    amp = "amp"


def train(
    system: System,
    config: Annotated[
        Path, typer.Option(metavar="INI", help="Settings in the published format.", show_default=False)
    ],
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="torchvision's VGG19 weights; by default from torch hub's cache.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last saved state.")] = False,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cpu or cuda; by default as INI says.", show_default=False),
    ] = None,
    precision: Annotated[
        TrainPrecision, typer.Option(help="fp32, or amp: half precision where it is safe.")
    ] = TrainPrecision.fp32,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Stop after so many steps.", show_default=False),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard/--no-tensorboard", help="Write losses and pictures for TensorBoard."),
    ] = True,
    debug: Debug = False,
) -> None:
    """Train a system's networks; checkpoints are written in the published layout."""
    with guarded(debug):
        _require_torch()
        from .reference.training import train as train_system

        done = train_system(
            system,
            config,
            resume=resume,
            device=device,
            precision=precision.value,
            steps=steps,
            tensorboard=tensorboard,
            vgg=vgg,
            say=tell,
        )
        if done.interrupted:
            raise typer.Exit(INTERRUPTED)
        if done.terms:
            terms = ", ".join(f"{name} {value:.3g}" for name, value in done.terms.items())
            say(f"{done.folder}: step {done.step}, {done.where}; {terms}")


def _require_torch() -> None:
    for name in ("torch", "onnxscript", "safetensors"):
        try:
            import_module(name)
        except ImportError as error:
            raise ReenactError(
                f"this command needs {name}, which cannot be imported ({error}); install it with "
                '`pip install ".[export]"` in the folder of the sources'
            ) from error
