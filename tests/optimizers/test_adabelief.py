"""AdaBelief by hand, against Adam, and what a steady gradient makes of it."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal


def test_second_step_by_hand():
    # b1 = b2 = 1/2, eps_root = 1, gradients 4 then 0: mu = 2, 1; nu = 2 + 1, then 3/2 + 1/2 + 1 = 3.
    belief = fo.scale_by_belief(0.5, 0.5, eps=0.0, eps_root=1.0)
    state = belief.init(torch.zeros((), dtype=torch.float64))
    for gradient in (4.0, 0.0):
        direction, state = belief.update(torch.tensor(gradient, dtype=torch.float64), state)
    assert state.nu.item() == 3.0
    torch.testing.assert_close(direction.item(), (1 / 0.75) / (3 / 0.75) ** 0.5)


def test_eps_enters_the_stored_mean_at_every_step():
    belief = fo.scale_by_belief(b1=0.0, b2=0.9, eps_root=1.0)  # no surprise without momentum
    state = belief.init(torch.zeros((), dtype=torch.float64))
    for _ in range(500):
        _, state = belief.update(torch.ones((), dtype=torch.float64), state)
    torch.testing.assert_close(state.nu.item(), 1 / (1 - 0.9))


def test_steps_further_than_adam_where_the_gradient_is_steady_and_not_where_it_flips():
    def last_direction(tx, gradients):
        state = tx.init(torch.zeros((), dtype=torch.float64))
        for gradient in gradients:
            direction, state = tx.update(torch.tensor(gradient, dtype=torch.float64), state)
        return direction.abs()

    steady, flipping = [1.0] * 50, [(-1.0) ** step for step in range(50)]
    assert last_direction(fo.scale_by_belief(), steady) > 2 * last_direction(fo.scale_by_adam(), steady)
    assert last_direction(fo.scale_by_belief(), flipping) < 1.2 * last_direction(fo.scale_by_adam(), flipping)


def test_ready_made_is_the_chain():
    params = torch.tensor([2.0, -1.0], dtype=torch.float64)
    tx = fo.adabelief(0.1, weight_decay=0.3)
    parts = fo.chain(fo.scale_by_belief(), fo.add_decayed_weights(0.3), fo.lr_scale(0.1))
    assert_trees_equal(tx.update(params, tx.init(params), params)[0], parts.update(params, parts.init(params), params)[0])


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_belief: eps_root must be >= 0, got -1.0"):
        fo.adabelief(0.1, eps_root=-1.0)
