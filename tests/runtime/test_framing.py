"""Photos of any size in the one size of a live output."""

import numpy as np
import pytest
from reenact.runtime.framing import framed, scaled

NOSE = 4


def photo(width, height, x, y, radius=3):
    """Grey with a dot of three bright pixels each way."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return image


def dot(image):
    """Where the bright pixels are on average, (x, y)."""
    ys, xs = np.nonzero(image[..., 0] > 200)
    return float(xs.mean()), float(ys.mean())


def nose_of(face):
    return face.landmarks_px[NOSE, :2]


@pytest.mark.parametrize("size", [(256, 256), (320, 180), (180, 320)])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("photo_size", [(300, 300), (600, 200), (200, 600)])
def test_the_face_lies_where_the_picture_shows_it(colours, size, whole, photo_size):
    face = colours.face(width=photo_size[0], height=photo_size[1])
    scale = 90 / (face.box[2] - face.box[0])
    face = face.placed(scale=scale, x=photo_size[0] / 2 * (1 - scale), y=photo_size[1] / 2 * (1 - scale))
    x, y = nose_of(face).round().astype(int)
    image, placed = framed(photo(photo_size[0], photo_size[1], x, y), face, size, whole=whole)
    assert image.shape == (size[1], size[0], 3)
    np.testing.assert_allclose(dot(image), nose_of(placed), atol=1.5)


def test_the_head_fills_what_it_is_cut_for(colours):
    face = colours.face(width=900, height=900).placed(scale=0.25, x=337, y=337)
    _, placed = framed(np.zeros((900, 900, 3), np.uint8), face, (512, 512), whole=False)
    width = placed.box[2] - placed.box[0]
    assert 0.3 < width / 512 < 0.5


def test_a_tall_photo_in_a_wide_output_shows_the_whole_head(colours):
    face = colours.face(width=400, height=400)
    image = np.full((400, 400, 3), 120, np.uint8)
    shown, placed = framed(image, face, (640, 360), whole=False)
    low, high = placed.landmarks_px[:468, :2].min(0), placed.landmarks_px[:468, :2].max(0)
    assert (low > 0).all()
    assert (high < (640, 360)).all()
    assert high[1] - low[1] < 250
    np.testing.assert_array_equal(shown, 120)  # beside the photo lies its own blur, no black


def test_a_smaller_scale_keeps_face_and_picture_together(colours):
    face = colours.face(width=300, height=200)
    x, y = nose_of(face).round().astype(int)
    image, smaller = scaled(photo(300, 200, x, y), face, 0.5)
    assert image.shape == (100, 150, 3)
    np.testing.assert_allclose(dot(image), nose_of(smaller), atol=1.0)
    same, same_face = scaled(image, face, 1.0)
    assert same is image
    assert same_face is face
