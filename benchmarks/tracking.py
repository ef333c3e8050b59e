"""How well the tracker agrees with an independent detector and an independent landmarker, and what a frame costs.

`python -m reenact.benchmarks.tracking CLIPS... [--json FILE] [--markdown FILE]`. Beside each clip `X.mp4` lie their
results: `X.yunet.csv` (YuNet: boxes, five points, score) and `X.lm68.npz` (3DDFA_V2: 68 points, angles, mouth).
"""

import argparse
import csv
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from ..runtime.media.frame import Frame, Image
from ..runtime.media.reader import VideoReader
from ..runtime.tracking.face import Face
from ..runtime.tracking.tracker import Tracker

__all__ = ["Agreement", "ToDetector", "ToLandmarker", "measure_clip"]

Floats = NDArray[np.float64]

MIN_SCORE = 0.7  # of YuNet, as the labels' makers advise
SAME_FACE = 0.3  # overlap (intersection over union) from which two boxes show one face
HD = (1280, 720)
MOST_TIMED = 150  # frames

# Point of the usual 68 -> point of the Face Mesh; the jaw is left out, where the two models mean different places.
# fmt: off
COMMON = {
    17: 70, 18: 63, 19: 105, 20: 66, 21: 107, 22: 336, 23: 296, 24: 334, 25: 293, 26: 300,
    27: 168, 28: 197, 29: 5, 30: 4, 31: 98, 32: 97, 33: 2, 34: 326, 35: 327,
    36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144, 42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380,
    48: 61, 49: 39, 50: 37, 51: 0, 52: 267, 53: 269, 54: 291, 55: 405, 56: 314, 57: 17, 58: 84, 59: 181,
    60: 78, 61: 82, 62: 13, 63: 312, 64: 308, 65: 317, 66: 14, 67: 87,
}
# fmt: on
REGIONS = {"brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48), "lips": range(48, 68)}
FIVE = (468, 473, 4, 61, 291)  # irises, tip of the nose, corners of the mouth
ANGLES = ("yaw", "pitch", "roll")
# Spread of the landmarker's values, degrees and openness, up to which it is mostly that model's own noise.
STILL = {"yaw": 2.0, "pitch": 2.0, "roll": 2.0, "mouth": 0.05}


@dataclass(frozen=True)
class ToDetector:
    """Where both have a face; None where that is nowhere."""

    five_points: float | None  # mean distance to the five points, over that of the outer corners of the eyes
    overlap: float | None  # mean, with the nearest box, intersection over union


@dataclass(frozen=True)
class ToLandmarker:
    """Where both have the same face; distances are over that of the outer corners of the eyes."""

    frames: int
    distance: float | None  # mean over the 51 common points
    regions: dict[str, float]
    correlation: dict[str, float]  # Pearson's: yaw, pitch, roll, mouth
    spread: dict[str, float]  # standard deviation of the landmarker's, degrees and openness
    noise: float | None  # second difference of the common points over the width of the face
    its_noise: float | None  # the same of the landmarker


@dataclass(frozen=True)
class Agreement:
    """Results of one clip."""

    clip: str
    frames: int
    found: int  # frames in which the tracker has a face
    detected: int  # frames in which the detector has one
    agreement: float  # share of the frames in which both or neither have one
    disagreeing: list[int]  # the other frames
    searches: int  # how often the tracker searched a frame instead of following
    detector: ToDetector
    landmarker: ToLandmarker
    track_ms: float | None  # median of the frames in which a face was followed, at the clip's own size
    track_hd_ms: float | None  # in 1280x720


@dataclass(frozen=True)
class _Labels:
    """What the two references found, frame by frame."""

    boxes: list[Floats]  # (n, 4) x0 y0 x1 y1
    five: list[Floats]  # (n, 5, 2)
    valid: NDArray[np.bool_]  # (F,) of the landmarker
    points: Floats  # (F, 68, 2) pixels
    measures: dict[str, Floats]  # (F,) degrees; openness of the mouth


def _read_labels(clip: Path, shown: tuple[int, int]) -> _Labels:
    """In pixels of the frame as shown, width x height; raises MediaError where one of the two files is missing."""
    table, arrays = clip.with_suffix(".yunet.csv"), clip.with_suffix(".lm68.npz")
    for file in (table, arrays):
        if not file.exists():
            raise MediaError(f"{file}: not found; tracking is measured against this file beside the clip")
    with np.load(arrays, allow_pickle=False) as data:
        valid, points = data["valid"].astype(bool), data["lm68"].astype(np.float64)
        measures = dict(zip(ANGLES, data["yaw_pitch_roll"].astype(np.float64).T, strict=True))
        measures["mouth"] = data["mouth_open"].astype(np.float64)
    rows: list[list[list[float]]] = [[] for _ in valid]
    with table.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["score"] and float(row["score"]) > MIN_SCORE:
                rows[int(row["frame"])].append([float(value) for value in list(row.values())[4:18]])
    found = [np.array(faces, np.float64).reshape(-1, 14) for faces in rows]
    with av.open(clip) as container:
        stream = container.streams.video[0]
        scale = np.array(shown) / (
            stream.width,
            stream.height,
        )  # labels are in stored pixels, maybe not square ones
    corners = [np.stack([faces[:, :2], faces[:, :2] + faces[:, 2:4]], axis=1) for faces in found]
    return _Labels(
        boxes=[(pair * scale).reshape(-1, 4) for pair in corners],
        five=[faces[:, 4:].reshape(-1, 5, 2) * scale for faces in found],
        valid=valid,
        points=points * scale,
        measures=measures,
    )


def measure_clip(clip: Path) -> Agreement:
    """Track one clip and compare each frame with both references; raises MediaError without them."""
    with VideoReader(clip) as reader:
        frames = list(reader)
    labels = _read_labels(clip, (reader.info.width, reader.info.height))
    with Tracker(smooth=False) as tracker:
        tracker.track(np.zeros((64, 64, 3), np.uint8), -1.0)  # the first call makes the networks ready
        tracker.reset()
        before = tracker.searches
        faces, track_ms = _timed(tracker, frames)
        searches = tracker.searches - before
        tracker.reset()
        _, track_hd_ms = _timed(tracker, [_in_hd(frame) for frame in frames[:MOST_TIMED]])
    found = np.array([face is not None for face in faces])
    detected = np.array([len(boxes) > 0 for boxes in labels.boxes])
    return Agreement(
        clip=clip.name,
        frames=len(frames),
        found=int(found.sum()),
        detected=int(detected.sum()),
        agreement=float((found == detected).mean()),
        disagreeing=np.flatnonzero(found != detected).tolist(),
        searches=searches,
        track_ms=track_ms,
        track_hd_ms=track_hd_ms,
        detector=_against_detector(faces, labels),
        landmarker=_against_landmarker(faces, labels),
    )


def _timed(tracker: Tracker, frames: list[Frame]) -> tuple[list[Face | None], float | None]:
    """The faces, and the median milliseconds of the frames in which a face was followed."""
    faces, times = [], []
    for frame in frames:
        searches, started = tracker.searches, time.perf_counter()
        face = tracker.track(frame.image, frame.time)
        if tracker.searches == searches:
            times.append((time.perf_counter() - started) * 1000)
        faces.append(face)
    return faces, statistics.median(times) if times else None


def _in_hd(frame: Frame) -> Frame:
    """The frame as large as it fits into 1280x720, black around it."""
    height, width = frame.image.shape[:2]
    scale = min(HD[0] / width, HD[1] / height)
    size = (round(width * scale), round(height * scale))
    canvas: Image = np.zeros((HD[1], HD[0], 3), np.uint8)
    left, top = (HD[0] - size[0]) // 2, (HD[1] - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(frame.image, size)
    return Frame(canvas, frame.pts, frame.time_base)


def _against_detector(faces: list[Face | None], labels: _Labels) -> ToDetector:
    distances, overlaps = [], []
    for face, boxes, five in zip(faces, labels.boxes, labels.five, strict=True):
        if face is None or not len(boxes):
            continue
        shared = [_overlap(np.array(face.box), box) for box in boxes]
        nearest = int(np.argmax(shared))
        overlaps.append(shared[nearest])
        if shared[nearest] >= SAME_FACE:
            away = np.linalg.norm(face.landmarks_px[list(FIVE), :2] - five[nearest], axis=1)
            distances.append(away.mean() / _eye_distance(face))
    return ToDetector(five_points=_mean(distances), overlap=_mean(overlaps))


def _against_landmarker(faces: list[Face | None], labels: _Labels) -> ToLandmarker:
    theirs, ours = list(COMMON), list(COMMON.values())
    same = [
        index
        for index, face in enumerate(faces)
        if face is not None and labels.valid[index] and _is_same(face, labels.points[index, theirs])
    ]
    seen = [face for index in same if (face := faces[index]) is not None]
    points = np.array([face.landmarks_px[ours, :2] for face in seen], np.float64).reshape(-1, len(ours), 2)
    eyes = np.array([_eye_distance(face) for face in seen]).reshape(-1, 1)
    width = np.array([face.box[2] - face.box[0] for face in seen])
    away = np.linalg.norm(points - labels.points[np.ix_(same, theirs)], axis=2) / eyes
    angles = np.degrees([face.pose.yaw_pitch_roll for face in seen]).reshape(-1, 3).T
    measured = dict(zip(ANGLES, angles, strict=True))
    measured["mouth"] = np.array([face.mouth_openness for face in seen])
    told = {name: values[same] for name, values in labels.measures.items()}
    many = len(same) > 2
    return ToLandmarker(
        frames=len(same),
        distance=float(away.mean()) if same else None,
        regions={
            name: float(away[:, [theirs.index(point) for point in region]].mean())
            for name, region in REGIONS.items()
            if same
        },
        correlation={name: float(np.corrcoef(measured[name], told[name])[0, 1]) for name in told if many},
        spread={name: float(values.std()) for name, values in told.items() if many},
        noise=_noise(points, same, width),
        its_noise=_noise(labels.points[np.ix_(same, theirs)], same, width),
    )


def _is_same(face: Face, points: Floats) -> bool:
    ours = face.landmarks_px[list(COMMON.values()), :2].astype(np.float64)
    return _overlap(_box(ours), _box(points)) >= SAME_FACE


def _box(points: Floats) -> Floats:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def _eye_distance(face: Face) -> float:
    return float(np.linalg.norm(face.landmarks_px[33, :2] - face.landmarks_px[263, :2]))


def _noise(points: Floats, frames: list[int], width: Floats) -> float | None:
    """Mean second difference over time of (T, N, 2) points over the face's width, where three frames follow."""
    if len(frames) < 3:
        return None
    following = np.diff(frames)
    whole = (following[1:] == 1) & (following[:-1] == 1)
    jumps = np.linalg.norm(np.diff(points, n=2, axis=0), axis=2).mean(axis=1) / width[1:-1]
    return float(jumps[whole].mean()) if whole.any() else None


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


_COLUMNS = (
    *(
        "clip",
        "frames",
        "found",
        "detector",
        "agreement",
        "searches",
        "points",
        "brows",
        "nose",
        "eyes",
        "lips",
    ),
    *("5 points", "box", "yaw", "pitch", "roll", "mouth", "noise", "its noise", "ms", "ms, 720p"),
)
_LEGEND = """\
points, brows ... lips: distance to the 68-point landmarker in percent of the distance between the eyes' outer corners;
5 points: the same to the detector's; box: overlap with the detector's box (intersection over union);
yaw ... mouth: correlation with the landmarker, in brackets where that hardly moves; noise: second
difference of the points in percent of the face's width, ours and the landmarker's; searches: frames that were searched
for a face because none was known; ms: median of a frame in which a face was followed.
"""


def markdown(results: list[Agreement]) -> str:
    """The results as a markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    return "\n".join(lines + [f"| {' | '.join(_cells(result))} |" for result in results]) + "\n"


def _cells(r: Agreement) -> list[str]:
    to = r.landmarker
    cells = [r.clip, str(r.frames), str(r.found), str(r.detected), f"{r.agreement:.1%}", str(r.searches)]
    cells += [_percent(value) for value in (to.distance, *(to.regions.get(name) for name in REGIONS))]
    cells += [_percent(r.detector.five_points), _plain(r.detector.overlap, 2)]
    for name, spread in STILL.items():
        value = _plain(to.correlation.get(name), 3)
        cells.append(value if to.spread.get(name, spread) >= spread else f"({value})")
    cells += [_percent(to.noise, 2), _percent(to.its_noise, 2)]
    return [*cells, _plain(r.track_ms, 1), _plain(r.track_hd_ms, 1)]


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return _plain(None if value is None else 100 * value, digits)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    results = []
    for clip in options.clips:
        results.append(measure_clip(clip))
        sys.stdout.write(markdown(results[-1:]).splitlines()[-1] + "\n")
        if results[-1].disagreeing:
            sys.stdout.write(f"  found by one alone in frames {results[-1].disagreeing}\n")
        sys.stdout.flush()
    table = f"{markdown(results)}\n{_LEGEND}"
    sys.stdout.write("\n" + table)
    if options.json:
        record = {
            "machine": platform.processor() or platform.machine(),
            "clips": [asdict(r) for r in results],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(table)


if __name__ == "__main__":
    main()
