"""Small measures of something that runs on: rates, percentiles of the last seconds, counts of drops by cause.

Each is safe for several threads and keeps a bounded number of values, however long it runs.
"""

import threading
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

__all__ = ["Drops", "Percentiles", "Rate", "Recent"]

MOST_VALUES = 2048


@dataclass(frozen=True)
class Percentiles:
    """Of the last seconds, in milliseconds."""

    p50: float
    p95: float
    p99: float


class Drops:
    """How many frames were dropped, by cause."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: str, count: int = 1) -> None:
        """Count frames that were dropped for `cause`."""
        with self._lock:
            self._counts[cause] += count

    def counts(self) -> dict[str, int]:
        """All causes met so far."""
        with self._lock:
            return dict(self._counts)


class Recent:
    """Durations of the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._values: deque[tuple[float, float]] = deque(maxlen=MOST_VALUES)
        self._lock = threading.Lock()

    def add(self, now: float, seconds: float) -> None:
        """Take one duration, known at time `now`."""
        with self._lock:
            self._values.append((now, seconds))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()

    def values(self, now: float) -> list[float]:
        """The durations in seconds, oldest first."""
        with self._lock:
            while self._values and self._values[0][0] < now - self._window:
                self._values.popleft()
            return [value for _, value in self._values]

    def mean(self, now: float) -> float | None:
        """Seconds; None where there is nothing."""
        values = self.values(now)
        return sum(values) / len(values) if values else None

    def percentiles(self, now: float) -> Percentiles | None:
        """None where there is nothing."""
        values = self.values(now)
        if not values:
            return None
        return Percentiles(*(round(1000 * float(p), 2) for p in np.percentile(values, (50, 95, 99))))


class Rate:
    """How often something happens a second, over the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: deque[float] = deque(maxlen=MOST_VALUES)
        self._lock = threading.Lock()

    def add(self, now: float) -> None:
        """It happened."""
        with self._lock:
            self._times.append(now)

    def of(self, now: float) -> float:
        """Per second, 0 where it happened less than twice."""
        with self._lock:
            while self._times and self._times[0] < now - self._window:
                self._times.popleft()
            if len(self._times) < 2:
                return 0.0
            span = max(self._times[-1] - self._times[0], 1e-6)
            return (len(self._times) - 1) / span
