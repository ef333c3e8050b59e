"""The folder of built engines: what they are filed under, and what is never handed to TensorRT."""

import errno
import json
import logging
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reenact.errors import BackendError
from reenact.runtime.backends import engine_cache
from reenact.runtime.backends.device import Device
from reenact.runtime.backends.engine_cache import (
    Filed,
    Range,
    file_engine,
    find,
    keep_timings,
    key,
    others,
    read_plan,
    read_timings,
    target,
)
from reenact.runtime.files import replace_file

GPU = Device("NVIDIA GeForce RTX 4090", (8, 9), "13.0", "13.0")
HERE = target(b"a graph", "fp16", "11.4.0.106", GPU)
SHAPES = {"x": Range(least=(1, 3), best=(1, 3), most=(4, 3))}
OPTIONS: dict[str, int | str] = {"level": 3}

pytestmark = pytest.mark.usefixtures("small_home")


def _file(plan: bytes = b"the plan", **changes: Any) -> Filed:
    return file_engine(HERE.model_copy(update=changes), SHAPES, OPTIONS, plan)


def _files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_an_engine_is_found_again_byte_for_byte() -> None:
    assert find(HERE) is None
    filed = _file(b"\0plan\n" * 999)
    assert find(HERE) == filed
    assert read_plan(filed) == b"\0plan\n" * 999
    assert filed.manifest.shapes == SHAPES
    assert filed.path.stem == key(HERE, SHAPES, OPTIONS)


def test_the_folders_are_the_users_alone(small_home: Path) -> None:
    folder = _file().path.parent
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert folder.parent == small_home / "tensorrt"
    assert _files(folder) == {".json", ".plan"}


@pytest.mark.parametrize(
    "other",
    [
        target(b"another graph", "fp16", "11.4.0.106", GPU),
        target(b"a graph", "bf16", "11.4.0.106", GPU),
        target(b"a graph", "fp16", "11.4.0.107", GPU),
        target(b"a graph", "fp16", "11.4.0.106", replace(GPU, name="NVIDIA GeForce RTX 4080")),
        target(b"a graph", "fp16", "11.4.0.106", replace(GPU, compute_capability=(9, 0))),
        target(b"a graph", "fp16", "11.4.0.106", replace(GPU, driver="13.1")),
        target(b"a graph", "fp16", "11.4.0.106", replace(GPU, runtime="12.9")),
    ],
)
def test_everything_that_an_engine_depends_on_makes_it_another(other: Any) -> None:
    _file()
    assert find(other) is None
    assert key(other, SHAPES, OPTIONS) != key(HERE, SHAPES, OPTIONS)
    assert others(other) == ([HERE] if other.graph == HERE.graph else [])


def test_shapes_and_options_make_another_key_too() -> None:
    keys = {
        key(HERE, SHAPES, OPTIONS),
        key(HERE, {"x": SHAPES["x"].model_copy(update={"most": (8, 3)})}, OPTIONS),
        key(HERE, {"y": SHAPES["x"]}, OPTIONS),
        key(HERE, SHAPES, {"level": 4}),
    }
    assert len(keys) == 4


def test_of_several_engines_the_last_one_built_is_taken() -> None:
    _file(b"first")
    second = file_engine(HERE, SHAPES, {"level": 5}, b"second")
    os.utime(second.path, ns=(2**62, 2**62))
    found = find(HERE)
    assert found == second
    assert read_plan(second) == b"second"


def test_a_new_build_takes_the_place_of_the_old() -> None:
    _file(b"old")
    filed = _file(b"new")
    assert read_plan(filed) == b"new"
    assert len(list(filed.path.parent.iterdir())) == 2


def test_a_plan_that_two_engines_share_stays_while_one_needs_it() -> None:
    _file(b"same")
    second = file_engine(HERE, SHAPES, {"level": 5}, b"same")
    _file(b"new")
    assert read_plan(second) == b"same"


@pytest.mark.parametrize("changed", [b"the plaN", b"the plan and more", b"the", b""])
def test_a_plan_that_was_changed_is_refused(changed: bytes) -> None:
    filed = _file()
    next(filed.path.parent.glob("*.plan")).write_bytes(changed)
    with pytest.raises(BackendError, match=r"is not the one that was built; remove .* with `reenact build`"):
        read_plan(filed)


def test_a_missing_plan_and_one_behind_a_link_are_refused(tmp_path: Path) -> None:
    filed = _file()
    plan = next(filed.path.parent.glob("*.plan"))
    elsewhere = tmp_path / "plan"
    plan.rename(elsewhere)
    with pytest.raises(BackendError, match="cannot be read"):
        read_plan(filed)
    plan.symlink_to(elsewhere)
    with pytest.raises(BackendError, match="cannot be read"):
        read_plan(filed)


def test_a_folder_that_others_may_write_is_refused() -> None:
    filed = _file()
    filed.path.parent.chmod(0o770)
    with pytest.raises(BackendError, match="others than you may write here, and engines are code"):
        find(HERE)
    with pytest.raises(BackendError, match="others than you"):
        read_plan(filed)


def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _file()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(BackendError, match="others than you may write here"):
        find(HERE)


def test_a_manifest_under_a_wrong_name_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    filed = _file()
    foreign = json.loads(filed.path.read_text())
    foreign["target"]["gpu"] = "NVIDIA Other"
    filed.path.write_text(json.dumps(foreign))
    with caplog.at_level(logging.WARNING):
        assert find(HERE.model_copy(update={"gpu": "NVIDIA Other"})) is None
    assert "does not belong under this name" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"format": 2}'])
def test_a_damaged_manifest_is_left_alone(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    _file().path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find(HERE) is None
    assert "no manifest of an engine" in caplog.text


def test_a_full_disk_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _file(b"old").path.parent

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(path, content)

    monkeypatch.setattr(engine_cache, "replace_file", full)
    with pytest.raises(BackendError, match=r"No space left on device.*set REENACT_HOME"):
        _file(b"new")
    found = find(HERE)
    assert found is not None
    assert read_plan(found) == b"old"
    assert len(list(folder.iterdir())) == 2


def test_timings_are_kept_for_one_version_and_one_gpu() -> None:
    assert read_timings("11.4.0.106", GPU) == b""
    keep_timings("11.4.0.106", GPU, b"measured")
    assert read_timings("11.4.0.106", GPU) == b"measured"
    assert read_timings("11.3.0.99", GPU) == b""
    assert read_timings("11.4.0.106", replace(GPU, name="NVIDIA Other")) == b""


def test_timings_that_cannot_be_kept_only_cost_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("REENACT_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        keep_timings("11.4.0.106", GPU, b"measured")
    assert "cannot be kept" in caplog.text
