"""Small files of users are read up to a bound, and what is wrong with one is said with its name."""

import os

import pytest
from reenact.errors import ModelError, ReenactError
from reenact.runtime.files import read_small_file


def test_a_file_may_have_exactly_as_many_bytes_as_allowed(tmp_path):
    path = tmp_path / "small.txt"
    path.write_bytes(b"12345")
    assert read_small_file(path, 5, "a number") == b"12345"
    with pytest.raises(ReenactError, match=r"small\.txt: 5 bytes, larger than 4, so not a number"):
        read_small_file(path, 4, "a number")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match=f"{path}: not a file; name a number"):
            read_small_file(path, 4, "a number", ModelError)
    with pytest.raises(
        ModelError, match=r"none: cannot be read \(No such file or directory\); name a number"
    ):
        read_small_file(tmp_path / "none", 4, "a number", ModelError)
