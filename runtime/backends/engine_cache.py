"""Built TensorRT engines on disk: filed under all that they depend on, and handed out only if they are intact.

A plan is code that runs with the user's rights: the folder is the user's alone, and what is not exactly as its
manifest says, or has none, is never given to TensorRT.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import BackendError
from ..files import home, private_folder, replace_file, sha256
from .device import Device

__all__ = [
    "RECIPE",
    "Filed",
    "Manifest",
    "Range",
    "Target",
    "file_engine",
    "find",
    "find_exact",
    "keep_timings",
    "key",
    "others",
    "read_plan",
    "read_timings",
    "target",
]

RECIPE = 1
"""Grows when another engine is built from the same graph than before: the old ones are then found no more."""

_log = logging.getLogger(__name__)
_MAX_MANIFEST = 1 << 20  # bytes
_MAX_PLAN = 1 << 33
_MAX_TIMINGS = 1 << 28

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shape = tuple[Annotated[int, Field(ge=0)], ...]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Entry):
    """What an engine belongs to; it runs for nothing else."""

    graph: Digest  # sha256 of the bundle's own graph, whatever precision it was brought to
    precision: Literal["fp32", "fp16", "bf16"]
    tensorrt: str
    gpu: str
    compute_capability: tuple[int, int]
    driver: str
    cuda: int  # major version of the CUDA runtime
    recipe: int


class Range(_Entry):
    """The shapes of one input that an engine takes, from `least` to `most`; it is fastest at `best`."""

    least: Shape
    best: Shape
    most: Shape


class Manifest(_Entry):
    """What lies beside a plan: what it is for, how it was built, and what it must hash to."""

    format: Literal[1]
    target: Target
    shapes: dict[str, Range]
    options: dict[str, int | str]  # of the builder
    plan_sha256: Digest
    plan_bytes: Annotated[int, Field(ge=1, le=_MAX_PLAN)]


class Filed(_Entry):
    """An engine that has been found; `read_plan` reads it."""

    manifest: Manifest
    path: Path  # of the manifest


def target(graph: bytes, precision: Literal["fp32", "fp16", "bf16"], tensorrt: str, device: Device) -> Target:
    """What an engine for the bundle's graph with these bytes must have been built for, to run here."""
    return Target(
        graph=sha256(graph),
        precision=precision,
        tensorrt=tensorrt,
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=device.driver,
        cuda=int(device.runtime.split(".")[0]),
        recipe=RECIPE,
    )


def key(target: Target, shapes: Mapping[str, Range], options: Mapping[str, int | str]) -> str:
    """sha256 of all that decides how an engine turns out; its manifest is named after it."""
    everything = {
        "target": target.model_dump(mode="json"),
        "shapes": {name: shape.model_dump(mode="json") for name, shape in shapes.items()},
        "options": dict(options),
    }
    return sha256(json.dumps(everything, sort_keys=True).encode())


def file_engine(
    target: Target, shapes: Mapping[str, Range], options: Mapping[str, int | str], plan: bytes
) -> Filed:
    """Keep a plan, whole or not at all; BackendError where it cannot be written."""
    digest = sha256(plan)
    manifest = Manifest(
        format=1,
        target=target,
        shapes=dict(shapes),
        options=dict(options),
        plan_sha256=digest,
        plan_bytes=len(plan),
    )
    try:
        private_folder(_root())
        folder = private_folder(_root() / target.graph)
        path = folder / f"{key(target, shapes, options)}.json"
        before = _manifest(path) if path.exists() else None
        replace_file(folder / f"{digest}.plan", plan)
        try:
            replace_file(path, manifest.model_dump_json(indent=2).encode() + b"\n")
        except BaseException:
            _drop_unnamed(folder, digest)
            raise
        if before is not None:
            _drop_unnamed(folder, before.plan_sha256)
    except OSError as error:
        raise BackendError(
            f"{_root()}: the engine cannot be kept ({error}); set REENACT_HOME to a folder with room"
        ) from error
    return Filed(manifest=manifest, path=path)


def find(target: Target) -> Filed | None:
    """The engine that was last filed for exactly this; BackendError where the folder cannot be trusted."""
    fitting = [filed for filed in _all(target.graph) if filed.manifest.target == target]
    return max(fitting, key=lambda filed: filed.path.stat().st_mtime_ns, default=None)


def find_exact(target: Target, shapes: Mapping[str, Range], options: Mapping[str, int | str]) -> Filed | None:
    """The engine that a build with these shapes and options would make again; errors as `find`."""
    wanted = key(target, shapes, options)
    return next((filed for filed in _all(target.graph) if filed.path.stem == wanted), None)


def others(target: Target) -> list[Target]:
    """What the engines of this graph were built for that do not fit; errors as `find`."""
    return [filed.manifest.target for filed in _all(target.graph) if filed.manifest.target != target]


def read_plan(filed: Filed) -> bytes:
    """The plan, which is what its manifest says; BackendError where it is not, before anybody executes it."""
    path = filed.path.with_name(f"{filed.manifest.plan_sha256}.plan")
    mend = f"remove {path.parent} and build the engine again with `reenact build`"
    _check_own(path.parent)
    try:
        with _opened(path) as file:
            plan = file.read(filed.manifest.plan_bytes + 1)
    except OSError as error:
        raise BackendError(f"{path}: the engine cannot be read ({error}); {mend}") from error
    if len(plan) != filed.manifest.plan_bytes or sha256(plan) != filed.manifest.plan_sha256:
        raise BackendError(f"{path}: the engine is not the one that was built; {mend}")
    return plan


def read_timings(tensorrt: str, device: Device) -> bytes:
    """What earlier builds measured with this version on this GPU; nothing where there is none."""
    path = _timings(tensorrt, device)
    if not path.exists():
        return b""
    _check_own(path.parent)
    try:
        with _opened(path) as file:
            return file.read(_MAX_TIMINGS)
    except OSError as error:
        _log.warning("%s: cannot be read (%s): everything is measured anew", path, error)
        return b""


def keep_timings(tensorrt: str, device: Device, content: bytes) -> None:
    """Keep what a build measured, for later ones; they are only slower where that fails."""
    try:
        replace_file(private_folder(_root()) / _timings(tensorrt, device).name, content)
    except OSError as error:
        _log.warning("%s: the measured times cannot be kept (%s)", _root(), error)


def _timings(tensorrt: str, device: Device) -> Path:
    known = json.dumps([tensorrt, device.name, device.compute_capability, device.driver])
    return _root() / f"{sha256(known.encode())}.timings"


def _root() -> Path:
    return home() / "tensorrt"


def _all(graph: str) -> list[Filed]:
    folder = _root() / graph
    if not folder.is_dir():
        return []
    _check_own(_root())
    _check_own(folder)
    found = []
    for path in sorted(folder.glob("*.json")):
        manifest = _manifest(path)
        if manifest is not None:
            found.append(Filed(manifest=manifest, path=path))
    return found


def _manifest(path: Path) -> Manifest | None:
    """The manifest, if it is one and stands where it belongs."""
    try:
        with _opened(path) as file:
            manifest = Manifest.model_validate_json(file.read(_MAX_MANIFEST))
    except (OSError, ValidationError) as error:
        _log.warning("%s: no manifest of an engine (%s): left alone", path, str(error).splitlines()[0])
        return None
    if path.stem != key(manifest.target, manifest.shapes, manifest.options):
        _log.warning("%s: does not belong under this name: left alone", path)
        return None
    return manifest


def _opened(path: Path) -> BinaryIO:
    """The file itself, not what a link points to."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def _check_own(folder: Path) -> None:
    """BackendError where others than the user could have put engines into the folder."""
    if not hasattr(os, "geteuid"):
        return
    status = folder.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or folder.is_symlink():
        raise BackendError(
            f"{folder}: others than you may write here, and engines are code; remove it and build them again with "
            "`reenact build`"
        )


def _drop_unnamed(folder: Path, digest: str) -> None:
    """Remove a plan unless a manifest names it."""
    if all(filed.manifest.plan_sha256 != digest for filed in _all(folder.name)):
        (folder / f"{digest}.plan").unlink(missing_ok=True)
