"""Squares for DECA's networks from tracked faces, fits of several views at once, fits calmed over time."""

from dataclasses import replace

import numpy as np
import pytest
from reenact.errors import BackendError
from reenact.runtime.media.images import read_image
from reenact.runtime.tracking.flame_crop import FaceSquare
from reenact.runtime.tracking.flame_fit import FitSmoother, FlameFitter, face_square, view_of
from reenact.runtime.tracking.tracker import Tracker

SIZES = {"shape": (100,), "tex": (50,), "exp": (50,), "pose": (6,), "cam": (3,), "light": (9, 3)}


class Encoder:
    """Sees the mean of a crop in every coefficient."""

    def __init__(self, bad=None):
        self.calls = []
        self.bad = bad

    def run(self, inputs):
        images = inputs["images"]
        self.calls.append(images.shape)
        seen = {
            name: np.stack([np.full(size, image.mean(), np.float32) for image in images])
            for name, size in SIZES.items()
        }
        if self.bad:
            seen[self.bad][-1] = np.nan
        return seen


def a_view(level, square=None):
    return view_of(np.full((200, 200, 3), level, np.uint8), square or FaceSquare(100, 100, 90))


def a_fit(square=None, **changes):
    (fit,) = FlameFitter(Encoder()).fit([a_view(100, square)])
    return replace(fit, **changes)


def in_picture(fit):
    """Scale and origin of a fit's camera in pixels of the picture."""
    scale, x, y = fit.cam
    across, start = fit.to_crop[0, 0], fit.to_crop[:2, 2]
    return (
        np.array([112 * scale, *(np.array([112 * (scale * x + 1), 112 * (1 - scale * y)]) - start)]) / across
    )


def seen_at(scale, x, y, square):
    """The camera over a square of what has this scale and origin in the picture."""
    to_crop = square.to_crop()
    own = scale * to_crop[0, 0] / 112
    over = (np.array([x, y]) * to_crop[0, 0] + to_crop[:2, 2]) / 112 - 1
    return np.array([own, over[0] / own, -over[1] / own], np.float32)


def test_source_and_driving_are_fitted_in_one_go():
    encoder = Encoder()
    views = [a_view(51), a_view(204, FaceSquare(90, 100, 80))]
    source, driving = FlameFitter(encoder).fit(views)
    assert encoder.calls == [(2, 3, 224, 224)]
    assert np.allclose(source.exp, 0.2)
    assert np.allclose(driving.light, 0.8)
    assert driving.light.shape == (9, 3)
    assert (driving.to_crop == views[1].to_crop).all()
    assert FlameFitter(encoder).fit([]) == []


def test_numbers_that_are_not_finite_are_an_error_that_names_them():
    with pytest.raises(BackendError, match="give cam that are not finite; use --precision fp32"):
        FlameFitter(Encoder("cam")).fit([a_view(3)])


def test_a_square_that_jumps_around_a_still_head_does_not_move_it():
    smoother = FitSmoother()
    for frame in range(20):
        square = FaceSquare(100 + 3 * (frame % 3), 100 - 2 * (frame % 2), 90 + 5 * (frame % 4))
        fit = a_fit(square, cam=seen_at(400, 95, 108, square))
        assert np.allclose(in_picture(fit), [400, 95, 108], atol=1e-3)
        assert np.allclose(in_picture(smoother(fit, frame / 25)), [400, 95, 108], atol=0.01)


def test_noise_gets_less_and_a_turn_is_followed():
    random = np.random.default_rng(0)
    smoother, noisy, calm = FitSmoother(), [], []
    for frame in range(100):
        exp = random.normal(0, 0.1, 50).astype(np.float32)
        fit = a_fit(exp=exp, cam=np.float32([8, 0, 0]), pose=np.zeros(6, np.float32))  # type: ignore[arg-type]
        noisy.append(exp)
        calm.append(smoother(fit, frame / 25).exp)
    assert np.std(calm[20:]) < 0.5 * np.std(noisy[20:])
    turned = replace(fit, pose=np.float32([0, 0.5, 0, 0, 0, 0]))  # type: ignore[arg-type]
    for frame in range(100, 104):
        pose = smoother(turned, frame / 25).pose
    assert 0.4 < pose[1] <= 0.5
    smoother.reset()
    assert (smoother(fit, 104 / 25).pose == 0).all()


@pytest.mark.parametrize("name", ["3ddfa_emma.jpg", "astronaut.png", "d3d_000007.jpg"])
def test_the_square_of_a_tracked_face_is_that_of_68_landmarks(models_home, shared_data, name):
    image = read_image(shared_data / "photos" / name)
    with np.load(shared_data / "photos" / f"{name}.lm68.npz") as file:
        landmarks = file["lm68"]
    with Tracker() as tracker:
        square = face_square(tracker.find_faces(image)[0])
    others = [FaceSquare.of_landmarks(points) for points in landmarks]
    nearest = min(others, key=lambda other: abs(other.x - square.x) + abs(other.y - square.y))
    assert abs(square.size / nearest.size - 1) < 0.1
    assert abs(square.x - nearest.x) + abs(square.y - nearest.y) < 0.1 * nearest.size
