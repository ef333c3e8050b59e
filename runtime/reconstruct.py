"""Photos, folders and videos of faces to their heads in a folder: DECA's reconstruction as files and movies."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, FaceNotFoundError, MediaError, ReenactError
from ..kernels.raster import Floats, Ints, Raster
from .closing import Closing
from .fitted_video import Seen, VideoFitter
from .media.frame import Frame, Image
from .media.images import read_image, read_image_file, write_image
from .media.limits import DEFAULT_LIMITS, Limits
from .media.reader import VideoReader
from .media.writer import open_writer
from .reposing import animation_camera, animation_columns, animation_poses, transfer_columns
from .running import Progress, run_to_file
from .stream import Stage, StreamInterrupted, StreamStats
from .systems.deca.files import coefficients, write_coefficients, write_files
from .systems.deca.model import NAME, Deca
from .systems.deca.reconstruction import Reconstruction, grid, reconstruct, reposed
from .systems.protocol import SystemSettings
from .tracking.face_squares import find_squares
from .tracking.flame_crop import crop, whole_picture_map
from .tracking.flame_fit import FlameFit, View, view_of

__all__ = ["Reconstructed", "Reconstructor", "inputs_of", "place_of"]

_Shown = Callable[[View, FlameFit, float], Image]  # a face, and its time in seconds, to a picture
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
_MOVING = {".gif", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"}


@dataclass(frozen=True)
class Reconstructed:
    """What was made of one input."""

    source: Path
    folder: Path
    files: tuple[Path, ...]
    stats: StreamStats | None = None  # of a video


def inputs_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and of folders the pictures and videos in them.

    Raises MediaError for a folder without any, ReenactError where the results of two would have one name.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        known = _PICTURES | _MOVING
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in known and file.is_file())
        if not inside:
            raise MediaError(
                f"{path}: no pictures or videos in this folder; name one with {', '.join(sorted(known))}"
            )
        found += inside
    twice = sorted(stem for stem, count in Counter(path.stem for path in found).items() if count > 1)
    if twice:
        raise ReenactError(
            f"two inputs are called {twice[0]}, and their results would be as well; reconstruct them one by one"
        )
    return found


def place_of(folder: Path, source: Path, inputs: Sequence[Path]) -> Path:
    """The folder in `folder` for all results of `source`, which is not made yet.

    Raises ReenactError where one of `inputs` lies in it: a result could replace what it is made from.
    """
    place = folder / source.stem
    if place.is_dir():
        for given in inputs:
            if any(path.parent.samefile(place) for path in (given, given.resolve()) if path.exists()):
                raise ReenactError(
                    f"{given}: the results of {source} go to this folder and could replace it; choose another with -o"
                )
    return place


class Reconstructor(Closing):
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
        to a face already. `smooth` filters the coefficients of videos, of whole pictures as well.
        `rasterizer` is built-in or nvdiffrast.
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

    def close(self) -> None:
        """Free all networks."""
        self._deca.close()
        if self._squares is not None:
            self._squares.close()

    def run(self, source: Path, folder: Path, *, progress: Progress | None = None) -> Reconstructed:
        """Reconstruct a photo, or every frame of a video.

        Raises FaceNotFoundError where no face is seen, MediaError for files, ReenactError where results could replace
        the source. Nothing is made before a face is seen. After Ctrl-C in a video its movie and coefficients are those
        of the frames that were read.
        """
        place = place_of(folder, source, [source])
        if not self._is_still(source):
            return self._video(source, place, progress)
        made = self.photo(source)
        files = write_files(_made(place), source.stem, made, self._deca.skin)
        write_image(shown := place / f"{source.stem}_vis.jpg", grid(made), system=NAME)
        return Reconstructed(source, place, (*files, shown))

    def photo(self, source: Path) -> Reconstruction:
        """The head in a photo, or in the first frame of a video that shows a face; errors as `run`."""
        return reconstruct(self._deca, [self._first_view(source)])[0]

    def transfer(
        self, source: Path, driving: Path, folder: Path, *, progress: Progress | None = None
    ) -> Reconstructed:
        """The source with the expression and the jaw of a driving photo, or of each frame of a video.

        Errors as `run`.
        """
        place = place_of(folder, source, [source, driving])
        name = f"{source.stem}_as_{driving.stem}"
        if not self._is_still(driving):
            made = self.photo(source)

            def frame_of(view: View, fit: FlameFit, _time: float) -> Image:
                return transfer_columns(made, view.crop, self._transferred(made, fit))

            return self._movie(source, driving, place / f"{name}.mp4", frame_of, progress)
        views = [self._first_view(path) for path in (source, driving)]
        mine, other = self._deca.fit(views)
        (made,) = reconstruct(self._deca, views[:1], [mine])
        moved = self._transferred(made, other)
        files = write_files(_made(place), name, moved, self._deca.skin)
        picture = transfer_columns(made, views[1].crop, moved)
        write_image(shown := place / f"{name}.jpg", picture, system=NAME)
        return Reconstructed(source, place, (*files, shown))

    def animate(self, source: Path, folder: Path, *, progress: Progress | None = None) -> Reconstructed:
        """The source turned around, opening its jaw and going through expressions, as a movie; errors as `run`."""
        place = place_of(folder, source, [source])
        made = self.photo(source)
        output = _made(place) / f"{source.stem}_animation.mp4"
        poses = animation_poses(made.fit.exp, made.fit.pose, animation_camera(self._deca, made))

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

    def _transferred(self, made: Reconstruction, other: FlameFit) -> Reconstruction:
        pose = np.concatenate([made.fit.pose[:3], other.pose[3:]])
        return reposed(self._deca, made, other.exp, pose, made.fit.cam)

    def _video(self, source: Path, place: Path, progress: Progress | None) -> Reconstructed:
        rows: list[dict[str, NDArray[Any]]] = []
        known: list[Reconstruction] = []  # the first, whose shape and wrinkles' code all others have

        def frame_of(view: View, fit: FlameFit, time: float) -> Image:
            if known:
                first = known[0]
                fit = replace(fit, shape=first.fit.shape)
                (made,) = reconstruct(self._deca, [view], [fit], first.detail[None], first.person)
            else:
                (made,) = reconstruct(self._deca, [view], [fit])
                known.append(made)
            rows.append({"time": np.array(time), **coefficients(made)})
            return grid(made)

        def write_rows() -> list[Path]:
            columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            return write_coefficients(place, source.stem, columns)

        try:
            done = self._movie(source, source, place / f"{source.stem}_vis.mp4", frame_of, progress)
        except StreamInterrupted as interrupt:
            if interrupt.stats.frames:
                write_rows()
            raise
        return replace(done, files=(*done.files, *write_rows()))

    def _movie(
        self, source: Path, driving: Path, output: Path, frame_of: _Shown, progress: Progress | None
    ) -> Reconstructed:
        """What `frame_of` makes of the driving's faces; where the face is lost, the last picture is held.

        The picture of the first face is held before it as well.
        """
        if self._squares is not None:
            self._squares.reset()
        began = time.perf_counter()
        fitter = VideoFitter(driving, self._view, self._deca.fit, smooth=self._smooth)
        with VideoReader(driving, limits=self._limits) as reader:
            frames = iter(reader)
            early = fitter.start(frames)
            first = early[-1]
            assert first.face is not None
            held = [frame_of(*first.face, first.time)]

            def draw(seen: Seen) -> Frame:
                if seen.face is not None and seen is not first:
                    held[0] = frame_of(*seen.face, seen.time)
                return Frame(held[0], seen.pts, seen.time_base)

            _made(output.parent)
            height, width = held[0].shape[:2]
            stats = run_to_file(
                chain(early, map(fitter.follow, frames)),
                [Stage("draw", draw)],
                open_writer(output, width=width, height=height, fps=reader.info.fps, system=NAME),
                lambda done: replace(done, output=str(output), frames_without_face=fitter.without_face),
                progress,
                reader.info.frames,
                first_stage="fit",
                began=began,
            )
        return Reconstructed(source, output.parent, (output,), stats)

    def _first_view(self, source: Path) -> View:
        if not self._is_still(source):
            with VideoReader(source, limits=self._limits) as reader:
                for frame in reader:
                    view = self._look(frame.image)
                    if view is not None:
                        return view
            raise FaceNotFoundError(f"{source}: no face is seen in it; use a video that shows one")
        view = self._look(read_image(source, limits=self._limits))
        if view is None:
            raise FaceNotFoundError(
                f"{source}: no face number {self._face} is seen in it; use a photo that shows a face, or --whole for "
                "one that is cropped to it"
            )
        return view

    def _look(self, image: Image) -> View | None:
        """A picture on its own."""
        if self._squares is None:
            return _whole_view(image)
        square = self._squares.still(image)
        return None if square is None else view_of(image, square)

    def _view(self, image: Image, time: float) -> View | None:
        """The next picture of a video."""
        if self._squares is None:
            return _whole_view(image)
        square = self._squares.follow(image, time)
        return None if square is None else view_of(image, square)

    def _is_still(self, path: Path) -> bool:
        file = None if path.is_dir() else read_image_file(path, self._limits)
        return file is not None and file[0].kind != "gif"


def _whole_view(image: Image) -> View:
    to_crop = whole_picture_map(image.shape[1], image.shape[0])
    return View(crop(image, to_crop), to_crop)


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
