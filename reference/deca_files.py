"""DECA's published weights, `deca_model.tar`: three networks in one file, each checked name by name."""

from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelError
from . import build
from .checkpoints import load_states, require_fit
from .flame_files import DECA_SITE

__all__ = ["DECA_CHECKPOINT", "read_deca_model"]

DECA_CHECKPOINT = "deca_model.tar"
_NETWORKS = ("E_flame", "E_detail", "D_detail")
_MOST_BYTES = 2 << 30  # about 215 million are weights; training adds its own to them
_COUNTER = "num_batches_tracked"


def read_deca_model(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts of e_flame, e_detail and d_detail, float32, each whole and nothing else.

    Counters of batches may be missing: they only matter in training. Raises ModelError that names the file and what
    is wrong with it.
    """
    size = path.stat().st_size if path.is_file() else 0
    if not 0 < size <= _MOST_BYTES:
        raise ModelError(
            f"{path}: is missing, empty or larger than {_MOST_BYTES} bytes; expected DECA's weights, "
            f"{DECA_CHECKPOINT}, which {DECA_SITE} says where to get"
        )
    states = {}
    for name, state in load_states(path, _NETWORKS).items():
        with torch.device("meta"):
            expected = build(f"deca/{name.lower()}").state_dict()
        for key in expected:
            if key.endswith(_COUNTER):
                state.setdefault(key, torch.zeros((), dtype=torch.int64))
        require_fit(path, name, state, expected)
        states[name.lower()] = {key: state[key].to(there.dtype) for key, there in expected.items()}
    return states
