"""How well a system follows a driving clip: self-reenactment, measured by tracking what came out.

The first good frame of each clip is the source and the clip itself the driving, so that the right answer is known:
`python -m reenact.benchmarks.quality CLIPS... [--system meshwarp] [--json FILE] [--markdown FILE]`.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import FaceNotFoundError
from ..runtime.closing import Closing
from ..runtime.media.frame import Frame, Image
from ..runtime.media.reader import VideoReader
from ..runtime.neutral import rest_costs
from ..runtime.systems import registry
from ..runtime.systems.protocol import Observation
from ..runtime.tracking.face import Face
from ..runtime.tracking.look import look_at
from ..runtime.tracking.relative import RelativeMotion
from ..runtime.tracking.smoothing import FaceSmoother
from ..runtime.tracking.tracker import Tracker

__all__ = ["Quality", "measure_clip", "ssim"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Results of one clip; distances are divided by the distance between the eyes, correlations are Pearson's."""

    clip: str
    frames: int
    yaw_range: tuple[float, float]  # degrees, of the driving
    distance: float  # mean landmark distance between output and driving
    still_distance: float  # the same for the source left as it is
    ssim: float  # of the face region, output against driving
    still_ssim: float
    yaw: float  # correlations of output and driving
    pitch: float
    roll: float
    mouth: float
    eyes: float
    jitter: float  # second difference of the landmarks, output over driving

    @property
    def ratio(self) -> float:
        """Distance over that of the still source; lower is better."""
        return self.distance / self.still_distance


def measure_clip(path: Path, system: str) -> Quality:
    """Self-reenact one clip and compare output with driving, frame by frame."""
    with VideoReader(path) as reader:
        frames = list(reader)
    with Tracker() as tracker, Judge() as judge_driving, Judge() as judge_output:
        faces = [tracker.track(frame.image, frame.time) for frame in frames]
        first = _first_good(faces, path)
        source_face = tracker.find_faces(frames[first].image)[0]
        animator = registry.create(system)
        portrait = animator.register(frames[first].image, source_face)
        neutral = faces[first]
        assert neutral is not None
        relative, look = RelativeMotion(neutral), look_at(frames[first].image, neutral)
        rows = []
        for frame, face in zip(frames, faces, strict=True):
            motion = relative.update(face, frame.time)
            observation = Observation(motion, face, frame.image, frame.time, look)
            output = animator.animate(portrait, observation)
            seen = judge_driving.look(frame.image, frame.time)
            shown = judge_output.look(output, frame.time)
            if seen is not None and shown is not None:
                rows.append(_Row(seen, shown, *_similarities(frame, output, frames[first].image, seen.raw)))
    return _summary(path.name, rows, source_face)


@dataclass(frozen=True)
class Judged:
    """One frame as the tracker sees it: each frame on its own, and smoothed as the product uses it."""

    raw: Face
    smooth: Face


class Judge(Closing):
    """A tracker that looks at one sequence of pictures."""

    def __init__(self) -> None:
        self._tracker = Tracker(smooth=False)
        self._smoother = FaceSmoother()

    def look(self, image: Image, time: float) -> Judged | None:
        """What is seen in a picture at `time` seconds, None where there is no face."""
        face = self._tracker.track(image, time)
        if face is None:
            return None
        return Judged(face, self._smoother(face.landmarks_px, face.pose, face.score, time))

    def close(self) -> None:
        """Free the tracker."""
        self._tracker.close()


@dataclass(frozen=True)
class _Row:
    driving: Judged
    output: Judged
    ssim: float
    still_ssim: float


def _first_good(faces: list[Face | None], path: Path) -> int:
    """The first frame nearly as good a photo as the best of the clip: frontal, mouth shut, eyes open."""
    costs = rest_costs(faces)
    if not np.isfinite(costs).any():
        raise FaceNotFoundError(f"{path}: no frame with a face")
    return int(np.argmax(costs <= 1.1 * costs.min() + 0.1))


def _similarities(frame: Frame, output: Image, still: Image, face: Face) -> tuple[float, float]:
    x0, y0, x1, y1 = (round(v) for v in face.box)
    rows, columns = slice(max(0, y0), max(1, y1)), slice(max(0, x0), max(1, x1))
    wanted = frame.image[rows, columns]
    return ssim(output[rows, columns], wanted), ssim(still[rows, columns], wanted)


def ssim(a: Image, b: Image) -> float:
    """Structural similarity of the luminance of two (H, W, 3) uint8 pictures (Wang et al. 2004, Gaussian 1.5 px)."""
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (a, b))

    def mean(values: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5))

    mx, my = mean(x), mean(y)
    vx, vy, covariance = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(score.mean())


def _summary(name: str, rows: list[_Row], source: Face) -> Quality:
    driving = np.stack([row.driving.raw.landmarks_px[:468, :2] for row in rows]).astype(np.float64)
    output = np.stack([row.output.raw.landmarks_px[:468, :2] for row in rows]).astype(np.float64)
    eyes = np.linalg.norm(driving[:, 33] - driving[:, 263], axis=1)
    still = source.landmarks_px[:468, :2]
    angles = [np.degrees([f.pose.yaw_pitch_roll for f in faces]) for faces in _both(rows)]
    mouths = [np.array([f.mouth_openness for f in faces]) for faces in _both(rows)]
    lids = [np.array([f.eye_openness.mean() for f in faces]) for faces in _both(rows)]
    return Quality(
        clip=name,
        frames=len(rows),
        yaw_range=(float(angles[0][:, 0].min()), float(angles[0][:, 0].max())),
        distance=float((np.linalg.norm(output - driving, axis=2).mean(axis=1) / eyes).mean()),
        still_distance=float((np.linalg.norm(still - driving, axis=2).mean(axis=1) / eyes).mean()),
        ssim=float(np.mean([row.ssim for row in rows])),
        still_ssim=float(np.mean([row.still_ssim for row in rows])),
        yaw=_correlation(angles[0][:, 0], angles[1][:, 0]),
        pitch=_correlation(angles[0][:, 1], angles[1][:, 1]),
        roll=_correlation(angles[0][:, 2], angles[1][:, 2]),
        mouth=_correlation(*mouths),
        eyes=_correlation(*lids),
        jitter=_jitter(output) / _jitter(driving),
    )


def _both(rows: list[_Row]) -> tuple[list[Face], list[Face]]:
    return [row.driving.smooth for row in rows], [row.output.smooth for row in rows]


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _jitter(landmarks: Floats) -> float:
    """Mean length of the second difference over time of (T, N, 2) landmarks."""
    return float(np.linalg.norm(np.diff(landmarks, n=2, axis=0), axis=2).mean())


_COLUMNS = (
    "clip | frames | yaw, degrees | distance | still | ratio | SSIM | still | yaw | pitch | roll "
    "| mouth | eyes | jitter"
)


def markdown(results: list[Quality]) -> str:
    """The results as a markdown table."""
    lines = [f"| {_COLUMNS} |", "| --- |" + " --- |" * _COLUMNS.count("|")]
    for r in results:
        lines.append(
            f"| {r.clip} | {r.frames} | {r.yaw_range[0]:.0f} .. {r.yaw_range[1]:.0f} | {r.distance:.4f} "
            f"| {r.still_distance:.4f} | {r.ratio:.2f} | {r.ssim:.3f} | {r.still_ssim:.3f} | {r.yaw:.3f} "
            f"| {r.pitch:.3f} | {r.roll:.3f} | {r.mouth:.3f} | {r.eyes:.3f} | {r.jitter:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--system", default="meshwarp")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    results = []
    for clip in options.clips:
        results.append(measure_clip(clip, options.system))
        sys.stdout.write(markdown(results[-1:]).splitlines()[-1] + "\n")
        sys.stdout.flush()
    sys.stdout.write("\n" + markdown(results))
    if options.json:
        record = {"system": options.system, "machine": platform.processor() or platform.machine()}
        record["clips"] = [asdict(result) | {"ratio": result.ratio} for result in results]
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(results))


if __name__ == "__main__":
    main()
