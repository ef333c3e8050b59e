"""Runs a stream that makes a file: OpenCV's threads, what is told meanwhile, what is known at the end."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from ..errors import ReenactError
from .media.writer import VideoSink
from .stream import Stage, StreamInterrupted, StreamStats, run_stream

__all__ = ["Progress", "check_not_an_input", "run_to_file", "threads_a_stage"]

Progress = Callable[[int, int | None], None]
"""Told, in the caller's thread, how many frames are written and how many there will be (None: not known)."""


def run_to_file(
    source: Iterable[Any],
    stages: list[Stage],
    sink: VideoSink,
    completed: Callable[[StreamStats], StreamStats],
    progress: Progress | None,
    total: int | None,
    first_stage: str = "decode",
    began: float | None = None,
) -> StreamStats:
    """Run the stages; `completed` adds what the stream does not know, also to those of a StreamInterrupted.

    `began`, by time.perf_counter, is when the work began that came before: the search for a driving's face.
    """

    def told_all(stats: StreamStats) -> StreamStats:
        left_out = sink.drops
        return completed(
            replace(
                stats,
                frames=stats.frames - sum(left_out.values()),
                seconds=stats.seconds if began is None else time.perf_counter() - began,
                drops={**stats.drops, **left_out},
            )
        )

    told = None if progress is None else lambda written: progress(written, total)
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads_a_stage())
    try:
        return told_all(run_stream(source, stages, sink, names=(first_stage, "encode"), progress=told))
    except StreamInterrupted as interrupt:
        interrupt.stats = told_all(interrupt.stats)
        raise
    finally:
        cv2.setNumThreads(before)


def threads_a_stage() -> int:
    """Stages run side by side: together they keep the cores busy, more threads each would only wait for one another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def check_not_an_input(output: Path, *inputs: Path | None) -> None:
    """No result may replace what it is made from: ReenactError where `output` is one of the files given."""
    for given in inputs:
        if given is not None and given.exists() and output.exists() and output.samefile(given):
            raise ReenactError(f"{output}: the output would replace its own input; choose another name")
