"""DECA's training steps: E_flame on landmarks and pictures, then E_detail and D_detail on the skin's pictures.

Batches are of `SubjectPhotos`, (B, K, ...); a step sees the B * K photos in a row. Networks may run in half precision;
heads, drawings and losses are float32. The batch is repeated with the codes that a subject should have in common
exchanged between its photos, so that what they say must do for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..deca import SIDE, Codes, codes_of, detail_latent
from ..deca_render import View, lit, project, sh_shading, view
from ..deca_skin import HeadSkin, blended_detail_normals, detail_normals, vertex_normals, world_to_uv
from ..deca_texture import FlameTex
from ..flame import Flame, PosedHead
from . import deca_losses as losses
from .deca_settings import CoarseWeights, DetailWeights, Weights
from .task import Batch, Outcome

__all__ = ["Coarse", "CoarseCritics", "Detail", "DetailCritics", "FaceModel", "exchanged"]

_FACING = -0.05  # z of the projected normal below which skin is seen
_BORDER = 5  # pixels of the square that seen skin is eroded by
_MAPS = (2, 3)  # of VGG19: relu3_1 and relu4_1, the first of the third and of the fourth block
_MAP_WEIGHTS = (1.0, 2.0)  # style both, content the second once more


class FaceModel(nn.Module):
    """What heads are made and drawn with; nothing of it is trained."""

    def __init__(self, flame: Flame, skin: HeadSkin, colours: FlameTex | None) -> None:
        super().__init__()
        self.flame, self.colours = flame, colours
        for constant in fields(skin):
            self.register_buffer(f"skin_{constant.name}", getattr(skin, constant.name), persistent=False)
        self.requires_grad_(False)

    @property
    def skin(self) -> HeadSkin:
        """On the module's device."""
        return HeadSkin(
            **{constant.name: getattr(self, f"skin_{constant.name}") for constant in fields(HeadSkin)}
        )

    def albedo(self, tex: Tensor) -> Tensor:
        """(B, 3, 256, 256) colours of codes (B, 50)."""
        if self.colours is None:
            raise ValueError("this face has no colours")
        colours: Tensor = self.colours(tex)
        return colours

    def posed(self, codes: Codes) -> PosedHead:
        """The heads of codes."""
        head: PosedHead = self.flame(codes.shape, codes.exp, codes.pose)
        return head


@dataclass(frozen=True)
class CoarseCritics:
    """What judges E_flame; no module, so that it is no part of what the phase trains."""

    face: FaceModel
    recognition: nn.Module | None  # (B, 3, 224, 224) to (B, n); needed where the identity loss counts
    weights: CoarseWeights
    consistent: bool


@dataclass(frozen=True)
class DetailCritics:
    """What E_detail and D_detail build on and are judged by; no module, as above."""

    e_flame: nn.Module
    face: FaceModel
    vgg: nn.Module | None  # as `Vgg19`; needed where the MRF loss counts
    weights: DetailWeights
    consistent: bool


class Coarse(nn.Module):
    """The stages pretrain and coarse, which differ in their weights."""

    def __init__(self, e_flame: nn.Module, critics: CoarseCritics) -> None:
        super().__init__()
        self.e_flame, self.critics = e_flame, critics

    def forward(self, batch: Batch, _made: Mapping[str, Tensor], _epoch: int) -> Outcome:
        """The losses on a batch; made: `landmarks` (B K, 68, 2), and where heads are drawn `rendered` over photos."""
        subjects, photos = batch["images"].shape[:2]
        images, masks, landmarks = (batch[name].flatten(0, 1) for name in ("images", "masks", "landmarks"))
        codes = codes_of(self.e_flame(images).float())
        if self.critics.consistent and photos > 1:
            order = exchanged(subjects, photos).to(images.device)
            codes = _repeated(codes, codes.shape[order])
            images, masks, landmarks = (torch.cat([each, each]) for each in (images, masks, landmarks))
        with torch.autocast(images.device.type, enabled=False):
            terms, made, face = self._judged(codes, images, masks, landmarks)
        weight, recognition = self.critics.weights.identity, self.critics.recognition
        if weight > 0 and face is not None and recognition is not None:
            terms["identity"] = weight * losses.identity_loss(recognition, face, images)
        return Outcome(terms, {name: value.detach()[: subjects * photos] for name, value in made.items()})

    def _judged(
        self, codes: Codes, images: Tensor, masks: Tensor, landmarks: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
        """Terms, what pictures are made of, and what recognition shall look at where it is asked."""
        weights, model = self.critics.weights, self.critics.face
        head = model.posed(codes)
        points = project(model.flame.landmarks_2d(head), codes.cam)[..., :2]
        terms = {
            "landmark": losses.landmark_loss(points, landmarks, landmarks[..., 2]),
            "eye": losses.eye_closure_loss(points, landmarks),
            "lip": losses.lip_closure_loss(points, landmarks),
            "shape": losses.code_loss(codes.shape),
            "exp": losses.code_loss(codes.exp),
            "tex": losses.code_loss(codes.tex),
            "light": losses.light_loss(codes.light),
        }
        made, face = {"landmarks": points}, None
        if weights.draws:
            seen = _seen(model.skin, head, codes)
            albedo = model.albedo(codes.tex)
            rendered, covered = lit(seen, albedo, codes.light), _covered(model.skin, seen)
            terms["photo"] = losses.photometric_loss(rendered, images, covered, masks)
            made["rendered"] = rendered * covered + images * (1 - covered)
            # Who somebody is must be told by the shape, not painted on it.
            unpainted = lit(seen, albedo.detach(), codes.light.detach())
            face = unpainted * covered + images * (1 - covered)
        return _weighted(terms, weights), made, face


class Detail(nn.Module):
    """The stage detail."""

    def __init__(self, e_detail: nn.Module, d_detail: nn.Module, critics: DetailCritics) -> None:
        super().__init__()
        self.e_detail, self.d_detail, self.critics = e_detail, d_detail, critics

    def forward(self, batch: Batch, _made: Mapping[str, Tensor], _epoch: int) -> Outcome:
        """The losses on a batch; made: `shading`, and where skins are coloured `texture` and `target`, of the skin."""
        subjects, photos = batch["images"].shape[:2]
        images, masks = (batch[name].flatten(0, 1) for name in ("images", "masks"))
        with torch.no_grad():
            codes = codes_of(self.critics.e_flame(images).float())
        detail = self.e_detail(images)
        if self.critics.consistent and photos > 1:
            order = exchanged(subjects, photos).to(images.device)
            detail = torch.cat([detail, detail[order]])
            codes = _repeated(codes, codes.shape)
            images, masks = (torch.cat([each, each]) for each in (images, masks))
        heights = self.d_detail(detail_latent(codes.pose, codes.exp, detail)).float()
        with torch.autocast(images.device.type, enabled=False):
            terms, made = self._judged(codes, heights, images, masks)
        weights, vgg = self.critics.weights, self.critics.vgg
        if weights.mrf > 0 and vgg is not None:
            ours, theirs = (vgg(2 * made[name] - 1) for name in ("texture", "target"))
            with torch.autocast(images.device.type, enabled=False):
                maps = [
                    weight * losses.mrf_loss(ours[number].float(), theirs[number].float())
                    for number, weight in zip(_MAPS, _MAP_WEIGHTS, strict=True)
                ]
            terms["mrf"] = weights.mrf * torch.stack(maps).sum()
        return Outcome(terms, {name: value.detach()[: subjects * photos] for name, value in made.items()})

    def _judged(
        self, codes: Codes, heights: Tensor, images: Tensor, masks: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms, and the face's part of the skin's pictures, black where it is not seen."""
        weights, model = self.critics.weights, self.critics.face
        skin = model.skin
        with torch.no_grad():
            head = model.posed(codes)
            projected = project(head.vertices, codes.cam)
            normals = vertex_normals(skin, head.vertices)
            places = world_to_uv(skin, projected)[:, :2].permute(0, 2, 3, 1)
            photo, marked = _sampled(images, places), _sampled(masks, places)
            away = world_to_uv(skin, vertex_normals(skin, projected)[..., 2:])
            visible = marked * (away < _FACING) * skin.wrinkled
            hidden = 1 - _eroded(visible)
        wrinkled = detail_normals(skin, head.vertices, normals, heights)
        shading = sh_shading(blended_detail_normals(skin, wrinkled, normals), codes.light)
        terms, made = {}, {"shading": shading}
        if weights.draws:
            with torch.no_grad():
                albedo = model.albedo(codes.tex)
            shown = losses.skin_patch(visible)
            made["texture"] = losses.skin_patch(albedo * shading) * shown
            made["target"] = losses.skin_patch(photo) * shown
            terms["photo"] = (made["texture"] - made["target"]).abs().mean()
        terms["height"] = heights.abs().mean()
        terms["smoothness"] = losses.shading_smoothness_loss(shading)
        terms["symmetry"] = losses.symmetry_loss(heights, hidden)
        return _weighted(terms, weights), made


def exchanged(subjects: int, photos: int) -> Tensor:
    """(subjects * photos,) int64: at random, for each photo one of the same subject, each of them once."""
    return torch.cat([number * photos + torch.randperm(photos) for number in range(subjects)])


def _repeated(codes: Codes, shape: Tensor) -> Codes:
    """The codes twice, the second time with this shape."""
    given = {code.name: getattr(codes, code.name) for code in fields(codes)}
    return Codes(
        **{name: torch.cat([code, shape if name == "shape" else code]) for name, code in given.items()}
    )


def _weighted(terms: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Those that count, times how much."""
    amounts = {name: getattr(weights, name) for name in terms}
    return {name: amounts[name] * term for name, term in terms.items() if amounts[name] > 0}


def _seen(skin: HeadSkin, head: PosedHead, codes: Codes) -> View:
    projected = project(head.vertices, codes.cam)
    normals, projected_normals = vertex_normals(skin, head.vertices), vertex_normals(skin, projected)
    return view(skin, projected, normals, projected_normals, SIDE, SIDE)


def _covered(skin: HeadSkin, seen: View) -> Tensor:
    """(B, 1, H, W) 1 where the face is drawn; without a gradient, as moving the border would be one way to win."""
    mask = skin.wrinkled.expand(len(seen.grid), -1, -1, -1)
    return (_sampled(mask, seen.grid.detach()) * seen.alpha).detach()


def _sampled(pictures: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(
        pictures, places, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _eroded(mask: Tensor) -> Tensor:
    return -functional.max_pool2d(-mask, _BORDER, 1, _BORDER // 2)
