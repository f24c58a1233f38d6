"""Signum by hand, against sign SGD and against Lion."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_second_step_by_hand():
    # beta = 1/2, gradients 4 then -1 (mean 2, 0.5: still up), or then -3 (mean -0.5: down).
    for then, expected in ((-1.0, -0.1), (-3.0, 0.1)):
        tx = fo.signum(0.1, beta=0.5)
        _, state = tx.update(torch.tensor([4.0]), tx.init(torch.zeros(1)))
        assert tx.update(torch.tensor([then]), state)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("other, beta", [(fo.sign_sgd(0.1), 0.0), (fo.lion(0.1, b1=0.9, b2=0.9, weight_decay=0.0), 0.9)])
def test_relatives(other, beta):
    params = small_params()
    tx = fo.signum(0.1, beta)
    state, theirs = tx.init(params), other.init(params)
    for step in range(4):
        updates, state = tx.update(gradients_at(step, params), state, params)
        expected, theirs = other.update(gradients_at(step, params), theirs, params)
        assert_trees_close(updates, expected)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        fo.signum(0.1, beta=1.0)
