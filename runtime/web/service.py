"""Everything that one running server holds, started and stopped together."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from ...errors import ReenactError
from ..garbage import loaded_objects_unscanned
from .engines import EnginePool
from .guard import Guard
from .jobs import JobQueue
from .metrics import Metrics
from .sessions import Sessions, Shared
from .settings import ServeSettings

__all__ = ["Service"]

THREADS, THREADS_A_SESSION = 8, 4

_log = logging.getLogger(__name__)


class Service:
    """The parts; routes reach them through `request.app.state.service`."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.pool = EnginePool(settings)
        self.guard = Guard(settings.limits)
        self.sessions = Sessions(
            Shared(settings, self.guard, self.pool, JobQueue(self.metrics), self.metrics)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the first request to the last."""
        # Decoding and encoding wait for a thread nowhere, however many sessions there are.
        workers = THREADS + THREADS_A_SESSION * self.settings.limits.sessions
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(workers, "reenact-web-work"))
        await self.sessions.start()
        self.guard.warm_up()
        try:
            await self.pool.get("meshwarp")
        except ReenactError as error:  # told to every client that opens a session, too
            _log.error("the tracker cannot run: %s", error)
        try:
            with loaded_objects_unscanned():
                yield
        finally:
            await self.sessions.stop()
            await self.guard.close()
            await self.pool.close()
