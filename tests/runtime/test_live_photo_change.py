"""With the real tracker and system: no frame is lost while other photos are registered."""

import numpy as np
import pytest
from reenact.runtime import assets
from reenact.runtime.engines import Engines
from reenact.runtime.live import LiveSession
from reenact.runtime.media.images import read_image

CHANGES, MOST_TURNS = 4, 3000


@pytest.fixture(scope="module")
def driving():
    """A face that moves a little from frame to frame: 240x240."""
    image = read_image(assets.portrait("grace_hopper"))
    side = min(image.shape[:2]) - 24
    return [
        np.ascontiguousarray(image[n : n + side : 2, n : n + side : 2])
        for n in [*range(24), *range(23, 0, -1)]
    ]


def test_no_frame_is_lost_while_photos_are_registered(models_home, driving):
    """Each frame is offered once the one before has come out, so that slowness alone loses none."""
    photos = [assets.portrait("eileen_collins"), assets.portrait("grace_hopper")]
    with Engines() as engines, LiveSession(engines, size=(128, 128), fps=240) as session:
        session.set_photo(photos[0])
        first = session.newest(0, 60)
        assert first is not None
        captured, number, means = session.clock(), first.number, []
        changes = 0
        for turn in range(MOST_TURNS):
            if turn % 10 == 9 and session.status.photo == "ready":
                if changes == CHANGES:
                    break
                changes += 1
                session.set_photo(photos[changes % 2])  # registered while the next frames go through
            captured = max(captured + 0.01, session.clock())
            session.offer(driving[turn % len(driving)], captured)
            picture = session.newest(number, 20)
            while picture is not None and picture.captured < captured:  # a still one, made while nothing came
                number = picture.number
                picture = session.newest(number, 20)
            assert picture is not None, f"frame {turn} did not come out"
            assert picture.captured == captured
            number = picture.number
            means.append(picture.image.mean(axis=(0, 1)))
        status = session.status
    assert changes == CHANGES
    assert status.photo == "ready"
    assert {cause: count for cause, count in status.drops.items() if cause != "output was busy"} == {}
    jumps = np.abs(np.diff(means, axis=0)).max(axis=1) > 12
    assert jumps.sum() == CHANGES  # each was shown
