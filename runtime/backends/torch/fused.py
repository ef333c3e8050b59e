"""Kernels that stand in for whole regions of a graph: its model-local functions of the domain reenact.

A kernel is a function that torch can capture and compile. It takes the region's inputs and attributes, positions in
float32 and all else in the graph's precision, and gives its outputs.
"""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ....kernels import cuda
from ....kernels.launch import Launcher
from ....kernels.warp import MOST_MAPS, Field, Layout, Target, warp_pyramid
from ...files import home, private_folder

__all__ = ["Fused", "kernel_for", "kernels_on"]

Fused = Callable[..., tuple[Tensor, ...]]

_log = logging.getLogger(__name__)


def kernels_on(device: torch.device) -> Mapping[str, Fused]:
    """What a device has, by what a function's name begins with, up to its digits: "WarpPyramid" for WarpPyramid4."""
    if device.type != "cuda":
        return {}
    reason = cuda.missing()
    if reason:
        _log.warning("regions of the graph are computed node by node: %s", reason)
        return {}
    return {"WarpPyramid": _warp}


def kernel_for(function: str, kernels: Mapping[str, Fused]) -> Fused | None:
    """The kernel in the place of a function; None where there is none and its nodes are computed."""
    return kernels.get(function.rstrip("_0123456789"))


def _warp(field: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    return tuple(_warp_pyramid(field, list(features)))


@torch.library.custom_op("reenact::warp_pyramid", mutates_args=())
def _warp_pyramid(field: Tensor, features: list[Tensor]) -> list[Tensor]:
    """Features (B, C, H, W), all of one precision, sampled at a field (B, 2, h, w): one launch for each 8.

    The memory formats of the features, channels first or last, are kept; both at once take two launches. The kernels
    know no bfloat16: it is widened before them and narrowed after.
    """
    places = field.float().contiguous()
    known = [_widened(maps) if maps.dtype == torch.bfloat16 else maps for maps in features]
    warped = [torch.empty_like(maps, memory_format=_format(maps)) for maps in known]
    launcher = _launcher(field.device)
    for last in (False, True):
        chosen = [i for i, maps in enumerate(known) if (_format(maps) == torch.channels_last) == last]
        for start in range(0, len(chosen), MOST_MAPS):
            _launch(
                launcher, places, [(known[i], warped[i]) for i in chosen[start : start + MOST_MAPS]], last
            )
    return [found.to(maps.dtype) for found, maps in zip(warped, features, strict=True)]


@_warp_pyramid.register_fake
def _(field: Tensor, features: list[Tensor]) -> list[Tensor]:  # noqa: ARG001
    return [torch.empty_like(maps, memory_format=_format(maps)) for maps in features]


def _launch(launcher: Launcher, places: Tensor, pairs: list[tuple[Tensor, Tensor]], last: bool) -> None:
    layout: Layout = "NHWC" if last else "NCHW"
    targets = []
    for maps, warped in pairs:
        whole = maps.contiguous(memory_format=_format(maps))
        given, made = (tensor.permute(0, 2, 3, 1) if last else tensor for tensor in (whole, warped))
        targets.append(Target(given, made))
    warp_pyramid(launcher, targets, Field(places, planar=True), layout=layout)


def _widened(maps: Tensor) -> Tensor:
    return maps.float().contiguous(memory_format=_format(maps))


def _format(maps: Tensor) -> torch.memory_format:
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _launcher(device: torch.device) -> Launcher:
    """On the stream that torch is at; kernels are compiled once for the process and kept for the user."""
    number = device.index or 0
    if number not in _LAUNCHERS:
        _LAUNCHERS[number] = cuda.Launcher(number, cache=private_folder(home() / "kernels"))
    return _LAUNCHERS[number].on(torch.cuda.current_stream(device))


_LAUNCHERS: dict[int, cuda.Launcher] = {}
