"""Photos of a made-up head with known codes, in DECA's folder layout, and networks small enough to learn them fast."""

import dataclasses
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from reenact.reference.deca import Codes, codes_of
from reenact.reference.deca_render import lit, project, sh_shading, view
from reenact.reference.deca_skin import blended_detail_normals, detail_normals, skin_of, vertex_normals
from reenact.reference.deca_synthetic import helix_texture
from reenact.reference.flame import Flame
from reenact.reference.flame_files import Albedo
from reenact.reference.stand_in import stand_in_model, stand_in_template
from reenact.reference.stand_in_landmarks import stand_in_landmarks
from reenact.reference.training.deca import face_model
from torch import nn
from torch.nn import functional

SIDE = 224
FOLDER = Path(__file__).parent
CAM = (8.0, 0.0, 0.02)


@cache
def stand_in_face():
    return face_model(Flame(stand_in_model(), stand_in_landmarks()), stand_in_skin(), albedo())


def albedo():
    """Waves of colours."""
    mean, basis = (values.numpy() for values in helix_texture(2, 50))
    return Albedo(mean[0, 0], basis[0])


def stand_in_skin():
    return skin_of(stand_in_template())


def codes(**changes):
    """(1, ...) of the mean face in plain light; the changes are numbers at the start of a code."""
    given = {
        "shape": torch.zeros(1, 100),
        "tex": torch.zeros(1, 50),
        "exp": torch.zeros(1, 50),
        "pose": torch.zeros(1, 6),
        "cam": torch.tensor([CAM]),
        "light": torch.zeros(1, 9, 3),
    }
    given["light"][:, 0] = 2.0
    given["light"][:, 1:4] = torch.tensor([0.05, 0.1, 0.25])[:, None]
    for name, numbers in changes.items():
        given[name][0, : len(numbers)] = torch.tensor(numbers)
    return Codes(**given)


def photograph(face, seen, heights=None):
    """A photo (224, 224, 3) uint8 RGB, landmarks in pixels (68, 2), and where the face is (224, 224)."""
    with torch.no_grad():
        head, skin = face.posed(seen), face.skin
        projected = project(head.vertices, seen.cam)
        normals = vertex_normals(skin, head.vertices)
        looked = view(skin, projected, normals, vertex_normals(skin, projected), SIDE, SIDE)
        picture = lit(looked, face.albedo(seen.tex), seen.light)
        if heights is not None:
            wrinkled = detail_normals(skin, head.vertices, normals, heights)
            skin_map = face.albedo(seen.tex) * sh_shading(
                blended_detail_normals(skin, wrinkled, normals), seen.light
            )
            picture = functional.grid_sample(skin_map, looked.grid, align_corners=False) * looked.alpha
        picture = picture + 0.3 * (1 - looked.alpha)
        points = project(face.flame.landmarks_2d(head), seen.cam)[0, :, :2]
    pixels = (picture[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    mask = functional.grid_sample(skin.wrinkled, looked.grid, align_corners=False) * looked.alpha
    return pixels, ((points + 1) * (SIDE / 2)).numpy(), (mask[0, 0] > 0.99).float().numpy()


def write_photo(folder, name, shot):
    picture, points, mask = shot
    for kind in ("images", "landmarks", "masks"):
        (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / f"{name}.png"), picture[:, :, ::-1])
    np.save(folder / "landmarks" / f"{name}.npy", points)
    np.save(folder / "masks" / f"{name}.npy", mask)


class LightEncoder(nn.Module):
    """A look at a small photo; its batch norm hardly counts, as batches are too small for one."""

    def __init__(self, count, start=None):
        super().__init__()
        self.norm = nn.BatchNorm1d(32)
        self.first, self.last = nn.Linear(3 * 14 * 14, 32), nn.Linear(32, count)
        with torch.no_grad():
            self.last.weight *= 0.02
            self.last.bias.zero_()
            if start is not None:
                self.last.bias.copy_(start)

    def forward(self, images):
        hidden = torch.relu(self.first(functional.avg_pool2d(images, 16).flatten(1) - 0.4))
        return self.last(hidden + 0.01 * self.norm(hidden))


class LightDecoder(nn.Module):
    """Wrinkles on a coarse grid."""

    def __init__(self):
        super().__init__()
        self.grid = nn.Linear(181, 64 * 64)
        nn.init.zeros_(self.grid.bias)
        with torch.no_grad():
            self.grid.weight *= 0.1

    def forward(self, latent):
        heights = 0.01 * torch.tanh(self.grid(latent)).reshape(-1, 1, 64, 64)
        return functional.interpolate(heights, (256, 256), mode="bilinear", align_corners=False)


class LightLook(nn.Module):
    """Features of pictures, as many maps as VGG19 gives, or one vector as a recognition network."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps
        self.layer = nn.Conv2d(3, 6, 3, 1, 1)
        self.requires_grad_(False)

    def forward(self, pictures):
        features = torch.relu(self.layer(functional.avg_pool2d(pictures, 16)))
        return (features,) * 5 if self.maps else features.mean((2, 3))


def flat(seen):
    """(236,) as E_flame gives them."""
    parts = [getattr(seen, name).flatten() for name in ("shape", "tex", "exp", "pose", "cam", "light")]
    made = torch.cat(parts)
    assert torch.equal(codes_of(made[None]).light, seen.light)
    return made


def light_networks(start=None):
    torch.manual_seed(3)
    return {
        "E_flame": LightEncoder(236, flat(codes()) if start is None else start),
        "E_detail": LightEncoder(128),
        "D_detail": LightDecoder(),
    }


def write_set(folder, face, photos, heights=None):
    """Persons by name, of each photo the `changes` of its codes; all in one table."""
    table = [[f"{person}/{number}" for number in range(len(shots))] for person, shots in photos.items()]
    for person, shots in photos.items():
        for number, changes in enumerate(shots):
            write_photo(folder, f"{person}/{number}", photograph(face, codes(**changes), heights))
    np.save(folder / "list.npy", np.array(table))
    return folder


def cropped(face, seen, scale):
    """The codes of the same head in the crop that is `scale` times the mean side of its landmarks' box."""
    _, points, _ = photograph(face, seen)
    low, high = points.min(0), points.max(0)
    size = int((high - low).mean() * scale)
    left, top = (low + high) / 2 - size / 2
    factor = (SIDE - 1) / size
    old, x, y = seen.cam[0].tolist()
    # p' = factor (p - corner), where p = 112 (s (X + t) + 1) and y is turned over
    new = factor * old
    shift_x = x + (factor * (112 - left) / 112 - 1) / new
    shift_y = y - (factor * (112 - top) / 112 - 1) / new
    return dataclasses.replace(seen, cam=torch.tensor([[new, shift_x, shift_y]]))
