"""Still pictures: every kind comes out as upright RGB, and what is damaged or too large is refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from reenact.errors import LimitError, MediaError
from reenact.runtime.media.frame import Image
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.limits import Limits

Quadrants = Callable[[int, int], Image]


def save(path: Path, rgb: np.ndarray) -> Path:
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    stored = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, codes[rgb.shape[2]])
    path.write_bytes(cv2.imencode(path.suffix, stored)[1].tobytes())
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def turned(image: Image, orientation: int) -> Image:
    """What a camera held differently stores of a scene that looks like `image`."""
    as_stored = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, 1),
        7: np.rot90(image, 2).transpose(1, 0, 2),
        8: np.rot90(image, -1),
    }
    return as_stored[orientation].copy()


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [(".png", 0), (".bmp", 0), (".tiff", 0), (".webp", 12), (".jpg", 12), (".ppm", 0)],
)
def test_common_kinds_are_read_with_their_colours(
    tmp_path: Path, quadrants: Quadrants, suffix: str, tolerance: int
) -> None:
    scene = quadrants(48, 32)
    image = read_image(save(tmp_path / f"scene{suffix}", scene))
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    for y, x in [(8, 12), (8, 36), (24, 12), (24, 36)]:
        assert np.abs(image[y, x].astype(int) - scene[y, x]).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path, suffix: str) -> None:
    scene = np.zeros((4, 4, 3), np.uint16)
    scene[:, :2] = (65535, 257 * 100, 257 * 100 + 200)
    image = read_image(save(tmp_path / f"deep{suffix}", scene))
    assert image[0, 0].tolist() == [255, 100, 101]
    assert image[0, 3].tolist() == [0, 0, 0]


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "grey.png", np.full((3, 5), 90, np.uint8)))
    assert image.shape == (3, 5, 3)
    assert np.all(image == 90)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    scene = np.zeros((2, 3, 4), np.uint8)
    scene[:, 0] = (200, 100, 0, 255)
    scene[:, 1] = (200, 100, 0, 128)
    scene[:, 2] = (200, 100, 0, 0)
    image = read_image(save(tmp_path / "cut.png", scene))
    assert image[0, 0].tolist() == [200, 100, 0]
    assert np.abs(image[0, 1].astype(int) - [227, 177, 127]).max() <= 1
    assert image[0, 2].tolist() == [255, 255, 255]


def test_grey_with_alpha_palette_and_one_bit_pngs_are_read(tmp_path: Path) -> None:
    (tmp_path / "la.png").write_bytes(png(2, 1, 8, 4, bytes([0, 60, 255, 60, 0])))
    assert read_image(tmp_path / "la.png")[0].tolist() == [[60, 60, 60], [255, 255, 255]]

    palette = chunk(b"PLTE", bytes([10, 20, 30, 200, 150, 100]))
    (tmp_path / "palette.png").write_bytes(png(2, 1, 8, 3, bytes([0, 1, 0]), palette))
    assert read_image(tmp_path / "palette.png")[0].tolist() == [[200, 150, 100], [10, 20, 30]]

    (tmp_path / "bits.png").write_bytes(png(8, 1, 1, 0, bytes([0, 0b10100000])))
    assert read_image(tmp_path / "bits.png")[0, :, 0].tolist() == [255, 0, 255, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(
    tmp_path: Path, quadrants: Quadrants, orientation: int
) -> None:
    scene = quadrants(48, 32)
    plain = save(tmp_path / "plain.jpg", turned(scene, orientation)).read_bytes()
    block = b"Exif\0\0" + exif(orientation)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:])
    image = read_image(photo)
    assert image.shape == scene.shape
    assert np.abs(image[4:-4:8, 4:-4:8].astype(int) - scene[4:-4:8, 4:-4:8]).max() <= 12


def test_exif_in_a_png_is_followed_too(tmp_path: Path) -> None:
    rows = bytes([0, 255, 0, 0, 0, 255, 0])  # red, green side by side
    (tmp_path / "turned.png").write_bytes(png(2, 1, 8, 2, rows, chunk(b"eXIf", exif(6))))
    assert read_image(tmp_path / "turned.png").tolist() == [[[255, 0, 0]], [[0, 255, 0]]]


@pytest.mark.parametrize("name", ["scene.tiff", "scene.png"])
def test_wrong_exif_is_ignored(tmp_path: Path, quadrants: Quadrants, name: str) -> None:
    scene = quadrants(16, 12)
    path = save(tmp_path / name, scene)
    if path.suffix == ".png":
        content = path.read_bytes()
        path.write_bytes(content[:33] + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff") + content[33:])
    assert np.array_equal(read_image(path), scene)


def test_awkward_names_are_names(tmp_path: Path, quadrants: Quadrants) -> None:
    path = save(tmp_path / "a b 'c' %04d ünï:http.png", quadrants(8, 8))
    assert read_image(path).shape == (8, 8, 3)
    assert read_image(str(path)).shape == (8, 8, 3)


def test_a_picture_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(20_000, 20_000, 1, 0, bytes(20_000 * 2501)))
    with pytest.raises(
        LimitError, match=r"bomb\.png: 20000x20000 .* limit of 50000000.*--max-pixels"
    ) as caught:
        read_image(bomb)
    assert "\n" not in str(caught.value)
    header = tmp_path / "header.png"
    header.write_bytes(png(2**31 - 1, 2**31 - 1, 8, 2, b""))
    with pytest.raises(LimitError, match="--max-pixels"):
        read_image(header)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif", ".ppm"])
def test_the_limit_of_pixels_holds_for_every_kind(tmp_path: Path, quadrants: Quadrants, suffix: str) -> None:
    path = save(tmp_path / f"scene{suffix}", quadrants(40, 30))
    assert read_image(path, limits=Limits(max_pixels=1200)).shape == (30, 40, 3)
    with pytest.raises(LimitError, match=r"40x30 pixels.*limit of 1199.*--max-pixels 1200"):
        read_image(path, limits=Limits(max_pixels=1199))


def test_a_giant_file_is_not_read_into_memory(tmp_path: Path) -> None:
    giant = tmp_path / "giant.png"
    with giant.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(2**40)
    with pytest.raises(LimitError, match="--max-pixels"):
        read_image(giant)


def damaged_files(folder: Path, scene: Image) -> dict[str, bytes]:
    jpeg = save(folder / "ok.jpg", scene).read_bytes()
    whole = save(folder / "ok.png", scene).read_bytes()
    webp = save(folder / "ok.webp", scene).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    return {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": whole[: len(whole) // 2],
        "cut.webp": webp[: len(webp) // 2],
        "flipped.png": bytes(flipped),
        "empty.jpg": b"",
        "text.jpg": b"hello\n" * 100,
        "text.txt": b"hello\n" * 100,
        "page.png": b"<html><body>404</body></html>",
        "signature.png": b"\x89PNG\r\n\x1a\n",
        "signature.jpg": b"\xff\xd8\xff",
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nok.jpg\n#EXT-X-ENDLIST\n",
    }


def test_damaged_files_are_refused_in_one_line_that_names_them(
    tmp_path: Path, quadrants: Quadrants, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name, content in damaged_files(tmp_path, noise).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=r"missing\.png: no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(MediaError, match="not a file"):
        read_image(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tif", 0), (".jpg", 12), (".webp", 14)]
)
def test_a_written_picture_reads_back(
    tmp_path: Path, quadrants: Quadrants, suffix: str, tolerance: int
) -> None:
    scene = quadrants(32, 24)
    path = tmp_path / f"out{suffix}"
    path.write_text("old")
    write_image(path, scene, mark=False)
    back = read_image(path).astype(int)
    assert np.abs(back[6::12, 8::16] - scene[6::12, 8::16]).max() <= tolerance
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path, quadrants: Quadrants) -> None:
    with pytest.raises(MediaError, match=r"\.png"):
        write_image(tmp_path / "out.xyz", quadrants(8, 8))
    with pytest.raises(MediaError, match="cannot be written"):
        write_image(tmp_path / "nowhere" / "out.png", quadrants(8, 8))
    assert list(tmp_path.iterdir()) == []
