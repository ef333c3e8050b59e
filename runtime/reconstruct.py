"""Photos, folders and videos of faces to their heads in a folder: DECA's reconstruction as files and movies."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, FaceNotFoundError, MediaError, ReenactError
from ..kernels.raster import Floats, Ints, Raster
from .media.frame import Frame, Image
from .media.images import read_image, read_image_file, write_image
from .media.limits import DEFAULT_LIMITS, Limits
from .media.reader import VideoReader
from .media.writer import open_writer
from .reposing import animation_columns, animation_poses, transfer_columns
from .running import Progress, run_to_file
from .stream import Stage, StreamStats
from .systems.deca.files import coefficients, write_coefficients, write_files
from .systems.deca.model import NAME, Deca
from .systems.deca.reconstruction import Reconstruction, grid, reconstruct, reposed
from .systems.protocol import SystemSettings
from .tracking.face_squares import find_squares
from .tracking.flame_crop import crop, whole_picture_map
from .tracking.flame_fit import FitSmoother, View, view_of

__all__ = ["Reconstructed", "Reconstructor", "inputs_of"]

_Shown = Callable[[Reconstruction, float], Image]  # a head and its time in seconds to a picture
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Reconstructed:
    """What was made of one input."""

    source: Path
    folder: Path
    files: tuple[Path, ...]
    stats: StreamStats | None = None  # of a video


def inputs_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and of folders the pictures in them; MediaError for a folder without any."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
        if not pictures:
            raise MediaError(
                f"{path}: no pictures in this folder; name one with {', '.join(sorted(_PICTURES))}"
            )
        found += pictures
    twice = {path.stem for path in found if [other.stem for other in found].count(path.stem) > 1}
    if twice:
        raise ReenactError(
            f"two inputs are called {min(twice)}, and their results would be as well; reconstruct them one by one"
        )
    return found


class Reconstructor:
    """A context manager that holds the networks; each input's results go to a folder of its name."""

    def __init__(
        self,
        settings: SystemSettings,
        *,
        tracker: str = "built-in",
        face: int = 0,
        whole: bool = False,
        smooth: bool = True,
        rasterizer: str = "built-in",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Load what finds faces and open the bundle.

        `face` is the one to take, 0 the largest. With `whole` the networks look at whole pictures, which are cropped
        to a face already. `smooth` filters the coefficients of videos. `rasterizer` is built-in or nvdiffrast.
        Raises BundleError, BackendError and ModelError for what is missing, ReenactError for a tracker that is not
        known.
        """
        self._limits, self._whole, self._smooth, self._face = limits, whole, smooth, face
        self._deca = Deca(settings)
        try:
            if rasterizer == "nvdiffrast":
                self._deca.skin.rasterize = _nvdiffrast()
            self._squares = (
                None if whole else find_squares(tracker, backend=settings.backend, face=face, smooth=smooth)
            )
        except BaseException:
            self._deca.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free all networks."""
        self._deca.close()
        if self._squares is not None:
            self._squares.close()

    def run(self, source: Path, folder: Path, *, progress: Progress | None = None) -> Reconstructed:
        """Reconstruct a photo, or every frame of a video.

        Raises FaceNotFoundError where no face is seen, MediaError for files.
        """
        place = _made(folder / source.stem)
        if self._is_still(source):
            made = self.photo(source)
            files = write_files(place, source.stem, made, self._deca.skin)
            write_image(shown := place / f"{source.stem}_vis.jpg", grid(made), system=NAME)
            return Reconstructed(source, place, (*files, shown))
        return self._video(source, place, progress)

    def photo(self, source: Path) -> Reconstruction:
        """The head in a photo, or in the first frame of a video; errors as `run`."""
        image = read_image(source, limits=self._limits)
        view = self._view(image, None)
        if view is None:
            raise FaceNotFoundError(
                f"{source}: no face number {self._face} is seen in it; use a photo that shows a face, or --whole for "
                "one that is cropped to it"
            )
        return reconstruct(self._deca, [view])[0]

    def transfer(
        self, source: Path, driving: Path, folder: Path, *, progress: Progress | None = None
    ) -> Reconstructed:
        """The source with the expression and the jaw of a driving photo, or of each frame of a video."""
        made = self.photo(source)
        place = _made(folder / source.stem)
        name = f"{source.stem}_as_{driving.stem}"
        if self._is_still(driving):
            other = self.photo(driving)
            moved = self._transferred(made, other)
            files = write_files(place, name, moved, self._deca.skin)
            picture = transfer_columns(made, other.crop, moved)
            write_image(shown := place / f"{name}.jpg", picture, system=NAME)
            return Reconstructed(source, place, (*files, shown))

        def frame_of(other: Reconstruction, _time: float) -> Image:
            return transfer_columns(made, other.crop, self._transferred(made, other))

        return self._movie(source, driving, place / f"{name}.mp4", frame_of, progress)

    def animate(self, source: Path, folder: Path, *, progress: Progress | None = None) -> Reconstructed:
        """The source turned around, opening its jaw and going through expressions, as a movie."""
        made = self.photo(source)
        output = _made(folder / source.stem) / f"{source.stem}_animation.mp4"
        poses = animation_poses(made.fit.exp, made.fit.pose)

        def draw(item: tuple[int, Any]) -> Frame:
            number, (turned, moved) = item
            heads = [reposed(self._deca, made, *pose) for pose in (turned, moved)]
            return Frame(animation_columns(made, *heads), number, 1 / poses.fps)

        first = draw((0, poses.frames[0]))
        height, width = first.image.shape[:2]
        stats = run_to_file(
            enumerate(poses.frames),
            [Stage("draw", draw)],
            open_writer(output, width=width, height=height, fps=poses.fps, system=NAME),
            lambda done: replace(done, output=str(output)),
            progress,
            len(poses.frames),
            first_stage="pose",
        )
        return Reconstructed(source, output.parent, (output,), stats)

    def _transferred(self, made: Reconstruction, other: Reconstruction) -> Reconstruction:
        pose = np.concatenate([made.fit.pose[:3], other.fit.pose[3:]])
        return reposed(self._deca, made, other.fit.exp, pose, made.fit.cam)

    def _video(self, source: Path, place: Path, progress: Progress | None) -> Reconstructed:
        rows: list[dict[str, NDArray[Any]]] = []

        def frame_of(made: Reconstruction, time: float) -> Image:
            rows.append({"time": np.array(time), **coefficients(made)})
            return grid(made)

        done = self._movie(source, source, place / f"{source.stem}_vis.mp4", frame_of, progress)
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        files = write_coefficients(place, source.stem, columns)
        return replace(done, files=(*done.files, *files))

    def _movie(
        self, source: Path, driving: Path, output: Path, frame_of: _Shown, progress: Progress | None
    ) -> Reconstructed:
        """What `frame_of` makes of the driving's heads and times; where the face is lost, the last picture is held."""
        follower = _Follower(self, driving)
        with VideoReader(driving, limits=self._limits) as reader:
            frames = iter(reader)
            first = follower.first(frames)
            assert first.made is not None
            shown = frame_of(first.made, first.frame.time)
            held = _Held(shown)

            def draw(seen: "_Seen") -> Frame:
                if seen.made is not None and seen is not first:
                    held.image = frame_of(seen.made, seen.frame.time)
                return Frame(held.image, seen.frame.pts, seen.frame.time_base)

            def seen() -> Iterator["_Seen"]:
                for early in follower.faceless:
                    yield _Seen(early, None)
                yield first
                for frame in frames:
                    yield _Seen(frame, follower.follow(frame))

            stats = run_to_file(
                seen(),
                [Stage("draw", draw)],
                open_writer(
                    output, width=shown.shape[1], height=shown.shape[0], fps=reader.info.fps, system=NAME
                ),
                lambda done: replace(done, output=str(output), frames_without_face=follower.without_face),
                progress,
                reader.info.frames,
                first_stage="fit",
            )
        return Reconstructed(source, output.parent, (output,), stats)

    def _view(self, image: Image, time: float | None) -> View | None:
        if self._squares is None:
            to_crop = whole_picture_map(image.shape[1], image.shape[0])
            return View(crop(image, to_crop), to_crop)
        square = self._squares.still(image) if time is None else self._squares.follow(image, time)
        return None if square is None else view_of(image, square)

    def _is_still(self, path: Path) -> bool:
        file = None if path.is_dir() else read_image_file(path, self._limits)
        return file is not None and file[0].kind != "gif"


@dataclass(frozen=True, eq=False)
class _Seen:
    frame: Frame
    made: Reconstruction | None  # None where no face is seen


@dataclass(eq=False)
class _Held:
    image: Image


class _Follower:
    """One person through a video: shape and wrinkles' code are those of the first frame with a face."""

    def __init__(self, owner: Reconstructor, driving: Path) -> None:
        self._owner, self._driving = owner, driving
        self._smoother = FitSmoother() if owner._smooth and not owner._whole else None
        self._first: Reconstruction | None = None
        self.faceless: list[Frame] = []
        self.without_face = 0
        if owner._squares is not None:
            owner._squares.reset()

    def first(self, frames: Iterator[Frame]) -> _Seen:
        """Up to the first frame with a face; those before it are kept in `faceless`."""
        for frame in frames:
            made = self.follow(frame)
            if made is not None:
                return _Seen(frame, made)
            self.faceless.append(frame)
        raise FaceNotFoundError(f"{self._driving}: no face is seen in it; use a video that shows one")

    def follow(self, frame: Frame) -> Reconstruction | None:
        view = self._owner._view(frame.image, frame.time)
        if view is None:
            self.without_face += 1
            if self._smoother is not None:
                self._smoother.reset()
            return None
        deca, known = self._owner._deca, self._first
        (fit,) = deca.fit([view])
        if self._smoother is not None:
            fit = self._smoother(fit, frame.time)
        if known is None:
            (made,) = reconstruct(deca, [view], [fit])
            self._first = made
            return made
        fit = replace(fit, shape=known.fit.shape)
        return reconstruct(deca, [view], [fit], known.detail[None], known.person)[0]


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder with -o"
        ) from error
    return folder


def _nvdiffrast() -> Callable[[Floats, Ints, int, int], Raster]:
    """nvdiffrast's rasteriser; BackendError where it cannot be used."""
    from .backends.torch import nvdiffrast

    reason = nvdiffrast.missing()
    if reason:
        raise BackendError(f"--rasterizer nvdiffrast: {reason}")
    return nvdiffrast.rasterize
