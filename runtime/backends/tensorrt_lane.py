"""What the TensorRT engines of one bundle share: a stream, on which they take turns, and one block for activations."""

import logging
import threading
from collections.abc import Hashable

from ...errors import BackendError
from .device import Memory, Stream

__all__ = ["Lane", "enter"]

_log = logging.getLogger(__name__)


class Lane:
    """A stream with its memory; made by `enter`, given back by `leave`.

    Work is put into it only by who holds `turn`: another thread's would get into a capture. Results are waited for
    without it, so that engines in several threads keep the GPU busy.
    """

    def __init__(self, name: Hashable) -> None:
        """Made by `enter`."""
        self.stream = Stream()
        self.turn = threading.Lock()
        self.users = 0
        self.generation = 0
        """Grows whenever `block` is another one: what was captured with the former must be captured anew."""
        self._name = name
        self._block: Memory | None = None
        self._aux: list[Stream] = []

    @property
    def block(self) -> Memory:
        """Memory for activations: engines use it one after another, in the stream's order."""
        if self._block is None:
            raise BackendError("no memory for activations has been asked for")
        return self._block

    def require(self, size: int) -> None:
        """Let `block` have at least `size` bytes; BackendError where the GPU has no room."""
        with self.turn:
            if self._block is not None and self._block.size >= size:
                return
            self.stream.synchronize()
            if self._block is not None:
                self._block.close()
                self._block = None
            self._block = Memory(size)
            self.generation += 1

    def aux_streams(self, count: int) -> list[int]:
        """Handles of streams for work that an engine does beside its own."""
        with self.turn:
            while len(self._aux) < count:
                self._aux.append(Stream())
            return [stream.handle for stream in self._aux[:count]]

    def settle(self) -> None:
        """After a failure, without holding `turn`: wait until nothing uses the callers' memory any more."""
        with self.turn:
            try:
                self.stream.synchronize()
            except BackendError as error:  # what it failed with is on its way already
                _log.warning("%s", error)

    def leave(self) -> None:
        """Give it back; the last one frees it."""
        with _lanes_turn:
            self.users -= 1
            if self.users:
                return
            del _lanes[self._name]
        self.settle()
        for resource in (self._block, *self._aux, self.stream):
            if resource is not None:
                resource.close()


def enter(name: Hashable) -> Lane:
    """The lane of that name, for engines that need not run at the same time; BackendError where CUDA makes none."""
    with _lanes_turn:
        lane = _lanes.get(name)
        if lane is None:
            lane = _lanes[name] = Lane(name)
        lane.users += 1
        return lane


_lanes: dict[Hashable, Lane] = {}
_lanes_turn = threading.Lock()
