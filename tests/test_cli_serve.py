"""The command `reenact serve`: what it refuses before it starts, and that it starts, answers and ends."""

import importlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from reenact import cli, cli_serve
from typer.testing import CliRunner

needs_web = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("aiortc") is None,
    reason="the server needs the extra [web], which is not installed",
)


def run(*arguments):
    done = CliRunner().invoke(cli.app, ["serve", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_without_the_extra_one_line_says_what_is_missing(monkeypatch):
    for name in [module for module in sys.modules if module.startswith("reenact.runtime.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, said = run()
    assert code == 1
    assert "needs uvicorn" in said
    assert '".[web]"' in said


def test_another_fault_of_an_import_is_not_taken_for_a_missing_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "reenact.runtime.web.server", raising=False)
    monkeypatch.delattr(importlib.import_module("reenact.runtime.web"), "server", raising=False)
    monkeypatch.setitem(sys.modules, "reenact.runtime.web.app", None)
    with pytest.raises(ImportError):
        cli_serve._server()


@needs_web
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--token auto"),
        (["--host", "0.0.0.0", "--token", "short"], "--token: expected 16"),
        (["--backend", "abacus"], "no backend is called 'abacus'"),
        (["--tls-cert", __file__], "--tls-key"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, said):
    code, output = run(*arguments)
    assert code == 1
    assert said in output
    assert "Traceback" not in output


@needs_web
def test_without_a_gpu_it_says_once_where_networks_run(models_home, monkeypatch):
    from reenact.runtime import engine
    from reenact.runtime.web import server

    monkeypatch.setattr(engine, "no_gpu", lambda: "none is here")
    monkeypatch.setattr(server, "serve", lambda settings, started: None)
    assert run() == (0, "no GPU is used (none is here); computing with " + engine.choose("auto").executes)
    assert run("--backend", "cpu") == (0, "")


@needs_web
def test_a_port_that_is_taken_is_named(models_home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run("--port", str(port))
    assert code == 1
    assert f"--port {port}: cannot listen there" in output


@needs_web
def test_it_starts_prints_its_address_answers_and_ends_with_ctrl_c(models_home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "reenact", "serve", "--port", str(port), "--token", "auto"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        found = re.search(rf"http://127\.0\.0\.1:{port}/#token=(\S+)", line)
        assert found, line or process.stderr.read()  # type: ignore[union-attr]
        token = found[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"<title>reenact</title>" in page.read()
        metrics = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(metrics) as answer:
            assert b"reenact_sessions 0" in answer.read()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
        assert refused.value.code == 401
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, 130)
    assert "Traceback" not in complaints
    assert token not in complaints, "the log keeps no secrets"
