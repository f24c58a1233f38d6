"""MoMo and MoMo-Adam by hand, where they end, and what they say."""

import pytest
import torch

import funcopt as fo
from tests.helpers import quartic, run, small_params


def test_a_polyak_step_by_hand():
    # f = p^2 from 3: f / |g|^2 = 9 / 36, the step is g / 4 = 3/2; a rate of 0.1 is what limits it else.
    for lr, expected in ((1.0, -1.5), (0.1, -0.6)):
        tx = fo.momo(lr, beta=0.0)
        params = torch.tensor(3.0, dtype=torch.float64)
        updates, state = tx.update(2 * params, tx.init(params), params, loss=params**2)
        assert updates.item() == pytest.approx(expected)
        assert state.lr.item() == pytest.approx(min(lr, 0.25))


def test_the_first_adam_step_by_hand():
    # D = |g|, m = 0.1 g: q = 0.01 g^2 / (... ) = m^2 / D; rate 0.05 / c1 with c1 = 0.1; the step is the rate times g / D.
    tx = fo.momo_adam(0.05, eps=1e-30)
    params = torch.tensor(3.0, dtype=torch.float64)
    updates, state = tx.update(2 * params, tx.init(params), params, loss=params**2)
    assert updates.item() == pytest.approx(-0.05) and state.lr.item() == pytest.approx(0.5)


@pytest.mark.parametrize("tx", [fo.momo(), fo.momo(10.0), fo.momo_adam(0.1)], ids=["momo", "momo with a rate far too large", "momo_adam"])
def test_comes_down_whatever_the_rate(tx):
    assert quartic(run(tx, steps=100)) < 0.3 * quartic(small_params())


def test_at_the_lower_bound_nothing_moves():
    params = torch.tensor([3.0, -1.0], dtype=torch.float64)
    tx = fo.momo(1.0, beta=0.0, lower_bound=5.0)
    updates, _ = tx.update(params, tx.init(params), params, loss=torch.tensor(5.0, dtype=torch.float64))
    assert not updates.any()


def test_a_bound_that_is_too_high_gives_way():
    # The loss falls to 0 far below the bound of 2 that the first guess says.
    def last(lower_bound, **settings):
        tx = fo.momo(1.0, lower_bound=lower_bound, **settings)
        params = torch.tensor([1.0, -2.0], dtype=torch.float64)
        state = tx.init(params)._replace(lb=torch.tensor(2.0, dtype=torch.float64))
        for _ in range(200):
            updates, state = tx.update(2 * params, state, params, loss=params.square().sum())
            params = params + updates
        return params.square().sum()

    assert last(-10.0, adapt_lower_bound=True) < 0.5 * last(2.0)


def test_decay_divides_what_the_mask_says():
    params = {"w": torch.ones(2, dtype=torch.float64), "b": torch.ones(2, dtype=torch.float64)}
    tx = fo.momo(0.5, weight_decay=0.2, weight_decay_mask="w")
    updates, _ = tx.update(fo.tree.zeros_like(params), tx.init(params), params, loss=torch.tensor(1.0))
    torch.testing.assert_close(params["w"] + updates["w"], params["w"] / 1.1)
    assert not updates["b"].any()


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"momo: beta must be in \[0, 1\), got 1.0"):
        fo.momo(beta=1.0)
    with pytest.raises(ValueError, match="momo_adam: eps must be > 0, got 0.0"):
        fo.momo_adam(eps=0.0)
    tx = fo.momo()
    with pytest.raises(ValueError, match=r"momo: needs the loss of this step; call update\(..., loss=loss\)"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)), torch.ones(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "make", [lambda: fo.momo(0.5), lambda: fo.momo_adam(0.1), lambda: fo.momo(0.5, weight_decay=1e-3, adapt_lower_bound=True)]
)
def test_a_loss_that_is_not_finite_counts_as_the_mean_so_far(make, bad):
    tx, params = make(), small_params()
    state = tx.init(params)
    for step in range(40):
        loss = quartic(params)
        before = state
        updates, state = tx.update(
            torch.func.grad(quartic)(params), state, params, loss=torch.tensor(bad, dtype=torch.float64) if step in (0, 7) else loss
        )
        assert fo.tree.all_finite((updates, state))
        if step == 7 and "exp_avg_sq" not in state._fields:
            assert state.barf == before.barf
        params = fo.apply_updates(params, updates)
    assert quartic(params) < 0.5 * quartic(small_params())


def test_a_missing_loss_leaves_the_corrected_mean_of_momo_adam_as_it_was():
    tx, params = fo.momo_adam(0.1), torch.tensor(2.0, dtype=torch.float64)
    state = tx.init(params)
    for loss in (4.0, 3.0, float("nan")):
        mean = state.barf / (1 - 0.9 ** float(state.count))
        _, state = tx.update(2 * params, state, params, loss=loss)
    torch.testing.assert_close(state.barf / (1 - 0.9 ** float(state.count)), mean)
