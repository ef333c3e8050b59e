"""Arrays of several libraries, seen without a copy."""

from typing import Any

import numpy as np
import pytest
import torch
from reenact.kernels.arrays import view


def test_a_numpy_array_is_seen_where_it_lies() -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    seen = view("x", array)
    assert (seen.address, seen.shape, seen.dtype, seen.device) == (
        array.ctypes.data,
        (2, 3),
        "float16",
        "cpu",
    )
    assert seen.nbytes == 12
    assert seen.writeable
    array.flags.writeable = False
    assert not view("x", array).writeable


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64, torch.bool])
def test_a_torch_tensor_is_seen_through_dlpack(dtype: torch.dtype) -> None:
    tensor = torch.ones(2, 3, 4).to(dtype)[1:]
    seen = view("x", tensor)
    assert (seen.address, seen.shape, seen.device) == (tensor.data_ptr(), (1, 3, 4), "cpu")
    assert seen.dtype == str(dtype).removeprefix("torch.")


def test_the_memory_behind_dlpack_lives_as_long_as_the_view() -> None:
    seen = view("x", torch.full((1000,), 7.0))
    owner, _capsule = seen.owner
    assert owner.data_ptr() == seen.address
    assert (owner == 7).all()


def interface(**changes: Any) -> Any:
    described = {
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (4096, True),
        "version": 3,
        "strides": None,
        **changes,
    }
    return type("Array", (), {"__cuda_array_interface__": described})()


def test_a_gpu_array_is_described_by_its_interface() -> None:
    seen = view("x", interface())
    assert (seen.address, seen.shape, seen.dtype, seen.device) == (4096, (2, 3), "float32", "cuda:0")
    assert not seen.writeable
    assert view("x", interface(strides=(12, 4), data=(8, False))).writeable
    on_second = interface()
    on_second.device = type("Device", (), {"id": 1})()
    assert view("x", on_second).device == "cuda:1"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32).T[:2],
        np.zeros((4, 4))[:, ::2],
        torch.zeros(4, 4).T[:2],
        interface(strides=(24, 8)),
    ],
)
def test_strided_arrays_are_refused(array: Any) -> None:
    with pytest.raises(ValueError, match=r"x: .* is not C-contiguous"):
        view("x", array)


def test_an_axis_of_one_element_may_have_any_stride() -> None:
    assert view("x", interface(shape=(1, 3), strides=(999, 4))).shape == (1, 3)


@pytest.mark.parametrize("array", [[1.0], None, "x", torch.zeros(2, dtype=torch.bfloat16)])
def test_what_is_no_array_for_kernels_is_refused(array: Any) -> None:
    with pytest.raises(TypeError, match="x: "):
        view("x", array)
