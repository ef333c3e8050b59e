"""Camera pictures: nothing is decoded in the server whose size was not known before."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs the extra [web], which is not installed")
from reenact.runtime.web.frames import decode_frame
from reenact.runtime.web.refusals import Refusal

TWO_SIZES = Path(__file__).resolve().parents[2] / "data/two_sizes.jpg"


def test_a_jpeg_comes_back_as_pixels():
    image = np.full((24, 40, 3), (200, 120, 40), np.uint8)
    content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    assert np.abs(decode_frame(content, 1000).astype(int) - image).max() < 6


def test_a_small_file_that_decodes_to_a_huge_picture_never_reaches_the_decoder(monkeypatch):
    def decoder(*given):
        pytest.fail("it was decoded")

    monkeypatch.setattr(cv2, "imdecode", decoder)
    with pytest.raises(Refusal) as refusal:
        decode_frame(TWO_SIZES.read_bytes(), 1_000_000)
    assert (refusal.value.status, refusal.value.code) == (422, "bad_frame")
