"""The networks of the server: each system is loaded once, when it is first asked for, and shared by all sessions."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReenactError
from ..engines import Engines
from ..files import bundle_home
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
        self._states: dict[str, tuple[_Stamp, SystemState]] = {}
        self._looking = asyncio.Lock()

    async def systems(self) -> list[SystemState]:
        """All systems, and which of them can run here."""
        return [await self._state(name) for name in registry.names()]

    async def check(self, system: str) -> None:
        """Raises Refusal where there is no such system, or it cannot run here."""
        if system not in registry.names():
            known = ", ".join(registry.names())
            raise Refusal(409, "not_possible", f"No system has that name; known are {known}.")
        state = await self._state(system)
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

    async def _state(self, name: str) -> SystemState:
        """A bundle is read to its last byte to be checked: off the loop, and only when a file of it has changed."""
        if name == "meshwarp":
            return SystemState(name, True, None)
        async with self._looking:
            stamp = await asyncio.to_thread(_stamp, bundle_home(name))
            known = self._states.get(name)
            if known is None or known[0] != stamp:
                known = (stamp, await asyncio.to_thread(self._look, name))
                self._states[name] = known
        return known[1]

    def _look(self, name: str) -> SystemState:
        try:
            self._system_settings.open_bundle(name)
        except ReenactError:
            return SystemState(
                name, False, f"Its networks are not on this server; see reenact export {name}."
            )
        return SystemState(name, True, None)


_Stamp = list[tuple[str, int, int]]


def _stamp(folder: Path) -> _Stamp:
    """What changes when a file of a bundle does: names, times and sizes; empty where there is none, or it just goes."""
    try:
        found = [(path, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return []
    return [(path.name, facts.st_mtime_ns, facts.st_size) for path, facts in found]
