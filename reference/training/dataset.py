"""Pairs of frames of one video in the published folder layout: the source and, later in the video, the driving.

`list.txt` names one video folder a line, `<person>#<video>#...`; in each `img/<n>.jpg`, `landmark/<n>.txt`,
`headpose/<n>.txt` and `mask/<n>.png` (0 or 255; the face is 255) belong together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ...errors import MediaError, ReenactError
from ...runtime.systems.face2face_rho.landmarks import draw_landmark_images, read_head_pose, read_landmarks
from .files import Image, decoded, raise_for, require_signature
from .order import Draw, generator

__all__ = ["FacePairs", "Video", "read_videos"]

_ENDINGS = {"img": ".jpg", "landmark": ".txt", "headpose": ".txt", "mask": ".png"}
_ELSE = "take their videos out of list.txt"


@dataclass(frozen=True)
class Video:
    """A folder of frames."""

    folder: Path
    person: str
    frames: tuple[str, ...]  # the files' stems, by their number

    def file(self, kind: str, frame: str) -> Path:
        """Where the `kind` (img, landmark, headpose or mask) of a frame lies."""
        return self.folder / kind / f"{frame}{_ENDINGS[kind]}"


class FacePairs:
    """Samples for training at a size S: a person, one of its videos at random, two of its frames at random.

    Sample i is of person i modulo their number; an epoch has each person `repeats` times. What is chosen depends on
    the seed and the draw only. A sample has

    source, driving  (3, S, S) RGB in [-1, 1]
    source_landmarks_<k>, driving_landmarks_<k>  (3, S/k, S/k) for k = 16, 8, 4: the drawn keypoints in [-1, 1]
    source_headpose, driving_headpose  (6,)
    mask  (1, S, S), 1 where the driving's face is, else 0

    A picture of another width than S is resized to S x S whatever its proportions: averaged over areas when it
    shrinks, else bilinearly. The published code uses Pillow's bilinear filter, whose weights differ a little when
    a picture shrinks; at the published size nothing is resized.
    """

    def __init__(self, videos: Iterable[Video], *, size: int, repeats: int, seed: int = 0) -> None:
        self._size, self._repeats, self._seed = size, repeats, seed
        self._by_person: dict[str, list[Video]] = {}
        for video in videos:
            self._by_person.setdefault(video.person, []).append(video)
        self._persons = sorted(self._by_person)

    def check(self) -> None:
        """Look at every file once, so that training does not end hours later.

        Pictures must be there and begin as JPEG and PNG do, texts must hold their numbers; the first frame of each
        video is decoded as well. Raises ReenactError that names the first files that are wrong.
        """
        videos = [video for person in self._persons for video in self._by_person[person]]
        wrong = [complaint for video in videos for complaint in _complaints(video)]
        if wrong:
            raise_for(videos[0].folder.parent, wrong, _ELSE)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self._persons) * self._repeats

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of a draw; ReenactError names the file that cannot be used."""
        video, source, driving = self.choose(draw)
        earlier, later = _picture(video, source), _picture(video, driving)
        mask = self._resized(_mask(video, driving, later.shape[:2]), cv2.INTER_NEAREST)
        return {
            **self._frame(video, source, earlier, "source"),
            **self._frame(video, driving, later, "driving"),
            "mask": torch.from_numpy(mask == 255)[None].float(),
        }

    def choose(self, draw: Draw) -> tuple[Video, str, str]:
        """The video, the source frame and the driving frame of a draw."""
        random = generator(self._seed, *draw)
        videos = self._by_person[self._persons[draw.number % len(self._persons)]]
        video = videos[random.integers(len(videos))]
        first, second = sorted(random.choice(len(video.frames), 2, replace=False))
        return video, video.frames[first], video.frames[second]

    def _frame(self, video: Video, frame: str, picture: Image, role: str) -> dict[str, Tensor]:
        shrinks = picture.shape[1] > self._size
        picture = self._resized(picture, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        drawn = draw_landmark_images(read_landmarks(video.file("landmark", frame)), self._size)
        landmarks = {
            f"{role}_landmarks_{self._size // image.shape[0]}": _normalised(image) for image in drawn
        }
        headpose = torch.from_numpy(read_head_pose(video.file("headpose", frame)))
        return {role: _normalised(picture[:, :, ::-1]), **landmarks, f"{role}_headpose": headpose}

    def _resized(self, picture: Image, how: int) -> Image:
        size = (self._size, self._size)
        if picture.shape[:2] == size:
            return picture
        return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def read_videos(root: Path) -> list[Video]:
    """The videos of `root`/list.txt with the frames that their `img` folders have.

    Raises ReenactError that names the list or the first folders that cannot be used.
    """
    file = root / "list.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReenactError(
            f"{file}: cannot be read ({error}); dataroot must be a folder with a list.txt that names a video "
            "folder a line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ReenactError(f"{file}: is empty; expected one video folder a line")
    videos, wrong = [], []
    for name in dict.fromkeys(names):
        found = _video(root, name)
        if isinstance(found, Video):
            videos.append(found)
        else:
            wrong.append(found)
    if wrong:
        raise_for(file, wrong, _ELSE)
    return videos


def _video(root: Path, name: str) -> Video | str:
    """The video of a line, or what is wrong with it."""
    person, mark, rest = name.partition("#")
    folder = root / name
    if not (person and mark and rest) or folder.parent != root:
        return f"the line {name[:80]!r} is not <person>#<video>"
    try:
        files = [path for path in (folder / "img").iterdir() if path.suffix == _ENDINGS["img"]]
    except OSError as error:
        return f"{folder / 'img'} cannot be read ({error.strerror})"
    odd = [path.name for path in files if not (path.stem.isascii() and path.stem.isdecimal())]
    if odd:
        return f"{folder / 'img' / sorted(odd)[0]} is not named by a number"
    frames = sorted([path.stem for path in files], key=lambda stem: (int(stem), stem))
    if len({int(stem) for stem in frames}) < len(frames):
        return f"{folder / 'img'} has two frames of one number"
    if len(frames) < 2:
        return f"{folder / 'img'} has {len(frames)} frames <n>.jpg; a pair needs two"
    return Video(folder, person, tuple(frames))


def _complaints(video: Video) -> Iterator[str]:
    for place, frame in enumerate(video.frames):
        try:
            for kind in ("img", "mask"):
                require_signature(video.file(kind, frame))
            read_landmarks(video.file("landmark", frame))
            read_head_pose(video.file("headpose", frame))
            if place == 0:
                _mask(video, frame, _picture(video, frame).shape[:2])
        except ReenactError as error:
            yield str(error)


def _picture(video: Video, frame: str) -> Image:
    """(H, W, 3) uint8 BGR."""
    return decoded(video.file("img", frame), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _mask(video: Video, frame: str, size: tuple[int, ...]) -> Image:
    """(H, W) uint8; MediaError where that is not its picture's `size`."""
    path = video.file("mask", frame)
    mask = decoded(path, cv2.IMREAD_UNCHANGED)
    if mask.dtype != np.uint8 or mask.shape != size:
        raise MediaError(
            f"{path}: is {mask.dtype} of {mask.shape}; expected one channel of 8 bits and {size} as its picture"
        )
    return mask


def _normalised(picture: Image) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) in [-1, 1]."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(2 * planes / np.float32(255) - 1)
