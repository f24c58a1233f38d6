"""apply_if_finite: what is skipped, what is counted, and when it gives in."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params

BAD, GOOD = torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 1.0])


def counts(state):
    return int(state.notfinite_count), bool(state.last_finite), int(state.total_notfinite)


def test_skips_gives_in_and_guards_again():
    # two may be skipped: the third goes through and the count begins anew (in optax it never guards again)
    tx = fo.apply_if_finite(fo.trace(0.5), 2)
    state = tx.init(GOOD)
    seen = []
    for gradient in (BAD, BAD, BAD, BAD, GOOD):
        updates, state = tx.update(gradient, state)
        seen.append((bool((updates == 0).all()), *counts(state)))
    assert seen == [(True, 1, False, 1), (True, 2, False, 2), (False, 0, False, 3), (True, 1, False, 4), (False, 0, True, 4)]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_skipped_step_leaves_no_trace(bad):
    params = small_params()
    tx = fo.apply_if_finite(fo.adamw(0.1), 3)
    _, params, state = rollout(tx, params, 2)
    spoilt = fo.tree.full_like(params, bad)
    updates, skipped = tx.update(spoilt, state, params)
    assert_trees_equal(updates, fo.tree.zeros_like(params))
    assert_trees_equal(skipped.inner_state, state.inner_state)


def test_controllers_inside_do_not_see_it():
    tx = fo.apply_if_finite(fo.chain(fo.ucb_episodes(episode_length=2, seed=0, dispatch="select"), fo.sgd(0.1)), 3)
    state = tx.init(GOOD)
    _, after = tx.update(BAD, state, loss=torch.tensor(1.0))
    assert_trees_equal(after.inner_state, state.inner_state)
    assert set(fo.read_signals(after)) >= {"lr", "lr_multiplier"}


def test_no_nan_in_the_derivative_of_a_skipped_step():
    def after(lr):
        tx = fo.apply_if_finite(fo.sgd(lr), 3)
        updates, _ = tx.update(BAD, tx.init(GOOD))
        return updates.sum()

    assert torch.func.grad(after)(torch.tensor(1.0)) == 0


def test_with_no_patience_nothing_is_skipped():
    tx = fo.apply_if_finite(fo.scale(-1.0), 0)
    updates, _ = tx.update(BAD, tx.init(GOOD))
    assert updates[0] == -1 and updates[1].isnan()


@pytest.mark.parametrize(
    "number, message", [(-1, "apply_if_finite: max_consecutive_errors must be >= 0, got -1"), (1.5, "must be an int, got 1.5")]
)
def test_says_what_is_wrong(number, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fo.apply_if_finite(fo.sgd(0.1), number)
