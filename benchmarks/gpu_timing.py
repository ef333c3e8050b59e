"""Times on a GPU: medians of CUDA events after a warm-up, and rows of what was compared with what."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Row", "Work", "copy_bandwidth", "median_ms", "row", "table"]

Work = Callable[[], object]

_HEAD_START = (
    1 << 22
)  # the GPU's cycles, about two milliseconds: longer than Python takes to launch a kernel or twenty


@dataclass(frozen=True)
class Row:
    """One piece of work."""

    name: str
    ms: float
    gigabytes_a_second: float | None  # of what it must read and write; None: that is not what limits it
    of_copy: float | None  # that, over the bandwidth of a copy in the same run
    baseline: str  # what users would run instead; empty: nothing comparable
    times: float | None  # how many times as fast as that


def median_ms(work: Work, *, warm: int = 5, runs: int = 30, head_start: int = 0) -> float:
    """The median of `runs`; on a machine without a GPU by the clock, to try scripts out.

    A GPU that waits for Python between two launches is timed with its waiting, as users see it. With `head_start` it is
    busy for so many cycles first, while the launches queue up: then what is timed is the GPU's work alone.
    """
    for _ in range(warm):
        work()
    if not torch.cuda.is_available():
        return statistics.median(_by_clock(work) for _ in range(runs))
    torch.cuda.synchronize()
    taken: list[float] = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if head_start:
            torch.cuda._sleep(head_start)  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


def copy_bandwidth(device: str, megabytes: int = 512) -> float:
    """Gigabytes a second, read and written, of copying a large tensor."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / median_ms(lambda: target.copy_(source)) / 1e6


def row(
    name: str,
    work: Work,
    *,
    moved: int | None,
    copied: float,
    runs: int,
    baseline: str,
    instead: Work | None,
) -> Row:
    """Time `work`, which reads and writes `moved` bytes, and `instead`; `copied` is the bandwidth of a copy.

    Of both the GPU's work is timed, not Python's.
    """
    taken = median_ms(work, runs=runs, head_start=_HEAD_START)
    rate = None if moved is None else moved / taken / 1e6
    return Row(
        name=name,
        ms=taken,
        gigabytes_a_second=rate,
        of_copy=None if rate is None else rate / copied,
        baseline=baseline,
        times=None if instead is None else median_ms(instead, runs=runs, head_start=_HEAD_START) / taken,
    )


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| kernel | ms | GB/s | of copy | instead of | times as fast |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in rows:
        rate = "-" if entry.gigabytes_a_second is None else f"{entry.gigabytes_a_second:.0f}"
        share = "-" if entry.of_copy is None else f"{entry.of_copy:.0%}"
        times = "-" if entry.times is None else f"{entry.times:.2f}"
        lines.append(
            f"| {entry.name} | {entry.ms:.4f} | {rate} | {share} | {entry.baseline or '-'} | {times} |"
        )
    return "\n".join(lines) + "\n"


def _by_clock(work: Work) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)
