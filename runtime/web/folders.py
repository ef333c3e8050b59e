"""The private folder of a server, and those that killed servers left behind; knows nothing of what is inside.

A server holds a lock on its folder, which the system lets go of however the server ends. A folder that nobody holds is
nobody's any more. A process's number would not do: it is given again, and containers count each for themselves.
"""

import contextlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["held", "remove_left"]

_log = logging.getLogger(__name__)

PREFIX = "reenact-serving-"
_NEW = "reenact-new-"  # not locked, or not yet: not looked at


@contextlib.contextmanager
def held() -> Iterator[Path]:
    """A new folder that only this user can enter, held until the end and then deleted."""
    made = Path(tempfile.mkdtemp(prefix=_NEW))  # 0700
    with contextlib.ExitStack() as ends:
        ends.callback(lambda: shutil.rmtree(folder, ignore_errors=True))
        folder = made
        with contextlib.suppress(OSError, ImportError):  # no such locks: what is left there is left
            ends.callback(os.close, _locked(made))
            folder = made.rename(made.with_name(PREFIX + made.name.removeprefix(_NEW)))
        yield folder


def remove_left() -> None:
    """Delete this user's folders that no server holds any more; nothing where folders cannot be locked (Windows)."""
    if os.name == "nt":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # held, or gone meanwhile, or not to be had
            _remove_unheld(folder)


def _remove_unheld(folder: Path) -> None:
    about = folder.lstat()
    if about.st_uid != os.getuid() or not stat.S_ISDIR(about.st_mode) or about.st_mode & 0o077:
        return
    lock = _locked(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _log.info("a folder of a server that was killed was deleted")
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    """A descriptor that holds it; BlockingIOError where another one does."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
