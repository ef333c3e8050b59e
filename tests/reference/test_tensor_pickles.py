"""Torch's tensors in plain pickles, and single objects in arrays: read as numbers, refused where anything is wrong."""

import io
import os
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import torch
from reenact.reference.pickles import PickleRefusedError, dense, item_of, read_pickle
from reenact.reference.tensor_pickles import TENSORS

from .pickling import Calls, Ch, assert_refused, dumps, steps

pytestmark = pytest.mark.usefixtures("empty_folder")

MKDIR = pickle.dumps(Calls(os.mkdir, "marker"), 4)


def read_any(content) -> Any:
    return read_pickle(content, TENSORS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torchs_tensors_come_back_whatever_their_strides(protocol):
    there: dict[str, Any] = {
        "whole": torch.arange(12).reshape(3, 4),
        "turned": torch.randn(3, 4).T,
        "part": torch.arange(20, dtype=torch.float64).reshape(5, 4)[1:4, 2:],
        "array": np.ones((2, 2)),
    }
    read = read_any(pickle.dumps(there, protocol))
    for name, value in there.items():
        found = dense(read[name], value.shape)
        np.testing.assert_array_equal(found, np.asarray(value))
        assert found.dtype == np.asarray(value).dtype


def stream(tensor):
    file = io.BytesIO()
    storage = torch.storage.TypedStorage(
        wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
    )
    torch.save(storage, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def tensor(raw, *, offset=0, shape=(4,), strides=(1,)):
    """A tensor over the numbers of a stream, put together by hand."""
    text = raw.decode("latin1")
    storage = (b"ctorch.storage\n_load_from_bytes\n", (b"c_codecs\nencode\n", (text, "latin1"), b"R"), b"R")
    hooks = (b"ccollections\nOrderedDict\n", b")R")
    return steps(
        b"ctorch._utils\n_rebuild_tensor_v2\n", (*storage, offset, shape, strides, False, *hooks), b"R"
    )


NUMBERS = torch.arange(4.0)


def test_a_tensor_put_together_by_hand_is_read():
    read = read_any(tensor(stream(NUMBERS), offset=1, shape=(2, 2), strides=(1, 0)))
    assert dense(read, (2, 2)).tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    "how",
    [
        {"shape": (5,)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (2,)},
        {"strides": (-1,)},
        {"strides": (1, 1)},
        {"shape": (1 << 40,)},
        {"shape": (0,)},
        {"shape": ("4",)},
    ],
    ids=str,
)
def test_a_tensor_beyond_its_numbers_is_refused(how):
    with pytest.raises(PickleRefusedError):
        dense(read_any(tensor(stream(NUMBERS), **how)), how.get("shape", (4,)))


def test_a_tensors_stream_is_refused_where_it_is_wrong():
    good = stream(NUMBERS)
    assert good.endswith(struct.pack("<q4f", 4, 0, 1, 2, 3))
    wrong = [good[:length] for length in range(0, len(good), 7)]
    wrong += [good + b"x", good[:-24] + struct.pack("<q", 1 << 40) + good[-16:], b"PK\x03\x04"]
    wrong += [good.replace(b"K\x04Nt", b"K\x05Nt"), good.replace(b"K\x04Nt", b"K\x04Kt")]
    wrong += [good.replace(b"FloatStorage", b"HalfStorage"), good.replace(b"ctorch\nFloat", b"cnt\nFloat")]
    wrong += [good.replace(b"ctorch\nFloatStorage\n", b"cos\nsystem\n"), good.replace(b"cpuq", b"cpuQ")]
    wrong += [MKDIR, good[: good.index(b"(X\x07")] + MKDIR]
    assert len(set(wrong)) == len(wrong)
    assert good not in wrong
    for raw in wrong:
        assert_refused(tensor(raw), allowed=TENSORS)


def test_the_two_lists_are_apart():
    assert_refused(pickle.dumps(NUMBERS, 2), "asks for torch._utils._rebuild_tensor_v2")
    assert_refused(dumps(Ch(np.ones(2)), 2), "asks for chumpy.ch.Ch", allowed=TENSORS)


def test_one_object_in_an_array_is_unwrapped_where_numpy_saves_dicts_so():
    content = pickle.dumps(np.array({"a": np.ones(2)}, object), 4)
    assert_refused(content, "an array of objects")
    found: Any = item_of(read_any(content))
    assert dense(found["a"], (2,)).tolist() == [1, 1]


@pytest.mark.parametrize("value", [np.array([{}], object), np.array([{}, {}], object), np.ones(()), {"a": 1}])
def test_what_is_not_one_object_is_not_unwrapped(value):
    with pytest.raises(PickleRefusedError):
        item_of(read_any(pickle.dumps(value, 4)))


def test_an_object_is_no_number_even_where_it_may_be_named():
    read = read_any(pickle.dumps(np.array({}, object), 4))
    with pytest.raises(PickleRefusedError, match="without numbers"):
        dense(read, ())
