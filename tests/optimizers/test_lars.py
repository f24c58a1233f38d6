"""LARS: how far each leaf moves, what its masks leave out, and where its momentum stands."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_first_step_by_hand():
    # g + p / 2 = (1.5, 4), of length sqrt(18.25); |p| = 5.
    params = torch.tensor([3.0, 4.0], dtype=torch.float64)
    tx = fo.lars(2.0, weight_decay=0.5, trust_coefficient=0.1)
    updates, _ = tx.update(torch.tensor([0.0, 2.0], dtype=torch.float64), tx.init(params), params)
    torch.testing.assert_close(updates, torch.tensor([-1.5, -4.0], dtype=torch.float64) / 18.25**0.5)


def test_the_scale_of_the_gradient_does_not_matter():
    params = small_params()
    tx = fo.lars(0.1)
    gradients = gradients_at(0, params)
    small, _ = tx.update(gradients, tx.init(params), params)
    assert_trees_close(tx.update(fo.tree.scale(1e3, gradients), tx.init(params), params)[0], small)


def test_masks_leave_leaves_to_sgd():
    params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    tx = fo.lars(0.1, weight_decay=1.0, weight_decay_mask={"w": True, "b": False}, trust_ratio_mask={"w": True, "b": False})
    sgd = fo.sgd(0.1, momentum=0.9)
    state, other = tx.init(params), sgd.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        expected, other = sgd.update(params, other, params)
        torch.testing.assert_close(updates["b"], expected["b"])
        assert not torch.allclose(updates["w"], expected["w"])


def test_momentum_sums_sized_steps():
    params = torch.tensor([3.0, 4.0], dtype=torch.float64)
    tx = fo.lars(lambda count: torch.where(count == 0, 1.0, 0.0), momentum=0.5)
    first, state = tx.update(params, tx.init(params), params)
    second, _ = tx.update(params, state, params)
    torch.testing.assert_close(second, 0.5 * first)  # a rate of 0 does not stop what is under way


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="trust_coefficient must be > 0, got 0.0"):
        fo.lars(0.1, trust_coefficient=0.0)
    with pytest.raises(TypeError, match="mask must hold bools"):
        fo.lars(0.1, trust_ratio_mask={"w": 1}).init({"w": torch.ones(2)})
