"""Fromage by hand, and the law it was made for: no leaf grows by turning."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_first_step_by_hand():
    # lr = 3/4: (4, 0) - 3/4 * (0, 4) = (4, -3), divided by sqrt(1 + 9/16) = 5/4.
    params = torch.tensor([4.0, 0.0], dtype=torch.float64)
    tx = fo.fromage(0.75)
    updates, _ = tx.update(torch.tensor([0.0, 2.0], dtype=torch.float64), tx.init(params), params)
    torch.testing.assert_close(params + updates, torch.tensor([3.2, -2.4], dtype=torch.float64))


def test_a_gradient_at_right_angles_keeps_the_length():
    params = torch.randn(6, dtype=torch.float64)
    tx = fo.fromage(0.3)
    state, start = tx.init(params), params.norm()
    for _ in range(20):
        gradient = torch.randn(6, dtype=torch.float64)
        gradient -= (gradient @ params) / (params @ params) * params
        updates, state = tx.update(gradient, state, params)
        params = params + updates
    torch.testing.assert_close(params.norm(), start)


@pytest.mark.parametrize("form", ["number", "tensor", "schedule", "heard", "stretched"])
def test_turns_by_the_rate_however_it_is_said(form):
    params = small_params()
    gradients = gradients_at(0, params)
    signals = {}
    if form == "heard":
        signals = {"base_lr": torch.tensor(0.2, dtype=torch.float64)}
    if form == "stretched":
        signals = {"lr_multiplier": torch.tensor(4.0, dtype=torch.float64)}
    rate = {
        "number": 0.2,
        "tensor": torch.tensor(0.2, dtype=torch.float64),
        "schedule": lambda count: 0.2 + 0 * count,
        "heard": None,
        "stretched": 0.05,
    }[form]
    tx, expected = fo.fromage(rate), fo.fromage(0.2)
    updates, _ = tx.update(gradients, tx.init(params), params, signals=signals)
    assert_trees_close(updates, expected.update(gradients, expected.init(params), params)[0], rtol=1e-6)


def test_leaves_without_gradient_or_at_zero():
    tx = fo.fromage(0.1, min_norm=0.0)
    for params, gradient in ((torch.zeros(2), torch.ones(2)), (torch.ones(2), torch.zeros(2))):
        updates, _ = tx.update(gradient, tx.init(params), params)
        expected = (params - 0.1 * gradient) / (1 + 0.1**2) ** 0.5 - params  # the gradient unscaled
        torch.testing.assert_close(updates, expected)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="min_norm must be >= 0, got -1.0"):
        fo.fromage(0.1, min_norm=-1.0)
    tx = fo.fromage(0.1)
    with pytest.raises(ValueError, match="needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
