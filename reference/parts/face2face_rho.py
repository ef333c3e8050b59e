"""How the parts of Face2Face-rho are run against their golden numbers."""

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ReenactError
from ...runtime.systems.face2face_rho.fitting import (
    Camera,
    LandmarkEmbedding,
    PoseTransform,
    camera_in_picture,
    head_pose,
    keypoints,
    keypoints_3d,
)
from ...runtime.systems.face2face_rho.landmarks import NOSE_TIP, draw_landmark_images
from ..face2face_rho import MotionFields, MotionNet, MultiScaleDiscriminator, RenderingNet, SourceFeatures
from ..fill import tensor
from ..flame import FlameMesh
from ..golden import Bound
from ..layers import warp
from ..synthetic import strewn_model
from ..training import losses
from ..training.vgg import Vgg19
from . import Outputs, Part, Run, captured

__all__ = ["PARTS"]

_DECODER = {
    "drv_embedding": "drv_headpose_encoder",
    "x4_out": "de_res_block",
    "x3_out": "de_up_block1",
    "x2_out": "de_up_block2",
    "x1_out": "de_up_block3",
}
_DECODER_STEPS = {
    **{f"de_SPADE_{i}": f"de_SPADE_{i}" for i in range(1, 5)},
    "de_up_block3_0": "de_up_block3.0",
    "de_up_block3_1": "de_up_block3.1",
}
_ENCODER_STEPS = {
    "en_conv_block": "en_conv_block",
    "en_down_block1_0": "en_down_block1.0",
    "en_down_block1_1": "en_down_block1.1",
    "en_down_block1": "en_down_block1",
    "en_down_block2": "en_down_block2",
    "en_down_block3": "en_down_block3",
    "en_res_block": "en_res_block",
}
_FIT = Bound(tolerance=2e-6)
_CAMERA = Bound(tolerance=3e-7)  # its largest number is a hundred times the shifts
_EXACT = Bound(tolerance=0.0)
# Rounding turns the signs of L1 and ReLU where two features nearly meet: the golden is 4e-4 off what float64 gives, and
# two convolutions of torch in float32 are 6e-4 off each other.
_KINKED = Bound(tolerance=1e-3)
# An 8-bit value is truncated, so that the least difference may be one step.
_WHOLE = {"fake_u8": Bound(tolerance=1.01 / 254)}


def _rendering_net(run: Run) -> Outputs:
    network = run.network("rendering_net", RenderingNet)
    with captured(network, {"src_embedding": "src_headpose_encoder"}) as seen:
        source = network.register_source(run.input("src_img"), run.input("src_headpose"))
    return {**seen, **_cached(source), **_decode(run, network, source, _DECODER)}


def _rendering_source(run: Run) -> Outputs:
    network = run.network("rendering_net", RenderingNet)
    with captured(network, {"src_embedding": "src_headpose_encoder", **_ENCODER_STEPS}) as seen:
        source = network.register_source(run.input("src_img"), run.input("src_headpose"))
    return {**seen, **_cached(source)}


def _rendering_decode(run: Run) -> Outputs:
    network = run.network("rendering_net", RenderingNet)
    source = SourceFeatures(*(run.input(name) for name in ("x2_in", "x3_in", "x4_in", "de_x4_in")))
    return _decode(run, network, source, _DECODER | _DECODER_STEPS)


def _decode(run: Run, network: RenderingNet, source: SourceFeatures, steps: dict[str, str]) -> Outputs:
    field = run.input("motion_field").permute(0, 2, 3, 1)
    with captured(network, steps) as seen:
        fake = network.decode(source, field, run.input("drv_headpose"))
    warped = {f"warped_{name}": warp(features, field) for name, features in _cached(source).items()}
    return {**seen, **warped, "fake": fake}


def _motion_net(run: Run) -> Outputs:
    network = run.network("motion_net", MotionNet)
    with captured(
        network, {name: name for name in ("f1_model", "model1_1", "model1_2", "model2_1", "model2_2")}
    ) as seen:
        fields = network(run.input("input1"), run.input("input2"), run.input("input3"))
    return {**seen, **_fields(fields)}


def _discriminator(run: Run) -> Outputs:
    network = run.network("discriminator", MultiScaleDiscriminator)
    judged = network(run.input("x"), run.input("kp"))
    maps = {f"feature_map_{i}": features for i, features in enumerate(judged.feature_maps)}
    return {**maps, "prediction_map": judged.prediction_map}


def _landmark_images(run: Run) -> Outputs:
    outputs: dict[str, Tensor] = {}
    for size in run.golden.config["output_sizes"]:
        for name in run.golden.document["inputs"]:
            for scale, drawn in enumerate(_drawn(run, name, size)):
                outputs[f"{name}_{size}_{scale}"] = drawn[0]
    return outputs


def _reenact_rule(run: Run) -> Outputs:
    picture = np.floor((run.golden.input("src_img") + 1) / 2 * 255 + 0.5)
    return _reenact(run, _normalised(picture.astype(np.uint8)))


def _reenact_testcase(run: Run) -> Outputs:
    said = run.golden.document["inputs"]["src_img"]
    path = run.file(said["file"], said["sha256"])
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise ReenactError(f"{path}: cannot be decoded")
    return _reenact(run, _normalised(picture[None, :, :, ::-1].transpose(0, 3, 1, 2)))


def _training_losses(run: Run) -> Outputs:
    """Every loss for given pictures and fields, and the gradients of the generator's sum at epoch 0."""
    said = run.golden.config
    vgg = _vgg(run)
    discriminator = run.filled("discriminator", MultiScaleDiscriminator).requires_grad_(False)
    source, driving, condition = (run.input(name) for name in ("src_img", "drv_img", "drv_landmark_img"))
    weight = losses.face_weight(run.input("face_mask"), said["face_area_weight_scale"])
    leaves = {
        name: run.input(name).requires_grad_()
        for name in ("fake", "low_motion", "middle_motion", "high_motion")
    }
    fake = leaves["fake"]
    fields = MotionFields(
        *(leaves[f"{name}_motion"].permute(0, 2, 3, 1) for name in ("low", "middle", "high"))
    )
    scales = said["loss_scales"]

    judged_real, judged_fake = discriminator(driving, condition), discriminator(fake, condition)
    terms = {
        "warp": losses.warp_loss(fields, source, driving, said["warp_loss_weight"]),
        "reconstruction": said["reconstruction_loss_weight"]
        * losses.reconstruction_loss(vgg, fake, driving, weight, scales),
        "g_gan": losses.generator_adversarial_loss(judged_fake),
        "feature_matching": said["feature_matching_loss_weight"]
        * losses.feature_matching_loss(judged_real, judged_fake, weight),
    }
    held = {
        f"init_field_epoch{epoch}": losses.init_field_loss(fields, epoch, said["init_field_epochs"])
        for epoch in (0, 2, 5, 6)
    }
    total = torch.stack(list(terms.values())).sum() + held["init_field_epoch0"]
    torch.autograd.backward(total)

    outputs = {**terms, **held, "G_total_epoch0": total}
    outputs["D_total"] = losses.discriminator_loss(judged_real, judged_fake)
    smaller = (losses.pyramid(fake.detach(), scales), losses.pyramid(driving, scales))
    for scale, ours, target in zip(scales, *smaller, strict=True):
        outputs[f"vgg_{float(scale)}"] = losses.perceptual_loss(vgg, ours, target, weight)
        if scale != 1:
            outputs[f"pyramid_{scale}"] = ours
    for i, field in enumerate((fields.low, fields.middle, fields.high), 1):
        outputs[f"warped_src{i}"] = losses.warped_source(source, field)
    outputs |= {f"grad_{name}": _gradient(leaf) for name, leaf in leaves.items()}
    return {name: value if value.ndim else value.reshape(1) for name, value in outputs.items()}


def _fitting_pose(run: Run) -> Outputs:
    """Cameras, keypoints and head poses as the user's side computes them, on meshes of the reference."""
    flame = FlameMesh(strewn_model())
    cameras = {who: _fitted_camera(run, who) for who in ("source", "driving")}
    outputs: dict[str, Tensor | NDArray[Any]] = {}
    for who, camera in cameras.items():
        # The published code scales depth as well, by the fit's own scale, and then leaves it.
        depth = -run.golden.input(f"{who}_cam")[0]
        outputs[f"{who}_scale_tx_ty_sz"] = np.array([camera.scale, camera.shift_x, camera.shift_y, depth])
    for name, who, shape_of in (
        ("source", "source", "source"),
        ("driving", "driving", "source"),
        ("driving_own_shape", "driving", "driving"),
    ):
        vertices, points, unturned = _fitted_points(run, flame, who, shape_of)
        turn = run.golden.input(f"{who}_pose")[:3]
        outputs[f"{name}_landmarks"] = keypoints(points, cameras[who])
        outputs[f"{name}_headpose"] = head_pose(turn, points, unturned, cameras[who], _pose_transform(run))
        moved = cameras[who].project(np.stack([points, unturned])[:, NOSE_TIP])
        outputs[f"{name}_nose_shift"] = moved[0] - moved[1]
        if name == "source":
            outputs["source_vertices_every_50th"] = vertices[::50]
            outputs["source_landmarks3d"] = points
    return outputs


def _fitted_camera(run: Run, who: str) -> Camera:
    camera, to_crop = run.golden.input(f"{who}_cam"), run.golden.input(f"{who}_tform")
    return camera_in_picture(camera, to_crop, int(run.golden.input(f"{who}_image_height")[0]))


def _pose_transform(run: Run) -> PoseTransform:
    return PoseTransform(*(run.golden.config[f"{name}_transform"] for name in ("scale", "tx", "ty")))


def _fitted_points(
    run: Run, flame: FlameMesh, who: str, shape_of: str
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Vertices (V, 3) and keypoints (72, 3) of a fit, and those keypoints without its global rotation."""
    embedding = LandmarkEmbedding(run.golden.input("lmk_faces_idx"), run.golden.input("lmk_bary_coords"))
    shape, expression, pose = (
        run.input(name).expand(2, -1) for name in (f"{shape_of}_shape", f"{who}_exp", f"{who}_pose")
    )
    unturned = torch.tensor([[1.0], [0.0]]) * pose[:, :3]
    vertices = flame(shape, expression, torch.cat([unturned, pose[:, 3:]], 1)).vertices.double().numpy()
    faces = flame.faces_tensor.numpy()
    turned, straight = (keypoints_3d(mesh, faces, embedding) for mesh in vertices)
    return vertices[0], turned, straight


def _vgg(run: Run) -> Vgg19:
    """Filled by the rules of the golden's own names, `slice<k>.<n>` for torchvision's `features.<n>`."""
    vgg = Vgg19()
    listed = {name.partition(".")[2]: name for name in run.golden.state if name.startswith("slice")}
    values = {}
    for name, there in vgg.state_dict().items():
        golden_name = listed.pop(name.removeprefix("features."), "")
        if run.golden.state.get(golden_name) != tuple(there.shape):
            raise ReenactError(f"VGG19's {name} {tuple(there.shape)} is not what the golden lists")
        values[name] = torch.from_numpy(tensor(golden_name, there.shape, run.golden.document["salt"]))
    if listed:
        raise ReenactError(f"the golden lists {', '.join(listed.values())}, which VGG19 does not have")
    vgg.load_state_dict(values)
    return vgg


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise ReenactError("the losses do not depend on one of their inputs")
    return leaf.grad


def _reenact(run: Run, image: Tensor) -> Outputs:
    """The whole way of a frame, from a source photo (1, 3, S, S) in [-1, 1] to the uint8 result.

    In float64: the filled weights turn float32 rounding of the field, about 3e-6, into up to 2e-4 of the picture, in
    the golden itself into 7e-5, so that ours may add none.
    """
    rendering = run.network("rendering_net", RenderingNet).double()
    motion = run.network("motion_net", MotionNet).double()
    image = image.double()
    size = run.golden.config["output_size"]
    landmarks = zip(
        _drawn(run, "src_landmarks", size), _drawn(run, "drv_landmarks", size), (16, 8, 4), strict=True
    )
    inputs = [torch.cat([source, driving, image[:, :, ::k, ::k]], 1) for source, driving, k in landmarks]
    fields = motion(*inputs)
    source = rendering.register_source(image, run.input("src_headpose")[None].double())
    fake = rendering.decode(source, fields.high, run.input("drv_headpose")[None].double())
    cached = {name: features for name, features in _cached(source).items() if name in run.golden.outputs}
    bytes_out = ((fake.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return {"src_img": image, **cached, **_fields(fields), "fake": fake, "fake_u8": bytes_out}


def _drawn(run: Run, name: str, size: int) -> list[Tensor]:
    """Landmark images of S/16, S/8 and S/4 as (1, 3, side, side) float32 in [-1, 1]."""
    images = draw_landmark_images(run.golden.input(name).astype(np.float32), size)
    return [_normalised(image.transpose(2, 0, 1)[None]) for image in images]


def _normalised(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(2 * picture.astype(np.float32) / np.float32(255) - 1)


def _cached(source: SourceFeatures) -> dict[str, Tensor]:
    return dict(zip(("x2_in", "x3_in", "x4_in", "de_x4_in"), source, strict=True))


def _fields(fields: MotionFields) -> dict[str, Tensor]:
    """As goldens hold them: (B, 2, h, w)."""
    named = {"low_motion": fields.low, "middle_motion": fields.middle, "high_motion": fields.high}
    return {name: field.permute(0, 3, 1, 2) for name, field in named.items()}


PARTS = {
    "rendering_net": Part(_rendering_net),
    "rendering_net_448": Part(_rendering_net),
    "rendering_source": Part(_rendering_source),
    "rendering_decode": Part(_rendering_decode),
    "motion_net": Part(_motion_net),
    "discriminator": Part(_discriminator),
    "landmark_images": Part(_landmark_images, _EXACT),
    "fitting_pose": Part(
        _fitting_pose, _FIT, bounds={f"{who}_scale_tx_ty_sz": _CAMERA for who in ("source", "driving")}
    ),
    "training_losses": Part(_training_losses, bounds={"grad_fake": _KINKED}, gradients=True),
    "reenact_rule": Part(_reenact_rule, bounds=_WHOLE),
    "reenact_testcase": Part(_reenact_testcase, bounds=_WHOLE),
}
