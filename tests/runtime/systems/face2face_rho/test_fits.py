import numpy as np
import pytest
from reenact.errors import LimitError, ReenactError
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.limits import Limits
from reenact.runtime.systems.face2face_rho import fits as module
from reenact.runtime.systems.face2face_rho.fits import read_fits, reenact_fits
from reenact.runtime.systems.face2face_rho.landmarks import write_head_pose, write_landmarks
from reenact.runtime.systems.protocol import SystemSettings


class EchoSystem:
    """Shows the source's first feature as red, the driving's first number as green, its pose as blue."""

    name = "face2face_rho"
    size = 16
    closed = 0

    def __init__(self, settings):
        pass

    def encode(self, square, keypoints, head_pose):
        return {"red": int(square[0, 0, 0]) + round(float(keypoints[0, 0] * 100))}

    def decode(self, features, keypoints, head_pose):
        colour = (features["red"], round(float(keypoints[0, 0] * 100)), round(float(head_pose[0] * 100)))
        return np.full((self.size, self.size, 3), colour, np.uint8)

    def close(self):
        EchoSystem.closed += 1


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    monkeypatch.setattr(module, "FaceToFaceRho", EchoSystem)


def write_fit(folder, stem, value):
    single = stem is None
    for name, write, shape in (("landmark", write_landmarks, (72, 2)), ("headpose", write_head_pose, (6,))):
        path = folder / f"{name}.txt" if single else folder / name / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, np.full(shape, value, np.float32))


@pytest.fixture
def source(tmp_path):
    write_image(tmp_path / "photo.png", np.full((32, 32, 3), 100, np.uint8), mark=False)
    write_fit(tmp_path / "still", None, 0.1)
    return tmp_path / "photo.png", tmp_path / "still"


def test_a_sequence_is_in_the_order_of_its_numbers(tmp_path):
    for number, value in ((10, 0.3), (9, 0.2), (100, 0.4)):
        write_fit(tmp_path, number, value)
    (tmp_path / "landmark" / "notes.txt").write_text("not a fit")
    assert [round(float(fit.head_pose[0]), 3) for fit in read_fits(tmp_path)] == [0.2, 0.3, 0.4]


def test_each_fit_becomes_a_picture_of_the_source(tmp_path, source):
    for number, value in ((1, 0.5), (2, 0.7)):
        write_fit(tmp_path / "driving", number, value)
    photo, still = source
    stats = reenact_fits(photo, still, tmp_path / "driving", tmp_path / "out", SystemSettings(), mark=False)
    pictures = [read_image(path)[0, 0].tolist() for path in sorted((tmp_path / "out").glob("*.png"))]
    assert pictures == [[110, 50, 50], [110, 70, 70]]
    assert stats.frames == 2
    assert EchoSystem.closed


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder: None, "not a folder"),
        (lambda folder: folder.mkdir(), "neither landmark.txt"),
        (lambda folder: (write_fit(folder, 3, 0.1), (folder / "headpose" / "3.txt").unlink()), "number 3"),
    ],
)
def test_fits_that_are_not_there_are_named(tmp_path, make, complaint):
    make(tmp_path / "fits")
    with pytest.raises(ReenactError, match=complaint):
        read_fits(tmp_path / "fits")


def test_a_source_of_several_fits_is_refused(tmp_path, source):
    for number in (1, 2):
        write_fit(tmp_path / "driving", number, 0.1)
    with pytest.raises(ReenactError, match="holds 2 fits"):
        reenact_fits(
            source[0], tmp_path / "driving", tmp_path / "driving", tmp_path / "out", SystemSettings()
        )


def test_a_photo_that_is_not_square_is_refused_and_nothing_is_written(tmp_path, source):
    photo, still = source
    write_image(photo, np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(ReenactError, match="40x32 pixels"):
        reenact_fits(photo, still, still, tmp_path / "out", SystemSettings())
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_number_are_refused(tmp_path):
    write_fit(tmp_path, "1", 0.1)
    write_fit(tmp_path, "01", 0.2)
    with pytest.raises(ReenactError, match="has the number of"):
        read_fits(tmp_path)


def test_the_result_never_replaces_its_source(tmp_path, source):
    photo, still = source
    before = photo.read_bytes()
    photo.rename(tmp_path / "photo.gif")
    with pytest.raises(ReenactError, match="replace its own input"):
        reenact_fits(tmp_path / "photo.gif", still, still, tmp_path / "photo.gif", SystemSettings())
    assert (tmp_path / "photo.gif").read_bytes() == before


def test_a_source_beyond_the_limits_is_refused(tmp_path, source):
    photo, still = source
    with pytest.raises(LimitError):
        reenact_fits(photo, still, still, tmp_path / "out", SystemSettings(), limits=Limits(max_pixels=100))
