"""How much other programs use is told apart from one's own."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from reenact.benchmarks import load

pytestmark = pytest.mark.skipif(not load.available(), reason="this system does not tell what processes use")
WORK = "import sys, time\nwhile time.process_time() < 0.6: pass\nprint(flush=True)\nsys.stdin.read()"


@contextmanager
def child_that_worked():
    """A process that has used 0.6 seconds of a core and lives on."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield
    process.communicate()


def test_what_a_child_uses_is_ones_own():
    before = load._own_seconds()
    with child_that_worked():
        assert 0.5 < load._own_seconds() - before < 5
    assert 0.5 < load._own_seconds() - before < 5, "also once it has ended"


def test_what_others_use_counts(monkeypatch):
    monkeypatch.setattr(load, "_own_seconds", lambda: 0.0)
    others = load.OthersLoad()
    with child_that_worked():
        seconds = others.cores * (time.monotonic() - others._began)
    assert seconds > 0.5


@pytest.mark.timed
def test_a_machine_that_runs_has_no_long_pauses_and_one_process_that_was_stopped_noted_it():
    with load.MachinePauses() as pauses:
        began = time.perf_counter()
        time.sleep(0.3)
        quiet = time.perf_counter()
        pauses._process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        pauses._process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        ended = time.perf_counter()
    assert pauses.within(began, quiet) < 0.25
    assert 0.3 < pauses.within(quiet, quiet + 0.5) <= 0.5
    assert pauses.within(began, ended) < 1.0
    assert pauses._process.returncode == 0
