"""Following one face through clips that are made from the packaged portraits, so that it is known where it is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from reenact.errors import BackendError
from reenact.runtime import assets
from reenact.runtime.engine import no_gpu
from reenact.runtime.media.frame import Image
from reenact.runtime.media.images import read_image
from reenact.runtime.tracking.detector import Detection
from reenact.runtime.tracking.face import Face
from reenact.runtime.tracking.tracker import Tracker

RATE = 30.0
NOSE = 4


@pytest.fixture(scope="module")
def hopper() -> Image:
    return read_image(assets.portrait("grace_hopper"))


@pytest.fixture(scope="module")
def collins() -> Image:
    return read_image(assets.portrait("eileen_collins"))


@pytest.fixture(scope="module")
def networks(models_home: Path) -> Iterator[Tracker]:
    with Tracker(smooth=False) as tracker:
        yield tracker


@pytest.fixture
def tracker(networks: Tracker) -> Tracker:
    networks.reset()
    return networks


@pytest.fixture
def second(models_home: Path) -> Iterator[Tracker]:
    with Tracker(smooth=False, face=1) as tracker:
        yield tracker


@pytest.fixture
def looks(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every call of the detector: the number of tiles asked for."""
    calls: list[int] = []
    find = tracker._detector.find

    def spied(image: Image, *, tiles: int = 1) -> list[Detection]:
        calls.append(tiles)
        return find(image, tiles=tiles)

    monkeypatch.setattr(tracker._detector, "find", spied)
    return calls


def placed(
    portrait: Image, *, scale: float = 1.0, angle: float = 0.0, at: tuple[float, float] = (0, 0)
) -> Image:
    """The portrait turned counter-clockwise by degrees and scaled about its middle, then moved; its edges go on."""
    middle = (portrait.shape[1] / 2, portrait.shape[0] / 2)
    matrix = cv2.getRotationMatrix2D(middle, angle, scale)
    matrix[:, 2] += at
    size = (portrait.shape[1], portrait.shape[0])
    return np.asarray(cv2.warpAffine(portrait, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def beside(*parts: tuple[Image, int]) -> Image:
    """A picture of 512 rows: each portrait in its size in pixels, on grey, from left to right."""
    columns = []
    for portrait, size in parts:
        column = np.full((512, size, 3), 128, np.uint8)
        top = (512 - size) // 2
        column[top : top + size] = cv2.resize(portrait, (size, size), interpolation=cv2.INTER_AREA)
        columns.append(column)
    return np.hstack(columns)


def follow(tracker: Tracker, pictures: Sequence[Image], start: float = 0.0) -> list[Face | None]:
    return [tracker.track(picture, start + index / RATE) for index, picture in enumerate(pictures)]


def noses(faces: Sequence[Face | None]) -> list[tuple[float, float]]:
    """x, y in pixels; fails where a face is missing."""
    assert all(face is not None for face in faces)
    return [(float(f.landmarks_px[NOSE, 0]), float(f.landmarks_px[NOSE, 1])) for f in faces if f is not None]


@pytest.mark.parametrize("lost", [False, True])
def test_the_same_face_is_followed_in_pictures_of_another_size(
    tracker: Tracker, looks: list[int], hopper: Image, collins: Image, lost: bool
) -> None:
    """The other one is larger: where nothing is known of a face, it is taken."""
    both = beside((hopper, 300), (collins, 500))
    half = cv2.resize(both, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    noses(follow(tracker, [beside((hopper, 300), (np.full_like(collins, 128), 500))] * 2))
    ((x, y),) = noses([tracker.track(both, 0.1)])
    if lost:
        assert tracker.track(np.full_like(both, 128), 0.2) is None
    before = len(looks)
    tracker.rescale(0.5)
    ((half_x, half_y),) = noses([tracker.track(np.asarray(half, np.uint8), 0.3)])
    assert x < 300
    assert (half_x, half_y) == pytest.approx(((x - 0.5) / 2, (y - 0.5) / 2), abs=1.5)
    assert len(looks) == before + lost  # followed on without a search where it was seen
    tracker.rescale(2.0)
    assert noses([tracker.track(both, 0.4)])[0] == pytest.approx((x, y), abs=2)


def test_the_face_is_found_where_it_is_and_upright(tracker: Tracker, hopper: Image) -> None:
    face = tracker.track(hopper, 0.0)
    assert face is not None
    x0, y0, x1, y1 = face.box
    assert 140 < x0 < x1 < 400
    assert 100 < y0 < y1 < 440
    right_eye, left_eye, chin = face.landmarks_px[468], face.landmarks_px[473], face.landmarks_px[152]
    assert right_eye[0] < face.landmarks_px[NOSE, 0] < left_eye[0]
    assert right_eye[1] < face.landmarks_px[NOSE, 1] < chin[1]
    assert np.abs(np.degrees(face.pose.yaw_pitch_roll)).max() < 25


def test_landmarks_move_with_the_face(tracker: Tracker, hopper: Image) -> None:
    path = [(0, 0), (6, 2), (14, 4), (22, 8), (30, 12), (38, 16)]
    seen = np.array(noses(follow(tracker, [placed(hopper, at=at) for at in path])))
    np.testing.assert_allclose(seen - seen[0], path, atol=3.0)


def test_the_detector_looks_at_the_first_frame_alone_while_the_face_is_followed(
    tracker: Tracker, looks: list[int], hopper: Image
) -> None:
    before = tracker.searches
    noses(follow(tracker, [placed(hopper, at=(3 * i, 0)) for i in range(12)]))
    assert len(looks) == 1
    assert tracker.searches == before + 1


def test_the_detector_looks_again_only_when_the_face_was_lost(
    tracker: Tracker, looks: list[int], hopper: Image
) -> None:
    grey = np.full_like(hopper, 90)
    faces = follow(tracker, [hopper] * 3 + [grey] * 4 + [hopper] * 3)
    assert [face is not None for face in faces] == [True] * 3 + [False] * 4 + [True] * 3
    # Once at the start, once in each empty frame, once in the frame where the face is back.
    assert len(looks) == 6
    # Small faces are not looked for in every empty frame: that would cost many looks a frame.
    assert sum(tiles > 1 for tiles in looks) <= 3


def test_the_same_face_is_followed_although_a_larger_one_appears(
    tracker: Tracker, looks: list[int], hopper: Image, collins: Image
) -> None:
    alone = beside((hopper, 300), (np.full_like(collins, 128), 500))
    both = beside((hopper, 300), (collins, 500))
    seen = noses(follow(tracker, [alone] * 2 + [both] * 6))
    assert all(x < 300 for x, _ in seen)
    assert len(looks) == 1


def test_after_a_loss_the_face_nearest_to_the_last_is_taken(
    tracker: Tracker, hopper: Image, collins: Image
) -> None:
    empty = np.full_like(hopper, 128)
    both = beside((hopper, 300), (collins, 500))
    noses(follow(tracker, [beside((hopper, 300), (empty, 500))] * 2))
    assert follow(tracker, [np.full_like(both, 128)] * 2, start=0.1) == [None, None]
    assert all(x < 300 for x, _ in noses(follow(tracker, [both] * 2, start=1.0 + Tracker.PATIENCE_S)))


def test_another_face_is_taken_only_when_the_followed_one_stays_away(
    tracker: Tracker, hopper: Image, collins: Image
) -> None:
    empty = np.full_like(hopper, 128)
    noses(follow(tracker, [beside((hopper, 300), (collins, 300))] * 2))
    first = tracker.track(beside((hopper, 300), (collins, 300)), 0.1)
    assert first is not None
    left = first.landmarks_px[NOSE, 0] < 300
    rest = beside((empty, 300), (collins, 300)) if left else beside((hopper, 300), (empty, 300))
    assert follow(tracker, [rest] * 2, start=0.2) == [None, None]
    later = noses(follow(tracker, [rest] * 2, start=0.2 + Tracker.PATIENCE_S))
    assert all((x < 300) != left for x, _ in later)


def test_the_largest_face_is_followed_unless_another_is_asked_for(
    tracker: Tracker, second: Tracker, hopper: Image, collins: Image
) -> None:
    both = beside((hopper, 300), (collins, 500))
    assert all(x > 300 for x, _ in noses(follow(tracker, [both] * 3)))
    assert all(x < 300 for x, _ in noses(follow(second, [both] * 3)))


def test_the_second_face_is_not_there_while_only_one_is_seen(second: Tracker, hopper: Image) -> None:
    assert second.track(hopper, 0.0) is None


def test_find_faces_tells_the_largest_first(tracker: Tracker, hopper: Image, collins: Image) -> None:
    faces = tracker.find_faces(beside((hopper, 300), (collins, 500)))
    assert [x > 300 for x, _ in noses(faces)] == [True, False]


@pytest.mark.parametrize("side", [1, -1])
def test_a_rolling_head_is_followed(tracker: Tracker, looks: list[int], hopper: Image, side: int) -> None:
    angles = [side * angle for angle in range(0, 61, 6)]
    faces = follow(tracker, [placed(hopper, scale=0.7, angle=angle) for angle in angles])
    noses(faces)
    rolls = np.degrees([face.pose.yaw_pitch_roll[2] for face in faces if face is not None])
    np.testing.assert_allclose(rolls - rolls[0], angles, atol=6.0)
    assert len(looks) == 1


def test_a_rolled_head_is_found_at_once(tracker: Tracker, hopper: Image) -> None:
    upright = tracker.find_faces(placed(hopper, scale=0.7))[0].pose.yaw_pitch_roll[2]
    for angle in (-60, 60):
        roll = tracker.find_faces(placed(hopper, scale=0.7, angle=angle))[0].pose.yaw_pitch_roll[2]
        assert np.degrees(roll - upright) == pytest.approx(angle, abs=6.0)


def test_a_face_that_comes_nearer_is_followed(tracker: Tracker, looks: list[int], hopper: Image) -> None:
    scales = np.linspace(0.5, 1.3, 12)
    faces = follow(tracker, [placed(hopper, scale=float(scale)) for scale in scales])
    noses(faces)
    sizes = np.array([face.pose.scale for face in faces if face is not None])
    np.testing.assert_allclose(sizes / sizes[0], scales / scales[0], rtol=0.04)
    assert len(looks) == 1


def test_a_small_face_in_a_big_picture_is_found_in_tiles(tracker: Tracker, collins: Image) -> None:
    picture = np.full((1440, 1920, 3), 120, np.uint8)
    picture[1100:1220, 1500:1620] = cv2.resize(collins, (120, 120), interpolation=cv2.INTER_AREA)
    assert tracker._detector.find(picture) == []
    face = tracker.find_faces(picture)[0]
    assert 1500 < face.box[0] < face.box[2] < 1620
    assert 1100 < face.box[1] < face.box[3] < 1220
    assert tracker.track(picture, 0.0) is not None


def test_a_face_that_fills_a_4k_photo_is_found_with_the_same_proportions(
    tracker: Tracker, hopper: Image
) -> None:
    small = tracker.find_faces(hopper)[0]
    large = tracker.find_faces(np.asarray(cv2.resize(hopper, (4096, 4096), interpolation=cv2.INTER_CUBIC)))[0]
    eyes = np.linalg.norm(small.landmarks_px[33, :2] - small.landmarks_px[263, :2])
    away = np.linalg.norm((large.landmarks_px[:, :2] + 0.5) / 8 - 0.5 - small.landmarks_px[:, :2], axis=1)
    assert away.mean() < 0.02 * eyes


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_even_picture_has_no_face(tracker: Tracker, level: int) -> None:
    picture = np.full((360, 480, 3), level, np.uint8)
    assert follow(tracker, [picture] * 3) == [None] * 3
    assert tracker.find_faces(picture) == []


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_face(tracker: Tracker, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    coarse = np.asarray(cv2.resize(fine[:12, :16], (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    for picture in (fine, coarse):
        assert tracker.track(picture, 0.0) is None
        assert tracker.find_faces(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 900), (900, 7), (1, 5000)])
def test_pictures_of_extreme_shape_are_harmless(tracker: Tracker, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert tracker.track(picture, 0.0) is None
    assert tracker.find_faces(picture) == []


def test_a_picture_that_shrinks_while_a_face_is_followed_is_harmless(tracker: Tracker, hopper: Image) -> None:
    assert tracker.track(hopper, 0.0) is not None
    assert tracker.track(np.zeros((5, 5, 3), np.uint8), 0.1) is None
    assert tracker.track(hopper, 0.2) is not None


def test_smoothing_calms_noise_and_stays_on_the_face(
    models_home: Path, tracker: Tracker, hopper: Image
) -> None:
    rng = np.random.default_rng(1)
    pictures = [
        np.clip(hopper.astype(np.int16) + rng.integers(-40, 41, hopper.shape), 0, 255).astype(np.uint8)
        for _ in range(24)
    ]
    plain = np.array(noses(follow(tracker, pictures)))
    with Tracker() as smoothing:
        smooth = np.array(noses(follow(smoothing, pictures)))
    assert np.abs(np.diff(smooth[8:], axis=0)).mean() < 0.7 * np.abs(np.diff(plain[8:], axis=0)).mean()
    np.testing.assert_allclose(smooth[8:].mean(axis=0), plain[8:].mean(axis=0), atol=1.5)


def test_reset_forgets_whom_it_followed(tracker: Tracker, hopper: Image, collins: Image) -> None:
    both = beside((hopper, 300), (collins, 500))
    noses(follow(tracker, [beside((hopper, 300), (np.full_like(collins, 128), 500))] * 2))
    assert noses(follow(tracker, [both]))[0][0] < 300
    tracker.reset()
    assert noses(follow(tracker, [both]))[0][0] > 300


@pytest.mark.parametrize("backend", ["tensorrt", "cuda", "torch"])
def test_a_gpu_asked_for_by_name_is_never_replaced_by_the_cpu(models_home, backend):
    if no_gpu() is None:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match=f"backend {backend} cannot be used: "):
        Tracker(backend=backend)


def test_a_precision_that_nothing_here_computes_is_refused_though_tracking_does_without_it(models_home):
    if no_gpu() is None:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match="precision fp16: no backend that can be used here computes in it"):
        Tracker(precision="fp16")
