"""A bundle on disk: a folder with `manifest.json` and the graphs of one system; opened only if all agrees."""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import BundleError
from .engine import Engine, Precision, load
from .files import sha256
from .graph import Graph, TensorSpec, read_graph

__all__ = [
    "FORMAT",
    "Bundle",
    "Constant",
    "GraphEntry",
    "Manifest",
    "TensorEntry",
    "Weights",
    "check_place",
    "write_bundle",
]

FORMAT: Literal[1] = 1
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 1 << 20  # bytes

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Arrays = Mapping[str, NDArray[Any]]
Constant = float | str | list[float]
"""A number, a word or a row of numbers, for what is done to a picture before it enters a graph."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorEntry(_Entry):
    """One input or output; null in `shape` is an axis of any length."""

    dtype: str
    shape: list[Annotated[int, Field(ge=0)] | None]

    @classmethod
    def of(cls, spec: TensorSpec) -> Self:
        """What a manifest says of `spec`."""
        return cls(dtype=str(spec.dtype), shape=list(spec.shape))

    def __str__(self) -> str:
        return f"({', '.join('any' if size is None else str(size) for size in self.shape)}) {self.dtype}"


class GraphEntry(_Entry):
    """One graph: its file and what it takes and gives, by name."""

    file: str
    inputs: dict[str, TensorEntry]
    outputs: dict[str, TensorEntry]
    whole: bool = False  # in float32 whatever is asked for: half would lose too much, or gain nothing


class Weights(_Entry):
    """Where the weights came from and what may be done with them."""

    origin: str
    licence: str


class Manifest(_Entry):
    """`manifest.json`."""

    format: Literal[1]
    system: Name
    resolution: Annotated[int, Field(ge=1, le=8192)]  # side in pixels of the square that the graphs work on
    precision: Literal["fp32", "fp16", "bf16"]
    graphs: Annotated[dict[Name, GraphEntry], Field(min_length=1)]
    preprocessing: dict[str, Constant]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]  # path in the bundle -> sha256
    weights: Weights

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Self:
        for name in self.files:
            path = PurePosixPath(name)
            if "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
                raise ValueError(f"the path {name!r} leaves the bundle's folder")
        for name, graph in self.graphs.items():
            if graph.file not in self.files:
                raise ValueError(f"graph {name} is in {graph.file!r}, which `files` does not list")
        return self


class Bundle:
    """An opened bundle: every file's hash and every graph's names and shapes have been checked."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Made by `open`."""
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Check the bundle in `folder`; BundleError names what disagrees in it and what to do."""
        manifest = _read_manifest(folder / _MANIFEST)
        for name, expected in manifest.files.items():
            path = folder / name
            if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
                raise BundleError(f"{path}: missing from the bundle; export or copy the bundle again")
            found = _file_sha256(path)
            if found != expected:
                raise BundleError(
                    f"{path}: its sha256 is {found}, the manifest says {expected}; export or copy the bundle "
                    "again"
                )
        for entry in manifest.graphs.values():
            graph = read_graph(folder / entry.file)
            _compare(graph.name, "input", graph.inputs, entry.inputs)
            _compare(graph.name, "output", graph.outputs, entry.outputs)
        return cls(folder, manifest)

    def engine(
        self, graph: str, *, backend: str = "auto", precision: Precision = "auto", threads: int | None = None
    ) -> Engine:
        """Load one of its graphs, such as "frame"; one that is `whole` in float32, whatever `precision` says.

        Errors as `load`, and BundleError where there is no such graph.
        """
        entry = self.manifest.graphs.get(graph)
        if entry is None:
            known = ", ".join(self.manifest.graphs)
            raise BundleError(f"{self.folder}: no graph is called {graph!r}; the bundle has {known}")
        kind: Precision = "fp32" if entry.whole else precision
        return load(self.folder / entry.file, backend=backend, precision=kind, threads=threads)

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """What `<name>.npz` of the bundle holds, nothing pickled; BundleError where there is none or it is damaged."""
        file = f"{name}.npz"
        path = self.folder / file
        if file not in self.manifest.files:
            raise BundleError(f"{path}: not in the bundle; export the bundle again")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception as error:  # a damaged archive may raise anything from inside zipfile
            raise BundleError(f"{path}: no arrays ({error}); export the bundle again") from error


def check_place(folder: Path) -> None:
    """BundleError where something lies at `folder` that is no bundle and so must not be replaced by one."""
    if folder.exists() and not (folder / _MANIFEST).is_file():
        raise BundleError(f"{folder}: exists and is not a bundle; choose another folder")


def write_bundle(
    folder: Path,
    *,
    system: str,
    resolution: int,
    graphs: Mapping[str, Path | bytes | onnx.ModelProto],
    preprocessing: Mapping[str, Constant],
    precision: Literal["fp32", "fp16", "bf16"],
    weights: Weights,
    arrays: Mapping[str, Arrays] | None = None,
    whole: Collection[str] = (),
) -> Bundle:
    """Write a bundle whole or not at all, in place of one that is there, and open it.

    Weights that lie beside a graph are taken into it. `arrays` are constants for what is no graph: arrays by name, each
    group of them in one file, `<group>.npz`. Graphs in `whole` are computed in float32 whatever is asked for. Raises
    BundleError where a graph or a name is at fault, or `folder` is there and is no bundle.
    """
    check_place(folder)
    checked = {name: read_graph(graph) for name, graph in graphs.items()}
    contents = {f"{name}.onnx": graph.outlined for name, graph in checked.items()}
    contents |= {f"{name}.npz": _npz(group) for name, group in (arrays or {}).items()}
    try:
        manifest = Manifest(
            format=FORMAT,
            system=system,
            resolution=resolution,
            precision=precision,
            graphs={name: _entry(name, graph, name in whole) for name, graph in checked.items()},
            preprocessing=dict(preprocessing),
            files={file: sha256(content) for file, content in contents.items()},
            weights=weights,
        )
    except ValidationError as error:
        raise BundleError(f"{folder}: {_first(error)}") from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as workplace:
            made = Path(workplace) / "new"
            made.mkdir()
            for file, content in contents.items():
                (made / file).write_bytes(content)
            (made / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
            _swap(made, folder, Path(workplace) / "old")
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written ({error}); choose a folder with room") from error
    return Bundle.open(folder)


def _npz(arrays: Arrays) -> bytes:
    """Always the same bytes for the same arrays."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _swap(made: Path, folder: Path, aside: Path) -> None:
    """Put `made` in the place of `folder`; what was there comes back if that fails."""
    if not folder.exists():
        made.rename(folder)
        return
    folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)


def _entry(name: str, graph: Graph, whole: bool) -> GraphEntry:
    return GraphEntry(
        file=f"{name}.onnx",
        inputs={spec.name: TensorEntry.of(spec) for spec in graph.inputs.values()},
        outputs={spec.name: TensorEntry.of(spec) for spec in graph.outputs.values()},
        whole=whole,
    )


def _read_manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise BundleError(f"{path}: larger than {_MAX_MANIFEST} bytes, so no manifest of a bundle")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); expected a bundle's folder, as `reenact export "
            "SYSTEM -o FOLDER` makes it"
        ) from error
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error)}; export the bundle again") from error


def _first(error: ValidationError) -> str:
    """The first complaint in one line: where, what, and what was given."""
    found = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, found["loc"])) or "manifest"
    given = repr(found["input"])
    return f"{place}: {found['msg']}" + (f", given {given}" if len(given) < 80 else "")


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error})") from error


def _compare(
    graph: str, kind: str, found: Mapping[str, TensorSpec], expected: Mapping[str, TensorEntry]
) -> None:
    if found.keys() != expected.keys():
        raise BundleError(
            f"{graph}: has the {kind}s {', '.join(found)}, the manifest says {', '.join(expected)}; "
            "export the bundle again"
        )
    for name, spec in found.items():
        given = TensorEntry.of(spec)
        if given != expected[name]:
            raise BundleError(
                f"{graph}: {kind} {name} is {given}, the manifest says {expected[name]}; "
                "export the bundle again"
            )
