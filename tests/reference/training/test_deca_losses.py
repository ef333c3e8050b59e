"""DECA's losses are 0 where nothing is wrong, count what they name, and have finite gradients everywhere."""

import pytest
import torch
from reenact.reference.training import deca_losses as losses


def landmarks(seed=0, count=2):
    return torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def moved(points, number, by):
    changed = points.clone()
    changed[:, number, 0] += by
    return changed


@pytest.mark.parametrize(
    ("number", "weight"), [(0, 1), (5, 2), (10, 2), (29, 1.5), (31, 3), (54, 3), (60, 1.5)]
)
def test_landmarks_count_by_what_they_tell(number, weight):
    points, seen = landmarks(), torch.ones(2, 68)
    total = 68 + 4 * 1 + 9 * 0.5 + 20 * 0.5 + 5 * 1.5
    found = losses.landmark_loss(moved(points, number, 0.1), points, seen)
    assert found.item() == pytest.approx(0.1 * weight / (2 * total), rel=1e-4)


def test_hidden_landmarks_do_not_count_and_none_at_all_is_0():
    points, seen = landmarks(), torch.ones(2, 68)
    seen[:, 30] = 0
    assert losses.landmark_loss(moved(points, 30, 0.5), points, seen) == 0
    assert losses.landmark_loss(moved(points, 30, 0.5), points, 0 * seen) == 0


def test_eyes_and_lips_count_how_far_they_are_open_and_not_where_they_are():
    points = landmarks()
    for loss in (losses.eye_closure_loss, losses.lip_closure_loss):
        assert loss(points + 0.3, points).item() == pytest.approx(0, abs=1e-6)
    lids = ((37, 41), (38, 40), (43, 47), (44, 46))
    shut = points.clone()
    for upper, lower in lids:
        shut[:, upper] = shut[:, lower]
    openings = torch.stack([(points[:, upper] - points[:, lower]).norm(dim=1) for upper, lower in lids])
    assert losses.eye_closure_loss(shut, points).item() == pytest.approx(openings.mean().item())
    assert losses.lip_closure_loss(shut, points) == 0


def test_a_shut_eye_has_a_finite_gradient():
    shut = torch.zeros(1, 68, 2, requires_grad=True)
    losses.eye_closure_loss(shut, landmarks(count=1)).backward()
    assert shut.grad is not None
    assert torch.isfinite(shut.grad).all()


def test_photos_are_compared_on_skin_alone():
    photos, rendered = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    covered, skin = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    covered[..., :2] = 0
    skin[..., 1:3] = 1
    assert losses.photometric_loss(rendered, photos, covered, skin) == 0.25


def test_a_recognition_sees_the_inner_photo_blue_first():
    photos = torch.zeros(1, 3, 224, 224)
    photos[:, 2] = 1  # blue
    photos[:, :, :10] = photos[:, :, -10:] = photos[..., :10] = photos[..., -10:] = 0.5
    seen = losses.identity_input(photos)
    assert seen.shape == photos.shape
    means = torch.tensor([91.4953, 103.8827, 131.0912])
    expected = 2 * (torch.tensor([255.0, 0, 0]) - means) - 1
    torch.testing.assert_close(seen, expected[:, None, None].expand(1, 3, 224, 224), atol=1e-3, rtol=0)


def test_identity_is_the_angle_between_features():
    def features(photos):
        return photos[:, :2, 0, 0]

    mean = torch.tensor([131.0912, 103.8827, 91.4953])[:, None, None] / 255
    half = 0.5 / 255  # so that 2 x - 1 is 0
    blue = (mean + half).expand(1, 3, 224, 224).clone()
    green = blue.clone()
    blue[:, 2] += 0.1
    green[:, 1] += 0.1
    assert losses.identity_loss(features, blue, blue).item() == pytest.approx(0, abs=1e-5)
    assert losses.identity_loss(features, blue, green).item() == pytest.approx(1, abs=1e-3)


def test_codes_count_by_their_squares_and_light_by_its_colour():
    assert losses.code_loss(torch.full((2, 3), 2.0)) == 12
    light = torch.rand(2, 9, 1).expand(2, 9, 3)
    assert losses.light_loss(light) < 1e-12
    assert losses.light_loss(torch.tensor([[[0.0, 3, 0]]])) == 2


def test_shading_is_smooth_without_steps_inside():
    shading = torch.zeros(1, 1, 6, 6)
    shading[..., 3:] = 1
    # one step in each of four inner rows of five differences, none down
    assert losses.shading_smoothness_loss(shading).item() == pytest.approx(1 / 5)
    assert losses.shading_smoothness_loss(shading.mT).item() == pytest.approx(1 / 5)


def test_symmetry_moves_only_what_is_hidden_towards_what_is_not():
    heights = torch.tensor([[[[1.0, 2, 3, 5]]]], requires_grad=True)
    hidden = torch.tensor([[[[0.0, 0, 0, 1]]]])
    found = losses.symmetry_loss(heights, hidden)
    found.backward()
    assert found == 4
    assert heights.grad is not None
    assert heights.grad.flatten().tolist() == [0, 0, 0, 1]


def test_a_skin_patch_is_the_faces_part_at_full_size():
    ramp = torch.arange(256.0).expand(1, 1, 256, 256)
    patch = losses.skin_patch(ramp)
    assert patch.shape == (1, 1, 256, 256)
    assert patch.min() == 50
    assert patch.max() == 205
    assert patch[0, 0, 0, 128].item() == pytest.approx(50 + 128.5 * 156 / 256 - 0.5, abs=1e-3)


def test_features_that_name_every_place_of_the_target_cost_least():
    random = torch.Generator().manual_seed(0)
    target = torch.randn(2, 16, 5, 5, generator=random)
    same = losses.mrf_loss(target, target)
    shuffled = target.flatten(2)[..., torch.randperm(25, generator=random)].reshape(target.shape)
    one_place = target[..., :1, :1].expand_as(target)
    assert same.item() == pytest.approx(0, abs=1e-6)
    # About the mean of the place and not of the feature, places are not quite alike.
    assert losses.mrf_loss(shuffled, target) < 0.1
    assert losses.mrf_loss(one_place, target) > 2
    flat = torch.zeros(2, 16, 5, 5, requires_grad=True)
    losses.mrf_loss(flat, target).backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
