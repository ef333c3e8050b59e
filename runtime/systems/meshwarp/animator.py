"""The built-in system as the runtime sees it: a photo and its face in, the photo moved as observed out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import FaceNotFoundError
from ....kernels.mesh import identity_flow, mesh_flow, resample
from ...media.frame import Image
from ...tracking.canonical import LEFT_EYE, RIGHT_EYE
from ...tracking.face import Face
from ..protocol import Observation
from .eyes import EyeLayer
from .head import HeadMesh
from .mouth import MouthLayer
from .patch import bounds

__all__ = ["MeshWarp", "MeshWarpPortrait"]


@dataclass(frozen=True, eq=False)
class MeshWarpPortrait:
    """A registered photo: its mesh and layers live in the part of the picture that can move, `box`."""

    image: Image  # (H, W, 3) uint8 RGB, the whole photo
    face: Face  # in the whole photo
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 pixels
    moving: Image  # that part of the photo
    mesh: HeadMesh
    eyes: tuple[EyeLayer, EyeLayer]  # the person's right, left
    mouth: MouthLayer
    identity: NDArray[np.float32]  # (h, w, 2) flow of a picture that stands still


class MeshWarp:
    """Moves the photo's own pixels: exact where nothing moves, at the photo's full resolution."""

    name = "meshwarp"

    def register(self, image: Image, face: Face) -> MeshWarpPortrait:
        """Build the mesh of a photo (H, W, 3) uint8 RGB; raises FaceNotFoundError when the face lies outside it."""
        height, width = image.shape[:2]
        x0, y0, x1, y1 = HeadMesh(face, (0, 0, width, height)).extent
        box = bounds(np.array([[x0, y0], [x1, y1]], np.float32), 0.0, image.shape)
        if box is None:
            raise FaceNotFoundError("the face lies outside the photo; use a photo that shows the whole face")
        moving = np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]])
        mesh = HeadMesh(
            face.placed(scale=1.0, x=-box[0], y=-box[1]), (-box[0], -box[1], width - box[0], height - box[1])
        )
        return MeshWarpPortrait(
            image=image,
            face=face,
            box=box,
            moving=moving,
            mesh=mesh,
            eyes=(EyeLayer(moving, mesh, RIGHT_EYE), EyeLayer(moving, mesh, LEFT_EYE)),
            mouth=MouthLayer(moving, mesh),
            identity=identity_flow(*moving.shape[:2]),
        )

    def animate(self, portrait: MeshWarpPortrait, observation: Observation) -> Image:
        """The whole photo with its head moved as observed, (H, W, 3) uint8 RGB, a new array."""
        moved = portrait.mesh.move(observation.motion)
        flow = mesh_flow(moved.vertices, portrait.mesh.sources, moved.triangles, portrait.identity.copy())
        picture = resample(portrait.moving, flow)
        for eye, gaze in zip(portrait.eyes, observation.motion.gaze, strict=True):
            eye.draw(picture, moved, gaze)
        portrait.mouth.draw(picture, moved)
        x0, y0, x1, y1 = portrait.box
        if picture.shape == portrait.image.shape:
            return picture
        result = portrait.image.copy()
        result[y0:y1, x0:x1] = picture
        return result

    def close(self) -> None:
        """Nothing is held."""
