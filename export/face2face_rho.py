"""Face2Face-rho from a published checkpoint to a bundle, with the proof that the graphs are the networks."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ReenactError
from ..reference.face2face_rho import MotionNet, RenderingNet, read_config
from ..runtime import assets
from ..runtime.bundle import Bundle, Weights, check_place, write_bundle
from ..runtime.media.images import read_image
from ..runtime.systems.face2face_rho.fitting import load_landmark_embedding, load_pose_transform
from ..runtime.systems.face2face_rho.landmarks import draw_landmark_images
from ..runtime.systems.face2face_rho.points import Crop, head_pose_of, keypoints_of
from ..runtime.tracking.canonical import load as load_canonical
from ..runtime.tracking.face import HeadPose, rotation_matrix
from . import checkpoints
from .checkpoints import Added, Checkpoint
from .face2face_rho_graphs import (
    SCALES,
    Fourth,
    FrameGraph,
    Sizes,
    SourceGraph,
    normalised,
    require_released_layout,
)
from .onnx import Checked, Difference, compare, export_graph

__all__ = [
    "ADD_OPTIONS",
    "DEFAULT_SIZE",
    "NEXT",
    "add_checkpoint",
    "export",
    "read_checkpoint",
    "samples",
]

ADD_OPTIONS = frozenset(("suffix", "config"))
DEFAULT_SIZE = 512  # as released
NEXT = "reenact run PHOTO VIDEO --system face2face_rho -o out.mp4"
_WHOLE = frozenset({"source"})  # once a photo there is nothing to gain, and every frame would suffer
SYSTEM = "face2face_rho"
NETWORKS = ("rendering_net", "motion_net")
_EXTRAS = {  # files of the published release that users may bring, and what checks them
    "landmark_embedding.json": load_landmark_embedding,
    "pose_transform_config.json": load_pose_transform,
}
# How far a graph may be from the reference in float64: this part of the largest value, at least of 1, and twice what
# the reference itself is off in float32.
_MOST_DIFFERENCE = 1e-4


def read_checkpoint(
    folder: Path | None, *, suffix: str | None = None, config: Path | None = None
) -> Checkpoint:
    """The checkpoint in a folder, or the one that was added; `config` is its ini, by default the released one.

    Raises ModelError or ReenactError that names the file at fault.
    """
    return checkpoints.read(
        SYSTEM, NETWORKS, folder, suffix=suffix, config=None if config is None else read_config(config)
    )


def add_checkpoint(path: Path, *, suffix: str | None = None, config: Path | None = None) -> Added:
    """Check a published folder and keep it: both networks, and the embedding and pose files if they are there."""
    checkpoint = read_checkpoint(path, suffix=suffix, config=config)
    others = {}
    for name, check in _EXTRAS.items():
        extra = path / name
        if extra.exists():
            check(extra)
            others[name] = extra.read_bytes()
    return Added(checkpoints.add(checkpoint, others), f"reenact export {SYSTEM} --size 512")


def export(checkpoint: Checkpoint, size: int, folder: Path, licence: str) -> tuple[Bundle, list[Checked]]:
    """Write the bundle for pictures of side `size` and say how far its graphs are from the reference.

    Both graphs run on random inputs and on a portrait photo. Raises ReenactError for a size or settings that cannot
    be, and where a graph is further from the reference in float64 than rounding explains; nothing is written then.
    """
    sizes = Sizes.of(size)
    rendering, motion = (
        checkpoint.network(NETWORKS[0], RenderingNet),
        checkpoint.network(NETWORKS[1], MotionNet),
    )
    require_released_layout(rendering, motion)
    check_place(folder)
    source, frame = SourceGraph(rendering, motion, sizes).eval(), FrameGraph(rendering, motion, sizes).eval()
    checked: list[Checked] = []
    graphs: dict[str, onnx.ModelProto] = {}
    for name, (source_inputs, frame_inputs) in samples(sizes):
        with torch.no_grad():
            features = dict(zip(source.outputs, source(*source_inputs.values()), strict=True))
        inputs = {"source": source_inputs, "frame": {**features, **frame_inputs}}
        if not graphs:
            graphs = {
                "source": export_graph(source, inputs["source"], source.outputs),
                "frame": export_graph(frame, inputs["frame"], frame.outputs),
            }
        wide = _reference(rendering, motion, sizes, source_inputs, frame_inputs, torch.float64)
        narrow = _reference(rendering, motion, sizes, source_inputs, frame_inputs, torch.float32)
        for graph, names in (("source", source.outputs[:4]), ("frame", frame.outputs)):
            expected = {output: wide[output] for output in names}
            differences = compare(graphs[graph], inputs[graph], expected)
            rounding = {output: _apart(wide[output], narrow[output]) for output in names}
            largest = {output: 1.0 if output == "image" else _apart(wide[output], 0) for output in names}
            _require_close(graph, differences, rounding, largest)
            checked.append(Checked(graph, name, differences))
    bundle = write_bundle(
        folder,
        system=SYSTEM,
        resolution=size,
        graphs=graphs,
        preprocessing={"pictures": "uint8 RGB, height x width x 3", "motion_size": float(sizes.motion)},
        precision="fp32",
        weights=Weights(origin=checkpoint.origin, licence=licence),
        whole=_WHOLE,
    )
    return bundle, checked


def _require_close(
    graph: str, differences: list[Difference], rounding: Mapping[str, float], largest: Mapping[str, float]
) -> None:
    """`rounding` of the reference in float32 and the `largest` value, by output."""
    for difference in differences:
        own = rounding[difference.output] * (2 / 255 if difference.output == "image" else 1)
        if difference.largest > _MOST_DIFFERENCE * max(1.0, largest[difference.output]) + 2 * own:
            raise ReenactError(
                f"graph {graph}: {difference.output} is {difference.largest:.1e} from the reference, whose own "
                f"rounding is {own:.1e}; nothing was written. This is a fault of the export"
            )


def _reference(
    rendering: RenderingNet,
    motion: MotionNet,
    sizes: Sizes,
    source: Mapping[str, Tensor],
    frame: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """What the published networks make of the graphs' inputs: the features, and the picture as levels in 0..255."""
    wide, mover = copy.deepcopy(rendering).to(dtype), copy.deepcopy(motion).to(dtype)
    fourth = Fourth(sizes).to(dtype)
    with torch.no_grad():
        picture = normalised(source["image"], dtype)
        small = fourth(picture)
        inputs = [
            torch.cat(
                [
                    normalised(source[f"landmarks_{i}"], dtype),
                    normalised(frame[f"driving_{i}"], dtype),
                    seen,
                ],
                1,
            )
            for i, seen in ((1, small[:, :, ::4, ::4]), (2, small[:, :, ::2, ::2]), (3, small))
        ]
        features = wide.register_source(picture, source["head_pose"][None].to(dtype))
        fake = wide.decode(features, mover(*inputs).high, frame["head_pose"][None].to(dtype))
    levels = ((fake + 1) * 127.5)[0].permute(1, 2, 0)
    return dict(zip(SourceGraph.outputs, features, strict=False)) | {"image": levels}


def _apart(a: Tensor, b: Tensor | int) -> float:
    return float((a - b).abs().max())


def samples(sizes: Sizes) -> Iterator[tuple[str, tuple[dict[str, Tensor], dict[str, Tensor]]]]:
    """Named inputs of both graphs, those of the frame without what the source gives: random, and a portrait."""
    generator = torch.Generator().manual_seed(0)

    def noise(side: int) -> Tensor:
        return torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=generator)

    def posed(prefix: str, images: list[Tensor], pose: Tensor) -> dict[str, Tensor]:
        return {f"{prefix}_{i}": image for i, image in enumerate(images, 1)} | {"head_pose": pose}

    sides = [sizes.motion // scale for scale in SCALES]
    poses = torch.randn(2, 6, generator=generator) * 0.3
    yield (
        "random",
        (
            {"image": noise(sizes.picture)} | posed("landmarks", [noise(side) for side in sides], poses[0]),
            posed("driving", [noise(side) for side in sides], poses[1]),
        ),
    )
    photo = read_image(assets.portrait("eileen_collins"))
    photo = cv2.resize(photo, (sizes.picture, sizes.picture), interpolation=cv2.INTER_AREA)
    (still, still_pose), (turned, turned_pose) = (_fit(yaw) for yaw in (0.0, 0.3))

    def drawn(keypoints: NDArray[np.float32]) -> list[Tensor]:
        return [torch.from_numpy(image) for image in draw_landmark_images(keypoints, sizes.motion)]

    yield (
        "portrait",
        (
            {"image": torch.from_numpy(np.ascontiguousarray(photo))}
            | posed("landmarks", drawn(still), still_pose),
            posed("driving", drawn(turned), turned_pose),
        ),
    )


def _fit(yaw: float) -> tuple[NDArray[np.float32], Tensor]:
    """Keypoints and head pose of the canonical face, turned."""
    pose = HeadPose(rotation_matrix(yaw, 0.1, 0.0), 1.0, np.zeros(3, np.float32))
    crop = Crop(-22.0, -24.0, 44.0)  # centimetres here: one pixel each
    keypoints = keypoints_of(pose.project(load_canonical().neutral), crop)
    return keypoints, torch.from_numpy(head_pose_of(pose, keypoints, crop))
