"""Where reenact keeps its files, how they are written whole or not at all, and small ones read; not what is in them."""

import hashlib
import os
import secrets
from pathlib import Path

import platformdirs

from ..errors import ReenactError

__all__ = [
    "bundle_home",
    "checkpoint_home",
    "home",
    "kept_folders",
    "private_folder",
    "read_small_file",
    "replace_file",
    "sha256",
]


def home() -> Path:
    """The folder of everything that is kept between runs: REENACT_HOME, else the user's cache."""
    chosen = os.environ.get("REENACT_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("reenact")


def bundle_home(system: str) -> Path:
    """Where a system's bundle is looked for when none is named, and where `reenact export` puts it."""
    return home() / "bundles" / system


def checkpoint_home(system: str) -> Path:
    """Where `reenact models add` keeps a system's checkpoint."""
    return home() / "checkpoints" / system


def kept_folders() -> list[tuple[str, Path]]:
    """What lies here that a user brought or made: ("checkpoint" or "bundle", its folder), by system."""
    found = [
        (what, folder)
        for what, place in (("checkpoint", home() / "checkpoints"), ("bundle", home() / "bundles"))
        if place.is_dir()
        for folder in place.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    return sorted(found, key=lambda kept: (kept[1].name, kept[0] == "bundle"))


def private_folder(folder: Path) -> Path:
    """Make `folder` with its parents, itself for its owner only (0700); OSError where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def read_small_file(path: Path, most: int, what: str, error: type[ReenactError] = ReenactError) -> bytes:
    """The content of a file that users bring; `what` says what it should be, as in "a motion file".

    Raises `error`, naming the file, where it cannot be read, is no file or has more than `most` bytes; no more than
    those are ever read.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: not a file; name {what}")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most + 1)
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); name {what}") from fault
    if len(content) > most:
        raise error(f"{path}: {size} bytes, larger than {most}, so not {what}")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: no reader ever sees half of it; OSError where it fails.

    Who may read it is a matter of the umask and of the folder, as for any new file.
    """
    temporary = path.with_name(f".{path.name[:60]}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
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
