"""How the parts that have golden numbers are run; one module a system, one function a part.

A module `parts/<system>.py` has `PARTS`, by the names of its golden files. An adapter takes a `Run` and gives
every output whole, by the golden's names.
"""

import hashlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import ReenactError
from .. import build, settings_of
from ..fill import fill
from ..golden import Bound, Golden

__all__ = ["Adapter", "NotCheckedError", "Outputs", "Part", "Run", "captured", "find_part"]

Outputs = Mapping[str, Tensor | NDArray[Any]]
Network = TypeVar("Network", bound=nn.Module)


class NotCheckedError(ReenactError):
    """A part that needs a file which is not here; that is no failure."""


@dataclass(frozen=True)
class Run:
    """One golden that is being computed, and what an adapter needs for it."""

    golden: Golden
    data: Path | None  # a folder with the pictures that goldens refer to

    def input(self, name: str) -> Tensor:
        """The golden's input `name`."""
        return torch.from_numpy(self.golden.input(name))

    def network(self, name: str, kind: type[Network], config: Mapping[str, Any] | None = None) -> Network:
        """The system's network `name` with the golden's state names and shapes, filled by its rules.

        Without `config` it has those of the golden's settings that it takes. Raises ReenactError where the
        golden lists another state.
        """
        return self.checked(self.filled(name, kind, config))

    def checked(self, network: Network) -> Network:
        """The network; ReenactError where its state has other names or shapes than the golden lists."""
        _check_state(network, self.golden.state)
        return network

    def filled(self, name: str, kind: type[Network], config: Mapping[str, Any] | None = None) -> Network:
        """The same for a network whose state the golden does not list."""
        full = f"{self.golden.system}/{name}"
        network = build(full, **(settings_of(full, self.golden.config) if config is None else config))
        if not isinstance(network, kind):
            raise ReenactError(f"{full} is a {type(network).__name__}; the adapter expects a {kind.__name__}")
        fill(network, self.golden.rules(name))
        return network

    def file(self, name: str, sha256: str) -> Path:
        """The picture `name` below the data folder; NotCheckedError where it is absent or another one."""
        if self.data is None:
            raise NotCheckedError(f"needs {name}; name the folder that has it with --data")
        for folder in (self.data, *sorted(entry for entry in self.data.iterdir() if entry.is_dir())):
            path = folder / name
            if path.is_file():
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    raise NotCheckedError(f"{path} is not the picture that was used; its sha256 differs")
                return path
        raise NotCheckedError(f"needs {name}, which is not below {self.data}")


Adapter = Callable[[Run], Outputs]


@dataclass(frozen=True)
class Part:
    """An adapter and what counts as equal for its outputs."""

    run: Adapter
    bound: Bound = field(default_factory=Bound)
    bounds: Mapping[str, Bound] = field(default_factory=dict)  # for outputs with their own
    given: frozenset[str] = frozenset()  # outputs that nobody computes
    gradients: bool = False  # whether the adapter differentiates


def find_part(system: str, part: str) -> Part:
    """The adapter of a golden part; ReenactError names those there are."""
    systems = [module.name for module in pkgutil.iter_modules(__path__)]
    if system not in systems:
        raise ReenactError(
            f"no adapters for the system {system!r}; there are some for {', '.join(systems)}. A golden's folder "
            "names its system; choose another with --system"
        )
    parts: Mapping[str, Part] = import_module(f".{system}", __name__).PARTS
    if part not in parts:
        raise ReenactError(
            f"no adapter for the part {part!r} of {system}; there are some for {', '.join(parts)}"
        )
    return parts[part]


def _check_state(network: nn.Module, expected: Mapping[str, tuple[int, ...]]) -> None:
    """ReenactError where the names, their order or the shapes of a network's state differ; empty passes."""
    if not expected:
        return
    ours = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    golden = list(expected.items())
    for place, (mine, theirs) in enumerate(zip(ours, golden, strict=False)):
        if mine != theirs:
            raise ReenactError(
                f"entry {place} of the state is {mine[0]} {mine[1]}; the golden says {theirs[0]} {theirs[1]}"
            )
    if len(ours) != len(golden):
        raise ReenactError(f"the state has {len(ours)} entries; the golden says {len(golden)}")


@contextmanager
def captured(network: nn.Module, modules: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """What inner modules give while the network runs: output name -> path of the module, such as "up.0"."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    hooks = [network.get_submodule(path).register_forward_hook(keep(name)) for name, path in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
