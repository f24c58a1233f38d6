"""D-adaptation: a step by hand, and its laws; optax's recordings replay in tests/parity."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close


def test_two_steps_by_hand():
    # b1 = 0, b2 = 1/4, so that sqrt(b2) = 1/2. First: k = d0 sqrt(3/4), v = 3/4 g^2, s = k g / 2, step k g / sqrt(v) = d0.
    d0 = 0.1
    tx = fo.dadapt_adamw(betas=(0.0, 0.25), eps=1e-30, estim_lr0=d0)
    params = torch.zeros((), dtype=torch.float64)
    state = tx.init(params)
    updates, state = tx.update(torch.tensor(4.0, dtype=torch.float64), state, params)
    torch.testing.assert_close(updates.item(), -d0)
    # Then with g = 4 again: k = d0 sqrt(15/16), r = k / 2 * 4 (s / sqrt(v)), s' = s / 2 + 2 k, and the estimate is r / (s' / 2).
    first = d0 * 0.75**0.5
    s, v = 2 * first, 12.0
    k = d0 * (15 / 16) ** 0.5
    r, s = k / 2 * 4 * s / v**0.5, s / 2 + 2 * k
    updates, state = tx.update(torch.tensor(4.0, dtype=torch.float64), state, params)
    torch.testing.assert_close(state.estim_lr.item(), max(d0, r / (0.5 * s)))
    torch.testing.assert_close(fo.read_signals(state)["lr"].item(), k)


def test_the_estimate_does_not_depend_on_the_scale_of_the_loss():
    target = torch.linspace(-1, 1, 5, dtype=torch.float64)

    def trained(scale):
        tx, params = fo.dadapt_adamw(eps=1e-30), torch.zeros(5, dtype=torch.float64)
        state = tx.init(params)
        for _ in range(30):
            updates, state = tx.update(scale * (params - target), state, params)
            params = fo.apply_updates(params, updates)
        return params, state.estim_lr

    assert_trees_close(trained(1.0), trained(1e3), rtol=1e-9, atol=1e-15)


def test_zero_gradients_leave_everything_where_it_is():
    tx, params = fo.dadapt_adamw(), {"w": torch.ones(2)}
    updates, state = tx.update({"w": torch.zeros(2)}, tx.init(params), params)
    assert torch.equal(updates["w"], torch.zeros(2)) and state.estim_lr == 1e-6


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"dadapt_adamw: betas\[1\] must be in \[0, 1\), got 1.0"):
        fo.dadapt_adamw(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="dadapt_adamw: estim_lr0 must be > 0, got 0.0"):
        fo.dadapt_adamw(estim_lr0=0.0)
    with pytest.raises(ValueError, match="dadapt_adamw: needs the params"):
        tx = fo.dadapt_adamw()
        tx.update(torch.zeros(2), tx.init(torch.zeros(2)))
