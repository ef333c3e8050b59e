"""How busy the processor's cores are with programs other than this one and those that it started. Linux only."""

import os
import time
from pathlib import Path

__all__ = ["OthersLoad", "available", "busy_and_idle_seconds"]

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def available() -> bool:
    """Whether this system tells what its processes use."""
    return Path("/proc/stat").is_file() and Path("/proc/self/stat").is_file()


def busy_and_idle_seconds() -> tuple[float, float]:
    """Of all cores together, by whomever, since the machine started."""
    user, nice, system, idle, wait, irq, soft, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + soft + steal) / _TICKS, (idle + wait) / _TICKS


class OthersLoad:
    """Begins to count when made; processes must be started by this one, or by those that it started."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = busy_and_idle_seconds()[0], _own_seconds()

    @property
    def cores(self) -> float:
        """Cores that others kept busy since the beginning, on average; 0.0 and more.

        What a process of one's own used that has ended and was not waited for is counted as that of others.
        """
        seconds = max(time.monotonic() - self._began, 1e-6)
        busy, own = busy_and_idle_seconds()[0] - self._busy, _own_seconds() - self._own
        return max(busy - own, 0.0) / seconds


def _own_seconds() -> float:
    """Of this process and all below it, also those that ended and were waited for."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS
    return sum(used[process] for process in used if _below(process, os.getpid(), parents))


def _below(process: int, root: int, parents: dict[int, int]) -> bool:
    while process not in (root, 0):
        process = parents.get(process, 0)
    return process == root
