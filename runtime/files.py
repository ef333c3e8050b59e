"""Where reenact keeps its files, how they are written whole or not at all, and small ones read; not what is in them."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import platformdirs

from ..errors import ReenactError

__all__ = [
    "bundle_home",
    "checkpoint_home",
    "free_name",
    "home",
    "kept_folders",
    "move_to_free_name",
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


def free_name(path: Path, exists: Callable[[Path], bool] = Path.exists) -> Path:
    """`path`, or where there is such a file its name with -2, -3 and so on."""
    return next(name for name in _names(path) if not exists(name))


def move_to_free_name(made: Path, path: Path) -> Path:
    """Call the file or folder `made` `path`, or the next free name, which is returned; OSError where it fails.

    No file is replaced, also not one that somebody else makes at the same moment.
    """
    names = _names(path)
    while True:
        name = next(names)
        try:
            _move(made, name)
        except FileExistsError:
            continue
        return name


def _names(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in count(2))


def _move(made: Path, name: Path) -> None:
    """FileExistsError where there is something of that name."""
    if made.is_dir():
        if os.path.lexists(name):
            raise FileExistsError
        made.rename(name)  # replaces an empty folder at most
        return
    try:
        os.link(made, name)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # This disk has no links; any other fault is met again here, and raised.
        name.open("xb").close()
        try:
            made.replace(name)
        except OSError:
            name.unlink()
            raise
    else:
        made.unlink()


def sha256(content: bytes) -> str:
    """Lower-case hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()
