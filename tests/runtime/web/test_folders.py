"""What users brought does not outlive the server, even one that was killed; what others have is left alone."""

import errno
import os
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
from reenact.runtime.web.folders import PREFIX, held, remove_left

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no locks on folders")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A temporary folder for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_gone_at_the_end(place):
    with held() as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "session").mkdir()
        (folder / "session/photo.png").write_bytes(b"x")
        assert list(place.iterdir()) == [folder]
    assert list(place.iterdir()) == []


def test_what_a_killed_server_left_is_deleted_by_the_next_and_a_running_ones_is_not(place):
    code = """
import sys
from reenact.runtime.web.folders import held
with held() as folder:
    (folder / "photo.png").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place)},
    )
    with other:
        name = other.stdout.readline().strip()  # type: ignore[union-attr]
        [left] = place.iterdir()
        assert str(left) == name
        remove_left()
        assert (left / "photo.png").is_file(), "its server still runs"
        other.kill()
        other.wait(20)
    assert (left / "photo.png").is_file()
    remove_left()
    assert list(place.iterdir()) == []


def test_a_disk_without_such_locks_has_a_folder_all_the_same_which_is_left_alone(place, monkeypatch):
    """As NFS, where what is locked must be opened to be written."""

    def refused(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("fcntl.flock", refused)
    with held() as folder:
        (folder / "photo.png").write_bytes(b"x")
        remove_left()
        assert list(folder.iterdir())
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []


def test_what_is_no_private_folder_of_ours_is_left_alone(place, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_bytes(b"x")
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    (place / f"{PREFIX}file").write_bytes(b"x")
    (place / f"{PREFIX}open").mkdir()
    (place / f"{PREFIX}open").chmod(0o755)
    (place / "reenact-serve-of-an-older-version").mkdir(mode=0o700)
    remove_left()
    assert len(list(place.iterdir())) == 4
    assert (elsewhere / "kept").is_file()
    (place / f"{PREFIX}foreign").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    remove_left()
    assert (place / f"{PREFIX}foreign").is_dir()
