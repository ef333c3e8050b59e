"""The errors that users meet. Each message names the file or setting, what was expected and what mends it.

This module imports nothing, so every floor may raise from it.
"""

__all__ = [
    "BackendError",
    "BundleError",
    "FaceNotFoundError",
    "LimitError",
    "MediaError",
    "ModelError",
    "ReenactError",
]


class ReenactError(Exception):
    """Base of everything that reenact raises on purpose; the command line prints it as one line and exits with 1."""


class MediaError(ReenactError):
    """A photo, video or output that cannot be read or written."""


class LimitError(MediaError):
    """Input beyond a limit of size or duration; the message names the flag that raises the limit."""


class FaceNotFoundError(ReenactError):
    """A photo or video in which no usable face was found."""


class ModelError(ReenactError):
    """A model file that is missing, damaged or cannot be fetched."""


class BundleError(ReenactError):
    """A bundle or graph whose hash, names or shapes disagree with what was asked."""


class BackendError(ReenactError):
    """A backend that is not installed, cannot run here, or failed while running."""
