"""The filling rules give the documented values."""

import numpy as np
import pytest
import torch
from reenact.errors import ReenactError
from reenact.reference.fill import Rules, fill, image, tensor
from torch import nn


def small():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def test_each_kind_of_entry_has_its_own_distribution():
    weight = tensor("a.weight", (400, 50))
    assert weight.dtype == np.float32
    assert weight.std() == pytest.approx(np.sqrt(2 / 50), rel=0.02)
    assert tensor("a.bias", (9000,)).std() == pytest.approx(0.05, rel=0.05)
    scale = tensor("norm.weight", (9000,))
    assert (scale.mean(), scale.std()) == pytest.approx((1, 0.1), rel=0.05)
    variance = tensor("norm.running_var", (9000,))
    assert 0.5 <= variance.min() < 0.51
    assert 1.49 < variance.max() < 1.5
    assert tensor("norm.running_mean", (9000,)).std() == pytest.approx(0.1, rel=0.05)
    assert tensor("norm.num_batches_tracked", ()).dtype == np.int64
    assert tensor("single", ()).shape == ()


def test_values_depend_on_name_and_salt_only():
    assert np.array_equal(tensor("a.weight", (2, 2)), tensor("a.weight", (2, 2)))
    assert not np.array_equal(tensor("a.weight", (2, 2)), tensor("b.weight", (2, 2)))
    assert not np.array_equal(tensor("a.weight", (2, 2)), tensor("a.weight", (2, 2), salt=1))


def test_an_image_spans_its_range():
    made = image("x", (2, 3, 8, 9), 0.25, 4)
    assert made.shape == (2, 3, 8, 9)
    assert (made.min(), made.max()) == pytest.approx((0.25, 4))


def test_gain_then_addition_then_alias_hold():
    network = small()
    before = network.state_dict()["1.running_var"].clone()
    fill(
        network,
        Rules(
            gain={r"^0\.weight$": 2.0},
            add={"0.bias": {"1": 5.0}},
            alias={"1.bias": "0.bias"},
            constant=frozenset({"1.running_var"}),
        ),
    )
    state = network.state_dict()
    assert np.array_equal(state["0.weight"].numpy(), tensor("0.weight", (3, 2, 1, 1)) * np.float32(2))
    plain = tensor("0.bias", (3,))
    assert state["0.bias"].numpy() == pytest.approx(plain + np.array([0, 5, 0]))
    assert np.array_equal(state["1.bias"].numpy(), plain)
    assert torch.equal(state["1.running_var"], before)


def test_spectral_vectors_are_one_power_step_from_their_rule():
    network = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(2, 3, 3)))
    fill(network, Rules(gain={"weight_u$": 0.5}))
    state = network.state_dict()
    weight = tensor("0.weight_orig", (3, 2, 3, 3)).reshape(3, -1).astype(np.float64)
    u = tensor("0.weight_u", (3,)).astype(np.float64)
    v = weight.T @ u
    v /= np.linalg.norm(v)
    u = weight @ v
    assert state["0.weight_v"].numpy() == pytest.approx(v, abs=1e-6)
    assert state["0.weight_u"].numpy() == pytest.approx(0.5 * u / np.linalg.norm(u), abs=1e-6)


def test_a_rule_for_an_unknown_entry_is_an_error():
    with pytest.raises(ReenactError, match=r"names 7\.bias"):
        fill(small(), Rules(add={"7.bias": {"0": 1.0}}))
