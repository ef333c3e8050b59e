"""Losses and pictures for TensorBoard, or for nobody."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ...errors import ReenactError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Board", "NoBoard", "open_board", "require_tensorboard"]


class Board(Protocol):
    """Takes what a training has to show."""

    def scalars(self, values: Mapping[str, float], step: int, /) -> None:
        """Numbers by name."""

    def picture(self, name: str, picture: Tensor, step: int, /) -> None:
        """(3, H, W) in [0, 1], RGB."""

    def close(self) -> None:
        """Write what is left."""


class NoBoard:
    """Shows nothing."""

    def scalars(self, _values: Mapping[str, float], _step: int) -> None:
        """Nothing."""

    def picture(self, _name: str, _picture: Tensor, _step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def require_tensorboard() -> None:
    """Raises ReenactError where TensorBoard is not installed."""
    try:
        import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise ReenactError(
            "TensorBoard is not installed; pip install tensorboard, or train with --no-tensorboard"
        ) from error


def open_board(folder: Path, step: int) -> Board:
    """A TensorBoard log in `folder`; events of an earlier run from `step` on are no longer shown.

    Raises ReenactError where TensorBoard is not installed or the folder cannot be written.
    """
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    try:
        return _TensorBoard(SummaryWriter(str(folder), purge_step=step))
    except OSError as error:
        raise ReenactError(
            f"{folder}: cannot be written ({error.strerror}); train with --no-tensorboard, or mend the folder"
        ) from error


class _TensorBoard:
    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: Tensor, step: int) -> None:
        self._writer.add_image(name, picture, step)

    def close(self) -> None:
        self._writer.close()
