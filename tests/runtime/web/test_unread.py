"""Clients that read nothing, or never finish their TLS handshake: they end, on plain servers without networks."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from reenact.runtime.web import connections, server
from reenact.runtime.web.settings import ServeSettings

UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
ASK = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Application:
    """Answers each request with `size` bytes, and sends as much over each WebSocket, again and again."""

    def __init__(self, size=200_000, pieces=1, closes_after=None):
        self.size, self.pieces, self.closes_after = size, pieces, closes_after
        self.ended = threading.Event()  # the work of one WebSocket, or of one answer

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        try:
            await (self.line if scope["type"] == "websocket" else self.answer)(send)
        finally:
            self.ended.set()

    async def answer(self, send):
        length = str(self.size * self.pieces).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for left in reversed(range(self.pieces)):
            await send({"type": "http.response.body", "body": bytes(self.size), "more_body": left > 0})

    async def line(self, send):
        await send({"type": "websocket.accept"})
        sent = 0
        while sent != self.closes_after:
            await send({"type": "websocket.send", "bytes": bytes(self.size)})
            sent += 1
            await asyncio.sleep(0.01)
        await send({"type": "websocket.close", "code": 1001})


@contextlib.contextmanager
def serving(app, **settings):
    """The server's own `_Server` around `app`: itself, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        made = ServeSettings(port=probe.getsockname()[1], **settings)
        config = server.config(app, made)
        config.ws_ping_interval = config.ws_ping_timeout = 0.3
        started = threading.Event()
        running = server._Server(config, started.set)
        with connections.Listener(probe) if made.tls_certificate else probe as listening:
            thread = threading.Thread(target=lambda: running.run(sockets=[listening]), name="test-server")
            thread.start()
            try:
                assert started.wait(20)
                yield running, made.port
            finally:
                running.should_exit = True
                thread.join()


def reluctant(port):
    """A client whose system takes little for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    return client


def all_ended(running, web, seconds=6):
    web.wait_for(lambda: not running.server_state.connections, "the connection to end", seconds)


def test_pings_end_a_websocket_that_is_never_read(web):
    app = Application()
    with serving(app) as (running, port), reluctant(port) as client:
        client.sendall(UPGRADE)
        assert app.ended.wait(6), "what waited to send was told"
        all_ended(running, web)


def test_a_websocket_that_was_closed_but_is_never_read_ends_too(web, monkeypatch):
    monkeypatch.setattr(connections.WebSocketConnection, "keepalive_timeout", lambda self: None)
    app = Application(size=1_000_000, closes_after=1)
    with serving(app) as (running, port), reluctant(port) as client:
        monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
        client.sendall(UPGRADE)
        assert app.ended.wait(6)
        all_ended(running, web)


@pytest.mark.parametrize("asked", [1, 40])
@pytest.mark.parametrize("pieces", [1, 8])
def test_an_answer_that_is_never_read_ends_with_its_connection(web, monkeypatch, asked, pieces):
    """Whether it waits to be written, or was written whole when the connection was to be closed."""
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    app = Application(size=2_000_000, pieces=pieces)
    with serving(app) as (running, port), reluctant(port) as client:
        running.config.timeout_keep_alive = 1
        client.sendall(ASK * asked)
        web.wait_for(lambda: running.server_state.connections, "the connection")
        all_ended(running, web)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {"tls_certificate": folder / "cert.pem", "tls_key": folder / "key.pem"}


def secured(client, certificate):
    """`client` with TLS, when it is entered."""
    trusted = ssl.create_default_context(cafile=certificate["tls_certificate"])
    return trusted.wrap_socket(client, server_hostname="127.0.0.1")


@pytest.mark.timed
@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_that_is_read_slowly_comes_whole(certificate, monkeypatch, tls):
    """However long that takes in all; it takes several times what an unread one is given."""
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 1.0)
    app = Application(size=65_536, pieces=24)
    with (
        serving(app, **(certificate if tls else {})) as (_, port),
        reluctant(port) as plain,
        secured(plain, certificate) if tls else plain as client,
    ):
        client.sendall(ASK)
        began, read = time.monotonic(), 0
        while read < app.size * app.pieces:
            got = len(client.recv(8192))
            assert got, f"ended after {read} bytes"
            read += got
            time.sleep(4 * got / (app.size * app.pieces))
        assert time.monotonic() - began > 3


def ended_within(client, seconds):
    client.settimeout(seconds)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_a_tls_handshake_that_never_comes_is_not_waited_for(certificate, monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with serving(Application(), **certificate) as (_, port), contextlib.ExitStack() as opened:
        silent = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(3)
        ]
        assert all(ended_within(client, 4) for client in silent)


def test_unfinished_tls_handshakes_of_one_address_are_bounded_and_make_room_when_they_end(
    certificate, monkeypatch, web
):
    monkeypatch.setattr(server, "HEAD_SECONDS", 2.0)
    monkeypatch.setattr(connections, "MOST_AN_ADDRESS", 4)

    def answered():
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            secured(plain, certificate) as client,
        ):
            client.sendall(ASK)
            return client.recv(12) == b"HTTP/1.1 200"

    with serving(Application(size=10), **certificate) as (_, port), contextlib.ExitStack() as opened:
        assert answered()
        silent = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(10)
        ]
        assert sum(ended_within(client, 0.1) for client in silent) >= 6
        web.wait_for(answered, "room", 6)


@pytest.mark.parametrize("ask", [ASK * 40, UPGRADE])
def test_with_tls_too_whoever_reads_nothing_is_cut_off(certificate, monkeypatch, web, ask):
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    app = Application(size=2_000_000)
    with (
        serving(app, **certificate) as (running, port),
        reluctant(port) as plain,
        secured(plain, certificate) as client,
    ):
        client.sendall(ask)
        assert app.ended.wait(6)
        all_ended(running, web)
