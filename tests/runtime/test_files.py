"""Small files of users are read up to a bound, and what is wrong with one is said with its name."""

import os

import pytest
from reenact.errors import ModelError, ReenactError
from reenact.runtime.files import read_small_file, replace_file


def test_a_file_may_have_exactly_as_many_bytes_as_allowed(tmp_path):
    path = tmp_path / "small.txt"
    path.write_bytes(b"12345")
    assert read_small_file(path, 5, "a number") == b"12345"
    with pytest.raises(ReenactError, match=r"small\.txt: 5 bytes, larger than 4, so not a number"):
        read_small_file(path, 4, "a number")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_replaced_file_may_be_read_by_whom_the_umask_says(tmp_path, umask, mode):
    path = tmp_path / ("n" * 250 + ".txt")  # as long as a name may be, nearly
    before = os.umask(umask)
    try:
        for content in (b"first", b"second"):
            replace_file(path, content)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        replace_file(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match=f"{path}: not a file; name a number"):
            read_small_file(path, 4, "a number", ModelError)
    with pytest.raises(
        ModelError, match=r"none: cannot be read \(No such file or directory\); name a number"
    ):
        read_small_file(tmp_path / "none", 4, "a number", ModelError)
