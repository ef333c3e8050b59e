"""All that a training needs to go on, in one file of plain tensors: weights, optimizers, scaler, schedule, progress.

One file, written in one step: an interrupt leaves either the old state or the new one, never a mixture.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ...errors import ModelError
from ..checkpoints import load_state, write_tensors
from .schedule import Schedule

__all__ = ["Progress", "State", "read_snapshot", "write_snapshot"]


@dataclass
class Progress:
    """How far a training is."""

    epoch: int
    epoch_samples: int = 0  # of this epoch, over all processes
    step: int = 0
    samples: int = 0  # over all processes, since the beginning
    loss_sum: float = 0.0  # of the first phase, over this epoch's steps
    loss_steps: int = 0


@dataclass(frozen=True)
class State:
    """What changes while training; `read_snapshot` changes it in place."""

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    scaler: GradScaler
    schedule: Schedule
    progress: Progress


def write_snapshot(state: State, path: Path) -> None:
    """Write a state whole or not at all; ModelError where it cannot be written."""
    tensors = {
        f"network/{name}/{key}": value
        for name, network in state.networks.items()
        for key, value in network.state_dict().items()
    }
    for name, optimizer in state.optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{key}": value for key, value in entries.items()}
    numbers = {
        "progress": asdict(state.progress),
        "schedule": state.schedule.state(),
        "scaler": _scaler_numbers(state.scaler),
    }
    for group, values in numbers.items():
        tensors |= {
            f"{group}/{key}": torch.tensor(value, dtype=torch.float64) for key, value in values.items()
        }
    write_tensors({name: value.detach().cpu() for name, value in tensors.items()}, path)


def read_snapshot(state: State, path: Path) -> None:
    """Put what a file holds into a state made with the same settings.

    Raises ModelError that names the file where it is missing, damaged or of other networks.
    """
    if not path.is_file():
        raise ModelError(f"{path}: is no file, so there is nothing to resume; train without --resume")
    tree = _tree(load_state(path))
    try:
        for name, network in state.networks.items():
            network.load_state_dict(tree[f"network/{name}"])
        for name, optimizer in state.optimizers.items():
            _restore_optimizer(optimizer, name, tree)
        progress = _numbers(tree["progress"])
        for key, before in asdict(state.progress).items():
            setattr(state.progress, key, type(before)(progress[key]))
        state.schedule.restore(_numbers(tree["schedule"]))
        if state.scaler.is_enabled() and "scaler" in tree:
            state.scaler.load_state_dict({**state.scaler.state_dict(), **_scaler_state(tree["scaler"])})
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: does not fit these settings ({reason}); resume with the settings that it was trained with"
        ) from error


def _restore_optimizer(optimizer: Optimizer, name: str, tree: Mapping[str, Mapping[str, Tensor]]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        index: dict(tree[branch])
        for index in range(len(parameters))
        if (branch := f"optimizer/{name}/{index}") in tree
    }
    for index, values in entries.items():
        for key, value in values.items():
            if value.ndim and value.shape != parameters[index].shape:
                raise ValueError(f"{key} of parameter {index} of {name} has the shape {tuple(value.shape)}")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _tree(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By all of a name but its last part, then by that."""
    tree: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        branch, _, leaf = name.rpartition("/")
        tree.setdefault(branch, {})[leaf] = value
    return tree


def _numbers(branch: Mapping[str, Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in branch.items()}


def _scaler_numbers(scaler: GradScaler) -> dict[str, float]:
    state = scaler.state_dict()
    return {"scale": state["scale"], "growth_tracker": state["_growth_tracker"]} if state else {}


def _scaler_state(branch: Mapping[str, Tensor]) -> dict[str, float]:
    return {"scale": branch["scale"].item(), "_growth_tracker": int(branch["growth_tracker"].item())}
