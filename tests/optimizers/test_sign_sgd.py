"""Sign SGD and what it ignores."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo


@given(scale=st.floats(1e-6, 1e6))
def test_only_signs_count(scale):
    tx = fo.sign_sgd(0.5)
    gradient = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    updates, _ = tx.update(scale * gradient, tx.init(gradient))
    assert updates.tolist() == [-0.5, 0.5, 0.0]


def test_decay_is_decoupled():
    params = torch.tensor([2.0], dtype=torch.float64)
    tx = fo.sign_sgd(0.1, weight_decay=0.5)
    assert tx.update(-params, tx.init(params), params)[0].item() == pytest.approx(-0.1 * (-1 + 0.5 * 2))


def test_nan_stays_nan():
    tx = fo.sign_sgd(0.1)
    gradient = torch.tensor([float("nan"), 1.0])
    assert tx.update(gradient, tx.init(gradient))[0].isnan().tolist() == [True, False]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="lr must be >= 0, got -1.0"):
        fo.sign_sgd(-1.0)
