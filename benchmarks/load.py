"""What the machine keeps from a measured program: cores that are busy with others, and time in which nothing ran.

Linux only.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ..runtime.closing import Closing

__all__ = ["MachinePauses", "OthersLoad", "available", "busy_and_idle_seconds"]

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
LATE_S = 0.03  # a machine that is only busy wakes a process no later than this
_SLEEPER = f"""
import select, sys, time
print(flush=True)
before = time.perf_counter()
while not select.select([sys.stdin], [], [], 0.005)[0]:
    now = time.perf_counter()
    if now - before > 0.005 + {LATE_S}:
        print(before, now, flush=True)
    before = now
"""


def available() -> bool:
    """Whether this system tells what its processes use."""
    return Path("/proc/stat").is_file() and Path("/proc/self/stat").is_file()


def busy_and_idle_seconds() -> tuple[float, float]:
    """Of all cores together, by whomever, since the machine started."""
    user, nice, system, idle, wait, irq, soft, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + soft + steal) / _TICKS, (idle + wait) / _TICKS


class MachinePauses(Closing):
    """When nothing ran: begins to look when made; a process of its own that only sleeps and is woken late notes it.

    A program that stands still at that very time was stopped by the machine; one that does alone, by itself. Where a
    container's quota of processor time stops both, this is counted as the machine's.
    """

    def __init__(self) -> None:
        self._pauses: list[tuple[float, float]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _SLEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is not for it; it ends when nobody holds its input any more
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it looks from now on
        self._reading = threading.Thread(target=self._read, name="reenact-pauses", daemon=True)
        self._reading.start()

    def within(self, begin: float, end: float) -> float:
        """Seconds in which nothing ran, of those from `begin` to `end` by time.perf_counter()."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in list(self._pauses))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reading.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            since, until = map(float, line.split())
            self._pauses.append((since, until))


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
