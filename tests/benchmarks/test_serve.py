"""The benchmark of the page says where its goal is missed."""

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from reenact.benchmarks import page, serve
from reenact.errors import ReenactError

CASE = serve.Case(
    connection="WebRTC",
    size=256,
    fps=24.0,
    slowest_fps=21,
    latency_ms=40.0,
    busy_percent=90.0,
    others_cores=0.25,
    degraded="",
)


def test_only_the_size_of_the_goal_counts_and_the_load_of_others_is_told():
    slow = replace(CASE, fps=19.9, others_cores=1.5)
    [line] = serve.too_slow([CASE, slow, replace(slow, size=512)])
    assert "19.9 pictures a second" in line
    assert "1.5 cores" in line
    assert "| 24.0 | 21 | 40 | 90 % | 0.2 | nothing |" in serve.table([CASE], "machine")


@pytest.mark.parametrize(("fps", "status"), [(20.0, 0), (19.9, 1)])
def test_a_missed_goal_is_the_exit_code(monkeypatch, capsys, fps, status):
    monkeypatch.setattr(sys, "argv", ["serve", "--seconds", "1"])
    for name in ("Engines", "run_server", "open_browser"):
        monkeypatch.setattr(serve, name, lambda *arguments: nullcontext())
    monkeypatch.setattr(serve, "film_camera", lambda *arguments, **options: None)
    monkeypatch.setattr(
        serve,
        "_measure",
        lambda browser, url, connection, size, seconds: replace(CASE, size=int(size), fps=fps),
    )
    with pytest.raises(SystemExit) as ended:
        serve.main()
    assert ended.value.code == status
    told = capsys.readouterr()
    assert told.out.count("| WebRTC |") == len(serve.SIZES) * len(serve.CONNECTIONS)
    assert ("under 20" in told.err) == bool(status)


def shown(monkeypatch, latency):
    texts = {"#fps": "25", "#latency": latency, "#transport": "WebRTC"}
    visit = SimpleNamespace(inner_text=texts.__getitem__, is_visible=lambda what: False)
    monkeypatch.setattr(serve, "_live", lambda *asked: nullcontext(visit))
    return serve._measure(None, "", "auto", "256", 1)


def test_a_latency_that_the_page_never_told_is_no_latency_of_nothing(monkeypatch):
    assert shown(monkeypatch, "41").latency_ms == 41
    with pytest.raises(ReenactError, match="WebRTC at 256: the page told no latency"):
        shown(monkeypatch, "–")


def test_a_server_that_does_not_start_is_not_measured():
    with pytest.raises(ReenactError, match="did not start"), page.run_server("--host", "0.0.0.0"):
        pytest.fail("there is no server to give")
