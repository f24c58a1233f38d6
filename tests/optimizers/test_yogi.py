"""Yogi by hand, and by how much its mean square may move."""

import pytest
import torch

import funcopt as fo
from tests.helpers import gradients_at, small_params


def test_third_step_by_hand():
    # b2 = 3/4 from 0: up by 16/4, down by 4/4, stays where g = 0.
    yogi = fo.scale_by_yogi(b1=0.0, b2=0.75, eps=0.0, initial_accumulator_value=0.0)
    state = yogi.init(torch.zeros((), dtype=torch.float64))
    for gradient, nu in ((4.0, 4.0), (1.0, 3.75), (0.0, 3.75)):
        direction, state = yogi.update(torch.tensor(gradient, dtype=torch.float64), state)
        assert state.nu.item() == nu
    direction, state = yogi.update(torch.tensor(1.0, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), 1 / (3.5 / (1 - 0.75**4)) ** 0.5)


def test_the_mean_square_moves_by_the_square_of_the_gradient_alone():
    params = small_params()
    yogi = fo.scale_by_yogi(b2=0.9)
    state = yogi.init(params)
    for step in range(5):
        gradients, before = gradients_at(step, params), state.nu
        _, state = yogi.update(gradients, state)
        for g, new, old in zip(*map(fo.tree.leaves, (gradients, state.nu, before)), strict=True):
            torch.testing.assert_close((new - old).abs(), 0.1 * g.square())


def test_nan_stays_nan():
    yogi = fo.scale_by_yogi()
    gradient = torch.tensor([float("nan"), 1.0])
    direction, state = yogi.update(gradient, yogi.init(gradient))
    assert direction.isnan().tolist() == state.nu.isnan().tolist() == [True, False]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_yogi: initial_accumulator_value must be >= 0, got -1.0"):
        fo.yogi(0.1, initial_accumulator_value=-1.0)
