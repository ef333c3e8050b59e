"""The networks of the server: each system is loaded once, when it is first asked for, and shared by all sessions."""

import asyncio
from dataclasses import dataclass

from ...errors import ReenactError
from ..engines import Engines
from ..systems import registry
from ..systems.protocol import SystemSettings
from .refusals import Refusal
from .settings import ServeSettings

__all__ = ["EnginePool", "SystemState"]


@dataclass(frozen=True)
class SystemState:
    """Whether a system can be chosen."""

    name: str
    available: bool
    reason: str | None  # why it cannot


class EnginePool:
    """Loads systems off the event loop; what was loaded stays until the server ends."""

    def __init__(self, settings: ServeSettings) -> None:
        self._system_settings = SystemSettings(None, settings.backend, settings.precision)
        self._loading: dict[str, asyncio.Task[Engines]] = {}

    def systems(self) -> list[SystemState]:
        """All systems, and which of them can run here."""
        return [self._state(name) for name in registry.names()]

    def check(self, system: str) -> None:
        """Raises Refusal where there is no such system, or it cannot run here."""
        if system not in registry.names():
            known = ", ".join(registry.names())
            raise Refusal(409, "not_possible", f"No system has that name; known are {known}.")
        state = self._state(system)
        if state.reason is not None:
            raise Refusal(409, "not_possible", state.reason)

    async def get(self, system: str) -> Engines:
        """The networks of a system; raises ReenactError where it cannot run here."""
        task = self._loading.get(system)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(asyncio.to_thread(Engines, system, self._system_settings))
            self._loading[system] = task
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Free all networks; every session is closed by then."""
        for task in self._loading.values():
            loaded = await asyncio.gather(task, return_exceptions=True)
            if isinstance(loaded[0], Engines):
                await asyncio.to_thread(loaded[0].close)
        self._loading.clear()

    def _state(self, name: str) -> SystemState:
        if name != "meshwarp":
            try:
                self._system_settings.open_bundle(name)
            except ReenactError:
                return SystemState(
                    name, False, f"Its networks are not on this server; see reenact export {name}."
                )
        return SystemState(name, True, None)
