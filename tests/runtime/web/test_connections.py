"""Connections that ask for nothing, or never finish asking: they end, and keep nobody else out."""

import contextlib
import socket
import time

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
websockets = pytest.importorskip("websockets.sync.client", reason="the server needs websockets")
from reenact.runtime.web import app, connections, security  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402


@pytest.fixture
def connect(server):
    """Opens connections, which are closed afterwards."""
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))


def ended(connection):
    """How long it took until the server ended it, in seconds."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    return time.monotonic() - began


def test_a_connection_that_stays_silent_is_ended(connect, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    assert 0.3 < ended(connect()) < 5


def test_a_request_that_comes_letter_by_letter_is_ended(connect, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.6)
    connection, began = connect(), time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for letter in "GET /api/health HTTP/1.1\r\nX-Slow: " + "x" * 400:
            connection.sendall(letter.encode())
            time.sleep(0.05)
    assert time.monotonic() - began < 10, "it was ended before all letters were sent"


def test_a_second_request_has_its_time_too(connect, server, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.6)
    connection = connect()
    ask = f"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    for _ in range(4):
        connection.sendall(ask)
        answer = b""
        while b'"ok"' not in answer:
            answer += connection.recv(4096)
        time.sleep(0.3)
    assert ended(connection) < 5


def test_what_has_asked_may_take_its_time(server, session, monkeypatch):
    """An answer that is long in coming, and a WebSocket, are no heads that are waited for."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with websockets.connect(f"ws://127.0.0.1:{server.port}{session}/live") as line:
        for _ in range(4):
            assert "status" in line.recv(timeout=5)


def test_a_body_that_never_comes_is_not_waited_for(connect, server, session, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(security, "DISCARD_SECONDS", 0.2)
    connection = connect()
    head = f"PATCH {session}/live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{".encode())
    answer = connection.recv(4096)
    assert b"408" in answer.split(b"\r\n")[0]
    assert b"Connection: close" in answer or b"connection: close" in answer


def test_one_address_cannot_take_all_connections(connect, monkeypatch):
    monkeypatch.setattr(connections, "MOST_AN_ADDRESS", 8)
    refused = []
    for _ in range(12):
        connection = connect()
        connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            refused.append(connection.recv(4096))
    assert len(refused) >= 4
    assert all(answer.startswith(b"HTTP/1.1 503 ") and b'"code": "busy"' in answer for answer in refused)


def test_idle_connections_of_one_address_leave_room_for_others():
    assert connections.MOST_AN_ADDRESS < connections.MOST_CONNECTIONS


def test_the_page_is_served_again_once_idle_connections_have_ended(connect, client, monkeypatch, web):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MOST_AN_ADDRESS", 8)
    for _ in range(12):
        connect()

    def served():
        with contextlib.suppress(Exception):
            return client.get("/api/health").status_code == 200

    web.wait_for(served, "room", 5)


def test_a_message_larger_than_any_frame_ends_the_line_before_it_is_whole(serve, web):
    """Whatever its frames of the WebSocket are, and not the session."""
    with serve(frame_bytes=10_000) as running, running.client() as client:
        session = web.open_session(client)
        with websockets.connect(f"ws://127.0.0.1:{running.port}{session}/live") as line:
            with contextlib.suppress(ConnectionClosed):
                line.send([bytes(9_000)] * 4)
                while True:
                    line.recv(timeout=5)
            # 1006 where what was still being sent reset the connection before the server's reason was read.
            assert line.close_code in (1009, 1006)
        assert client.get(session).status_code == 200


def test_answers_do_not_say_what_the_server_is_made_of(client):
    assert "server" not in client.get("/api/health").headers
