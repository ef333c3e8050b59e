"""The tracking benchmark on a made clip whose labels are off by a known amount."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from reenact.benchmarks.tracking import COMMON, FIVE, Agreement, markdown, measure_clip
from reenact.errors import MediaError
from reenact.runtime import assets
from reenact.runtime.media.frame import Frame
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import open_writer
from reenact.runtime.tracking.face import Face
from reenact.runtime.tracking.tracker import Tracker

SHAPES = 12  # frames with a face, then two without
OFF = 0.05  # of the distance between the eyes, by which the labels lie to the right


@pytest.fixture(scope="module")
def clip(models_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    portrait = np.asarray(cv2.resize(read_image(assets.portrait("grace_hopper")), (320, 320)))
    path = tmp_path_factory.mktemp("clip") / "made.mp4"
    with VideoReader(assets.portrait("grace_hopper")) as reader:
        base = next(iter(reader)).time_base
    with open_writer(path, width=320, height=320, crf=0) as sink:
        for index in range(SHAPES + 2):
            shift = np.array([[1, 0, 2 * index], [0, 1, (index % 3)]], np.float32)
            moved = cv2.warpAffine(portrait, shift, (320, 320), borderMode=cv2.BORDER_REPLICATE)
            image = np.asarray(moved, np.uint8) if index < SHAPES else np.full_like(portrait, 80)
            sink.write(Frame(image, int(index / 25 / base), base))
    with VideoReader(path) as reader, Tracker(smooth=False) as tracker:
        faces = [tracker.track(frame.image, frame.time) for frame in reader]
    write_labels(path, faces)
    return path


def write_labels(path: Path, faces: list[Face | None]) -> None:
    """As the two references would: 68 points and five, all of them to the right of the tracker's."""
    points, measures, mouth = np.zeros((len(faces), 68, 2)), np.zeros((len(faces), 3)), np.zeros(len(faces))
    rows = ["frame,time_s,n_faces,face,x,y,w,h," + ",".join(f"point{i}" for i in range(10)) + ",score"]
    for index, face in enumerate(faces):
        if face is None:
            rows.append(f"{index},0,0,,,,,{',' * 11}")
            continue
        eyes = np.linalg.norm(face.landmarks_px[33, :2] - face.landmarks_px[263, :2])
        moved = face.landmarks_px[:, :2] + np.array([OFF * eyes, 0])
        points[index, list(COMMON)] = moved[list(COMMON.values())]
        measures[index] = np.degrees(face.pose.yaw_pitch_roll)
        mouth[index] = face.mouth_openness
        x0, y0, x1, y1 = face.box
        five = ",".join(f"{value}" for value in moved[list(FIVE)].reshape(-1))
        # The detector misses the last face.
        score = 0.9 if index < SHAPES - 1 else 0.6
        rows.append(f"{index},0,1,0,{x0},{y0},{x1 - x0},{y1 - y0},{five},{score}")
    path.with_suffix(".yunet.csv").write_text("\n".join(rows) + "\n")
    valid = [face is not None for face in faces]
    np.savez(
        path.with_suffix(".lm68.npz"), lm68=points, yaw_pitch_roll=measures, mouth_open=mouth, valid=valid
    )


@pytest.fixture(scope="module")
def measured(clip: Path) -> Agreement:
    return measure_clip(clip)


def test_frames_are_counted_and_those_that_disagree_are_named(measured: Agreement) -> None:
    assert (measured.frames, measured.found, measured.detected) == (SHAPES + 2, SHAPES, SHAPES - 1)
    assert measured.disagreeing == [SHAPES - 1]
    assert measured.agreement == pytest.approx(1 - 1 / (SHAPES + 2))
    assert measured.searches == 3  # the first frame and the two without a face


def test_distances_are_in_eye_distances(measured: Agreement) -> None:
    assert measured.landmarker.frames == SHAPES
    assert measured.landmarker.distance == pytest.approx(OFF, rel=1e-3)
    assert measured.landmarker.regions == pytest.approx(dict.fromkeys(("brows", "nose", "eyes", "lips"), OFF))
    assert measured.detector.five_points == pytest.approx(OFF, rel=1e-3)
    assert measured.detector.overlap == pytest.approx(1.0, abs=1e-3)


def test_the_same_numbers_correlate_and_jitter_alike(measured: Agreement) -> None:
    assert list(measured.landmarker.correlation.values()) == pytest.approx([1.0] * 4, abs=1e-4)
    assert measured.landmarker.noise == pytest.approx(measured.landmarker.its_noise, rel=0.02)
    assert (measured.landmarker.noise or 0) > 0


def test_the_table_has_a_row_a_clip_and_as_many_cells_as_columns(measured: Agreement) -> None:
    head, rule, row = markdown([measured]).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "| made.mp4 | 14 | 12 | 11 | 92.9% | 3 | 5.0 |" in row


def test_a_clip_without_labels_is_an_error_that_names_the_file(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.mp4").write_bytes(clip.read_bytes())
    with pytest.raises(MediaError, match=r"bare\.yunet\.csv: not found"):
        measure_clip(tmp_path / "bare.mp4")
