"""lookahead: by hand, pairs against plain params, and what a reset may not leak."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_two_steps_by_hand():
    # fast: 10, 9, 8; at the pull slow = 10 + 0.5 * (8 - 10) = 9
    tx = fo.lookahead(fo.sgd(1.0), sync_period=2, slow_step_size=0.5)
    params = torch.tensor([10.0])
    state = tx.init(params)
    for expected in (9.0, 9.0, 8.0, 8.0):
        updates, state = tx.update(torch.tensor([1.0]), state, params)
        params = fo.apply_updates(params, updates)
        assert params == expected
    assert state.slow == 8.0


def test_pairs_and_plain_params_go_the_same_way():
    tx = fo.lookahead(fo.adam(0.1), 3, 0.4)
    plain, pair = small_params(), fo.LookaheadParams.init_synced(small_params())
    state, pair_state = tx.init(plain), tx.init(pair)
    for step in range(7):
        gradients = gradients_at(step, plain)
        updates, state = tx.update(gradients, state, plain)
        both, pair_state = tx.update(gradients, pair_state, pair)
        plain, pair = fo.apply_updates(plain, updates), fo.apply_updates(pair, both)
        assert_trees_close(pair.fast, plain)
        assert_trees_close(pair.slow, state.slow)


def test_a_reset_leaves_nothing_behind():
    tx = fo.lookahead(fo.adam(0.1), 1, 0.5, reset_state=True)
    params = torch.ones(2)
    _, state = tx.update(torch.tensor([torch.nan, 1.0]), tx.init(params), params)
    assert (state.fast_state[0].mu == 0).all() and state.fast_state[0].count == 0


def test_a_slow_step_of_one_is_the_fast_optimizer():
    params, tx = small_params(), fo.lookahead(fo.sgd(0.1), 2, 1.0)
    state = tx.init(params)
    for step in range(3):
        gradients = gradients_at(step, params)
        updates, state = tx.update(gradients, state, params)
        assert_trees_close(updates, fo.tree.scale(-0.1, gradients))
        params = fo.apply_updates(params, updates)


@pytest.mark.parametrize(
    "arguments, message",
    [((0, 0.5), "lookahead: sync_period must be >= 1, got 0"), ((2, 1.5), r"lookahead: slow_step_size must be in \[0, 1\], got 1.5")],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.lookahead(fo.sgd(0.1), *arguments)


def test_needs_params():
    tx = fo.lookahead(fo.sgd(0.1), 2, 0.5)
    with pytest.raises(ValueError, match="lookahead: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
