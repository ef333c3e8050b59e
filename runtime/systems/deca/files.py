"""What a reconstruction is kept in: OBJ and MTL with a texture, pictures of the skin, depth, normals, coefficients."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ....errors import MediaError
from ...files import replace_file
from ...tracking.flame_fit import CODES
from .reconstruction import Reconstruction
from .render import depth_picture
from .skin import DenseMesh, Skin, to_bytes

__all__ = ["coefficients", "write_coefficients", "write_files"]

Floats = NDArray[np.float32]
_MATERIAL = "FaceTexture"


def write_files(folder: Path, name: str, made: Reconstruction, skin: Skin) -> list[Path]:
    """Write everything of one face into a folder that is there; the files' names begin with `name`.

    Pictures of measures (depth, normals, skin) are written as they are, without a mark. Raises MediaError that names
    the file which cannot be written.
    """
    depth = depth_picture(skin, made.head.projected, made.view)
    dense = skin.dense_mesh(made.head.vertices, made.head.normals, made.wrinkles.displacement, made.texture)
    contents = {
        ".obj": _obj(name, made.head.vertices, skin),
        ".mtl": f"newmtl {_MATERIAL}\nmap_Kd {name}.png\ndisp {name}_normals.png\n".encode(),
        ".png": _png(to_bytes(made.texture)),
        "_normals.png": _png(_as_colours(made.wrinkles.normals)),
        "_displacement.png": _png(
            _as_16_bits(made.wrinkles.displacement / np.float32(0.04) + np.float32(0.5))
        ),
        "_detail.obj": _dense_obj(dense),
        "_depth.png": _png(_as_16_bits(depth)),
        "_view_normals.png": _png(_as_colours(made.view.normals) * (made.view.alpha > 0)),
        "_kpt2d.txt": _rows(made.head.landmarks_2d),
        "_kpt3d.txt": _rows(made.head.landmarks_3d),
    }
    if made.albedo is not None:
        contents["_albedo.png"] = _png(to_bytes(made.albedo))
    written = []
    for ending, content in contents.items():
        written.append(folder / f"{name}{ending}")
        _write(written[-1], content)
    return [*written, *write_coefficients(folder, name, coefficients(made))]


def coefficients(made: Reconstruction) -> dict[str, NDArray[Any]]:
    """The codes under their published names, the wrinkles' code and the way from the picture to the crop."""
    codes = {name: getattr(made.fit, name) for name in CODES}
    return {**codes, "detail": made.detail, "to_crop": made.fit.to_crop}


def write_coefficients(folder: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> list[Path]:
    """Write them as .npz and as .json; MediaError names the file which cannot be written."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    text = json.dumps({key: values.tolist() for key, values in arrays.items()})
    paths = folder / f"{name}.npz", folder / f"{name}.json"
    for path, content in zip(paths, (packed.getvalue(), f"{text}\n".encode()), strict=True):
        _write(path, content)
    return [*paths]


def _obj(name: str, vertices: Floats, skin: Skin) -> bytes:
    """As published: world-space vertices, the template's UVs, its triangles in its order, no normals."""
    corners = np.stack([skin.triangles, skin.uv_triangles], 2).reshape(-1, 6) + 1
    lines = [
        f"mtllib {name}.mtl\n",
        *(f"v {x} {y} {z}" for x, y, z in vertices.tolist()),
        *(f"vt {u} {v}" for u, v in skin.uvs.tolist()),
        f"usemtl {_MATERIAL}",
        *(f"f {a}/{d} {b}/{e} {c}/{f}" for a, d, b, e, c, f in corners.tolist()),
    ]
    return ("\n".join(lines) + "\n").encode()


def _dense_obj(dense: DenseMesh) -> bytes:
    """Vertices with a colour each, 0..255 as published."""
    rows = zip(dense.vertices.tolist(), dense.colours.tolist(), strict=True)
    lines = [
        *(f"v {x:.7g} {y:.7g} {z:.7g} {r} {g} {b}" for (x, y, z), (r, g, b) in rows),
        *(f"f {a} {b} {c}" for a, b, c in (dense.triangles + 1).tolist()),
    ]
    return ("\n".join(lines) + "\n").encode()


def _as_colours(normals: Floats) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: -1 to 1 as 0 to 255."""
    return to_bytes(normals * np.float32(0.5) + np.float32(0.5))


def _as_16_bits(values: Floats) -> NDArray[np.uint16]:
    return np.asarray(np.round(values.clip(0, 1) * 65535), np.uint16)


def _png(picture: NDArray[Any]) -> bytes:
    """(H, W, 3) uint8 RGB, or (H, W) uint16."""
    turned = picture if picture.ndim == 2 else picture[..., ::-1]
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(turned))
    return encoded.tobytes()


def _rows(values: Floats) -> bytes:
    text = io.StringIO()
    np.savetxt(text, values)
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
