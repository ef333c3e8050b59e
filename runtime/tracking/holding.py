"""What is shown of something that may be lost: held, eased back to rest, and blended in again when it returns."""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["EASE_S", "HOLD_S", "RETURN_S", "Holding"]

HOLD_S = 0.5
EASE_S = 1.0
RETURN_S = 0.25

T = TypeVar("T")


class Holding(Generic[T]):
    """One thing over time, such as a motion; nothing that is shown ever jumps because it was lost or came back."""

    def __init__(self, still: T, eased: Callable[[T, float], T], blended: Callable[[T, T, float], T]) -> None:
        """`eased(value, amount)`: 0 at rest, 1 the value; `blended(a, b, amount)`: 0 is a, 1 is b."""
        self._shown = still
        self._eased, self._blended = eased, blended
        self._lost: tuple[float, T] | None = None  # since when, and what was shown then
        self._returning: tuple[float, T] | None = None

    def update(self, seen: T | None, time: float) -> T:
        """What to show at `time` seconds for what is seen then (None: nothing)."""
        self._shown = self._held(time) if seen is None else self._followed(seen, time)
        return self._shown

    def rebase(self, time: float) -> None:
        """What is seen counts from another rest from `time` on; what is shown blends over to it."""
        self._returning = time, self._shown

    def _followed(self, seen: T, time: float) -> T:
        if self._lost is not None:
            self._lost = None
            self._returning = time, self._shown
        if self._returning is not None:
            began, before = self._returning
            amount = (time - began) / RETURN_S
            if 0 <= amount < 1:
                return self._blended(before, seen, amount)
            self._returning = None
        return seen

    def _held(self, time: float) -> T:
        if self._lost is None:
            self._lost = time, self._shown
        since, before = self._lost
        amount = min(max(1 - (time - since - HOLD_S) / EASE_S, 0.0), 1.0)
        return self._eased(before, amount * amount * (3 - 2 * amount))
