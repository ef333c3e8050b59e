"""DECA from kept checkpoints to a bundle, with the proof that the graphs are the networks and FLAME.

Everything that the runtime needs of licensed files goes into the bundle, which is the user's own.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError, ReenactError
from ..reference.deca import SIDE, DetailDecoder, Encoder, codes_of, detail_latent
from ..reference.deca_skin import skin_of
from ..reference.deca_texture import FlameTex
from ..reference.flame import Flame, FlameLandmarks, FlameModel, points_on
from ..reference.flame_files import Albedo
from ..reference.head_template import HeadTemplate
from ..reference.kept import kept_albedo, kept_flame, kept_landmarks, kept_template
from ..runtime import assets
from ..runtime.bundle import Bundle, Weights, check_place, write_bundle
from ..runtime.files import checkpoint_home
from ..runtime.media.images import read_image
from ..runtime.systems.face2face_rho.fitting import load_landmark_embedding
from ..runtime.tracking.flame_crop import FaceSquare, crop
from . import checkpoints
from .checkpoints import Checkpoint
from .deca_graphs import (
    AlbedoGraph,
    DecodeGraph,
    DetailCodeGraph,
    DetailGraph,
    EncodeGraph,
    IdentityGraph,
    PointsGraph,
    held_vertices,
)
from .onnx import Checked, compare, export_graph

__all__ = [
    "DEFAULT_SIZE",
    "NEXT",
    "Files",
    "export",
    "export_files",
    "kept_files",
    "read_checkpoint",
]

SYSTEM = "deca"
DEFAULT_SIZE = SIDE
NEXT = "reenact reconstruct PHOTO -o DIR"
# Vertices and wrinkles are as small as the steps of half precision; the rest runs once a photo. `encode` is left.
_WHOLE = frozenset({"encode_detail", "detail", "identity", "decode", "points", "albedo"})
_NETWORKS = ("e_flame", "e_detail", "d_detail")
_KEYPOINTS = "landmark_embedding.json"  # Face2Face-rho's
# How far a graph may be from the reference in float64: this part of the largest value, and twice what the reference
# itself is off in float32.
_MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True, eq=False)
class Files:
    """What belongs to the networks."""

    flame: FlameModel
    landmarks: FlameLandmarks
    template: HeadTemplate
    albedo: Albedo | None = None
    keypoints: tuple[NDArray[np.int64], NDArray[np.float64]] | None = (
        None  # triangles (72,) and weights (72, 3)
    )


def read_checkpoint(
    folder: Path | None, *, suffix: str | None = None, config: Path | None = None
) -> Checkpoint:
    """The networks that were added; ModelError where none were, ReenactError for what means nothing here."""
    for name, given in (("checkpoint", folder), ("suffix", suffix), ("config", config)):
        if given is not None:
            raise ReenactError(
                f"--{name} means nothing for deca, which needs several files; add them with `reenact models add "
                "flame generic_model.pkl` and `reenact models add deca FOLDER`, then leave it out"
            )
    return checkpoints.read(SYSTEM, _NETWORKS, None)


def kept_files() -> Files:
    """What was added with `reenact models add`; ModelError that says where to get what is missing.

    Face2Face-rho's 72 keypoints are in it where their file was added with that system.
    """
    keypoints = None
    file = checkpoint_home("face2face_rho") / _KEYPOINTS
    if file.is_file():
        embedding = load_landmark_embedding(file)
        keypoints = embedding.triangles, embedding.weights
    return Files(kept_flame(), kept_landmarks(), kept_template(), kept_albedo(), keypoints)


def export(checkpoint: Checkpoint, size: int, folder: Path, licence: str) -> tuple[Bundle, list[Checked]]:
    """Write the bundle of what was added and say how far its graphs are from the reference.

    Raises ReenactError for another size than 224, ModelError for files that are missing, and as `export_files`.
    """
    if size != SIDE:
        raise ReenactError(f"--size {size}: DECA's networks look at {SIDE} pixels; leave it out")
    return export_files(checkpoint, kept_files(), folder, licence)


def export_files(
    checkpoint: Checkpoint, files: Files, folder: Path, licence: str
) -> tuple[Bundle, list[Checked]]:
    """Write the bundle of these networks and files; each graph runs on random inputs, the encoders on a portrait too.

    Raises ReenactError where a graph is further from the reference in float64 than rounding explains, ModelError where
    FLAME and the template are not of one mesh; nothing is written then.
    """
    check_place(folder)
    _require_one_mesh(files)
    networks = (
        checkpoint.network("e_flame", Encoder),
        checkpoint.network("e_detail", Encoder),
        checkpoint.network("d_detail", DetailDecoder),
    )
    tasks = [*_encoders(*networks), *_heads(files)]
    if files.albedo is not None:
        tasks.append(_albedo(files.albedo))
    graphs: dict[str, onnx.ModelProto] = {}
    checked = []
    for task in tasks:
        graph = export_graph(task.module, task.inputs, task.outputs)
        graphs[task.name] = _any_count(graph) if task.batched else graph
        for name, inputs in {"random": task.inputs, **task.more}.items():
            checked.append(_checked(task, name, inputs, graphs[task.name]))
    bundle = write_bundle(
        folder,
        system=SYSTEM,
        resolution=SIDE,
        graphs=graphs,
        preprocessing={"pictures": f"float32 RGB in [0, 1], 3 x {SIDE} x {SIDE}"},
        precision="fp32",
        weights=Weights(origin=checkpoint.origin, licence=licence),
        arrays={"skin": _skin_arrays(files.template, files.landmarks)},
        whole=_WHOLE & graphs.keys(),
    )
    return bundle, checked


def _require_one_mesh(files: Files) -> None:
    ours, theirs = files.template.triangles, files.flame.f
    if not np.array_equal(ours, theirs):
        raise ModelError(
            f"head_template.obj and FLAME's generic_model.pkl are of different meshes: {len(ours)} and {len(theirs)} "
            "triangles that are not the same in the same order; add both again as they are published"
        )


@dataclass(frozen=True, eq=False)
class _Task:
    """A graph to be made, and what it is compared with."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    reference: Callable[[torch.dtype, Mapping[str, Tensor]], tuple[Tensor, ...]]
    more: Mapping[str, Mapping[str, Tensor]]  # other inputs by name
    batched: bool = False


def _checked(task: _Task, name: str, inputs: Mapping[str, Tensor], graph: onnx.ModelProto) -> Checked:
    with torch.no_grad():
        wide, narrow = (
            dict(zip(task.outputs, task.reference(dtype, inputs), strict=True))
            for dtype in (torch.float64, torch.float32)
        )
    differences = compare(graph, inputs, wide)
    for difference in differences:
        expected = wide[difference.output]
        rounding = float((expected - narrow[difference.output]).abs().max())
        if difference.largest > _MOST_DIFFERENCE * float(expected.abs().max()) + 2 * rounding:
            raise ReenactError(
                f"graph {task.name}: {difference.output} is {difference.largest:.1e} from the reference, whose own "
                f"rounding is {rounding:.1e}; nothing was written. This is a fault of the export"
            )
    return Checked(task.name, name, differences)


def _encoders(e_flame: Encoder, e_detail: Encoder, d_detail: DetailDecoder) -> list[_Task]:
    generator = torch.Generator().manual_seed(0)
    noise = {"images": torch.rand(1, 3, SIDE, SIDE, generator=generator)}
    photo = {"portrait": {"images": _portrait()}}

    def codes(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        seen = codes_of(_as(e_flame, dtype)(inputs["images"].to(dtype)))
        return tuple(getattr(seen, name) for name in EncodeGraph.outputs)

    def detail(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (_as(e_detail, dtype)(inputs["images"].to(dtype)),)

    def heights(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        exp, pose, seen = (inputs[name][None].to(dtype) for name in DetailGraph.inputs)
        return (_as(d_detail, dtype)(detail_latent(pose, exp, seen))[0, 0],)

    latent = {
        name: torch.randn(count, generator=generator) * 0.5
        for name, count in (("exp", 50), ("pose", 6), ("detail", 128))
    }
    return [
        _Task("encode", EncodeGraph(e_flame), noise, EncodeGraph.outputs, codes, photo, batched=True),
        _Task(
            "encode_detail",
            DetailCodeGraph(e_detail),
            noise,
            DetailCodeGraph.outputs,
            detail,
            photo,
            batched=True,
        ),
        _Task("detail", DetailGraph(d_detail), latent, DetailGraph.outputs, heights, {}),
    ]


def _heads(files: Files) -> list[_Task]:
    flame = Flame(files.flame, files.landmarks).eval().requires_grad_(False)
    keypoints = None
    if files.keypoints is not None:
        triangles, weights = (torch.from_numpy(values) for values in files.keypoints)
        keypoints = flame.faces_tensor[triangles], weights.float()
    held = held_vertices(flame, keypoints)
    identity, decode, points = (
        IdentityGraph(flame, held),
        DecodeGraph(flame),
        PointsGraph(flame, held, keypoints),
    )
    generator = torch.Generator().manual_seed(1)
    shape = torch.randn(100, generator=generator) * 0.5
    exp = torch.randn(50, generator=generator) * 0.5
    pose = torch.tensor([0.1, -0.3, 0.05, 0.2, 0.01, -0.02])
    rest, rest_points, joints = identity(shape)

    def shaped(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        head = _as(flame, dtype)(
            inputs["shape"][None].to(dtype), exp.new_zeros(1, 50).to(dtype), pose[None].to(dtype)
        )
        return head.shaped[0], head.shaped[0, held], head.joints_rest[0, [0, 2]]

    def posed(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        wide = _as(flame, dtype)
        seen, turned = (inputs[name][None].to(dtype) for name in ("exp", "pose"))
        head = wide(shape[None].to(dtype), seen, turned)
        made = [head.vertices[0], wide.landmarks_2d(head)[0], wide.landmarks_3d(head)[0]]
        if keypoints is not None:
            unturned = torch.cat([torch.zeros_like(turned[:, :3]), turned[:, 3:]], 1)
            still = wide(shape[None].to(dtype), seen, unturned)
            corners, parts = keypoints[0][None], keypoints[1][None].to(dtype)
            made += [points_on(one.vertices, corners, parts)[0] for one in (head, still)]
        return tuple(made)

    def few(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return posed(dtype, inputs)[1:]

    def most(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return posed(dtype, inputs)[:3]

    still = {"exp": exp, "pose": torch.zeros(6)}
    seen = {"exp": exp, "pose": pose}
    return [
        _Task("identity", identity, {"shape": shape}, IdentityGraph.outputs, shaped, {}),
        _Task(
            *("decode", decode, {"rest": rest, "joints": joints, **seen}, DecodeGraph.outputs, most),
            {"unturned": {"rest": rest, "joints": joints, **still}},
        ),
        _Task(
            "points", points, {"rest_points": rest_points, "joints": joints, **seen}, points.outputs, few, {}
        ),
    ]


def _albedo(albedo: Albedo) -> _Task:
    wide = FlameTex(albedo.basis.shape[1])
    mean, basis = torch.from_numpy(albedo.mean), torch.from_numpy(albedo.basis)
    wide.load_state_dict({"texture_mean": mean[None, None], "texture_basis": basis[None]})
    tex = torch.randn(albedo.basis.shape[1], generator=torch.Generator().manual_seed(2))

    def coloured(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (_as(wide, dtype)(inputs["tex"][None].to(dtype))[0],)

    return _Task("albedo", AlbedoGraph(wide), {"tex": tex}, AlbedoGraph.outputs, coloured, {})


def _skin_arrays(template: HeadTemplate, landmarks: FlameLandmarks) -> dict[str, NDArray[Any]]:
    """The template as the runtime takes it, which triangle each pixel of it shows, and where the landmarks lie."""
    skin = skin_of(template)
    arrays = asdict(template)
    arrays["triangles"] = template.triangles.astype(np.int32)
    arrays["uv_triangles"] = template.uv_triangles.astype(np.int32)
    return arrays | {
        "pixel_triangles": skin.uv_triangles.numpy().astype(np.int32),
        "pixel_weights": skin.uv_weights.numpy(),
        "landmark_corners": arrays["triangles"][landmarks.full_lmk_faces_idx[0]],
        "landmark_weights": landmarks.full_lmk_bary_coords[0].astype(np.float32),
    }


def _portrait() -> Tensor:
    """A photo as the networks are given it, about its face."""
    photo = read_image(assets.portrait("eileen_collins"))
    height, width = photo.shape[:2]
    square = FaceSquare(width / 2, height * 0.4, min(height, width) // 2)
    return torch.from_numpy(crop(photo, square.to_crop()))[None]


def _any_count(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph for any number of pictures: nothing in it depends on that."""
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "count"
    del graph.graph.value_info[:]
    return graph


def _as(module: nn.Module, dtype: torch.dtype) -> Any:
    return module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)
