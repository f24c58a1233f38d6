"""AMSGrad against torch.optim (the largest uncorrected mean), by hand, and its one law."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, run, run_torch, small_params


@pytest.mark.parametrize("b1, b2", [(0.9, 0.999), (0.5, 0.8)])
def test_follows_torch(b1, b2):
    ours = run(fo.amsgrad(0.02, b1, b2, correct_before_max=False), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Adam, lr=0.02, betas=(b1, b2), amsgrad=True, steps=60))


def test_second_step_by_hand():
    # b1 = 0, b2 = 1/2, gradients 4 then 0 then 2: nu = 8, 4, 4; corrected 16, 16/3, 32/7.
    for before, largest in ((True, 16.0), (False, 8.0 / 0.875)):
        amsgrad = fo.scale_by_amsgrad(0.0, 0.5, eps=0.0, correct_before_max=before)
        state = amsgrad.init(torch.zeros((), dtype=torch.float64))
        for gradient in (4.0, 0.0, 2.0):
            direction, state = amsgrad.update(torch.tensor(gradient, dtype=torch.float64), state)
        torch.testing.assert_close(direction.item(), 2 / largest**0.5)


def test_the_denominator_never_shrinks():
    params = small_params()
    amsgrad = fo.scale_by_amsgrad(b2=0.5)
    state = amsgrad.init(params)
    for step in range(6):
        before = state.nu_max
        _, state = amsgrad.update(gradients_at(step, params, scale=1 / (step + 1)), state)
        assert all((new >= old).all() for new, old in zip(fo.tree.leaves(state.nu_max), fo.tree.leaves(before), strict=True))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_amsgrad: b2 must be in \[0, 1\), got 1.0"):
        fo.amsgrad(0.1, b2=1.0)
