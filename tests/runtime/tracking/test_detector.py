"""The face detector: where it looks, how it merges what it finds, and that it tells places in the whole picture."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reenact.runtime import assets
from reenact.runtime.media.images import read_image
from reenact.runtime.tracking.detector import Detection, Detector, _merge, _overlap, _tiles


def detection(x: float, y: float, size: float, score: float) -> Detection:
    eyes = (x + 0.3 * size, y + 0.4 * size), (x + 0.7 * size, y + 0.4 * size)
    return Detection(box=(x, y, x + size, y + size), right_eye=eyes[0], left_eye=eyes[1], score=score)


@pytest.fixture(scope="module")
def detector(models_home: Path) -> Iterator[Detector]:
    made = Detector(backend="auto", precision="fp32", threads=None)
    yield made
    made.close()


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (1920, 1080), (512, 512), (33, 40)])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_tiles_are_squares_that_cover_the_picture_and_overlap(shape: tuple[int, int], parts: int) -> None:
    height, width = shape
    seen = np.zeros(shape, int)
    tiles = list(_tiles(np.zeros((*shape, 3), np.uint8), parts))
    sides = {max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in tiles}
    for x0, y0, x1, y1 in tiles:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert x1 - x0 == y1 - y0
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1
    assert len(sides) == 1
    # A face of up to a third of a tile lies whole in at least one.
    side = sides.pop()
    starts = sorted({x0 for x0, _, _, _ in tiles})
    assert max(np.diff(starts), default=0) <= side - side // 3


def test_one_part_is_the_whole_picture() -> None:
    assert list(_tiles(np.zeros((30, 50, 3), np.uint8), 1)) == [(0, 0, 50, 30)]


def test_a_picture_of_extreme_proportions_is_not_cut_into_hundreds_of_tiles() -> None:
    assert len(list(_tiles(np.zeros((7, 9000, 3), np.uint8), 3))) <= 60


def test_overlap_is_counted_over_the_smaller_box() -> None:
    assert _overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert _overlap((0, 0, 10, 10), (2, 2, 7, 7)) == 1.0
    assert _overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(0.5)
    assert _overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert _overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


def test_candidates_of_one_face_are_averaged_by_score_and_others_are_kept() -> None:
    merged = _merge([detection(100, 100, 40, 0.6), detection(104, 100, 40, 0.9), detection(300, 50, 20, 0.7)])
    assert [round(face.score, 2) for face in merged] == [0.9, 0.7]
    assert merged[0].box[0] == pytest.approx((100 * 0.6 + 104 * 0.9) / 1.5)
    assert merged[0].right_eye[0] == pytest.approx(merged[0].box[0] + 12)
    assert merged[1].box == (300, 50, 320, 70)


def test_nothing_merges_to_nothing() -> None:
    assert _merge([]) == []


@pytest.mark.parametrize(
    ("width", "height", "x", "y"), [(900, 512, 300, 0), (512, 900, 0, 350), (1024, 1024, 512, 512)]
)
def test_a_face_is_told_in_pixels_of_the_whole_picture(
    detector: Detector, width: int, height: int, x: int, y: int
) -> None:
    portrait = read_image(assets.portrait("grace_hopper"))
    alone = detector.find(portrait)[0]
    picture = np.full((height, width, 3), 127, np.uint8)
    picture[y : y + 512, x : x + 512] = portrait
    (found,) = detector.find(picture)
    near = 0.1 * alone.size
    np.testing.assert_allclose(found.box, np.add(alone.box, (x, y, x, y)), atol=near)
    np.testing.assert_allclose(found.right_eye, np.add(alone.right_eye, (x, y)), atol=near)
    assert found.right_eye[0] < found.left_eye[0]


def test_only_a_picture_without_a_face_is_cut_into_tiles(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[int, int, int, int]] = []
    find_in = detector._find_in

    def spied(image: np.ndarray, tile: tuple[int, int, int, int]) -> list[Detection]:
        looked.append(tile)
        return find_in(image, tile)

    monkeypatch.setattr(detector, "_find_in", spied)
    portrait = read_image(assets.portrait("grace_hopper"))
    assert len(detector.find(portrait, tiles=3)) == 1
    assert looked == [(0, 0, 512, 512)]
    looked.clear()
    assert detector.find(np.full_like(portrait, 90), tiles=2) == []
    assert len(looked) > 4
