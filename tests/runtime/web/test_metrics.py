"""Counts in Prometheus' text format."""

from importlib.util import find_spec

import pytest
from reenact.runtime.web.metrics import Metrics


def lines(metrics, name):
    return [line for line in metrics.text().splitlines() if line.startswith(name)]


def test_counters_add_up_by_label():
    metrics = Metrics()
    metrics.count("reenact_refusals_total", reason="busy")
    metrics.count("reenact_refusals_total", 2, reason="busy")
    metrics.count("reenact_refusals_total", reason="wrong_host")
    assert lines(metrics, "reenact_refusals_total") == [
        'reenact_refusals_total{reason="busy"} 3',
        'reenact_refusals_total{reason="wrong_host"} 1',
    ]


def test_a_gauge_is_read_when_it_is_asked_for():
    metrics, sessions = Metrics(), [1, 2]
    metrics.gauge("reenact_sessions", lambda: len(sessions))
    sessions.append(3)
    assert lines(metrics, "reenact_sessions ") == ["reenact_sessions 3"]


def test_what_lasts_is_counted_only_while_it_lasts():
    metrics = Metrics()
    with metrics.during("reenact_connections", transport="webrtc"):
        assert metrics.value("reenact_connections", transport="webrtc") == 1
    assert metrics.value("reenact_connections", transport="webrtc") == 0


def test_the_histogram_is_cumulative():
    metrics = Metrics()
    for seconds in (0.01, 0.04, 0.04, 7.0):
        metrics.latency(seconds)
    buckets = dict(line.rsplit(" ", 1) for line in lines(metrics, "reenact_latency_seconds_bucket"))
    assert buckets['reenact_latency_seconds_bucket{le="0.02"}'] == "1"
    assert buckets['reenact_latency_seconds_bucket{le="0.05"}'] == "3"
    assert buckets['reenact_latency_seconds_bucket{le="1.0"}'] == "3"
    assert buckets['reenact_latency_seconds_bucket{le="+Inf"}'] == "4"
    assert lines(metrics, "reenact_latency_seconds_sum") == ["reenact_latency_seconds_sum 7.090000"]


def test_a_label_cannot_break_the_format():
    metrics = Metrics()
    metrics.count("reenact_refusals_total", reason='a"b\\c\nd')
    assert lines(metrics, "reenact_refusals_total") == ['reenact_refusals_total{reason="a\\"b\\\\c\\nd"} 1']


def test_everything_has_help_and_type():
    text = Metrics().text().splitlines()
    helps = {line.split()[2] for line in text if line.startswith("# HELP")}
    types = {line.split()[2] for line in text if line.startswith("# TYPE")}
    assert helps == types
    assert "reenact_latency_seconds" in helps


@pytest.mark.skipif(
    find_spec("aiortc") is None, reason="the server needs the extra [web], which is not installed"
)
def test_methods_that_clients_invent_leave_no_trace_of_their_own(server, client):
    """Each label is kept for ever, and this needs no token."""
    for number in range(20):
        assert client.request(f"INVENTED{number}", "/api/health").status_code == 405
    text = client.get("/metrics").text
    assert "INVENTED" not in text
    assert (
        server.service.metrics.value(
            "reenact_requests_total", method="other", route="/api/health", status="405"
        )
        + server.service.metrics.value("reenact_requests_total", method="other", route="none", status="405")
        == 20
    )
