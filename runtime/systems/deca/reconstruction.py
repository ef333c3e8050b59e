"""One face put together: fit, head, wrinkles, colours, and the pictures that show them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...media.frame import Image
from ...tracking.flame_crop import SIDE
from ...tracking.flame_fit import FlameFit
from ...tracking.flame_fit import View as FaceView
from . import render
from .model import Deca, Head, Person, Wrinkles
from .pictures import landmarks_picture, side_by_side
from .skin import GREY

__all__ = [
    "Reconstruction",
    "detail_picture",
    "grid",
    "reconstruct",
    "reposed",
    "shape_picture",
    "textured_picture",
]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A face seen in a photo; pictures are (224, 224, C) of its crop, maps (256, 256, C) of the skin, all float32."""

    crop: Floats  # (3, 224, 224) RGB in [0, 1]
    fit: FlameFit
    detail: Floats  # (128,)
    person: Person
    head: Head
    wrinkles: Wrinkles
    texture: Floats  # map, RGB as the photo shows it, light included
    albedo: Floats | None  # map, RGB of the model of colours, without light
    view: render.View


def reconstruct(
    deca: Deca,
    views: Sequence[FaceView],
    fits: Sequence[FlameFit] | None = None,
    details: Floats | None = None,
    person: Person | None = None,
) -> list[Reconstruction]:
    """Everything about each view of a face; the networks look at all of them at once.

    `fits`, `details` (N, 128) and `person`, where given, take the place of what would be seen.
    """
    fits = deca.fit(views) if fits is None else fits
    details = deca.detail_codes(views) if details is None else details
    return [
        _put_together(deca, view, fit, detail, person or deca.person(fit.shape))
        for view, fit, detail in zip(views, fits, details, strict=True)
    ]


def reposed(deca: Deca, source: Reconstruction, exp: Floats, pose: Floats, cam: Floats) -> Reconstruction:
    """The source with another expression (50,), pose (6,) and camera (3,); shape, wrinkles' code and colours stay."""
    fit = replace(source.fit, exp=exp, pose=pose, cam=cam)
    head = deca.head(source.person, exp, pose, cam)
    return replace(
        source,
        fit=fit,
        head=head,
        wrinkles=deca.wrinkles(head, exp, pose, source.detail),
        view=render.view(deca.skin, head, SIDE, SIDE),
    )


def shape_picture(made: Reconstruction) -> Floats:
    """The coarse head in grey."""
    return render.shape_picture(made.view)


def detail_picture(made: Reconstruction) -> Floats:
    """The wrinkled head in grey."""
    return render.shape_picture(made.view, made.wrinkles.normals)


def textured_picture(made: Reconstruction) -> Floats:
    """The head in the photo's colours, black where there is none."""
    return render.seen_in(made.view, made.texture)


def grid(made: Reconstruction) -> Image:
    """(224, 1120 or more, 3) uint8 RGB: photo, landmarks on it twice, shape, wrinkled shape, colours if modelled."""
    photo = made.crop.transpose(1, 2, 0)
    pictures = [
        photo,
        landmarks_picture(photo, made.head.landmarks_2d),
        landmarks_picture(photo, made.head.landmarks_3d),
        shape_picture(made),
        detail_picture(made),
    ]
    if made.albedo is not None:
        pictures.append(render.lit(made.view, made.albedo, made.fit.light))
    return side_by_side(pictures)


def _put_together(
    deca: Deca, view: FaceView, fit: FlameFit, detail: Floats, person: Person
) -> Reconstruction:
    head = deca.head(person, fit.exp, fit.pose, fit.cam)
    wrinkles = deca.wrinkles(head, fit.exp, fit.pose, detail)
    albedo = deca.albedo(fit.tex) if deca.has_albedo else None
    elsewhere: Floats | float = GREY
    if albedo is not None:
        elsewhere = np.float32(GREY) * albedo * render.sh_shading(wrinkles.normals, fit.light)
    return Reconstruction(
        crop=view.crop,
        fit=fit,
        detail=detail,
        person=person,
        head=head,
        wrinkles=wrinkles,
        texture=deca.skin.texture(view.crop, head.projected, elsewhere),
        albedo=albedo,
        view=render.view(deca.skin, head, SIDE, SIDE),
    )
