"""Which samples make which batch: a function of seed and epoch alone, so a run can go on in the middle of an epoch."""

from typing import NamedTuple

import numpy as np

__all__ = ["Draw", "batches", "generator"]


class Draw(NamedTuple):
    """One sample of an epoch; a dataset's random choices depend on nothing else."""

    epoch: int
    number: int  # of the sample, from 0 to below the dataset's length


def batches(
    length: int, epoch: int, *, batch_size: int, rank: int, world: int, shuffle: bool, seed: int
) -> list[list[Draw]]:
    """The batches of one process in an epoch, `batch_size` samples each.

    The processes 0 .. world - 1 share an epoch without overlap. What does not fill a batch of all of them is left
    out; with `shuffle` that is something else in every epoch.
    """
    order = generator(seed, epoch).permutation(length) if shuffle else np.arange(length)
    whole = batch_size * world
    return [
        [Draw(epoch, int(i)) for i in order[start + rank * batch_size : start + (rank + 1) * batch_size]]
        for start in range(0, length - whole + 1, whole)
    ]


def generator(*seeds: int) -> np.random.Generator:
    """A random generator that depends on all of some whole numbers, none below 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))
