"""What DECA draws FLAME's head with, beside its shape: where the skin lies in pictures (UV), masks, fixed wrinkles.

`read_head_template` reads the published files, `head_template.obj`, two masks and `fixed_displacement_256.npy`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..runtime.files import read_small_file
from ..runtime.media.headers import HEADER_ERRORS, read_header
from .flame_files import DECA_SITE, TRIANGLES, VERTICES
from .npy_files import read_npy

__all__ = ["TEMPLATE_FILES", "UV_SIDE", "HeadTemplate", "read_head_template"]

UV_SIDE = 256  # pixels of the masks, the displacement and all other pictures of the skin
TEMPLATE_FILES = (
    "head_template.obj",
    "uv_face_mask.png",
    "uv_face_eye_mask.png",
    "fixed_displacement_256.npy",
)
_UVS = 5118
_MOST_BYTES = 8 << 20
_EXPECTED = f"DECA's {{}}, of the folder data in {DECA_SITE}"
_KINDS = ("v", "vt", "f")


@dataclass(frozen=True, eq=False)
class HeadTemplate:
    """The skin of a head of V vertices and F triangles, spread out as a picture with U corners.

    Raises ModelError for a field of another shape or kind, or out of range.
    """

    triangles: NDArray[np.int64]  # (F, 3) numbers of vertices, FLAME's
    uvs: NDArray[np.float32]  # (U, 2) in [0, 1], x to the right and y up in the picture
    uv_triangles: NDArray[np.int64]  # (F, 3) numbers of uvs
    face_mask: NDArray[np.uint8]  # (256, 256) from the top, 255 on the face
    face_eye_mask: NDArray[np.uint8]  # (256, 256), 255 where wrinkles are
    fixed_displacement: NDArray[np.float32]  # (256, 256) metres along the normal

    def __post_init__(self) -> None:
        count, side = len(self.triangles), (UV_SIDE, UV_SIDE)
        for name, shape, dtype in (
            ("triangles", (count, 3), np.int64),
            ("uvs", (len(self.uvs), 2), np.float32),
            ("uv_triangles", (count, 3), np.int64),
            ("face_mask", side, np.uint8),
            ("face_eye_mask", side, np.uint8),
            ("fixed_displacement", side, np.float32),
        ):
            values = getattr(self, name)
            if values.shape != shape or values.dtype != dtype:
                raise ModelError(
                    f"{name} is {values.shape} of {values.dtype}; expected {shape} of {np.dtype(dtype)}"
                )
        if not np.isfinite(self.fixed_displacement).all():
            raise ModelError("fixed_displacement has values that are not finite")
        if not ((self.uvs >= 0) & (self.uvs <= 1)).all():
            raise ModelError("uvs lie outside 0..1, or are not finite")
        if (
            not ((self.uv_triangles >= 0) & (self.uv_triangles < len(self.uvs))).all()
            or self.triangles.min() < 0
        ):
            raise ModelError("triangles name corners that do not exist")


def read_head_template(folder: Path) -> HeadTemplate:
    """The published files of these names in a folder; ModelError that names the one at fault."""
    obj, face_mask, face_eye_mask, displacement = (folder / name for name in TEMPLATE_FILES)
    masks = _read_mask(face_mask), _read_mask(face_eye_mask)
    wrinkles = _read_displacement(displacement)
    triangles, uvs, uv_triangles = _read_obj(obj)
    try:
        return HeadTemplate(triangles, uvs, uv_triangles, *masks, wrinkles)
    except ModelError as error:
        raise ModelError(
            f"{folder}: {error}; take DECA's files, of the folder data in {DECA_SITE}"
        ) from error


def _content(path: Path) -> bytes:
    return read_small_file(path, _MOST_BYTES, _EXPECTED.format(path.name), ModelError)


def _wrong(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path}: {reason}; take {_EXPECTED.format(path.name)}")


def _read_obj(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Triangles, UVs and the triangles' UVs of a Wavefront OBJ. Where its vertices lie does not matter."""
    lines: dict[str, list[tuple[int, list[bytes]]]] = {kind: [] for kind in _KINDS}
    for number, line in enumerate(_content(path).splitlines(), 1):
        words = line.split()
        if words and (kind := words[0].decode("latin1")) in lines:
            lines[kind].append((number, words[1:]))
    expected = {"v": VERTICES, "vt": _UVS, "f": TRIANGLES}
    there = {kind: len(found) for kind, found in lines.items()}
    if there != expected:
        counts = [", ".join(f"{count} {kind}" for kind, count in of.items()) for of in (there, expected)]
        raise _wrong(path, f"has lines {counts[0]}; expected {counts[1]}")
    for number, words in lines["v"]:
        _numbers(path, number, words, range(3, 8))  # the colour of a vertex may follow
    uvs = [_numbers(path, number, words, range(2, 4))[:2] for number, words in lines["vt"]]
    corners = np.array([_corners(path, number, words) for number, words in lines["f"]], np.int64)
    return corners[:, 0], np.array(uvs, np.float32), corners[:, 1]


def _numbers(path: Path, line: int, words: Sequence[bytes], counts: range) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) not in counts or not all(map(math.isfinite, values)):
        raise _wrong(path, f"line {line} has no {counts.start} finite numbers")
    return values


def _corners(path: Path, line: int, words: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Numbers from 0 of vertices and of UVs at the corners of one triangle."""
    corners = [word.split(b"/") for word in words]
    if len(corners) != 3 or not all(
        len(corner) in (2, 3) and corner[0].isdigit() and corner[1].isdigit() for corner in corners
    ):
        raise _wrong(path, f"line {line} is no triangle a/b a/b a/b")
    numbers = [[int(corner[which][:10]) - 1 for corner in corners] for which in (0, 1)]
    for found, most in zip(numbers, (VERTICES, _UVS), strict=True):
        if not (min(found) >= 0 and max(found) < most):
            raise _wrong(path, f"line {line} names a corner outside 1..{most}")
    return numbers[0], numbers[1]


def _read_mask(path: Path) -> NDArray[np.uint8]:
    """(256, 256): the first channel of a PNG, whatever the others say."""
    content = _content(path)
    try:
        header = read_header(content)
    except HEADER_ERRORS as error:
        raise _wrong(path, f"is cut short or damaged ({error})") from error
    if header is None or (header.kind, header.width, header.height) != ("png", UV_SIDE, UV_SIDE):
        there = f"a {header.kind} of {header.width}x{header.height} pixels" if header else "no picture"
        raise _wrong(path, f"is {there}; expected a PNG of {UV_SIDE}x{UV_SIDE}")
    decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint8:
        raise _wrong(path, "cannot be decoded to 8 bits a channel")
    return decoded if decoded.ndim == 2 else decoded[..., min(2, decoded.shape[2] - 1)].copy()


def _read_displacement(path: Path) -> NDArray[np.float32]:
    try:
        values = read_npy(_content(path), (UV_SIDE, UV_SIDE))
    except ValueError as error:
        raise _wrong(path, str(error)) from error
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
