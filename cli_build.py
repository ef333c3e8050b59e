"""The commands for those who have checkpoints: keep one, export a bundle, train. They need torch."""

import tempfile
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from .console import INTERRUPTED, Debug, guarded, say, show_checked, tell
from .errors import ReenactError

__all__ = ["add_model", "export", "train"]

System = Annotated[str, typer.Argument(metavar="SYSTEM", help="face2face_rho or deca.", show_default=False)]
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


class BundlePrecision(StrEnum):
    """Arithmetic that a bundle's graphs are written in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def add_model(
    system: Annotated[
        str,
        typer.Argument(
            metavar="SYSTEM", help="face2face_rho, deca, or FLAME's files: flame.", show_default=False
        ),
    ],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The published file, or its folder.", show_default=False)
    ],
    suffix: Suffix = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Check a published checkpoint, without executing what is in it, and keep it for later exports."""
    with guarded(debug):
        _require_torch()
        from .export import keeper

        module = keeper(system)
        given = {name: value for name, value in (("suffix", suffix), ("config", config)) if value is not None}
        for name in given:
            if name not in module.ADD_OPTIONS:
                raise ReenactError(f"--{name} means nothing for {system}; leave it out")
        added = module.add_checkpoint(path, **given)
        say(f"{system}: checked and kept in {added.folder}" + (f"; next: {added.next}" if added.next else ""))


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
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the networks' pictures, a multiple of 16; face2face_rho has 512, deca always 224.",
            show_default=False,
        ),
    ] = None,
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
    precision: Annotated[
        BundlePrecision,
        typer.Option(
            help="What frames are computed in, written into the graph; TensorRT builds any from fp32."
        ),
    ] = BundlePrecision.fp32,
    debug: Debug = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX graphs, each checked against the PyTorch reference."""
    with guarded(debug):
        _require_torch()
        from .export import exporter
        from .export.precision import Half, write_halved
        from .runtime.bundle import check_place
        from .runtime.files import bundle_home

        maker = exporter(system)
        folder = output or bundle_home(system)
        replaced = (folder / "manifest.json").is_file()
        read = maker.read_checkpoint(checkpoint, suffix=suffix, config=config)
        side = maker.DEFAULT_SIZE if size is None else size
        if precision is BundlePrecision.fp32:
            bundle, checked = maker.export(read, side, folder, licence)
            show_checked(checked)
        else:
            check_place(folder)
            with tempfile.TemporaryDirectory() as workplace:
                whole, checked = maker.export(read, side, Path(workplace) / "fp32", licence)
                show_checked(checked)
                half: Half = "fp16" if precision is BundlePrecision.fp16 else "bf16"
                bundle, reports = write_halved(whole, half, folder)
            for name, report in reports.items():
                say(f"{name} in {report}")
        named = f" --bundle {bundle.folder}" if output else ""
        ready = "is ready, in place of the bundle that was there" if replaced else "is ready"
        say(f"{bundle.folder} {ready}; next: {maker.NEXT}{named}")


class TrainPrecision(StrEnum):
    """Arithmetic of the networks in training."""

    fp32 = "fp32"
    amp = "amp"


def train(
    system: System,
    config: Annotated[
        Path,
        typer.Option(
            metavar="INI",
            help="Settings: face2face_rho's published file; docs/deca_training.md has deca's.",
            show_default=False,
        ),
    ],
    vgg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="torchvision's VGG19 weights, where a loss needs them; by default from torch hub's cache.",
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
