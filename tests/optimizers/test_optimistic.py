"""Optimistic gradients by hand, and on the game that gradient descent loses."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_second_step_by_hand():
    optimistic = fo.scale_by_optimistic_gradient(alpha=0.5, beta=2.0)
    first, state = optimistic.update(torch.tensor([1.0]), optimistic.init(torch.zeros(1)))
    second, state = optimistic.update(torch.tensor([3.0]), state)
    assert (first.item(), second.item()) == (0.5, 2.5 * 3 - 2 * 1)


def play(tx, steps=2000):
    """Descends in x and ascends in y on x * y, whose only solution is 0, 0."""
    params = {"x": torch.tensor(1.0, dtype=torch.float64), "y": torch.tensor(1.0, dtype=torch.float64)}
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update({"x": params["y"], "y": -params["x"]}, state, params)
        params = fo.apply_updates(params, updates)
    return fo.tree.norm(params)


def test_finds_the_solution_of_a_game_that_descent_circles_away_from():
    assert play(fo.optimistic_gradient_descent(0.1)) < 1e-3
    assert play(fo.sgd(0.1)) > 10


def test_without_optimism_is_the_method_underneath():
    params = small_params()
    pairs = ((fo.optimistic_gradient_descent(0.1, beta=0.0), fo.sgd(0.1)), (fo.optimistic_adam_v2(0.1, beta=0.0), fo.nadam(0.1)))
    for plain, expected in pairs:
        state, other = plain.init(params), expected.init(params)
        for step in range(3):
            updates, state = plain.update(gradients_at(step, params), state, params)
            theirs, other = expected.update(gradients_at(step, params), other, params)
            assert_trees_close(updates, theirs)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_optimistic_gradient: alpha must be finite, got inf"):
        fo.optimistic_gradient_descent(0.1, alpha=float("inf"))
