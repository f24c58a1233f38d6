"""NAdam against torch.optim (momentum warm-up), against Adam, and its errors."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, run, run_torch


@pytest.fixture
def double():
    """torch.optim.NAdam keeps the product of its momenta in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("momentum_decay", [4e-3, 0.1])
def test_follows_torch(double, momentum_decay):
    ours = run(fo.nadam(0.02, 0.8, 0.99, momentum_decay=momentum_decay), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.NAdam, lr=0.02, betas=(0.8, 0.99), momentum_decay=momentum_decay, steps=60))


def test_decoupled_decay_follows_torch(double):
    ours = run(fo.nadamw(0.02, momentum_decay=4e-3, weight_decay=0.1), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.NAdam, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True, steps=60))


def test_is_adam_one_step_ahead():
    assert_trees_equal(run(fo.nadam(0.02), steps=10), run(fo.adam(0.02, nesterov=True), steps=10))
    assert_trees_equal(run(fo.nadamw(0.02, weight_decay=0.1), steps=10), run(fo.adamw(0.02, nesterov=True, weight_decay=0.1), steps=10))


def test_a_momentum_fully_grown_is_nesterovs():
    # After so many steps 0.96^(t * momentum_decay) is 0: what remains is the constant momentum b1.
    grown, constant = fo.scale_by_nadam(0.5, 0.9, momentum_decay=1e6), fo.scale_by_adam(0.5, 0.9, nesterov=True)
    gradient = torch.tensor([1.0, -3.0], dtype=torch.float64)
    state, other = grown.init(gradient), constant.init(gradient)
    for step in range(4):
        direction, state = grown.update(gradient + step, state)
        expected, other = constant.update(gradient + step, other)
        torch.testing.assert_close(direction, expected)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_nadam: momentum_decay must be >= 0, got -1.0"):
        fo.nadam(0.1, momentum_decay=-1.0)
    with pytest.raises(ValueError, match="nadamw: eps_root and mu_dtype belong to the form without momentum_decay"):
        fo.nadamw(0.1, eps_root=1e-8, momentum_decay=0.004)
