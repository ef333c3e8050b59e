"""Weights in files: read without executing what is in them, loaded whole or not at all, written in one step.

The published layout is one plain state dict a network, `<suffix>_<network>.pth`; safetensors is read as well, and
files that hold the state dicts of several networks.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..runtime.files import replace_file

__all__ = [
    "find_checkpoint",
    "load_into",
    "load_state",
    "load_states",
    "require_fit",
    "save_state",
    "save_states",
    "write_tensors",
]

_SHOWN = 4  # names in one message
_AGAIN = "fetch or copy it again"


def load_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth`-like or `.safetensors` file, on the CPU, in the file's order.

    Nothing in the file is executed: what is not plain tensors under names is refused. Raises ModelError that
    names the file where it is missing, damaged, of another kind, or a value is not finite.
    """
    state = _plain(str(path), _loaded(path))
    _require_finite(str(path), state)
    return state


def load_states(path: Path, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The state dicts under `names` in a file that holds several and perhaps more, each as by `load_state`."""
    loaded = _loaded(path)
    there = [str(name) for name in loaded] if isinstance(loaded, Mapping) else []
    missing = [name for name in names if name not in there]
    if not isinstance(loaded, Mapping) or missing:
        complaint = "; ".join((*_listed("missing", missing), *_listed("there", there)))
        raise ModelError(f"{path}: expected the weights of {', '.join(names)}: {complaint}")
    states = {name: _plain(f"{path}: {name}", loaded[name]) for name in names}
    for name, state in states.items():
        _require_finite(f"{path}: {name}", state)
    return states


def load_into(network: nn.Module, path: Path) -> None:
    """Load a file into a network, every entry and nothing else; a network that raises is left as it was.

    Raises ModelError as `load_state`, and one that lists missing and surplus names and wrong shapes.
    """
    state = load_state(path)
    require_fit(path, type(network).__name__, state, network.state_dict())
    network.load_state_dict(state)


def require_fit(path: Path, what: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ModelError, which lists the differences, where `state` has other names, shapes or kinds of numbers."""
    complaints = [
        *_listed("missing", [name for name in expected if name not in state]),
        *_listed("surplus", [name for name in state if name not in expected]),
        *_listed(
            "of a wrong shape",
            [
                f"{name} {tuple(state[name].shape)} instead of {tuple(there.shape)}"
                for name, there in expected.items()
                if name in state and state[name].shape != there.shape
            ],
        ),
        *_listed(
            "of a wrong type",
            [
                f"{name} {state[name].dtype} instead of {there.dtype}"
                for name, there in expected.items()
                if name in state and state[name].is_floating_point() != there.is_floating_point()
            ],
        ),
    ]
    if complaints:
        raise ModelError(
            f"{path}: does not fit {what}: {'; '.join(complaints)}. Take the file of this "
            "network, or the settings that it was trained with"
        )


def find_checkpoint(folder: Path, network: str, suffix: str) -> Path:
    """The file `<suffix>_<network>.pth` (or `.safetensors`) in a folder of published layout.

    `suffix` is an epoch such as "105", "iter_<n>", "latest", or "highest" for the highest epoch there is.
    Raises ModelError that lists the network's files where there is none.
    """
    there = _checkpoints(folder, network)
    chosen = suffix
    if suffix == "highest":
        chosen = str(
            max((int(name) for name in there if name.isascii() and name.isdecimal()), default=suffix)
        )
    if chosen not in there:
        found = ", ".join(path.name for path in there.values()) or f"no file *_{network}.pth"
        raise ModelError(
            f"{folder}: has no {'numbered' if suffix == 'highest' else suffix} checkpoint of {network}; there "
            f"is {found}"
        )
    return there[chosen]


def save_state(network: nn.Module, path: Path) -> None:
    """Write a network's state in the published layout: a plain state dict, on the CPU, whole or not at all.

    Raises ModelError where a value is not finite or the file cannot be written.
    """
    write_tensors(_finite_state(network, f"{type(network).__name__} for {path}"), path)


def save_states(networks: Mapping[str, nn.Module], path: Path) -> None:
    """As `save_state`, of several networks in one file: their state dicts by name."""
    write_tensors(
        {name: _finite_state(network, f"{name} for {path}") for name, network in networks.items()}, path
    )


def write_tensors(content: Mapping[str, Tensor | Mapping[str, Tensor]], path: Path) -> None:
    """Write tensors by name, or groups of them, whole or not at all; ModelError where that fails."""
    written = io.BytesIO()
    torch.save(dict(content), written)
    try:
        replace_file(path, written.getvalue())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written ({error.strerror or error}); choose a folder with room"
        ) from error


def _finite_state(network: nn.Module, what: str) -> dict[str, Tensor]:
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    _require_finite(what, state)
    return state


def _loaded(path: Path) -> object:
    """What is in a file, read without executing it."""
    try:
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            _require_true_sizes(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about files that it then refuses
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror or error}); expected a checkpoint"
        ) from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds more than plain weights, or is damaged; it was not executed. Take a file that is "
            "a plain state dict"
        ) from error
    except Exception as error:  # a damaged file may raise anything from inside the reader
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{path}: damaged, or no checkpoint ({reason}); {_AGAIN}") from error
    return loaded


def _require_true_sizes(path: Path) -> None:
    """Refuse an archive that unpacks to more than it has: torch.save compresses nothing and writes nothing twice."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(max(entry.file_size, entry.compress_size) for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked} bytes, as nothing that torch.save writes does")


def _plain(path: str, loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise ModelError(
            f"{path}: holds a {type(loaded).__name__}; expected a state dict of names and tensors"
        )
    state: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(
                f"{path}: {name!r} is a {type(value).__name__}; expected a state dict of names and tensors"
            )
        if value.layout != torch.strided or value.is_quantized:
            raise ModelError(f"{path}: {name} is stored sparse or quantised; expected plain numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ModelError(
                f"{path}: {name} claims {value.numel()} numbers, more than the file holds; {_AGAIN}"
            )
        state[name] = value.detach()
    return state


def _require_finite(what: str, state: Mapping[str, Tensor]) -> None:
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        complaint = "".join(_listed("not finite", broken))
        raise ModelError(
            f"{what}: values are {complaint}; such weights are of no use, take another checkpoint"
        )


def _listed(what: str, found: Iterable[str]) -> list[str]:
    """One phrase with the number and the first few; none where nothing was found."""
    names = list(found)
    if not names:
        return []
    more = ", ..." if len(names) > _SHOWN else ""
    return [f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})"]


def _checkpoints(folder: Path, network: str) -> dict[str, Path]:
    """Suffix to file, numbered ones in order."""
    pattern = re.compile(rf"(.+)_{re.escape(network)}\.(pth|safetensors)")
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be read ({error.strerror}); expected a folder of checkpoints"
        ) from error
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    matches.sort(key=lambda match: (not match[1].isdecimal(), len(match[1]), match[1]))
    there: dict[str, Path] = {}
    for match in matches:
        if match[1] in there:
            raise ModelError(f"{folder}: has both {there[match[1]].name} and {match[0]}; keep one")
        there[match[1]] = folder / match[0]
    return there
