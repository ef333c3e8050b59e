"""Counts, gauges and one histogram in Prometheus' text format; knows nothing of what is counted."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Metrics"]

Labels = tuple[tuple[str, str], ...]

_HELP = {
    "reenact_sessions": ("gauge", "Sessions that are open."),
    "reenact_sessions_opened_total": ("counter", "Sessions that were opened."),
    "reenact_refusals_total": ("counter", "Requests that were refused, by reason."),
    "reenact_requests_total": ("counter", "HTTP requests, by method, route and status."),
    "reenact_uploads_total": ("counter", "Uploads, by kind and outcome."),
    "reenact_frames_total": (
        "counter",
        "Camera frames that came in and pictures that went out, by transport.",
    ),
    "reenact_drops_total": ("counter", "Frames that were dropped, by cause."),
    "reenact_latency_seconds": ("histogram", "From a camera frame's arrival until its picture was sent."),
    "reenact_jobs_total": ("counter", "Jobs that ended, by how."),
    "reenact_jobs_waiting": ("gauge", "Jobs that wait for their turn."),
    "reenact_connections": ("gauge", "Open live connections, by transport."),
}
_LATENCIES = (0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


class Metrics:
    """What the server counts; safe for several threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._gauges: dict[tuple[str, Labels], Callable[[], float]] = {}
        self._latencies = [0] * (len(_LATENCIES) + 1)
        self._latency_sum = 0.0
        self._lock = threading.Lock()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter; to a gauge also less than nothing."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount

    @contextmanager
    def during(self, name: str, **labels: str) -> Iterator[None]:
        """One more on a gauge for as long as this lasts."""
        self.count(name, 1, **labels)
        try:
            yield
        finally:
            self.count(name, -1, **labels)

    def gauge(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """A value that is read whenever somebody asks."""
        self._gauges[name, tuple(sorted(labels.items()))] = read

    def latency(self, seconds: float) -> None:
        """One picture took so long."""
        with self._lock:
            self._latencies[bisect_left(_LATENCIES, seconds)] += 1
            self._latency_sum += seconds

    def value(self, name: str, **labels: str) -> float:
        """One counter's or gauge's value now; 0 where nothing was counted."""
        key = (name, tuple(sorted(labels.items())))
        return self._gauges[key]() if key in self._gauges else self._counts[key]

    def text(self) -> str:
        """Everything, in the exposition format 0.0.4."""
        with self._lock:
            counts, latencies, total = dict(self._counts), list(self._latencies), self._latency_sum
        values: dict[tuple[str, Labels], float] = {**counts}
        values.update({key: read() for key, read in self._gauges.items()})
        lines: list[str] = []
        for name, (kind, text) in _HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            if kind == "histogram":
                lines += _histogram(name, latencies, total)
            lines += [
                _line(name, labels, value) for (n, labels), value in sorted(values.items()) if n == name
            ]
        return "\n".join(lines) + "\n"


def _histogram(name: str, counts: list[int], total: float) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip((*_LATENCIES, "+Inf"), counts, strict=True):
        seen += count
        lines.append(f'{name}_bucket{{le="{bound}"}} {seen}')
    return [*lines, f"{name}_sum {total:.6f}", f"{name}_count {seen}"]


def _line(name: str, labels: Labels | Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in dict(labels).items())
    return f"{name}{{{pairs}}} {value:g}" if pairs else f"{name} {value:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
