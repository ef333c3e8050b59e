"""Inputs on which a bundle's graphs are tried when their precision is chosen: photos, and numbers of the usual size."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime import assets
from ..runtime.bundle import Bundle
from ..runtime.engine import Tensors, load
from ..runtime.graph import Graph, TensorSpec
from ..runtime.media.frame import Image
from ..runtime.media.images import read_image

__all__ = ["bundle_inputs", "graph_inputs"]

_PORTRAITS = ("eileen_collins", "grace_hopper")


def bundle_inputs(bundle: Bundle, graph: Graph) -> list[Tensors]:
    """Sets of inputs of one of a bundle's graphs; what the `source` graph gives is taken from it, in float32."""
    features: list[Tensors] = [{}, {}]
    source = bundle.manifest.graphs.get("source")
    if source is not None and any(name in source.outputs for name in graph.inputs):
        with load(bundle.folder / source.file, backend="cpu", precision="fp32") as engine:
            features = [engine.run(_inputs(engine.inputs, name, {})) for name in _PORTRAITS]
    return [_inputs(graph.inputs, name, given) for name, given in zip(_PORTRAITS, features, strict=True)]


def graph_inputs(graph: Graph) -> list[Tensors]:
    """Sets of inputs of a graph that belongs to no bundle."""
    return [_inputs(graph.inputs, name, {}) for name in _PORTRAITS]


def _inputs(specs: Mapping[str, TensorSpec], portrait: str, given: Tensors) -> Tensors:
    """Of `given` what is there; the rest from a portrait and a random generator of its own."""
    photo = read_image(assets.portrait(portrait))
    generator = np.random.default_rng(_PORTRAITS.index(portrait))
    return {
        name: given[name] if name in given else _made(spec, photo, generator) for name, spec in specs.items()
    }


def _made(spec: TensorSpec, photo: Image, generator: np.random.Generator) -> NDArray[np.generic]:
    """A picture, as floats in [0, 1], where the input can be one; else numbers of a third around 0, levels, or zeros.

    Free axes are 1.
    """
    shape = tuple(1 if size is None else size for size in spec.shape)
    if np.issubdtype(spec.dtype, np.floating):
        picture = _pictured(shape, photo)
        if picture is not None:
            return (picture / np.float32(255)).astype(spec.dtype)
        return (generator.standard_normal(shape) * 0.3).astype(spec.dtype)
    if spec.dtype == np.uint8:
        picture = _pictured(shape, photo)
        return generator.integers(0, 256, shape, np.uint8) if picture is None else picture
    return np.zeros(shape, spec.dtype)


def _pictured(shape: tuple[int, ...], photo: Image) -> Image | None:
    """The photo as (..., H, W, 3) or (..., 3, H, W) uint8; None where the shape is no picture's."""
    last = len(shape) >= 3 and shape[-1] == 3 and min(shape[-3:-1]) > 3
    first = len(shape) >= 3 and shape[-3] == 3 and min(shape[-2:]) > 3
    if not last and not first:
        return None
    height, width = shape[-3:-1] if last else shape[-2:]
    resized = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    placed = resized if last else resized.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(placed, shape))
