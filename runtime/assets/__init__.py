"""Data files that ship with the package: portraits, motion presets and the canonical face."""

from pathlib import Path

__all__ = ["FOLDER", "portrait"]

FOLDER = Path(__file__).parent


def portrait(name: str) -> Path:
    """The public-domain portrait "eileen_collins" (NASA) or "grace_hopper" (US Navy), 512x512."""
    return FOLDER / f"portrait_{name}.jpg"
