"""UV layout, masks and fixed wrinkles are read from the published files, and a damaged one is named."""

import re
from typing import Any

import cv2
import numpy as np
import pytest
from reenact.errors import ModelError
from reenact.reference.head_template import TEMPLATE_FILES, HeadTemplate, read_head_template

GET_DECA = "https://github.com/yfeng95/DECA"
UVS = 5118


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    random = np.random.default_rng(0)
    made: dict[str, Any] = {
        "triangles": random.integers(0, 5023, (9976, 3)),
        "uvs": random.random((UVS, 2)).astype(np.float32),
        "uv_triangles": random.integers(0, UVS, (9976, 3)),
        "displacement": random.normal(0, 1e-3, (256, 256)),
        "mask": random.integers(0, 2, (256, 256)).astype(np.uint8) * 255,
    }
    return made | {"lines": obj_lines(made)}


def obj_lines(numbers):
    """As published: vertices, then UVs, then triangles whose corners count from 1, and lines of other kinds."""
    lines = ["# a head", "mtllib head.mtl", *["v 0.1 -1.5 2e-3"] * 5023]
    lines += [f"vt {u:.9g} {v:.9g}" for u, v in numbers["uvs"].tolist()]
    lines += ["usemtl skin", "s off"]
    corners = zip(numbers["triangles"].tolist(), numbers["uv_triangles"].tolist(), strict=True)
    lines += ["f " + " ".join(f"{a + 1}/{b + 1}" for a, b in zip(*both, strict=True)) for both in corners]
    return lines


@pytest.fixture
def folder(tmp_path, numbers):
    """The four files."""
    (tmp_path / TEMPLATE_FILES[0]).write_text("\n".join(numbers["lines"]))
    other = np.full_like(numbers["mask"], 77)
    for name, mask in zip(TEMPLATE_FILES[1:3], (numbers["mask"], 255 - numbers["mask"]), strict=True):
        cv2.imwrite(str(tmp_path / name), np.stack([other, other, mask, 255 - mask], -1))
    np.save(tmp_path / TEMPLATE_FILES[3], numbers["displacement"])
    return tmp_path


def test_the_published_files_are_read(folder, numbers):
    read = read_head_template(folder)
    np.testing.assert_array_equal(read.triangles, numbers["triangles"])
    np.testing.assert_array_equal(read.uv_triangles, numbers["uv_triangles"])
    np.testing.assert_array_equal(read.uvs, numbers["uvs"])
    np.testing.assert_array_equal(read.fixed_displacement, numbers["displacement"].astype(np.float32))
    np.testing.assert_array_equal(read.face_mask, numbers["mask"])  # red, not transparency
    np.testing.assert_array_equal(read.face_eye_mask, 255 - numbers["mask"])


def test_masks_may_be_grey(folder, numbers):
    cv2.imwrite(str(folder / "uv_face_mask.png"), numbers["mask"])
    np.testing.assert_array_equal(read_head_template(folder).face_mask, numbers["mask"])


def changed(at, line):
    def change(lines):
        lines[at] = line
        return lines

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "has lines 5023 v, 5118 vt, 9975 f; expected 5023 v, 5118 vt, 9976 f"),
        (lambda lines: [], "has lines 0 v, 0 vt, 0 f"),
        (changed(5, "v 1 2 nan"), "line 6 has no 3 finite numbers"),
        (changed(5, "v 1 2"), "line 6 has no 3"),
        (changed(5026, "vt 0.5 up"), "line 5027 has no 2 finite numbers"),
        (changed(-1, "f 1/1 2/2 3/3 4/4"), "is no triangle"),
        (changed(-1, "f 1/1 2/2 -1/3"), "is no triangle"),
        (changed(-1, "f 1 2 3"), "is no triangle"),
        (changed(-1, "f 1/1 2/2 5024/3"), r"names a corner outside 1\.\.5023"),
        (changed(-1, "f 1/1 2/2 3/5119"), r"names a corner outside 1\.\.5118"),
        (changed(-1, "f 1/1 2/2 0/3"), r"names a corner outside 1\.\.5023"),
        (changed(-1, "f 1/1 2/2 " + "9" * 5000 + "/3"), r"names a corner outside 1\.\.5023"),
    ],
)
def test_a_damaged_template_is_named_with_its_line(folder, numbers, change, words):
    (folder / "head_template.obj").write_text("\n".join(change(list(numbers["lines"]))))
    with pytest.raises(ModelError, match=rf"head_template\.obj: .*{words}") as caught:
        read_head_template(folder)
    assert GET_DECA in str(caught.value)
    assert "\n" not in str(caught.value)


def test_uvs_outside_the_picture_are_refused(folder, numbers):
    lines = list(numbers["lines"])
    lines[lines.index("usemtl skin") - 1] = "vt 1.5 0.5"
    (folder / "head_template.obj").write_text("\n".join(lines))
    with pytest.raises(ModelError, match=rf"^{re.escape(str(folder))}: uvs lie outside 0\.\.1"):
        read_head_template(folder)


@pytest.mark.parametrize("name", TEMPLATE_FILES)
def test_each_missing_file_is_named_with_where_to_get_it(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{re.escape(name)}: cannot be read") as caught:
        read_head_template(folder)
    assert GET_DECA in str(caught.value)


def save_picture(path, picture):
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((128, 256), np.uint8), "is a png of 256x128 pixels; expected a PNG of 256x256"),
        (np.zeros((256, 256), np.uint16), "cannot be decoded to 8 bits"),
        (None, "is no picture"),
    ],
)
def test_a_mask_of_another_kind_is_refused(folder, picture, words):
    path = folder / "uv_face_eye_mask.png"
    if picture is None:
        path.write_text("a mask")
    else:
        save_picture(path, picture)
    with pytest.raises(ModelError, match=rf"uv_face_eye_mask\.png: {words}"):
        read_head_template(folder)


def test_a_damaged_mask_is_refused(folder):
    path = folder / "uv_face_mask.png"
    content = path.read_bytes()
    for damaged in (content[:-20], content[:100] + b"x" + content[101:]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"uv_face_mask\.png: is cut short or damaged"):
            read_head_template(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((128, 128)), r"is \(128, 128\); expected \(256, 256\)"),
        (np.full((256, 256), np.inf), "fixed_displacement has values that are not finite"),
        (np.full((256, 256), 1e300), "fixed_displacement has values that are not finite"),
        (np.full((256, 256), None), "an array of objects"),
        (np.zeros((256, 256), complex), "an array of complex128"),
    ],
)
def test_other_wrinkles_are_refused(folder, values, words):
    np.save(folder / "fixed_displacement_256.npy", values, allow_pickle=True)
    with pytest.raises(ModelError, match=words):
        read_head_template(folder)


def test_the_hostile_files_are_none_of_these(folder, shared_data, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    pictures = {"gray.png", "gray16.png", "rgb16.png", "rgba.png", "la.png", "palette.png", "one_bit.png"}
    for name in TEMPLATE_FILES:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        for path in sorted((shared_data / "hostile").iterdir()):
            if name.endswith(".png") and path.name in pictures:  # some are as large as a mask, and whole
                continue
            (folder / name).symlink_to(path)
            with pytest.raises(ModelError, match=re.escape(name)) as caught:
                read_head_template(folder)
            assert "\n" not in str(caught.value)
            (folder / name).unlink()
        (folder / name).write_bytes(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uvs": np.zeros((5, 3), np.float32)}, r"uvs is \(5, 3\)"),
        ({"uv_triangles": np.zeros((1, 3), np.int64)}, r"uv_triangles is \(1, 3\)"),
        ({"uv_triangles": np.full((2, 3), 5)}, "corners that do not exist"),
        ({"triangles": np.full((2, 3), -1)}, "corners that do not exist"),
        ({"face_mask": np.zeros((256, 256), np.float32)}, "face_mask is .* of float32"),
        ({"uvs": np.full((5, 2), np.nan, np.float32)}, "not finite"),
    ],
)
def test_a_template_that_contradicts_itself_is_refused(changes, words):
    made: dict[str, Any] = {
        "triangles": np.zeros((2, 3), np.int64),
        "uvs": np.zeros((5, 2), np.float32),
        "uv_triangles": np.zeros((2, 3), np.int64),
        "face_mask": np.zeros((256, 256), np.uint8),
        "face_eye_mask": np.zeros((256, 256), np.uint8),
        "fixed_displacement": np.zeros((256, 256), np.float32),
    }
    HeadTemplate(**made)
    with pytest.raises(ModelError, match=words):
        HeadTemplate(**made | changes)
