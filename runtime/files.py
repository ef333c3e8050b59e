"""Writes files whole or not at all, and names their content; knows nothing of what is in them."""

import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["private_folder", "replace_file", "sha256"]


def private_folder(folder: Path) -> Path:
    """Make `folder` with its parents, readable by its owner only (0700); OSError where it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, so that no reader ever sees half of it; OSError where it cannot be."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256(content: bytes) -> str:
    """Lower-case hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()
