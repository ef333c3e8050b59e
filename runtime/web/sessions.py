"""Who is here: a bounded number of sessions, each with a folder, photos and a live portrait that nobody else sees."""

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import private_folder
from . import folders
from .engines import EnginePool
from .guard import Guard
from .jobs import JobQueue, Jobs
from .live import LivePortrait
from .metrics import Metrics
from .photos import PhotoStore
from .recordings import Recordings
from .refusals import Refusal
from .settings import ServeSettings

__all__ = ["Session", "Sessions", "Shared"]

_log = logging.getLogger(__name__)

REAP_SECONDS = 1.0
BUSY_RETRY_SECONDS = 5


@dataclass(frozen=True, eq=False)
class Shared:
    """What all sessions of a server use."""

    settings: ServeSettings
    guard: Guard
    pool: EnginePool
    queue: JobQueue
    metrics: Metrics


class Session:
    """One client's place; `id` is its secret."""

    def __init__(self, folder: Path, shared: Shared) -> None:
        limits = shared.settings.limits
        self.id = secrets.token_urlsafe(18)
        self.folder = folder
        self.photos = PhotoStore(folder, shared.guard, limits)
        self.live = LivePortrait(shared.pool, self.photos, shared.metrics)
        self.jobs = Jobs(folder, self.photos, shared.pool, self.film, shared.queue, shared.settings)
        self.recordings = Recordings(folder, self.live, limits)
        self.closing: list[Callable[[], Awaitable[None]]] = [self.jobs.close, self.recordings.close]
        """What has to end with it, the last first."""
        self.closed = asyncio.Event()
        self.unused = False
        """Whether it was closed although its page was open, because nobody used it."""
        self.line = 0
        """How many WebSockets it has had; only the last one is served."""
        self._limits = limits
        self._connections = 0
        self._work = 0
        self._films = 0
        self._had_connection = False
        self._seen = time.monotonic()

    def touch(self) -> None:
        """Its client was heard of."""
        self._seen = time.monotonic()

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """While a live connection is open the session stays."""
        self._connections += 1
        self._had_connection = True
        try:
            yield
        finally:
            self._connections -= 1
            self.touch()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """While a request of it runs the session stays."""
        self._work += 1
        try:
            yield
        finally:
            self._work -= 1
            self.touch()

    @contextlib.contextmanager
    def film(self) -> Iterator[None]:
        """While a job of it waits or runs the session stays, unless it had a page that is gone."""
        self._films += 1
        try:
            yield
        finally:
            self._films -= 1
            self.touch()

    @property
    def connected(self) -> bool:
        """Whether a live connection is open."""
        return self._connections > 0

    @property
    def expired(self) -> bool:
        """Whether its client is gone, as far as can be told, or has forgotten it."""
        if self._work:
            return False
        limits = self._limits
        silent = time.monotonic() - max(self._seen, self.live.offered)
        if self._had_connection and not self._connections:
            return silent > limits.reconnect_seconds
        if self._films:
            return False
        return silent > (limits.unused_seconds if self._connections else limits.idle_seconds)

    async def close(self) -> None:
        """End everything that belongs to it and delete its folder."""
        if self.closed.is_set():
            return
        self.closed.set()
        for end in reversed(self.closing):
            try:
                await end()
            except Exception:  # noqa: BLE001  the other parts have to end all the same
                _log.exception("a part of a session did not end as it should")
        await self.live.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class Sessions:
    """All sessions; use between `start` and `stop`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sessions: dict[str, Session] = {}
        self._opening = 0
        self._folder: Path | None = None
        self._held = contextlib.ExitStack()
        self._reaper: asyncio.Task[None] | None = None
        shared.metrics.gauge("reenact_sessions", lambda: len(self._sessions))

    async def start(self) -> None:
        """Make the private folder, remove what killed servers left, and begin to look for clients that are gone."""
        self._folder = self._held.enter_context(folders.held())
        await asyncio.to_thread(folders.remove_left)
        self._reaper = asyncio.create_task(self._reap())

    async def stop(self) -> None:
        """Close all sessions and delete the folder."""
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
        for session in list(self._sessions.values()):
            await self.close(session)
        await asyncio.to_thread(self._held.close)

    def check_room(self) -> None:
        """Raises Refusal where all places are taken."""
        places = self._shared.settings.limits.sessions
        if len(self._sessions) + self._opening >= places:
            raise Refusal(
                503,
                "busy",
                f"All {places} places are taken; wait for one to become free.",
                BUSY_RETRY_SECONDS,
            )

    async def open(self) -> Session:
        """A new session; raises Refusal where all places are taken."""
        self.check_room()
        assert self._folder is not None
        self._opening += 1
        try:
            folder = private_folder(self._folder / secrets.token_hex(16))
            session = Session(folder, self._shared)
            try:
                await session.live.start()
            except BaseException:
                await session.close()
                raise
        finally:
            self._opening -= 1
        self._sessions[session.id] = session
        self._shared.metrics.count("reenact_sessions_opened_total")
        return session

    def get(self, session_id: str) -> Session:
        """Raises Refusal where there is no such session, or none any more."""
        session = self._sessions.get(session_id)
        if session is None or session.closed.is_set():
            raise Refusal(404, "no_session", "There is no such session; it may have ended. Open a new one.")
        session.touch()
        return session

    async def close(self, session: Session) -> None:
        """End a session and free its place."""
        try:
            await session.close()
        finally:
            self._sessions.pop(session.id, None)

    def __len__(self) -> int:
        return len(self._sessions)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_SECONDS)
            for session in [s for s in self._sessions.values() if s.expired]:
                session.unused = session.connected
                _log.info("a session ended: %s", "nobody used it" if session.unused else "its client is gone")
                await self.close(session)
