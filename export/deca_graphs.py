"""The modules behind DECA's graphs: encoders with batch norms folded, and FLAME as few products with constants.

DECA turns the head and the jaw only. Root, neck and eyes then move alike, so a vertex follows either the head or the
jaw in it, and of the 36 pose columns the jaw's nine are left.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ModelError
from ..reference.deca import DetailDecoder, Encoder, codes_of, detail_latent
from ..reference.deca_texture import FlameTex
from ..reference.flame import Flame, contour_rows
from ..reference.rotations import rodrigues

__all__ = [
    "AlbedoGraph",
    "DecodeGraph",
    "DetailCodeGraph",
    "DetailGraph",
    "EncodeGraph",
    "Held",
    "IdentityGraph",
    "PointsGraph",
    "held_vertices",
]

_SHAPES = 100  # columns of the shape; those of the expression follow
_ROOT, _JAW = 0, 2  # joints
_JAW_FEATURES = slice(9, 18)  # of the pose columns, which begin with the neck
_WEIGHTS_SUM = 1e-4  # how far a vertex's weights may sum up beside 1
Held = Sequence[tuple[Tensor, Tensor]]
"""Sets of points on the mesh: corners (..., 3) int64 and weights (..., 3) each."""


class EncodeGraph(nn.Module):
    """Photos to what is seen in them, the names and sizes as published."""

    inputs = ("images",)
    outputs = ("shape", "tex", "exp", "pose", "cam", "light")

    def __init__(self, e_flame: Encoder) -> None:
        super().__init__()
        self.encoder = _folded_encoder(e_flame)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, 224, 224) RGB in [0, 1]."""
        codes = codes_of(self.encoder(images))
        return tuple(getattr(codes, name) for name in self.outputs)


class DetailCodeGraph(nn.Module):
    """Photos to the persons' 128 numbers of wrinkles."""

    inputs = ("images",)
    outputs = ("detail",)

    def __init__(self, e_detail: Encoder) -> None:
        super().__init__()
        self.encoder = _folded_encoder(e_detail)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) to (B, 128)."""
        detail: Tensor = self.encoder(images)
        return detail


class DetailGraph(nn.Module):
    """Expression and jaw as they shall be seen, and a person's wrinkles, to heights over the skin."""

    inputs = ("exp", "pose", "detail")
    outputs = ("heights",)

    def __init__(self, d_detail: DetailDecoder) -> None:
        super().__init__()
        self.decoder = _folded_decoder(d_detail)

    def forward(self, exp: Tensor, pose: Tensor, detail: Tensor) -> Tensor:
        """exp (50,), pose (6,), detail (128,) to (256, 256) metres."""
        heights: Tensor = self.decoder(detail_latent(pose[None], exp[None], detail[None]))
        return heights[0, 0]


class AlbedoGraph(nn.Module):
    """A skin's colours, of the pixels that are shown only."""

    inputs = ("tex",)
    outputs = ("albedo",)

    def __init__(self, skin: FlameTex) -> None:
        super().__init__()
        side = int((skin.texture_mean.numel() // 3) ** 0.5)
        kept = torch.arange(3 * side**2).reshape(side, side, 3)[::2, ::2].permute(2, 0, 1).flip(0).flatten()
        self.side = side // 2
        self.register_buffer("mean", skin.texture_mean[0, 0, kept])
        self.register_buffer("basis", skin.texture_basis[0, kept].T.contiguous())
        self.mean: Tensor
        self.basis: Tensor

    def forward(self, tex: Tensor) -> Tensor:
        """(50,) codes to (3, 256, 256) RGB, about [0, 1]."""
        return (self.mean + tex[None] @ self.basis).reshape(3, self.side, self.side)


class IdentityGraph(nn.Module):
    """The share of a person's shape in everything: once a source."""

    inputs = ("shape",)
    outputs = ("rest", "rest_points", "joints")

    def __init__(self, flame: Flame, points: Tensor) -> None:
        super().__init__()
        directions = flame.shapedirs[..., :_SHAPES]
        regressor = _regressor(flame)
        self.points = points
        self.register_buffer("template", flame.v_template)
        self.register_buffer("directions", directions.flatten(0, 1).T.contiguous())
        self.register_buffer("joints_template", (regressor @ flame.v_template.double()).float())
        self.register_buffer("joints_directions", _regressed(regressor, directions))
        self.template: Tensor
        self.directions: Tensor
        self.joints_template: Tensor
        self.joints_directions: Tensor

    def forward(self, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """shape (100,) to vertices (V, 3), those that `points` needs (P, 3) and the joints of head and jaw (2, 3)."""
        rest = self.template + (shape[None] @ self.directions).reshape(-1, 3)
        joints = self.joints_template + (shape[None] @ self.joints_directions).reshape(2, 3)
        return rest, rest[self.points], joints


class _Posed(nn.Module):
    """FLAME from a person's share on, for all vertices or some of them."""

    def __init__(self, flame: Flame, vertices: Tensor) -> None:
        super().__init__()
        _require_weights(flame)
        expressions = flame.shapedirs[..., _SHAPES:]
        jaw = flame.posedirs[_JAW_FEATURES].reshape(9, -1, 3)[:, vertices].flatten(1)
        moves = expressions[vertices].flatten(0, 1).T
        self.register_buffer("directions", torch.cat([moves, jaw]).contiguous())
        self.register_buffer("joints_directions", _regressed(_regressor(flame), expressions))
        self.register_buffer("with_jaw", flame.lbs_weights[vertices, _JAW, None].clone())
        self.directions: Tensor
        self.joints_directions: Tensor
        self.with_jaw: Tensor

    def forward(
        self, rest: Tensor, joints: Tensor, exp: Tensor, pose: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices before and after the head's turn, (V, 3) each, and that turn (3, 3)."""
        turn, opened = rodrigues(pose.reshape(2, 3)).unbind(0)
        bent = opened - torch.eye(3)
        moved = joints + (exp[None] @ self.joints_directions).reshape(2, 3)
        features = torch.cat([exp, bent.flatten()])[None]
        at_rest = rest + (features @ self.directions).reshape(-1, 3)
        unturned = at_rest + self.with_jaw * ((at_rest - moved[1:]) @ bent.T)
        return unturned, (unturned - moved[:1]) @ turn.T + moved[:1], turn


class DecodeGraph(nn.Module):
    """The whole mesh for an expression and a pose."""

    inputs = ("rest", "joints", "exp", "pose")
    outputs = ("vertices", "landmarks_2d", "landmarks_3d")

    def __init__(self, flame: Flame) -> None:
        super().__init__()
        every = torch.arange(len(flame.v_template))
        self.posed = _Posed(flame, every)
        self.landmarks = _Landmarks(flame, every)

    def forward(
        self, rest: Tensor, joints: Tensor, exp: Tensor, pose: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """rest (V, 3), joints (2, 3), exp (50,), pose (6,) to (V, 3), (68, 3), (68, 3) metres."""
        _, vertices, turn = self.posed(rest, joints, exp, pose)
        return vertices, *self.landmarks(vertices, turn)


class PointsGraph(nn.Module):
    """The landmarks alone, from the few vertices that they need; and `keypoints` of other systems, where there are.

    Keypoints are given twice, the second time as they were if the head were not turned.
    """

    inputs = ("rest_points", "joints", "exp", "pose")

    def __init__(self, flame: Flame, vertices: Tensor, keypoints: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.outputs: tuple[str, ...] = ("landmarks_2d", "landmarks_3d")
        self.posed = _Posed(flame, vertices)
        self.landmarks = _Landmarks(flame, vertices)
        self.keypoints = None
        if keypoints is not None:
            self.outputs = (*self.outputs, "keypoints", "keypoints_unturned")
            self.keypoints = _Points(*keypoints, vertices)

    def forward(self, rest_points: Tensor, joints: Tensor, exp: Tensor, pose: Tensor) -> tuple[Tensor, ...]:
        """rest_points (P, 3), the others as of the whole mesh; all results in metres."""
        unturned, vertices, turn = self.posed(rest_points, joints, exp, pose)
        landmarks = self.landmarks(vertices, turn)
        if self.keypoints is None:
            return tuple(landmarks)
        return (*landmarks, self.keypoints(vertices), self.keypoints(unturned))


class _Landmarks(nn.Module):
    """The 68 with the contour that a viewer sees, and the 68 that stay with the skin."""

    def __init__(self, flame: Flame, vertices: Tensor) -> None:
        super().__init__()
        contour, inner, fixed = _landmark_sets(flame)
        self.inner, self.fixed = _Points(*inner, vertices), _Points(*fixed, vertices)
        self.contour = _Points(*contour, vertices)

    def forward(self, vertices: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """(V, 3) and (3, 3) to (68, 3) twice."""
        # No arctangent of two numbers exists in ONNX; the second one is the cosine here, never below 0.
        yaw = torch.asin((-turn[2, :1]).clamp(-1, 1)).rad2deg()
        contour = self.contour(vertices, contour_rows(yaw))[0]
        return torch.cat([contour, self.inner(vertices)]), self.fixed(vertices)


class _Points(nn.Module):
    """Points in triangles of a mesh of which only these vertices, in rising order, are there."""

    def __init__(self, corners: Tensor, weights: Tensor, vertices: Tensor) -> None:
        super().__init__()
        self.register_buffer("corners", torch.searchsorted(vertices, corners))
        self.register_buffer("weights", weights[..., None])
        self.corners: Tensor
        self.weights: Tensor

    def forward(self, vertices: Tensor, rows: Tensor | None = None) -> Tensor:
        """(V, 3) to (..., 3); with `rows` only those of the table."""
        corners, weights = self.corners, self.weights
        if rows is not None:
            corners, weights = corners[rows], weights[rows]
        return (vertices[corners] * weights).sum(-2)


def held_vertices(flame: Flame, keypoints: tuple[Tensor, Tensor] | None) -> Tensor:
    """(P,) int64, rising: the vertices that the landmarks, and keypoints where there are, lie between."""
    sets = [*_landmark_sets(flame), *([] if keypoints is None else [keypoints])]
    every = torch.cat([corners.flatten() for corners, _ in sets]).numpy()
    return torch.from_numpy(np.unique(every))


def _landmark_sets(flame: Flame) -> Held:
    """The contours, the inner landmarks and all that stay with the skin."""
    return [
        (flame.faces_tensor[triangles], weights)
        for triangles, weights in (
            (flame.dynamic_lmk_faces_idx, flame.dynamic_lmk_bary_coords),
            (flame.lmk_faces_idx, flame.lmk_bary_coords),
            (flame.full_lmk_faces_idx[0], flame.full_lmk_bary_coords[0]),
        )
    ]


def _regressor(flame: Flame) -> Tensor:
    """(2, V) float64, of the joints that turn."""
    return flame.J_regressor[[_ROOT, _JAW]].double()


def _regressed(regressor: Tensor, directions: Tensor) -> Tensor:
    """(K, 6): what directions (V, 3, K) do to the joints."""
    made = torch.einsum("jv,vck->kjc", regressor, directions.double())
    return made.flatten(1).float()


def _require_weights(flame: Flame) -> None:
    apart = float((flame.lbs_weights.sum(1) - 1).abs().max())
    if apart > _WEIGHTS_SUM:
        raise ModelError(
            f"FLAME's weights of a vertex sum up to {1 + apart:.5f} where they must give 1; fetch the file again"
        )


def _folded_encoder(encoder: Encoder) -> Encoder:
    """A copy whose batch norms are folded into the convolutions before them."""
    made = copy.deepcopy(encoder).eval()
    for module in made.modules():
        for norm in ("bn1", "bn2", "bn3"):
            if hasattr(module, norm):
                convolution = norm.replace("bn", "conv")
                _fold(module, convolution, norm)
        past = getattr(module, "downsample", None)
        if isinstance(past, nn.Sequential):
            _fold(past, "0", "1")
    return made


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    parts = dict(module.named_children())
    before, behind = parts[convolution], parts[norm]
    assert isinstance(before, nn.Conv2d)
    assert isinstance(behind, nn.BatchNorm2d)
    setattr(module, convolution, fuse_conv_bn_eval(before, behind))
    setattr(module, norm, nn.Identity())


def _folded_decoder(decoder: DetailDecoder) -> DetailDecoder:
    """The same of the detail decoder, whose first one is folded into the linear layer."""
    made = copy.deepcopy(decoder).eval()
    linear, first, blocks = made.l1[0], made.conv_blocks[0], made.conv_blocks
    assert isinstance(linear, nn.Linear)
    assert isinstance(first, nn.BatchNorm2d)
    assert first.running_mean is not None
    assert first.running_var is not None
    scale = first.weight * torch.rsqrt(first.running_var + first.eps)
    shift = first.bias - first.running_mean * scale
    pixels = linear.out_features // len(scale)
    each, more = scale.repeat_interleave(pixels), shift.repeat_interleave(pixels)
    with torch.no_grad():
        linear.weight *= each[:, None]
        linear.bias.copy_(linear.bias * each + more)
    blocks[0] = nn.Identity()
    for i, layer in enumerate(blocks):
        if isinstance(layer, nn.BatchNorm2d):
            _fold(blocks, str(i - 1), str(i))
    return made
