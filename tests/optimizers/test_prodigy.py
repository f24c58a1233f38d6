"""Prodigy: its estimate by hand, that it finds a rate, and what the estimate hears."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, quartic, run, small_params


def test_the_estimate_by_hand():
    # betas 0, beta3 1/2, d0 = 1/2, no correction; gradients 2 and 2 from p0 = 1.
    # Step 1: k = 1/2, v = 1, m = 1: step k m / 1 = 1/2; s = 1/2 * 2 = 1; r = 0.
    # Step 2 at p = 1/2: s = 1/2 + 1 = 3/2; r = 1/2 * 2 * (1 - 1/2) = 1/2; d = max(1/2, 3/2 * (1/2) / (3/2)) = 1/2.
    tx = fo.prodigy(betas=(0.0, 0.0), beta3=0.5, eps=1e-30, estim_lr0=0.5, estim_lr_coef=1.5, bias_correction=False)
    params = torch.ones((), dtype=torch.float64)
    state = tx.init(params)
    for s, r in ((1.0, 0.0), (1.5, 0.5)):
        updates, state = tx.update(torch.tensor(2.0, dtype=torch.float64), state, params)
        params = params + updates
        assert (updates.item(), state[0].grad_sum.item(), state[0].numerator_weighted.item()) == pytest.approx((-0.5, s, r))
    assert state[0].estim_lr.item() == 0.5


def test_finds_its_rate_from_a_start_far_too_small():
    tx = fo.prodigy(estim_lr0=1e-6)
    params = small_params()
    state, estimates = tx.init(params), []
    for _ in range(300):
        updates, state = tx.update(torch.func.grad(quartic)(params), state, params)
        params = fo.apply_updates(params, updates)
        estimates.append(state[0].estim_lr.item())
    assert estimates == sorted(estimates) and estimates[-1] > 1e-3
    assert quartic(params) < 0.2 * quartic(small_params())


def test_the_estimate_hears_what_multiplies_the_step():
    params = small_params()
    multiplied, told = fo.prodigy(0.5), fo.prodigy(1.0)
    state, other = multiplied.init(params), told.init(params)
    for step in range(3):
        updates, state = multiplied.update(
            gradients_at(step, params), state, params, signals={"lr_multiplier": torch.tensor(2.0, dtype=torch.float64)}
        )
        expected, other = told.update(gradients_at(step, params), other, params)
        assert_trees_close(updates, expected)


def test_decay_takes_a_mask():
    params = small_params()
    decayed, plain = (fo.prodigy(estim_lr0=0.1, weight_decay=wd, weight_decay_mask="w") for wd in (0.5, 0.0))
    first, second = (tx.update(gradients_at(0, params), tx.init(params), params)[0] for tx in (decayed, plain))
    size = 0.1 * (1 - 0.999) ** 0.5 / (1 - 0.9)
    torch.testing.assert_close(first["w"] - second["w"], -size * 0.5 * params["w"])
    torch.testing.assert_close(first["b"], second["b"])


def test_no_gradient_is_no_step():
    params = small_params()
    assert_trees_close(fo.tree.zeros_like(params), fo.prodigy().update(fo.tree.zeros_like(params), fo.prodigy().init(params), params)[0])
    assert all(torch.isfinite(x).all() for x in fo.tree.leaves(run(fo.prodigy(), steps=2, params=fo.tree.full_like(params, 0.3))))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_prodigy: betas\[1\] must be in \[0, 1\), got 1.0"):
        fo.prodigy(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="scale_by_prodigy: estim_lr0 must be > 0, got 0.0"):
        fo.prodigy(estim_lr0=0.0)
    tx = fo.prodigy()
    with pytest.raises(ValueError, match="scale_by_prodigy: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
