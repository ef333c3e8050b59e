"""Runs a chain of stages, each in its own thread, joined by bounded slots; measures every stage.

A file's stages are joined by `Slot`, which loses nothing; live ones by `NewestSlot`, which waits for nobody. Knows
nothing of faces or files: the source is any iterable, a stage any function, the sink anything that writes.
"""

import json
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

__all__ = [
    "NewestSlot",
    "Sink",
    "Slot",
    "Stage",
    "StageTimes",
    "StreamInterrupted",
    "StreamStats",
    "run_stream",
]

SLOT_SIZE = 2
POLL_SECONDS = 0.1


class Sink(Protocol):
    """Where the last stage's results go; `run_stream` owns it and ends it in exactly one way."""

    def write(self, frame: Any, /) -> None:
        """Take the next result."""

    def close(self) -> None:
        """Finish the output so that it can be used."""

    def abort(self) -> None:
        """Throw away what was written."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the chain; `work` is only ever called by the stage's own thread."""

    name: str
    work: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long one stage was busy a frame; waiting for its neighbours is not counted."""

    name: str
    frames: int
    p50_ms: float
    p95_ms: float
    total_s: float

    @classmethod
    def of(cls, name: str, seconds: Sequence[float]) -> "StageTimes":
        """Summarise the busy times of each frame."""
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000 if len(seconds) else (0.0, 0.0)
        return cls(name, len(seconds), round(float(p50), 3), round(float(p95), 3), round(sum(seconds), 3))


@dataclass(frozen=True)
class StreamStats:
    """What a finished stream did."""

    frames: int  # in the output
    seconds: float  # until the sink was closed, from the start of the threads or of a search for the face before it
    stages: tuple[StageTimes, ...]
    drops: Mapping[str, int] = field(default_factory=dict)  # cause -> frames that were read but not written
    damaged_packets: int = 0
    frames_without_face: int = 0
    interrupted: bool = False
    output: str = ""

    @property
    def fps(self) -> float:
        """Frames a second, all stages running together."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> str:
        """All numbers as indented JSON."""
        return json.dumps({**asdict(self), "fps": self.fps}, indent=2) + "\n"


class StreamInterrupted(KeyboardInterrupt):
    """Ctrl-C during a stream: the frames read by then were written and the sink was closed.

    `stats` tells what was done until then.
    """

    def __init__(self, stats: StreamStats) -> None:
        super().__init__("interrupted; the output up to here was finished")
        self.stats = stats


class Slot:
    """A bounded place between two stages: `put` waits for room, iteration waits for items until `finish`."""

    def __init__(self, size: int = SLOT_SIZE) -> None:
        self._size = size
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._cancelled = False

    def put(self, item: Any) -> bool:
        """Hand over an item once there is room; False when the slot was cancelled and the item not taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._items) < self._size)
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self) -> None:
        """No more items will come; those that wait are still handed out."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Throw away what waits and end both sides at once."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._cancelled or self._items or self._finished)
                if self._cancelled or not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


class NewestSlot:
    """Room for one item between two live stages: `put` never waits, and replaces what was not taken yet."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        """`dropped` is called, in the putting thread, for each item that is replaced before it was taken."""
        self._dropped = dropped
        self._items: list[Any] = []
        self._changed = threading.Condition()
        self._woken = False
        self._closed = False

    def put(self, item: Any) -> None:
        """Leave the newest item; after `close` it is ignored."""
        with self._changed:
            if self._closed:
                return
            replaced, self._items = bool(self._items), [item]
            self._changed.notify_all()
        if replaced:
            self._dropped()

    def take(self, timeout: float | None = None) -> Any | None:
        """The newest item once there is one; None after `timeout` seconds without, after `wake` and after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._woken or self._items, timeout)
            self._woken = False
            return self._items.pop() if self._items else None

    def wake(self) -> None:
        """Let `take`, the next one if none waits, look up at once; what lies here stays the newest."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Throw away what waits; nobody waits from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed


class _Run:
    """The state that the threads of one stream share."""

    def __init__(self, names: Sequence[str]) -> None:
        self.slots = [Slot() for _ in range(len(names) - 1)]
        self.busy = [array("d") for _ in names]
        self.written = 0
        self.closed = False
        self.cut_short = False
        self.error: BaseException | None = None
        self.ended = threading.Event()  # the writer has nothing more to do
        self._lock = threading.Lock()

    def guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work; the first error of any thread stops all of them."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is raised again by run_stream, in the caller's thread
            with self._lock:
                self.error = self.error or error
            self.cancel()

    def cancel(self) -> None:
        for slot in self.slots:
            slot.cancel()

    def read(self, source: Iterable[Any], stop: threading.Event) -> None:
        items = iter(source)
        while True:
            if stop.is_set():
                self.cut_short = True
                break
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                break
            self.busy[0].append(time.perf_counter() - started)
            if not self.slots[0].put(item):
                return
        self.slots[0].finish()

    def process(self, index: int, work: Callable[[Any], Any]) -> None:
        inbox, outbox, busy = self.slots[index - 1], self.slots[index], self.busy[index]
        for item in inbox:
            started = time.perf_counter()
            made = work(item)
            busy.append(time.perf_counter() - started)
            if not outbox.put(made):
                return
        outbox.finish()

    def _write(self, sink: Sink) -> None:
        busy = self.busy[-1]
        for item in self.slots[-1]:
            started = time.perf_counter()
            sink.write(item)
            busy.append(time.perf_counter() - started)
            self.written += 1
        nothing_yet = self.cut_short and not self.written
        if not self.slots[-1].cancelled and not nothing_yet:
            sink.close()
            self.closed = True

    def write_all(self, sink: Sink) -> None:
        try:
            self.guard(lambda: self._write(sink))
        finally:
            self.ended.set()


def run_stream(
    source: Iterable[Any],
    stages: Sequence[Stage],
    sink: Sink,
    *,
    names: tuple[str, str] = ("decode", "encode"),
    stop: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> StreamStats:
    """Send every item of `source` in order through `stages` into `sink`, which is closed at the end.

    `names` are those of the reading and the writing stage in the statistics. `progress` is called in the
    caller's thread with the number of items written. Setting `stop`, or Ctrl-C, ends the reading: what was
    read is still written and the sink is closed, or aborted where that is nothing. A second Ctrl-C aborts the
    sink, unless it is being closed already: then that is waited for. No thread outlives this call.

    Raises whatever a stage, the source or the sink raised (the sink is aborted then), `StreamInterrupted` after
    Ctrl-C, and KeyboardInterrupt alone where a second one threw the output away.
    """
    stop = stop or threading.Event()
    stage_names = [names[0], *(stage.name for stage in stages), names[1]]
    run = _Run(stage_names)
    jobs: list[Callable[[], None]] = [lambda: run.read(source, stop)]
    jobs += [_job(run, index, stage) for index, stage in enumerate(stages, 1)]
    jobs += [lambda: run.write_all(sink)]
    threads = [
        threading.Thread(target=run.guard, args=(job,), name=f"reenact-{name}", daemon=True)
        for name, job in zip(stage_names, jobs, strict=True)
    ]
    started = time.perf_counter()
    hurried: KeyboardInterrupt | None = None
    try:
        for thread in threads:
            thread.start()
        interrupted = _wait(run, stop, progress)
    except KeyboardInterrupt as interrupt:
        interrupted, hurried = True, interrupt
    finally:
        # Threads are still alive here only after an error of `progress` or a second Ctrl-C.
        run.cancel()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        if not run.closed:
            sink.abort()
    if hurried is not None and not run.closed:
        raise hurried
    if run.error is not None:
        raise run.error
    stats = StreamStats(
        frames=run.written,
        seconds=time.perf_counter() - started,
        stages=tuple(StageTimes.of(name, busy) for name, busy in zip(stage_names, run.busy, strict=True)),
        interrupted=run.cut_short,
    )
    if interrupted:
        raise StreamInterrupted(stats)
    return stats


def _job(run: _Run, index: int, stage: Stage) -> Callable[[], None]:
    return lambda: run.process(index, stage.work)


def _wait(run: _Run, stop: threading.Event, progress: Callable[[int], None] | None) -> bool:
    """Until the writer has ended; True when Ctrl-C asked for an early end.

    Not by joining the thread: before Python 3.13 a join that Ctrl-C breaks marks a running thread as ended.
    """
    interrupted = False
    while not run.ended.is_set():
        try:
            run.ended.wait(POLL_SECONDS)
            if progress is not None:
                progress(run.written)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            stop.set()
    return interrupted
