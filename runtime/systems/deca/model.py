"""A bundle of DECA at work: from views of faces to fits, from fits to heads, from those to wrinkles.

Engines are loaded when they are first needed. Only `encode` may compute in half precision, as the bundle's manifest
says: vertices and normals are as small as its steps, and the rest runs once a photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError
from ...closing import Closing
from ...engine import Engine, Held
from ...tracking.flame_crop import SIDE
from ...tracking.flame_fit import FlameFit, FlameFitter, View
from ..protocol import SystemSettings
from .skin import Skin

__all__ = ["NAME", "Deca", "Head", "Person", "Points", "Wrinkles", "project", "to_pixels"]

NAME = "deca"
Floats = NDArray[np.float32]

_SMALL = {"points"}  # over before a second thread has woken up
_SEEN_FROM = 0.1  # z of the projected normal below which a landmark counts as seen


@dataclass(frozen=True, eq=False)
class Person:
    """The share of a source's shape in every head: computed once."""

    shape: Floats  # (100,)
    rest: dict[str, Held]  # what the whole mesh takes
    rest_points: dict[str, Held]  # what the landmarks alone take


@dataclass(frozen=True, eq=False)
class Head:
    """A head as FLAME has it and where it is in its crop, float32."""

    vertices: Floats  # (V, 3) metres
    projected: Floats  # (V, 3) image space of the crop, -1 to 1, y down, smaller z nearer
    normals: Floats  # (V, 3) of the vertices
    projected_normals: Floats  # (V, 3) of the projected vertices
    landmarks_2d: Floats  # (68, 2) pixels of the crop; the contour is where a viewer sees it
    landmarks_3d: (
        Floats  # (68, 4) x, y and depth in pixels, all on the skin; 1 where they face the viewer, else 0
    )


@dataclass(frozen=True, eq=False)
class Points:
    """What the landmarks-only graph gives, (N, 3) metres each."""

    landmarks_2d: Floats  # (68, 3)
    landmarks_3d: Floats  # (68, 3)
    keypoints: Floats | None  # (72, 3) of Face2Face-rho, where the bundle was exported with its file
    keypoints_unturned: Floats | None  # the same without the head's turn


@dataclass(frozen=True, eq=False)
class Wrinkles:
    """What the detail decoder adds to a head."""

    heights: Floats  # (256, 256) metres, as decoded
    displacement: Floats  # (256, 256) metres, with what everybody has
    normals: Floats  # (256, 256, 3), the coarse ones where wrinkles do not count


class Deca(Closing):
    """A context manager; results are arrays of their own."""

    def __init__(self, settings: SystemSettings) -> None:
        """Open the bundle; BundleError where it is missing or of another system."""
        self._settings = settings
        self._bundle = settings.open_bundle(NAME)
        rest = self._bundle.manifest.graphs.get("decode")
        vertices = rest.outputs["vertices"].shape[0] if rest and "vertices" in rest.outputs else None
        if vertices is None:
            raise BundleError(
                f"{self._bundle.folder}: has no graph decode of a fixed mesh; export the bundle again"
            )
        self._require_whole()
        self.skin = Skin(self._bundle.arrays("skin"), vertices)
        self._engines: dict[str, Engine] = {}
        self._loading = Lock()

    @property
    def has_keypoints(self) -> bool:
        """Whether `points` gives Face2Face-rho's keypoints."""
        return "keypoints" in self._bundle.manifest.graphs["points"].outputs

    @property
    def has_albedo(self) -> bool:
        """Whether the bundle has a model of skin colours."""
        return "albedo" in self._bundle.manifest.graphs

    def fit(self, views: Sequence[View]) -> list[FlameFit]:
        """What is seen in views of faces, in one go."""
        return FlameFitter(self._engine("encode")).fit(views)

    def detail_codes(self, views: Sequence[View]) -> Floats:
        """(N, 128): the persons' wrinkles."""
        return self._engine("encode_detail").run({"images": np.stack([view.crop for view in views])})[
            "detail"
        ]

    def person(self, shape: Floats) -> Person:
        """Of a shape (100,)."""
        made = self._engine("identity").run({"shape": shape})
        return Person(
            shape,
            self._engine("decode").hold({"rest": made["rest"], "joints": made["joints"]}),
            self._engine("points").hold({"rest_points": made["rest_points"], "joints": made["joints"]}),
        )

    def head(self, person: Person, exp: Floats, pose: Floats, cam: Floats) -> Head:
        """The person with an expression (50,) and a pose (6,), seen by a camera (3,)."""
        made = self._engine("decode").run({**person.rest, "exp": exp, "pose": pose})
        vertices = made["vertices"]
        projected = project(vertices, cam)
        normals = self.skin.normals(vertices)
        projected_normals = self.skin.normals(projected)
        fixed = to_pixels(project(made["landmarks_3d"], cam))
        contour = to_pixels(project(made["landmarks_2d"], cam))[:, :2]
        seen = self.skin.at_landmarks(projected_normals[:, 2:]) < _SEEN_FROM
        return Head(
            vertices, projected, normals, projected_normals, contour, np.c_[fixed, seen.astype(np.float32)]
        )

    def points(self, person: Person, exp: Floats, pose: Floats) -> Points:
        """The landmarks alone, in a fraction of the time."""
        made = self._engine("points").run({**person.rest_points, "exp": exp, "pose": pose})
        return Points(
            made["landmarks_2d"], made["landmarks_3d"], made.get("keypoints"), made.get("keypoints_unturned")
        )

    def wrinkles(self, head: Head, exp: Floats, pose: Floats, detail: Floats) -> Wrinkles:
        """A person's detail code (128,) on a head of this expression and pose."""
        heights = self._engine("detail").run({"exp": exp, "pose": pose, "detail": detail})["heights"]
        detailed = self.skin.detail_normals(head.vertices, head.normals, heights)
        normals = self.skin.blended(detailed, head.normals)
        return Wrinkles(heights, self.skin.displacement(heights), normals)

    def albedo(self, tex: Floats) -> Floats:
        """(256, 256, 3) RGB of a colour code (50,); BundleError where there is no model of colours."""
        return np.asarray(self._engine("albedo").run({"tex": tex})["albedo"].transpose(1, 2, 0))

    def close(self) -> None:
        """Free all engines."""
        for engine in self._engines.values():
            engine.close()

    def _require_whole(self) -> None:
        for name, entry in self._bundle.manifest.graphs.items():
            if name != "encode" and not entry.whole:
                raise BundleError(
                    f"{self._bundle.folder}: graph {name} is not marked as whole, so half precision would reach it; "
                    "export the bundle again"
                )

    def _engine(self, name: str) -> Engine:
        with self._loading:
            if name not in self._engines:
                self._engines[name] = self._bundle.engine(
                    name,
                    backend=self._settings.backend,
                    precision=self._settings.precision,
                    threads=1 if name in _SMALL else None,
                )
            return self._engines[name]


def project(points: Floats, cam: Floats) -> Floats:
    """(N, 3) image space of points (N, 3) in metres: weak perspective with cam (3,) scale, shift x, shift y."""
    scale, x, y = cam.astype(np.float32)
    return np.asarray(scale * (points + np.array([x, y, 0], np.float32)) * np.array([1, -1, -1], np.float32))


def to_pixels(points: Floats) -> Floats:
    """Image space in pixels of the crop, for all axes alike: published depths are scaled so as well."""
    return np.asarray(points * np.float32(SIDE / 2) + np.float32(SIDE / 2))
