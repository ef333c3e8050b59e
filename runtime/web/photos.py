"""The photos and videos that a session may use: its own uploads, under names of ours, and the built-in portraits."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ...errors import ReenactError
from .. import assets
from ..engines import Engines
from ..media.frame import Image
from ..media.images import read_image
from ..media.limits import DEFAULT_LIMITS
from ..source import find_source
from .guard import Guard, VideoFacts
from .refusals import Refusal, refusal_of
from .settings import WebLimits

__all__ = ["BUILT_IN", "Photo", "PhotoStore", "Video", "receive"]

BUILT_IN = {"eileen-collins": "Eileen Collins", "grace-hopper": "Grace Hopper"}
"""Photos that every session has, by id, with their names."""
THUMBNAIL = 192  # pixels of its sides


@dataclass(frozen=True)
class Photo:
    """A photo in which a face was found."""

    id: str
    name: str  # "" for an upload: the client knows its own files' names
    width: int
    height: int
    path: Path  # written by us, or shipped with the package
    thumbnail: bytes  # JPEG


@dataclass(frozen=True)
class Video:
    """A video that can drive a job."""

    id: str
    path: Path
    facts: VideoFacts


class PhotoStore:
    """The uploads of one session, in a private folder that ends with it."""

    def __init__(self, folder: Path, guard: Guard, limits: WebLimits) -> None:
        self._folder, self._guard, self._limits = folder, guard, limits
        self._photos: dict[str, Photo] = {}
        self._videos: dict[str, Video] = {}
        self._arriving = {"photo": 0, "video": 0}

    def photos(self) -> list[Photo]:
        """Uploads, newest last, after the built-in ones."""
        return [built_in(name) for name in BUILT_IN] + list(self._photos.values())

    def videos(self) -> list[Video]:
        """Uploaded videos, newest last."""
        return list(self._videos.values())

    def photo(self, photo_id: str) -> Photo:
        """Raises Refusal where the session has no such photo."""
        if photo_id in BUILT_IN:
            return built_in(photo_id)
        if photo_id not in self._photos:
            raise Refusal(404, "no_photo", "There is no such photo in this session.")
        return self._photos[photo_id]

    def video(self, video_id: str) -> Video:
        """Raises Refusal where the session has no such video."""
        if video_id not in self._videos:
            raise Refusal(404, "no_video", "There is no such video in this session.")
        return self._videos[video_id]

    async def add_photo(self, body: AsyncIterator[bytes], engines: Engines) -> Photo:
        """Take an upload; what is kept is its pixels, written anew. Raises Refusal where it is not usable."""
        self._make_room("photo", len(self._photos), self._limits.photos)
        upload = self._folder / secrets.token_hex(16)
        self._arriving["photo"] += 1
        try:
            await receive(body, upload, self._limits.photo_bytes, self._limits.upload_seconds)
            image = await self._guard.photo(upload)
            kept = self._folder / f"{secrets.token_hex(16)}.png"
            photo = await asyncio.to_thread(_examined, image, engines, kept)
        except OSError as error:
            raise self._disk_refusal(error) from error
        finally:
            self._arriving["photo"] -= 1
            upload.unlink(missing_ok=True)
        self._photos[photo.id] = photo
        return photo

    async def add_video(self, body: AsyncIterator[bytes]) -> Video:
        """Take an upload, after its first frame could be decoded; raises Refusal where it is not usable."""
        self._make_room("video", len(self._videos), self._limits.videos)
        upload = self._folder / secrets.token_hex(16)
        self._arriving["video"] += 1
        try:
            await receive(body, upload, self._limits.video_bytes, self._limits.upload_seconds)
            facts = await self._guard.video(upload)
        except BaseException as error:
            upload.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._disk_refusal(error) from error
            raise
        finally:
            self._arriving["video"] -= 1
        video = Video(secrets.token_urlsafe(9), upload, facts)
        self._videos[video.id] = video
        return video

    def remove_photo(self, photo_id: str) -> None:
        """Forget an upload; built-in photos stay."""
        if photo_id in BUILT_IN:
            raise Refusal(403, "built_in", "Built-in photos stay.")
        self.photo(photo_id).path.unlink(missing_ok=True)
        del self._photos[photo_id]

    def remove_video(self, video_id: str) -> None:
        """Forget an upload."""
        self.video(video_id).path.unlink(missing_ok=True)
        del self._videos[video_id]

    def _disk_refusal(self, error: OSError) -> Refusal:
        if not self._folder.is_dir():
            return Refusal(410, "closed", "The session ended while the file arrived.")
        return Refusal(507, "no_room", f"The server cannot keep the file ({error.strerror}).")

    def _make_room(self, kind: Literal["photo", "video"], have: int, most: int) -> None:
        if have + self._arriving[kind] >= most:
            raise Refusal(409, "too_many", f"A session keeps at most {most} {kind}s; remove one first.")


async def receive(body: AsyncIterator[bytes], path: Path, most: int, seconds: float) -> None:
    """Write an upload to `path`; Refusal beyond `most` bytes or `seconds`, with nothing more read than that."""
    written = 0
    try:
        async with asyncio.timeout(seconds):
            with path.open("xb") as file:
                async for chunk in body:
                    written += len(chunk)
                    if written > most:
                        raise Refusal(413, "too_large", f"The upload is larger than {most / 1e6:g} MB.")
                    await asyncio.to_thread(file.write, chunk)
    except TimeoutError:
        raise Refusal(408, "too_slow", f"The upload took longer than {seconds:g} seconds.") from None
    if not written:
        raise Refusal(422, "unreadable", "The upload is empty.")


def built_in(photo_id: str) -> Photo:
    """One of the portraits that ship with the package."""
    if photo_id not in _loaded:
        path = assets.portrait(photo_id.replace("-", "_"))
        image = read_image(path)
        height, width = image.shape[:2]
        _loaded[photo_id] = Photo(photo_id, BUILT_IN[photo_id], width, height, path, _thumbnail(image))
    return _loaded[photo_id]


_loaded: dict[str, Photo] = {}


def _examined(image: Image, engines: Engines, kept: Path) -> Photo:
    """The photo, kept as PNG, once a face was found in it."""
    try:
        _, face = find_source(image, engines.tracker.sibling(smooth=False), 0, DEFAULT_LIMITS)
    except ReenactError as error:
        refusal = refusal_of(error)
        refusal.message = refusal.message.removeprefix("The source picture: ").capitalize()
        raise refusal from error
    png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    with kept.open("xb") as file:
        file.write(png.tobytes())
    height, width = image.shape[:2]
    x0, y0, x1, y1 = face.box
    return Photo(
        secrets.token_urlsafe(9), "", width, height, kept, _thumbnail(image, ((x0 + x1) / 2, (y0 + y1) / 2))
    )


def _thumbnail(image: Image, middle: tuple[float, float] | None = None) -> bytes:
    """A square JPEG of the photo around its face."""
    height, width = image.shape[:2]
    side = min(height, width)
    x, y = middle or (width / 2, height / 2)
    left = int(np.clip(x - side / 2, 0, width - side))
    top = int(np.clip(y - side / 2, 0, height - side))
    square = cv2.resize(
        image[top : top + side, left : left + side], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA
    )
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(square, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return bytes(jpeg.tobytes())
