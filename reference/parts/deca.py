"""How the parts of DECA are run against their golden numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...runtime.tracking.flame_crop import FaceSquare, crop, whole_picture_map
from .. import build
from ..deca import SIDE, Codes, DetailDecoder, Encoder, colours, decode, encode, look, wrinkles
from ..deca_pictures import landmarks_picture, side_by_side
from ..deca_raster import interpolate, rasterize_pytorch3d, rasterize_standard
from ..deca_render import (
    SH_FACTORS,
    depth_picture,
    directional_shading,
    into_picture,
    lit,
    point_shading,
    project,
    sh_shading,
    shape_picture,
)
from ..deca_skin import blended_detail_normals, vertex_normals, world_to_uv
from ..deca_synthetic import helix_skin, helix_texture
from ..deca_texture import FlameTex, dense_mesh
from ..fill import fill, image
from ..flame import Flame, contour_rows, contour_yaw
from ..golden import Bound
from ..rotations import euler_to_quaternion, quaternion_to_axis_angle, rodrigues
from ..synthetic import helix_landmarks, helix_model
from ..training import deca_losses as losses
from . import Outputs, Part, Run, captured

__all__ = ["PARTS"]

_EXACT = Bound(tolerance=0.0)
_CLOSE = Bound(tolerance=1e-5)
_PIXELS = Bound(tolerance=2e-6)  # of a few hundred: less than a thousandth
_MICROMETRE = Bound(tolerance=5e-6)  # of 15 centimetres
# The published code moves the head 10 further from the eye with every picture it draws, in float32, so that another
# triangle wins where two are as near. Which of a few triangles a pixel shows is also a matter of rounding.
_DRAWN = Bound(share=0.005)
_NUMBERED = Bound(tolerance=0.0, share=0.005)
_WRINKLED = Bound(tolerance=1e-3, share=0.003)  # small triangles' normals magnify rounding
_FROM_Z10 = Bound(tolerance=1e-4)  # projected normals are those of vertices with 10 added to z in the golden
_BYTES = Bound(tolerance=1.01 / 255, share=0.005)
_ENCODER_STEPS = {
    "maxpool": "encoder.maxpool",
    **{f"layer{i}": f"encoder.layer{i}" for i in range(1, 5)},
    "hidden": "layers.1",
}
_DECODER_STEPS = {
    "l1": "l1",
    "bn0": "conv_blocks.0",
    "conv16": "conv_blocks.2",
    **{f"act{side}": f"conv_blocks.{4 * i + 4}" for i, side in enumerate((16, 32, 64, 128, 256))},
    "conv_out": "conv_blocks.21",
}


def _encoder(name: str) -> Callable[[Run], Outputs]:
    def run_it(run: Run) -> Outputs:
        network = run.network(name, Encoder)
        with captured(network, _ENCODER_STEPS) as seen:
            parameters = network(run.input("images"))
        return {**seen, "features": seen["layer4"].mean((2, 3)), "parameters": parameters}

    return run_it


def _d_detail(run: Run) -> Outputs:
    network = run.network("d_detail", DetailDecoder)
    with captured(network, _DECODER_STEPS) as seen:
        heights = network(run.input("latent"))
    return {**seen, "displacement": heights}


def _flametex(run: Run) -> Outputs:
    said = run.golden.config
    albedo = run.checked(FlameTex(said["n_tex"]))
    mean, basis = helix_texture(said["columns"], said["n_tex"])
    albedo.load_state_dict({"texture_mean": mean, "texture_basis": basis})
    return {"albedo": albedo(run.input("tex"))}


def _flame_helix(run: Run) -> Outputs:
    said = run.golden.config
    flame = run.checked(Flame(helix_model(), helix_landmarks(), n_shape=said["n_shape"], n_exp=said["n_exp"]))
    codes = [run.input(name) for name in ("shape", "exp", "pose")]
    head = flame(*codes)
    looking = flame(*codes, run.input("eye_pose"))
    yaw = contour_yaw(head.rotations)
    rows = contour_rows(yaw)
    last_row = head.transforms.new_tensor([0, 0, 0, 1]).expand(*head.transforms.shape[:2], 1, 4)
    return {
        "rotation_matrices": head.rotations,
        "joints_rest": head.joints_rest,
        "joints_posed": head.joints,
        "relative_transforms": torch.cat([head.transforms, last_row], 2),
        "y_angle_degrees": yaw,
        "lut_row": rows,
        "dynamic_faces": flame.dynamic_lmk_faces_idx[rows],
        "v_shaped": head.shaped,
        "vertices": head.vertices,
        "landmarks2d": flame.landmarks_2d(head),
        "landmarks3d": flame.landmarks_3d(head),
        "vertices_with_eye_pose": looking.vertices,
        "landmarks2d_with_eye_pose": flame.landmarks_2d(looking),
    }


def _rotations(run: Run) -> Outputs:
    """The published code has further ways to the same matrices; ours has one, which must agree with all of them.

    The golden has the last of them with the batch behind the rows and columns, its axes only renamed.
    """
    euler, axis_angles = run.input("euler_degrees").deg2rad(), run.input("axis_angle")
    quaternions = euler_to_quaternion(euler)
    vectors = quaternion_to_axis_angle(quaternions)
    x, y, z = rodrigues(euler[..., None] * torch.eye(3)).unbind(1)
    return {
        "euler_to_quaternion_wxyz": quaternions,
        "euler_to_axis_angle": vectors,
        "euler_to_matrix": rodrigues(vectors),
        "rodrigues": rodrigues(axis_angles),
        "axis_angle_to_matrix_quaternion": rodrigues(axis_angles),
        "angle2matrix_xyz_degrees": (z @ y @ x).permute(1, 2, 0).reshape(-1, 3, 3),
    }


def _vertex_normals_helix(_run: Run) -> Outputs:
    return {"normals": vertex_normals(helix_skin(), _template())}


def _world2uv_helix(_run: Run) -> Outputs:
    skin = helix_skin()
    shown = skin.uv_triangles[None]
    weights = torch.where(shown[..., None] < 0, -1.0, skin.uv_weights)
    return {
        "pix_to_face": shown,
        "bary": weights.permute(0, 3, 1, 2),
        "uv_vertices": world_to_uv(skin, _template()),
    }


def _rasterize_helix(run: Run) -> Outputs:
    flame = _helix()
    posed = flame(*(run.input(name) for name in ("shape", "exp", "pose")))
    ahead = project(posed.vertices, run.input("cam")) + torch.tensor([0.0, 0.0, 10.0])
    corners = ahead[:, flame.faces_tensor]
    side = run.golden.config["image_size"]
    mine = rasterize_pytorch3d(ahead, flame.faces_tensor, side, side)
    standard = rasterize_standard(ahead, flame.faces_tensor, side, side)
    nobody = (mine.triangles < 0)[:, None]
    sizes = {"160x240": (160, 240)}
    outputs = {
        "trans_verts_z10": ahead,
        "pytorch3d_pix_to_face": mine.triangles,
        "pytorch3d_zbuf": torch.where(nobody, -1.0, interpolate(mine, corners[..., 2:]))[:, 0],
        "pytorch3d_bary": torch.where(nobody, -1.0, mine.weights.permute(0, 3, 1, 2)),
        "standard_pix_to_face": standard.triangles,
        "standard_bary": standard.weights.permute(0, 3, 1, 2),
    }
    for name, rasterize in (("pytorch3d", rasterize_pytorch3d), ("standard", rasterize_standard)):
        for size, (height, width) in sizes.items():
            drawn = rasterize(ahead, flame.faces_tensor, height, width)
            outputs[f"{name}_{size}_pix_to_face"] = drawn.triangles
    return outputs


def _shading(run: Run) -> Outputs:
    normals, points = run.input("normal_images"), run.input("vertice_images")
    flat_normals, flat_points = (values.flatten(2).transpose(1, 2) for values in (normals, points))
    flat_normals = functional.normalize(flat_normals, dim=2)
    lamps = run.input("point_lights")
    return {
        "sh_shading": sh_shading(normals, run.input("light")),
        "sh_constants": torch.tensor(SH_FACTORS),
        "point_shading": point_shading(flat_points, flat_normals, lamps),
        "directional_shading": directional_shading(flat_normals, lamps),
    }


def _upsample_mesh(run: Run) -> Outputs:
    vertices = _template()
    normals = vertex_normals(helix_skin(), vertices)
    pixels = np.stack(np.divmod(run.golden.input("valid_pixel_ids"), 256), 1)
    displacement = image("displacement", (1, 1, 256, 256), -0.01, 0.01)[0, 0]
    texture = np.rint(image("texture", (1, 3, 256, 256), 0, 255))[0].transpose(1, 2, 0)
    around = (run.golden.input(f"valid_pixel_{name}") for name in ("3d_faces", "b_coords"))
    dense = dense_mesh(vertices[0].numpy(), normals[0].numpy(), displacement, pixels, *around)
    return {"dense_vertices": dense, "dense_colors": texture[pixels[:, 0], pixels[:, 1]]}


def _decode_helix(run: Run) -> Outputs:
    """As decode returns it; the picture of an albedo is drawn beside it."""
    names = ("shape", "exp", "pose", "cam", "light")
    codes = Codes(tex=torch.zeros(1, 50), **{name: run.input(name) for name in names})
    skin = helix_skin()
    head = decode(_helix(), skin, codes)
    wrinkled = wrinkles(run.filled("d_detail", DetailDecoder), skin, codes, run.input("detail"), head)
    coloured = colours(skin, codes, head, wrinkled, run.input("images"))
    seen = look(skin, head)
    returned = head.projected
    for _ in range(3):
        returned = returned + returned.new_tensor([0, 0, 10])
    return {
        "trans_verts": head.projected,
        "transformed_vertices_returned": returned,
        "landmarks2d": head.landmarks_2d,
        "landmarks3d": head.landmarks_3d,
        "normals": head.normals,
        "transformed_normals": head.projected_normals,
        "alpha_images": seen.alpha,
        "grid": seen.grid.permute(0, 3, 1, 2),
        "normal_images": seen.normals,
        "pos_mask": (seen.away < -0.05).float(),
        "shading_images": sh_shading(seen.normals, codes.light),
        "rendered_images_with_albedo": lit(seen, run.input("albedo"), codes.light),
        "displacement_map": wrinkled.displacement,
        "uv_detail_normals": wrinkled.normals,
        "uv_detail_normals_blended": blended_detail_normals(skin, wrinkled.normals, head.normals),
        "uv_shading": coloured.shading,
        "uv_texture_gt": coloured.photo,
        "shape_images": shape_picture(seen),
        "shape_detail_images": shape_picture(seen, wrinkled.normals),
        "depth_images": depth_picture(skin, head.projected, *seen.alpha.shape[2:]),
    }


def _crop(run: Run) -> Outputs:
    picture, boxes = _bytes(run), run.golden.input("boxes_left_top_right_bottom").astype(np.float64)
    squares = {
        "kpt68": [FaceSquare.of_landmarks(box.reshape(2, 2)) for box in boxes],
        "bbox": [FaceSquare.of_detection(*box) for box in boxes],
    }
    outputs: dict[str, Any] = {}
    for kind, found in squares.items():
        maps = [square.to_crop() for square in found]
        outputs[f"{kind}_size"] = np.array([square.size for square in found])
        outputs[f"{kind}_center"] = np.array([(square.x, square.y) for square in found])
        outputs[f"{kind}_tform"] = np.array(maps)
        outputs[f"{kind}_crop"] = np.array([crop(picture, to_crop) for to_crop in maps])
    height, width = picture.shape[:2]
    whole = whole_picture_map(width, height)
    # Where it finds no face the published code takes the whole picture, and height for width.
    faceless = FaceSquare.of_landmarks(np.array([[0, 0], [height - 1, width - 1]])).to_crop()
    for kind, to_crop in (("nocrop", whole), ("noface", faceless)):
        outputs |= {f"{kind}_tform": to_crop, f"{kind}_crop": crop(picture, to_crop)}
    first = squares["kpt68"][0].to_crop()
    outputs["points_in_original"] = into_picture(run.golden.input("points"), first, SIDE, (width, height))
    return outputs


def _losses(run: Run) -> Outputs:
    ours, target = run.input("pred_landmarks"), run.input("gt_landmarks")
    return {
        "weighted_landmark_loss": losses.landmark_loss(ours, target, target[..., 2]),
        "landmark_loss_tensor": functional.l1_loss(ours, target[..., :2]),
        "eyed_loss": losses.eye_closure_loss(ours, target),
        "lipd_loss": losses.lip_closure_loss(ours, target),
        "shading_smooth_loss": losses.shading_smoothness_loss(run.input("shading")),
        "mrf_loss": losses.mrf_loss(run.input("gen_feat"), run.input("tar_feat")),
        "vggface2_network_input": losses.identity_input(run.input("image")),
    }


def _e2e(run: Run) -> Outputs:
    """A photo with 68 landmarks, its crop, its codes, its head, its pictures."""
    square = FaceSquare.of_landmarks(run.golden.input("keypoints"))
    photo = crop(_bytes(run), square.to_crop())
    images = torch.from_numpy(photo)[None]
    networks = {name: build(f"deca/{name.lower()}") for name in ("E_flame", "E_detail", "D_detail")}
    for name, network in networks.items():
        fill(network, run.golden.rules(name))
    codes, detail = encode(networks["E_flame"], networks["E_detail"], images)
    skin = helix_skin()
    head = decode(_helix(), skin, codes)
    wrinkled = wrinkles(networks["D_detail"], skin, codes, detail, head)
    seen = look(skin, head)
    shapes = shape_picture(seen), shape_picture(seen, wrinkled.normals)
    marked = (landmarks_picture(photo, found[0].numpy()) for found in (head.landmarks_2d, head.landmarks_3d))
    joined = side_by_side([photo, *marked, *(shape[0].numpy() for shape in shapes)])
    return {
        "crop": images,
        **vars(codes),
        "detail": detail,
        "landmarks2d": head.landmarks_2d,
        "landmarks3d": head.landmarks_3d,
        "vertices": head.vertices,
        "uv_detail_normals": wrinkled.normals,
        "displacement_map": wrinkled.displacement,
        "uv_texture_gt": colours(skin, codes, head, wrinkled, images).photo,
        "shape_images": shapes[0],
        "shape_detail_images": shapes[1],
        "grid_bgr": joined.transpose(2, 0, 1),
    }


def _helix() -> Flame:
    return Flame(helix_model(), helix_landmarks()).requires_grad_(False)


def _template() -> Tensor:
    """(1, V, 3) the helix at rest."""
    return torch.from_numpy(helix_model().v_template.astype(np.float32))[None]


def _bytes(run: Run) -> NDArray[np.uint8]:
    """The golden's picture, (H, W, 3) RGB."""
    picture = np.rint(run.golden.input("image")[0]).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def _all(bound: Bound, *names: str) -> dict[str, Bound]:
    return dict.fromkeys(names, bound)


PARTS = {
    "e_flame": Part(_encoder("e_flame"), _CLOSE),
    "e_detail": Part(_encoder("e_detail"), _CLOSE),
    "d_detail": Part(_d_detail, _CLOSE),
    "flame_helix": Part(_flame_helix, _CLOSE, bounds=_all(_EXACT, "lut_row", "dynamic_faces")),
    "flametex": Part(_flametex, _CLOSE),
    "rotations": Part(_rotations, _CLOSE),
    "vertex_normals_helix": Part(_vertex_normals_helix, _CLOSE),
    "world2uv_helix": Part(_world2uv_helix, _CLOSE, bounds=_all(_EXACT, "pix_to_face")),
    "rasterize_helix": Part(
        _rasterize_helix,
        _DRAWN,
        bounds=_all(_CLOSE, "trans_verts_z10")
        | {
            f"{name}_pix_to_face": _NUMBERED
            for name in ("pytorch3d", "standard", "pytorch3d_160x240", "standard_160x240")
        },
    ),
    "shading": Part(_shading, _CLOSE),
    "upsample_mesh": Part(_upsample_mesh, _MICROMETRE, bounds=_all(_EXACT, "dense_colors")),
    "crop": Part(
        _crop,
        _PIXELS,
        bounds=_all(_EXACT, "kpt68_size", "bbox_size")
        | {f"{kind}_crop": _CLOSE for kind in ("kpt68", "bbox", "nocrop", "noface")},
    ),
    "losses": Part(_losses, _CLOSE),
    "decode_helix": Part(
        _decode_helix,
        _DRAWN,
        bounds=_all(
            _CLOSE,
            *("trans_verts", "transformed_vertices_returned", "landmarks2d", "landmarks3d", "normals"),
            *("displacement_map", "uv_texture_gt"),
        )
        | _all(_FROM_Z10, "transformed_normals")
        | _all(_WRINKLED, "uv_detail_normals", "uv_detail_normals_blended", "uv_shading"),
    ),
    "e2e": Part(
        _e2e,
        _CLOSE,
        bounds=_all(_DRAWN, "shape_images", "shape_detail_images")
        | _all(Bound(), "uv_texture_gt")  # its places are projected and sampled
        | _all(_WRINKLED, "uv_detail_normals")
        | {"vertices": _MICROMETRE, "grid_bgr": _BYTES},
    ),
}
