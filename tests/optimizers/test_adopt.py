"""ADOPT by hand, its bound, and the problem on which Adam diverges."""

import pytest
import torch

import funcopt as fo


def test_three_steps_by_hand():
    # b1 = 1/2, b2 = 3/4, gradients 2, 4, 1: nu = 4, then 3 + 4 = 7; n = 4/2 clipped to 1, then 1 / sqrt(7); mu = 1/2, ...
    adopt = fo.scale_by_adopt(0.5, 0.75)
    state = adopt.init(torch.zeros((), dtype=torch.float64))
    for gradient, nu, mu in ((2.0, 4.0, 0.0), (4.0, 7.0, 0.5), (1.0, 5.5, 0.25 + 0.5 / 7**0.5)):
        direction, state = adopt.update(torch.tensor(gradient, dtype=torch.float64), state)
        assert (state.nu.item(), direction.item()) == pytest.approx((nu, mu))


def test_the_bound_may_be_another_or_none():
    def second(**settings):
        adopt = fo.scale_by_adopt(0.0, **settings)
        _, state = adopt.update(torch.tensor(1.0, dtype=torch.float64), adopt.init(torch.zeros((), dtype=torch.float64)))
        return adopt.update(torch.tensor(-100.0, dtype=torch.float64), state)[0].item()

    assert second() == -1.0
    assert second(clip_value_fn=lambda count: (count + 1) ** 0.25) == pytest.approx(-(2**0.25))
    assert second(use_clipping=False) == pytest.approx(-100.0)


def test_converges_where_adam_does_not():
    # Reddi's problem on [-1, 1]: a large gradient now and then says down, many small ones say up; -1 is best.
    def ends(tx):
        x = torch.zeros((), dtype=torch.float64)
        state = tx.init(x)
        for step in range(6000):
            gradient = torch.tensor(50.0 if step % 101 == 0 else -0.2, dtype=torch.float64)
            updates, state = tx.update(gradient, state, x)
            x = (x + updates).clamp(-1, 1)
        return x.item()

    rate = {"lr": lambda count: 0.05 / (1 + 0.01 * count.double()).sqrt(), "b1": 0.0, "b2": 0.1}
    assert ends(fo.adam(**rate)) > 0.5
    assert ends(fo.adopt(**rate, use_clipping=False)) < -0.5


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_adopt: b2 must be in \[0, 1\), got 1.0"):
        fo.adopt(0.1, b2=1.0)
    with pytest.raises(ValueError, match="scale_by_adopt: eps must be > 0, got 0.0"):
        fo.adopt(0.1, eps=0.0)
