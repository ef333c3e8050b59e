"""How large an input may be before it is refused; knows nothing of how pictures are decoded."""

from dataclasses import dataclass
from pathlib import Path

from ...errors import LimitError

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The largest input that is read; both limits are checked before anything of that size is decoded."""

    max_pixels: int = 50_000_000
    """Pixels of one picture, as shown."""
    max_seconds: float = 3600.0
    """Seconds of video that are shown, after `start` and `duration` have cut it."""

    def check_pixels(self, path: Path, width: int, height: int) -> None:
        """Raise LimitError if a picture of width x height pixels is beyond the limit."""
        if width * height > self.max_pixels:
            raise LimitError(
                f"{path}: {width}x{height} pixels are more than the limit of {self.max_pixels}; "
                f"make it smaller or allow it with --max-pixels {width * height}"
            )

    def check_seconds(self, path: Path, seconds: float) -> None:
        """Raise LimitError if a video that is shown for so many seconds is beyond the limit."""
        if seconds > self.max_seconds:
            raise LimitError(
                f"{path}: {seconds:.1f} s of video are more than the limit of {self.max_seconds:g} s; "
                f"cut it with --duration or allow it with --max-seconds {int(seconds) + 1}"
            )


DEFAULT_LIMITS = Limits()
