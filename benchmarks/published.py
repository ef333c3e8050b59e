"""Of each system one driving frame, as its authors published it and as we export it, from the same inputs.

What `engines` times. A later system adds one function here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ReenactError
from ..export import exporter
from ..export.face2face_rho import samples
from ..export.face2face_rho_graphs import FrameGraph, Sizes, SourceGraph, normalised
from ..reference.face2face_rho import MotionNet, RenderingNet
from ..runtime.media.frame import Image
from .face2face_rho import PublishedFrame, networks_by_rule

__all__ = ["SYSTEMS", "Way", "Ways", "face2face_rho"]


@dataclass(frozen=True)
class Way:
    """One module that makes a frame, with inputs to make it from."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    picture: Callable[[NDArray[Any]], Image]  # of the first output: (S, S, 3) uint8


@dataclass(frozen=True)
class Ways:
    """A system's frame: as its authors published it, and as we export it; both of the same source and driving."""

    published: Way
    ours: Way
    weights: str  # where they are from


def face2face_rho(checkpoint: Path | None, size: int) -> Ways:
    """Face2Face-rho on a portrait, turned; `size` is a multiple of 64, as the published networks need it."""
    sizes = Sizes.of(size)
    if sizes.motion != size:
        raise ReenactError(f"--sizes {size}: the published networks need a multiple of 64")
    rendering, motion, weights = _rho_networks(checkpoint)
    source, frame = dict(samples(sizes))["portrait"]
    with torch.no_grad():
        features = SourceGraph(rendering, motion, sizes).eval()(*source.values())
    kept = dict(zip(SourceGraph.outputs, features, strict=True))
    seen = normalised(source["image"])
    inputs = {name: kept[name] for name in SourceGraph.outputs[:4]}
    for i, step in ((1, 16), (2, 8), (3, 4)):
        drawn = [normalised(source[f"landmarks_{i}"]), normalised(frame[f"driving_{i}"])]
        inputs[f"input{i}"] = torch.cat([*drawn, seen[:, :, ::step, ::step]], 1)
    inputs["head_pose"] = frame["head_pose"][None]
    return Ways(
        published=Way(PublishedFrame(rendering, motion), inputs, ("picture",), _levels),
        ours=Way(FrameGraph(rendering, motion, sizes), kept | frame, FrameGraph.outputs, np.asarray),
        weights=weights,
    )


def _rho_networks(checkpoint: Path | None) -> tuple[RenderingNet, MotionNet, str]:
    if checkpoint is not None:
        read = exporter("face2face_rho").read_checkpoint(checkpoint)
        return (
            read.network("rendering_net", RenderingNet),
            read.network("motion_net", MotionNet),
            read.origin,
        )
    return (*networks_by_rule(), "made by rule, not trained")


def _levels(picture: NDArray[Any]) -> Image:
    """(1, 3, S, S) in [-1, 1] to (S, S, 3) uint8, cut off as the published code does it."""
    return np.asarray(np.clip((picture[0].transpose(1, 2, 0) + 1) * 127.5, 0, 255), np.uint8)


SYSTEMS: Mapping[str, Callable[[Path | None, int], Ways]] = {"face2face_rho": face2face_rho}
"""A system's published frame and ours, for a checkpoint (None: weights by rule) and a size."""
