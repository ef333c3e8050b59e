"""The networks that live sessions share."""

from typing import Any

from .closing import Closing
from .running import threads_a_stage
from .systems import registry
from .systems.protocol import Animator, SystemSettings
from .tracking.tracker import Tracker

__all__ = ["Engines"]


class Engines(Closing):
    """What sessions share: one system and the tracker, loaded once; their networks are used by turns.

    Close every session first, then this.
    """

    def __init__(self, system: str = "meshwarp", settings: SystemSettings | None = None) -> None:
        """Load everything; raises as `registry.create` and `Tracker` do."""
        settings = settings or SystemSettings()
        self.animator: Animator[Any] = registry.create(system, settings)
        try:
            self.tracker = Tracker(
                backend=settings.backend,
                precision=settings.precision,
                threads=threads_a_stage(),
                smooth=False,
            )
        except BaseException:
            self.animator.close()
            raise

    def close(self) -> None:
        """Free all networks."""
        self.tracker.close()
        self.animator.close()
