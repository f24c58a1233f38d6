"""Lion against arithmetic by hand, its laws and its modes."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, small_params


def test_second_step_by_hand():
    # b1 = 1/2, b2 = 3/4, gradients 4 then -1: mu = 1, x = -1/2 + 1/2 = 0; then -2: x = -1/2.
    for then, expected in ((-1.0, 0.0), (-2.0, -1.0)):
        lion = fo.scale_by_lion(0.5, 0.75)
        _, state = lion.update(torch.tensor([4.0]), lion.init(torch.zeros(1)))
        direction, state = lion.update(torch.tensor([then]), state)
        assert direction.item() == expected
        assert state.mu.item() == 0.75 + then / 4


def test_a_step_is_as_long_as_the_rate_and_the_decay():
    params = small_params()
    tx = fo.lion(0.1, weight_decay=0.2)
    updates, _ = tx.update(fo.tree.ones_like(params), tx.init(params), params)
    assert_trees_close(updates, fo.tree.map(lambda p: -0.1 * (1 + 0.2 * p), params))


@given(scale=st.floats(1e-6, 1e6))
def test_direction_does_not_depend_on_the_scale_of_the_gradient(scale):
    lion = fo.scale_by_lion()
    gradient = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    direction, _ = lion.update(scale * gradient, lion.init(gradient))
    assert direction.tolist() == [1.0, -1.0, 1.0]


def test_modes():
    x = torch.tensor([30.0, 0.5, -0.2])
    first = {mode: fo.scale_by_lion(0.0, mode=mode, smooth_beta=2.0) for mode in ("hard", "smooth", "refined")}
    directions = {mode: lion.update(x, lion.init(x))[0] for mode, lion in first.items()}
    torch.testing.assert_close(directions["hard"], torch.tensor([1.0, 1.0, -1.0]))
    torch.testing.assert_close(directions["smooth"], torch.tanh(2 * x))
    torch.testing.assert_close(directions["refined"], torch.tensor([1.0, 0.5, -0.2]))


def test_nan_stays_nan():
    lion = fo.scale_by_lion()
    gradient = torch.tensor([float("nan"), 1.0])
    assert lion.update(gradient, lion.init(gradient))[0].isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"b1": 1.0}, r"scale_by_lion: b1 must be in \[0, 1\), got 1.0"),
        ({"mode": "soft"}, "scale_by_lion: mode must be one of 'hard', 'smooth', 'refined', got 'soft'"),
        ({"smooth_beta": 0.0}, "scale_by_lion: smooth_beta must be > 0, got 0.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.scale_by_lion(**arguments)
