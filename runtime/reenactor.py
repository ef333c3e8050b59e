"""The door to the runtime: a photo is registered once, then driven by a video, a motion or single frames."""

import logging
import math
import time as clock
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ..errors import ReenactError
from .closing import Closing
from .engine import Precision
from .media.frame import Frame, Image
from .media.images import read_image
from .media.limits import DEFAULT_LIMITS, Limits
from .media.reader import VideoReader
from .media.writer import open_writer
from .motion import MotionTrack, load_motion
from .neutral import find_reference
from .rate import at_rate, rate_of
from .running import Progress, check_not_an_input, run_to_file, threads_a_stage
from .source import check_image, crop_around, find_source
from .stream import Stage, StreamStats
from .systems import registry
from .systems.protocol import MotionSource, Observation, Portrait, SystemSettings
from .tracking.face import Motion
from .tracking.look import Look, look_at
from .tracking.relative import RelativeMotion, strengthened
from .tracking.tracker import Tracker
from .watermark import marked

__all__ = ["Progress", "Reenactor"]

_log = logging.getLogger(__name__)

MOTION_FPS = 30.0
FRAME_SECONDS = 1 / 30  # from one frame to the next where `animate` is told no time


class Reenactor(Closing):
    """A registered source that can be driven; a context manager.

    >>> with Reenactor("photo.jpg") as reenactor:  # doctest: +SKIP
    ...     reenactor.run("driving.mp4", "out.mp4")
    """

    portrait: Portrait
    """The registered source; every result has the size of `portrait.image`."""

    def __init__(
        self,
        source: str | Path | Image,
        *,
        system: str = "meshwarp",
        bundle: Path | None = None,
        backend: str = "auto",
        precision: Precision = "auto",
        motion_source: MotionSource = "auto",
        face: int | None = None,
        driving_face: int | None = None,
        crop: bool = False,
        smooth: bool = True,
        limits: Limits = DEFAULT_LIMITS,
        mark: bool = True,
    ) -> None:
        """Find the face in `source` and register it.

        `source` is a photo, a video (its first frame with a face) or an (H, W, 3) uint8 RGB array. `bundle` is
        the folder with the system's graphs, by default the one that `reenact export` makes. `motion_source` is
        who sees the driving's expression: "tracker", "deca", or "auto" for DECA where its bundle is there. `face`
        and `driving_face` choose among several faces: 0 or None the largest, 1 the next. With `crop` the
        result is a square of 512 pixels around the head, otherwise the whole photo. `smooth` filters the
        tracking. Every result is marked as AI-generated (docs/provenance.md), those of `animate` too;
        `mark=False` turns that off, which the log says.

        Raises FaceNotFoundError where the source shows no usable face, MediaError where it cannot be read,
        BackendError or ModelError where the tracker cannot run, BundleError where the system's graphs are not there.
        """
        self._animator = registry.create(system, SystemSettings(bundle, backend, precision, motion_source))
        self._limits = limits
        self._mark = mark
        self._smoothing = 1.0 if smooth else 0.0
        self._source = None if isinstance(source, np.ndarray) else Path(source)
        self._live: _Live | None = None
        try:
            self._tracker = Tracker(
                backend=backend,
                precision=precision,
                threads=threads_a_stage(),
                face=driving_face,
                smooth=smooth,
            )
        except BaseException:
            self._animator.close()
            raise
        try:
            image, found = find_source(source, self._tracker, face or 0, limits)
            if crop:
                image, found = crop_around(image, found)
            self.portrait = self._animator.register(image, found)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free all networks; nothing can be driven afterwards."""
        self._tracker.close()
        self._animator.close()

    def run(
        self,
        driving: str | Path,
        output: str | Path,
        *,
        relative: bool = True,
        reference_frame: Literal["auto"] | int = "auto",
        pose_strength: float = 1.0,
        expression_strength: float = 1.0,
        start: float = 0.0,
        duration: float | None = None,
        side_by_side: bool = False,
        fps: float | None = None,
        codec: str | None = None,
        crf: int | None = None,
        progress: Progress | None = None,
    ) -> StreamStats:
        """Drive the source by a video and write the result, with the driving's own times and sound.

        The head moves as the driving's has moved since its neutral frame. That is looked for in the first
        seconds, or is frame number `reference_frame` of the driving, counted from `start`; with
        `relative=False` the head turns to where the driving's looks. Strengths: 0 nothing, 1 as seen, up to 3.
        `start` and `duration` are seconds of the driving. `side_by_side` puts the driving at the left of the
        result. `fps` makes the times of the output even. An existing `output` is replaced.

        Raises FaceNotFoundError for a driving without a face, MediaError and LimitError for files, and
        StreamInterrupted (a KeyboardInterrupt) after Ctrl-C, when the output was finished up to there.
        """
        driving, output = Path(driving), Path(output)
        _check_settings(pose_strength, expression_strength, start, duration, fps)
        check_not_an_input(output, self._source, driving)
        self._forget()
        began = clock.perf_counter()
        clip = _Clip(driving, self._limits, start, duration, fps)
        with clip.open() as reader:
            reference = find_reference(
                iter(reader),
                lambda frame: self._tracker.track(frame.image, frame.time),
                reference_frame,
                name=str(driving),
            )
        self._tracker.reset()
        relative_motion = RelativeMotion(
            reference.neutral,
            absolute_from=None if relative else self.portrait.face,
            pose_strength=pose_strength,
            expression_strength=expression_strength,
        )
        seen = Observation(
            Motion.still(),
            neutral=reference.look,
            smoothing=self._smoothing,
            expression_strength=expression_strength,
        )
        follower = _Follower(self._tracker, relative_motion, seen)
        with clip.open() as reader:
            layout = _Layout(self.portrait.image, (reader.info.height, reader.info.width), side_by_side)
            sink = open_writer(
                output,
                width=layout.width,
                height=layout.height,
                fps=clip.rate(reader),
                codec=codec,
                crf=crf,
                audio_from=driving if reader.info.has_audio else None,
                audio_start=reader.origin,
                audio_duration=duration,
                system=self._animator.name,
                mark=self._mark,
            )
            drops: Counter[str] = Counter()

            def completed(stats: StreamStats) -> StreamStats:
                return replace(
                    stats,
                    drops={**stats.drops, **drops},
                    damaged_packets=reader.damaged,
                    frames_without_face=follower.without_face,
                    output=str(output),
                )

            stages = [Stage("track", follower.follow), Stage("animate", self._animating(layout))]
            frames = clip.frames(reader, drops)
            return run_to_file(frames, stages, sink, completed, progress, clip.count(reader), began=began)

    def run_motion(
        self,
        motion: str | Path | MotionTrack,
        output: str | Path,
        *,
        pose_strength: float = 1.0,
        expression_strength: float = 1.0,
        duration: float | None = None,
        side_by_side: bool = False,
        fps: float | None = None,
        codec: str | None = None,
        crf: int | None = None,
        progress: Progress | None = None,
    ) -> StreamStats:
        """Animate the source by a motion (a preset's name, a .json file or a loaded one); write the result.

        `duration` in seconds: by default once through the motion. `side_by_side` puts the still source at the
        left. Raises ReenactError for a motion that is unknown or not one, otherwise as `run` does.
        """
        output = Path(output)
        track = motion if isinstance(motion, MotionTrack) else load_motion(motion)
        _check_settings(pose_strength, expression_strength, 0.0, duration, fps)
        check_not_an_input(output, self._source)
        self._forget()
        seconds = track.duration if duration is None else duration
        self._limits.check_seconds(Path(track.name), seconds)
        rate = rate_of(fps or MOTION_FPS)
        total = max(1, round(seconds * rate))
        image = self.portrait.image

        def observations() -> Iterator["_Observed"]:
            for index in range(total):
                time = float(index / rate)
                moved = strengthened(track.at(time), pose_strength, expression_strength)
                yield _Observed(Frame(image, index, 1 / rate), Observation(moved, time=time))

        layout = _Layout(image, image.shape[:2], side_by_side)
        sink = open_writer(
            output,
            width=layout.width,
            height=layout.height,
            fps=rate,
            codec=codec,
            crf=crf,
            system=self._animator.name,
            mark=self._mark,
        )
        return run_to_file(
            observations(),
            [Stage("animate", self._animating(layout))],
            sink,
            lambda stats: replace(stats, output=str(output)),
            progress,
            total,
            first_stage="motion",
        )

    def animate(self, frame: Image | str | Path, time: float | None = None) -> Image:
        """One driving frame, (H, W, 3) uint8 RGB or a file, to one result of the size of `portrait.image`.

        The first frame with a face is the neutral one; until then the source stays still. `time` in seconds
        must grow from call to call; None is 1/30 s after the last. `run` and `run_motion` forget the neutral
        frame.
        """
        read = frame if isinstance(frame, np.ndarray) else read_image(frame, limits=self._limits)
        image = check_image(read, "frame")
        if self._live is None:
            self._live = _Live()
            if not self._mark:
                _log.warning("pictures are given out without the mark of AI-generated pictures, as asked")
        live = self._live
        live.time = live.time + FRAME_SECONDS if time is None else time
        face = self._tracker.track(image, live.time)
        if live.relative is None and face is not None:
            live.relative, live.neutral = RelativeMotion(face), look_at(image, face)
        motion = Motion.still() if live.relative is None else live.relative.update(face, live.time)
        observation = Observation(motion, face, image, live.time, live.neutral, self._smoothing)
        result = self._animator.animate(self.portrait, observation)
        return marked(result) if self._mark else result

    def _forget(self) -> None:
        """The driving that comes next is another one."""
        self._live = None
        self._tracker.reset()

    def _animating(self, layout: "_Layout") -> Callable[["_Observed"], Frame]:
        def animate(observed: _Observed) -> Frame:
            result = self._animator.animate(self.portrait, observed.observation)
            frame = observed.frame
            return Frame(layout.arranged(frame.image, result), frame.pts, frame.time_base)

        return animate


@dataclass
class _Live:
    """What frame-by-frame animation remembers."""

    relative: RelativeMotion | None = None
    neutral: Look | None = None
    time: float = -FRAME_SECONDS


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    frame: Frame
    observation: Observation


@dataclass(frozen=True)
class _Clip:
    """A part of a driving file, which is read twice: for its neutral face, then for the result."""

    path: Path
    limits: Limits
    start: float
    duration: float | None
    fps: float | None

    def open(self) -> VideoReader:
        return VideoReader(self.path, limits=self.limits, start=self.start, duration=self.duration)

    def frames(self, reader: VideoReader, drops: Counter[str]) -> Iterator[Frame]:
        return iter(reader) if self.fps is None else at_rate(reader, rate_of(self.fps), drops)

    def rate(self, reader: VideoReader) -> Fraction:
        return reader.info.fps if self.fps is None else rate_of(self.fps)

    def count(self, reader: VideoReader) -> int | None:
        if self.fps is None or reader.info.duration is None:
            return reader.info.frames
        return round(reader.info.duration * self.fps)


class _Follower:
    """The track stage."""

    def __init__(self, tracker: Tracker, relative: RelativeMotion, like: Observation) -> None:
        """`like`: what is the same in every frame's observation."""
        self._tracker = tracker
        self._relative, self._like = relative, like
        self.without_face = 0

    def follow(self, frame: Frame) -> _Observed:
        face = self._tracker.track(frame.image, frame.time)
        self.without_face += face is None
        motion = self._relative.update(face, frame.time)
        return _Observed(
            frame, replace(self._like, motion=motion, face=face, image=frame.image, time=frame.time)
        )


class _Layout:
    """How the result is shown: alone, or at the right of what drives it, scaled to the same height."""

    def __init__(self, image: Image, driving_shape: tuple[int, ...], side_by_side: bool) -> None:
        self.height, self.width = image.shape[:2]
        self._beside = 0
        if side_by_side:
            self._beside = max(1, round(driving_shape[1] * self.height / driving_shape[0]))
            self.width += self._beside

    def arranged(self, driving: Image, result: Image) -> Image:
        if not self._beside:
            return result
        interpolation = cv2.INTER_AREA if driving.shape[0] > self.height else cv2.INTER_LINEAR
        return np.hstack(
            [cv2.resize(driving, (self._beside, self.height), interpolation=interpolation), result]
        )


def _check_settings(
    pose_strength: float, expression_strength: float, start: float, duration: float | None, fps: float | None
) -> None:
    for setting, value, low, high in (
        ("pose strength", pose_strength, 0.0, 3.0),
        ("expression strength", expression_strength, 0.0, 3.0),
        ("start", start, 0.0, 1e6),
        ("duration", duration, 0.001, 1e6),
        ("fps", fps, 1.0, 240.0),
    ):
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise ReenactError(f"{setting} is {value:g}; expected {low:g} to {high:g}")
