"""The published networks in plain PyTorch: the truth that graphs, kernels and engines are measured against.

A network is asked for by the name that its golden numbers have: `build("face2face_rho/rendering_net")`.
"""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ..errors import ReenactError

__all__ = ["build", "names", "settings_of"]


def build(name: str, **config: Any) -> nn.Module:
    """A freshly initialised network, in eval mode; call `.train()` on it to train.

    `name` is "<system>/<network>". `config` are the settings that the network takes, under their published
    names; left out, those of the released model hold. Raises ReenactError where the name or a setting is
    unknown, or the settings do not fit together.
    """
    factory = _factory(name)
    known = inspect.signature(factory).parameters
    unknown = [key for key in config if key not in known]
    if unknown:
        raise ReenactError(
            f"{name} has no setting {', '.join(unknown)}; it takes {', '.join(known) or 'none'}"
        )
    return factory(**config).eval()


def settings_of(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a whole system's settings, those that `build` takes for the network `name`; ReenactError as `build`."""
    known = inspect.signature(_factory(name)).parameters
    return {key: config[key] for key in known if key in config}


def names() -> list[str]:
    """The names of all networks, sorted."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:
            found += [f"{module.name}/{network}" for network in _networks(module.name)]
    return sorted(found)


def _factory(name: str) -> Callable[..., nn.Module]:
    system, _, network = name.partition("/")
    known = any(module.name == system and not module.ispkg for module in pkgutil.iter_modules(__path__))
    factory = _networks(system).get(network) if known else None
    if factory is None:
        raise ReenactError(f"no network is called {name!r}; there are {', '.join(names())}")
    return factory


def _networks(system: str) -> Mapping[str, Callable[..., nn.Module]]:
    networks: Mapping[str, Callable[..., nn.Module]] = getattr(
        import_module(f".{system}", __name__), "NETWORKS", {}
    )
    return networks
