"""FLAME's licensed files are read as published and as saved again, and nothing else is taken for them."""

import io
import pickle
import re
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.flame import FlameLandmarks, FlameModel
from reenact.reference.flame_files import Albedo, read_albedo, read_generic_model, read_landmark_embedding
from reenact.reference.synthetic import helix_landmarks, helix_model

from .pickling import Ch, csc_matrix, dumps, py2_dumps

GET_FLAME = "https://flame.is.tue.mpg.de"
GET_DECA = "https://github.com/yfeng95/DECA"
STILL_WORKS = "meshwarp and face2face_rho, with the built-in tracker, work without it"


@pytest.fixture(scope="module")
def model():
    return helix_model()


def published(model, **changes):
    """The fields as the published file has them, with more than are read; sparse where nothing else matters."""
    regressor = np.where(model.J_regressor > 1e-4, model.J_regressor, 0)
    table = model.kintree_table.astype(np.uint32)
    return {
        "f": model.f.astype(np.uint32),
        "J_regressor": csc_matrix(regressor),
        "kintree_table": table,
        "J": np.zeros((5, 3)),
        "weights": model.weights,
        "posedirs": model.posedirs,
        "shapedirs": Ch(model.shapedirs),
        "v_template": model.v_template,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    } | changes


def saved(path: Path, value, how) -> Path:
    path.write_bytes(py2_dumps(value) if how == "Python 2" else dumps(value, how))
    return path


@pytest.mark.parametrize("how", ["Python 2", 2, 4, 5])
def test_the_model_is_read_whole_into_float32_and_int64(tmp_path, model, how):
    there = published(model)
    assert there["kintree_table"][0, 0] == 2**32 - 1
    if how == 5:  # as saved again by those who have no chumpy
        there |= {"shapedirs": model.shapedirs.astype(np.float32), "J_regressor": model.J_regressor}
    read = read_generic_model(saved(tmp_path / "generic_model.pkl", there, how))
    for field in fields(FlameModel):
        found = getattr(read, field.name)
        assert found.dtype == (np.int64 if field.name in ("f", "kintree_table") else np.float32)
        if field.name != "J_regressor":
            np.testing.assert_array_equal(found, getattr(model, field.name).astype(found.dtype))
    assert read.shapedirs.shape == (5023, 3, 400)
    assert read.kintree_table[0].tolist() == [-1, 0, 1, 1, 1]
    expected = model.J_regressor if how == 5 else np.where(model.J_regressor > 1e-4, model.J_regressor, 0)
    np.testing.assert_array_equal(read.J_regressor, expected.astype(np.float32))


@pytest.fixture(scope="module")
def slim(model):
    """The fields of a small file: what is large has one number, repeated where it is read."""
    return published(model, shapedirs=np.zeros((5023, 3, 400), np.float16), posedirs=np.zeros((5023, 3, 36)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapedirs": np.zeros((5023, 3, 10))}, r"shapedirs is \(5023, 3, 10\); expected \(5023, 3, 400\)"),
        ({"v_template": np.zeros((6890, 3))}, r"v_template is \(6890, 3\)"),
        ({"v_template": np.full((5023, 3), np.nan)}, "v_template has values that are not finite"),
        ({"v_template": np.full((5023, 3), 1e300)}, "v_template has values that are not finite"),
        ({"v_template": np.zeros((5023, 3), int)}, "v_template is .* of int64"),
        ({"v_template": "many"}, "v_template is a str, not an array"),
        ({"f": np.full((9976, 3), 5023)}, "f names number 5023, but there are 5023"),
        ({"f": np.zeros((9976, 3))}, "f is .* of float32; expected .* integers"),
        ({"kintree_table": np.array([[-1, 0, 1, 2, 3], range(5)])}, "names the parents"),
        ({"J_regressor": csc_matrix(np.ones((24, 5)))}, r"J_regressor is \(24, 5\)"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_what_was_expected(tmp_path, slim, changes, words):
    path = saved(tmp_path / "generic_model.pkl", slim | changes, 4)
    with pytest.raises(ModelError, match=rf"generic_model\.pkl: .*{words}"):
        read_generic_model(path)


def test_a_field_that_is_missing_is_named(tmp_path, slim):
    there = {name: value for name, value in slim.items() if name not in ("weights", "f")}
    with pytest.raises(ModelError, match=r"x\.pkl: has no f, weights; take FLAME 2020's generic_model"):
        read_generic_model(saved(tmp_path / "x.pkl", there, 2))


@pytest.mark.parametrize("content", [b"", b"\x80", pickle.dumps([1, 2]), b"PK\x03\x04", b"{}"])
def test_no_model_at_all_is_told_with_where_to_get_it(tmp_path, content):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pkl: ") as caught:
        read_generic_model(path)
    assert GET_FLAME in str(caught.value)
    assert STILL_WORKS in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_told_with_where_to_get_it_and_what_works_without(tmp_path):
    for path, reason in ((tmp_path / "none.pkl", "No such file"), (tmp_path, "not a file")):
        with pytest.raises(ModelError, match=reason) as caught:
            read_generic_model(path)
        assert str(path) in str(caught.value)
        assert GET_FLAME in str(caught.value)
        assert STILL_WORKS in str(caught.value)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    with (tmp_path / "x.pkl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"x\.pkl: 1099511627776 bytes, larger than"):
        read_landmark_embedding(tmp_path / "x.pkl")


def embedding(landmarks, **changes):
    """As published: the dynamic contour in tensors."""
    there = vars(landmarks) | {
        name: torch.from_numpy(value) for name, value in vars(landmarks).items() if name.startswith("dynamic")
    }
    return there | {"dynamic_lmk_bary_coords": there["dynamic_lmk_bary_coords"].float()} | changes


def test_the_landmarks_are_read_with_torchs_tensors_among_them(tmp_path):
    landmarks = helix_landmarks()
    np.save(tmp_path / "landmark_embedding.npy", embedding(landmarks), allow_pickle=True)
    read = read_landmark_embedding(tmp_path / "landmark_embedding.npy")
    for field in fields(FlameLandmarks):
        found = getattr(read, field.name)
        assert found.dtype == (np.float32 if "bary" in field.name else np.int64)
        np.testing.assert_array_equal(found, getattr(landmarks, field.name).astype(found.dtype))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (np.zeros(3), r"is an array \(3,\) of float64"),
        (np.array([{}], object), r"is an array \(1,\) of object"),
        (np.array({}), "has no static_lmk_faces_idx, static_lmk_bary_coords, dynamic"),
        (np.array([1, 2], object).reshape(2)[0:1].reshape(()), "holds a int"),
        (
            np.array(embedding(helix_landmarks(), static_lmk_faces_idx=np.full(51, 9976))),
            r"static_lmk_faces_idx names triangles outside 0\.\.9975",
        ),
        (
            np.array(embedding(helix_landmarks(), dynamic_lmk_faces_idx=torch.zeros(79, 18).long())),
            r"dynamic_lmk_faces_idx is \(79, 18\); expected \(79, 17\)",
        ),
        (np.array(embedding(helix_landmarks(), extra=Path("x"))), r"asks for pathlib\.\S*Path.*executed"),
    ],
)
def test_other_landmarks_are_refused(tmp_path, there, words):
    np.save(tmp_path / "x.npy", there, allow_pickle=True)
    with pytest.raises(ModelError, match=rf"x\.npy: {words}") as caught:
        read_landmark_embedding(tmp_path / "x.npy")
    assert GET_DECA in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x03\x00\x00\x00",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70000,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
        b"\x93NUMPY\x01\x00\x10\x00__import__('os')",
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.npy: is (cut short|of version)"):
        read_landmark_embedding(tmp_path / "x.npy")


NUMBERS = 3 * 512 * 512


def npy(header, numbers=b""):
    text = repr(header).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + numbers


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("names", "columns", "shape", "scale"),
    [(("MU", "PC"), 199, (1, NUMBERS), 1), (("mean", "tex_dir"), 200, (512, 512, 3), 255)],
)
def test_both_kinds_of_skin_colours_are_read(tmp_path, names, columns, shape, scale):
    basis = np.zeros((NUMBERS, columns), np.uint8)
    basis[:99], basis[-1] = np.arange(columns), np.arange(columns)[::-1]
    basis[::5000, 7] = 3
    mean = basis[:, 7].astype(">f8").reshape(shape)
    of = {"descr": "|u1", "fortran_order": False, "shape": (*mean.squeeze().shape, columns)}
    content = io.BytesIO()
    np.save(content, mean)
    path = archive(
        tmp_path / "x.npz", more=b"x", **{names[0]: content.getvalue(), names[1]: npy(of, basis.tobytes())}
    )
    albedo = read_albedo(path)
    np.testing.assert_allclose(albedo.mean, basis[:, 7].astype(np.float32) / scale, rtol=1e-6)
    np.testing.assert_allclose(albedo.basis, basis[:, :50].astype(np.float32) / scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"x": b""}, "has no arrays MU and PC or mean and tex_dir"),
        ({"MU": b""}, "is cut short"),
        ({"MU": npy({"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})}, "has MU as"),
        ({"MU": npy({"descr": "<f4", "fortran_order": True, "shape": (NUMBERS,)})}, "has MU as"),
        ({"MU": npy({"descr": "|O", "fortran_order": False, "shape": (NUMBERS,)})}, "array of objects"),
        ({"MU": npy({"descr": "<c16", "fortran_order": False, "shape": (NUMBERS,)})}, "array of complex128"),
        ({"MU": npy({"descr": "<f4", "fortran_order": False, "shape": (NUMBERS,)}, b"x" * 99)}, "cut short"),
        (
            {"MU": npy({"descr": "|u1", "fortran_order": False, "shape": (NUMBERS,)}, b"x" * (NUMBERS + 1))},
            "more behind",
        ),
        (
            {
                "MU": npy({"descr": "|u1", "fortran_order": False, "shape": (NUMBERS,)}, b"x" * NUMBERS),
                "PC": npy({"descr": "|u1", "fortran_order": False, "shape": (NUMBERS, 200)}),
            },
            r"has PC as .* rows of 199",
        ),
        ({"MU": npy({"descr": "|u1", "fortran_order": False, "shape": (NUMBERS,)}, b"x" * NUMBERS)}, "PC"),
    ],
)
def test_other_arrays_are_no_skin_colours(tmp_path, members, words):
    with pytest.raises(ModelError, match=rf"x\.npz: .*{words}") as caught:
        read_albedo(archive(tmp_path / "x.npz", **members))
    assert "FLAME_texture.npz" in str(caught.value)


def test_no_archive_is_no_skin_colours(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and so on")
    for path in (tmp_path / "x.npz", tmp_path / "none.npz", tmp_path):
        with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: .*FLAME_texture.npz"):
            read_albedo(path)


def test_skin_colours_must_be_finite_and_complete():
    mean, basis = np.zeros(NUMBERS, np.float32), np.zeros((NUMBERS, 50), np.float32)
    mean[5] = np.nan
    with pytest.raises(ModelError, match="mean is not"):
        Albedo(mean, basis)
    with pytest.raises(ModelError, match="basis is not"):
        Albedo(np.zeros_like(mean), basis[:, :49])


def test_the_hostile_files_are_none_of_these(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readers = (read_generic_model, read_landmark_embedding, read_albedo)
    for path in sorted((shared_data / "hostile").iterdir()):
        for read in readers:
            with pytest.raises(ModelError, match=re.escape(path.name)) as caught:
                read(path)
            assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_model_holds_is_never_executed(tmp_path, slim, monkeypatch):
    class Evil:
        def __reduce__(self):
            return eval, ("__import__('os').mkdir('marker')",)

    monkeypatch.chdir(tmp_path)
    for there in (slim | {"weights": Evil()}, slim | {"extra": [Evil()]}, slim | {"weights": Ch(Evil())}):
        with pytest.raises(ModelError, match=r"x\.pkl: asks for builtins\.eval.*nothing in it was executed"):
            read_generic_model(saved(tmp_path / "x.pkl", there, 4))
    content = io.BytesIO()
    np.save(content, np.array({"static_lmk_faces_idx": Evil()}), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(content.getvalue())
    with pytest.raises(ModelError, match=r"x\.npy: asks for builtins\.eval"):
        read_landmark_embedding(tmp_path / "x.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.pkl"]
