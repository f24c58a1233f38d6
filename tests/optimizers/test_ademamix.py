"""AdEMAMix by hand, against Adam, and what its slow memory does."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_second_step_by_hand():
    # b1 = 0, b2 = b3 = 1/2, alpha 2, gradients 2 then 4: m2 = 1, 2.5; nu = 2, 9, corrected 12.
    ademamix = fo.scale_by_ademamix(0.0, 0.5, 0.5, 2.0, eps=0.0)
    state = ademamix.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = ademamix.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), (4 + 2 * 2.5) / 12**0.5)


def test_the_simplified_form_by_hand():
    # b1 = b2 = 1/2, alpha 3, gradients 2 then 4: m = 2, 5; n = 2, 9, corrected 12.
    simplified = fo.scale_by_simplified_ademamix(0.5, 0.5, 3.0, eps=0.0)
    state = simplified.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = simplified.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), (5 + 3 * 4) / 12**0.5)


def same_direction(one, other, factor=1.0):
    params = small_params()
    state, theirs = one.init(params), other.init(params)
    for step in range(4):
        direction, state = one.update(gradients_at(step, params), state)
        expected, theirs = other.update(gradients_at(step, params), theirs)
        assert_trees_close(direction, fo.tree.scale(factor, expected))


def test_without_the_slow_memory_is_adam():
    same_direction(fo.scale_by_ademamix(alpha=0.0), fo.scale_by_adam())


def test_the_simplified_form_without_momentum_is_adams():
    same_direction(fo.scale_by_simplified_ademamix(b1=0.0, b2=0.9, alpha=1.0, eps=0.0), fo.scale_by_adam(b1=0.0, b2=0.9, eps=0.0), 2.0)


def test_remembers_what_adam_has_forgotten():
    def last(tx):
        state = tx.init(torch.zeros((), dtype=torch.float64))
        for step in range(60):  # one large gradient, then small ones the other way
            direction, state = tx.update(torch.tensor(10.0 if step == 0 else -0.01, dtype=torch.float64), state)
        return direction.item()

    assert last(fo.scale_by_adam()) < 0 < last(fo.scale_by_ademamix(b3=0.999))


def test_memory_and_weight_take_schedules_that_count_completed_steps():
    ademamix = fo.scale_by_ademamix(0.0, 0.5, b3=lambda count: 0.25 * count.double(), alpha=lambda count: count.double(), eps=0.0)
    state = ademamix.init(torch.zeros((), dtype=torch.float64))
    first, state = ademamix.update(torch.tensor(2.0, dtype=torch.float64), state)
    assert state.m2.item() == 2.0 and first.item() == pytest.approx(1.0)
    _, state = ademamix.update(torch.tensor(6.0, dtype=torch.float64), state)
    assert state.m2.item() == 0.25 * 2 + 0.75 * 6


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_ademamix: b3 must be in \[0, 1\), got 1.0"):
        fo.ademamix(0.1, b3=1.0)
    with pytest.raises(ValueError, match="scale_by_simplified_ademamix: alpha must be >= 0, got -1.0"):
        fo.simplified_ademamix(0.1, alpha=-1.0)
