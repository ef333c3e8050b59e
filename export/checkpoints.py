"""A system's published checkpoint: found in a folder, checked, kept for later, read into the reference's networks."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from ..errors import ModelError, ReenactError
from ..reference import build, settings_of
from ..reference.checkpoints import find_checkpoint, load_into
from ..runtime.files import checkpoint_home, private_folder, sha256

__all__ = ["Added", "Checkpoint", "add", "keep", "origin_of", "packed", "read"]

_RECORD = "checkpoint.json"
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Added:
    """What `reenact models add` has kept."""

    folder: Path
    next: str | None  # what its user can do now


@dataclass(frozen=True)
class Checkpoint:
    """The networks of one system with their published weights, in eval mode."""

    system: str
    folder: Path
    origin: str  # the files and the beginning of their sha256
    networks: Mapping[str, nn.Module] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict)

    def network(self, name: str, kind: type[Network]) -> Network:
        """One network, by the name of its file."""
        network = self.networks[name]
        assert isinstance(network, kind)
        return network


class _Record(BaseModel):
    """What a kept checkpoint remembers beside its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: str
    settings: dict[str, Any]  # of the networks, where they are not the released ones

    @classmethod
    def of(cls, folder: Path) -> Self:
        path = folder / _RECORD
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path}: missing or damaged; add the checkpoint again") from error


def read(
    system: str,
    names: tuple[str, ...],
    folder: Path | None,
    *,
    suffix: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read the files `<suffix>_<name>` of a folder, or of what was added, strictly.

    `suffix` None takes "latest", else the highest epoch, else the only one there is. `config` are settings of
    networks other than the released ones; what was added remembers its own. Raises ModelError that names the file
    at fault.
    """
    place = folder or checkpoint_home(system)
    if folder is None and not place.is_dir():
        raise ModelError(
            f"no checkpoint of {system} has been added; add one with `reenact models add {system} FOLDER`, or name "
            "its folder with --checkpoint"
        )
    if not place.is_dir():
        raise ModelError(f"{place}: not a folder; expected one with files such as 105_{names[0]}.pth")
    chosen = suffix or _suffix(place, names[0])
    record = _Record.of(place) if folder is None else None
    settings = (record.settings if record else {}) if config is None else config
    networks, files = {}, []
    for name in names:
        path = find_checkpoint(place, name, chosen)
        full = f"{system}/{name}"
        network = build(full, **settings_of(full, settings))
        load_into(network, path)
        networks[name] = network.eval()
        files.append(f"{path.name} (sha256 {sha256(path.read_bytes())[:16]})")
    used = {key: value for name in names for key, value in settings_of(f"{system}/{name}", settings).items()}
    return Checkpoint(system, place, record.origin if record else ", ".join(files), networks, used)


def add(checkpoint: Checkpoint, others: Mapping[str, bytes]) -> Path:
    """Keep a checkpoint that has been read, as safetensors, with the user's other files, as by `keep`."""
    states = {name: network.state_dict() for name, network in checkpoint.networks.items()}
    return keep(checkpoint.system, {**packed(states, checkpoint.origin, checkpoint.config), **others})


def origin_of(path: Path) -> str:
    """A file's name and sha256."""
    with path.open("rb") as file:
        return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()})"


def packed(
    states: Mapping[str, Mapping[str, Tensor]], origin: str, settings: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files that `read` finds, of networks with these state dicts."""
    files = {}
    for name, state in states.items():
        content = safetensors.torch.save({key: value.contiguous() for key, value in state.items()})
        files[f"latest_{name}.safetensors"] = content
    record = _Record(origin=origin, settings=dict(settings))
    return {**files, _RECORD: (record.model_dump_json(indent=1) + "\n").encode()}


def keep(system: str, files: Mapping[str, bytes]) -> Path:
    """Write what is kept of a system, in place of what was; whole or not at all, in a folder of the user alone.

    Returns the folder. Raises ReenactError where it cannot be written.
    """
    folder = checkpoint_home(system)
    try:
        private_folder(folder.parent)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as workplace:
            made, aside = Path(workplace) / "new", Path(workplace) / "old"
            made.mkdir()
            for name, content in files.items():
                (made / name).write_bytes(content)
            if folder.exists():
                folder.rename(aside)
            try:
                made.rename(folder)
            except OSError:
                if aside.exists():
                    aside.rename(folder)
                raise
    except OSError as error:
        raise ReenactError(
            f"{folder}: cannot be written ({error.strerror or error}); set REENACT_HOME to a folder with room"
        ) from error
    return folder


def _suffix(folder: Path, network: str) -> str:
    """What comes before `_<network>.` in the file to take."""
    there = sorted(
        path.name.removesuffix(f"_{network}{path.suffix}")
        for path in folder.iterdir()
        if path.suffix in (".pth", ".safetensors") and path.stem.endswith(f"_{network}")
    )
    if "latest" in there or len(there) != 1:
        return "latest" if "latest" in there else "highest"
    return there[0]
