"""One process or many that train together, as torchrun starts them; knows nothing of what they train."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import BackendError

__all__ = ["Place", "any_of", "first_process", "mean_of", "place", "shared"]


@dataclass(frozen=True)
class Place:
    """Which of the processes this is and where it computes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def speaks(self) -> bool:
        """Whether this is the process that writes files and says how far it is."""
        return self.rank == 0


def first_process() -> bool:
    """Whether this is the first of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def place(device: str) -> Iterator[Place]:
    """This process's place among those that torchrun started; without it there is one.

    `device` is "cpu" or "cuda"; a process takes the GPU of its LOCAL_RANK and talks by NCCL, or by Gloo on CPUs.
    Raises BackendError where there is no such GPU.
    """
    local, world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _device(device, local)
    if world == 1:
        yield Place(chosen)
        return
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Place(chosen, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def shared(module: nn.Module, here: Place) -> nn.Module:
    """The module with its gradients averaged over all processes.

    Before each forward all take the buffers of the first process. Batch norm normalises each process's share of a
    batch by itself; the running statistics that are saved are those of the first process.
    """
    if here.world == 1:
        return module
    return DistributedDataParallel(module)


def any_of(flag: bool, here: Place) -> bool:
    """Whether the flag is set in any process; all must ask at once."""
    return _reduced(float(flag), here) > 0


def mean_of(value: float, here: Place) -> float:
    """The mean over all processes; all must ask at once."""
    return _reduced(value, here) / here.world


def _reduced(value: float, here: Place) -> float:
    if here.world == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=here.device)
    distributed.all_reduce(total)
    return total.item()


def _device(device: str, local: int) -> torch.device:
    if device == "cpu":
        return torch.device("cpu")
    if device != "cuda":
        raise BackendError(f"training runs on cpu or cuda, not on {device!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise BackendError(
            f"training was told to use GPU {local}, but this PyTorch ({torch.__version__}) sees {count}; install "
            "a CUDA build of torch, start fewer processes, or train with --device cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
