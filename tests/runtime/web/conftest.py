"""A real server on a port of its own, whose networks are loaded once for all tests of this folder."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from reenact.runtime import assets
from reenact.runtime.engines import Engines
from reenact.runtime.media.frame import Image
from reenact.runtime.media.images import read_image

if TYPE_CHECKING:  # this folder's tests skip themselves where these are not installed
    import httpx
    import uvicorn
    from reenact.runtime.web.engines import EnginePool
    from reenact.runtime.web.service import Service
    from reenact.runtime.web.sessions import Session


@pytest.fixture(scope="session")
def engines(models_home: Path) -> Iterator[Engines]:
    with Engines() as loaded:
        yield loaded


@pytest.fixture(scope="session")
def known_pool(engines: Engines) -> "type[EnginePool]":
    """The pool, with its slowest part done ahead."""
    from reenact.runtime.web.engines import EnginePool

    class KnownPool(EnginePool):
        async def get(self, system: str) -> Engines:
            return engines if system == "meshwarp" else await super().get(system)

    return KnownPool


@dataclass(frozen=True)
class Running:
    """A server, its parts and its address."""

    service: "Service"
    port: int
    server: "uvicorn.Server"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.server.servers[0].get_loop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> "httpx.Client":
        import httpx

        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def run(self, work: Any) -> Any:
        """Await something on the server's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    @property
    def folder(self) -> Path:
        """Where it keeps what sessions bring."""
        folder = self.service.sessions._folder
        assert folder is not None
        return folder

    def session(self, path: str) -> "Session":
        """The session of that path."""
        return self.service.sessions.get(path.rpartition("/")[2])


@pytest.fixture(scope="session")
def serve(known_pool: "type[EnginePool]") -> Callable[..., Any]:
    """`with serve(sessions=1) as running`: a server with those limits, or with `settings`."""
    import uvicorn
    from reenact.runtime.web import server as server_module
    from reenact.runtime.web import service as service_module
    from reenact.runtime.web.app import create_app
    from reenact.runtime.web.settings import ServeSettings, WebLimits

    free = WebLimits(openings_at_once=10_000, requests_per_second=10_000, requests_at_once=100_000)

    @contextlib.contextmanager
    def serving(settings: dict[str, Any] | None = None, **limits: Any) -> Iterator[Running]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            made = ServeSettings(port=port, limits=replace(free, **limits), **(settings or {}))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(service_module, "EnginePool", known_pool)
                service = service_module.Service(made)
                app = create_app(service)
            config = server_module.config(app, made)
            config.ws_ping_interval = config.ws_ping_timeout = 1.0
            server = uvicorn.Server(config)
            thread = threading.Thread(target=lambda: server.run(sockets=[listening]), name="test-server")
            thread.start()
            try:
                wait_for(lambda: server.started or not thread.is_alive(), "the server to start")
                assert server.started
                yield Running(service, port, server)
            finally:
                server.should_exit = True
                thread.join()

    return serving


@pytest.fixture(scope="session")
def server(serve: Callable[..., Any]) -> Iterator[Running]:
    """One for all tests that do not meet limits; they close what they open."""
    with serve(sessions=12) as running:
        yield running


@pytest.fixture
def client(server: Running) -> "Iterator[httpx.Client]":
    with server.client() as made:
        yield made


@pytest.fixture
def session(client: "httpx.Client") -> Iterator[str]:
    """The path of a session that is closed afterwards."""
    path = open_session(client)
    yield path
    client.delete(path)


@pytest.fixture(scope="session")
def hopper() -> Image:
    return read_image(assets.portrait("grace_hopper"))


@pytest.fixture(scope="session")
def hopper_jpeg() -> bytes:
    return assets.portrait("grace_hopper").read_bytes()


@pytest.fixture(scope="session")
def camera_frames(hopper: Image) -> list[Image]:
    """Pictures of somebody who moves: 640x480, the head shifted, turned and nearing a little from one to the next."""
    frames = []
    for index in range(12):
        phase = 2 * np.pi * index / 12
        turn = cv2.getRotationMatrix2D((256, 256), 4 * np.sin(phase), 0.9 + 0.03 * np.cos(phase))
        turn[:, 2] += (64 + 12 * np.sin(phase), -16 + 6 * np.cos(phase))
        frames.append(
            np.asarray(cv2.warpAffine(hopper, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE), np.uint8)
        )
    return frames


@pytest.fixture(scope="session")
def web() -> SimpleNamespace:
    """What tests of several files do: open a session, take its picture, wait for something."""
    return SimpleNamespace(open_session=open_session, picture=picture, wait_for=wait_for)


def open_session(client: "httpx.Client") -> str:
    answer = client.post("/api/sessions")
    assert answer.status_code == 201, answer.text
    return f"/api/sessions/{answer.json()['id']}"


def picture(client: "httpx.Client", session: str) -> Image:
    """The live portrait as it is now."""
    answer = client.get(f"{session}/live/picture")
    assert answer.status_code == 200, answer.text
    decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return np.asarray(decoded, np.uint8)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """What `condition` gives once that is true; fails with `what` where it does not become so."""
    patience = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < patience, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return found
