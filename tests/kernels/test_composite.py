"""Blending against its plain twin."""

import numpy as np
import pytest
from reenact.kernels.composite import blend, blend_reference


@pytest.mark.parametrize("place", [(0, 0), (5, 3), (-4, -2), (14, 9), (30, 0), (-40, 0)])
def test_blend_agrees_with_its_twin_wherever_the_layer_lies(place):
    rng = np.random.default_rng(1)
    canvas = rng.integers(0, 256, (12, 18, 3), dtype=np.uint8)
    layer = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    mask = rng.integers(0, 256, (7, 9), dtype=np.uint8)
    fast, plain = canvas.copy(), canvas.copy()
    blend(fast, layer, mask, *place)
    blend_reference(plain, layer, mask, *place)
    assert np.array_equal(fast, plain)


def test_an_empty_mask_keeps_the_canvas_and_a_full_one_shows_the_layer():
    canvas, layer = np.full((4, 4, 3), 10, np.uint8), np.full((2, 2, 3), 200, np.uint8)
    blend(canvas, layer, np.zeros((2, 2), np.uint8), 1, 1)
    assert (canvas == 10).all()
    blend(canvas, layer, np.full((2, 2), 255, np.uint8), 1, 1)
    assert (canvas[1:3, 1:3] == 200).all()
    assert (canvas[0] == 10).all()


def test_layer_and_mask_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        blend(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), np.uint8), 0, 0)
