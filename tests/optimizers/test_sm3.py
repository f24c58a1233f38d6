"""SM3 by hand, against Adagrad, and what it holds."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def test_second_step_by_hand():
    # First squares [[9, 0], [0, 4]]: rows 9, 4, columns 9, 4. Then 1 everywhere on top of [[9, 4], [4, 4]].
    sm3 = fo.scale_by_sm3(b1=0.0, eps=0.0)
    gradient = torch.tensor([[3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    first, state = sm3.update(gradient, sm3.init(gradient))
    assert first.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert [m.tolist() for m in state.mu] == [[9.0, 4.0], [9.0, 4.0]]
    second, state = sm3.update(torch.ones_like(gradient), state)
    torch.testing.assert_close(second, torch.tensor([[10.0, 5.0], [5.0, 5.0]], dtype=torch.float64).rsqrt())


def test_is_adagrad_on_vectors_and_scalars():
    sm3, adagrad = fo.scale_by_sm3(b1=0.0, eps=1e-3), fo.scale_by_rss(0.0, 1e-3)
    params = {"vector": torch.ones(3, dtype=torch.float64), "scalar": torch.ones((), dtype=torch.float64)}
    state, other = sm3.init(params), adagrad.init(params)
    for step in range(4):
        ours, state = sm3.update(gradients_at(step, params), state)
        theirs, other = adagrad.update(gradients_at(step, params), other)
        assert_trees_close(ours, theirs)


def test_no_entry_moves_further_than_with_adagrad():
    params = small_params()
    sm3, adagrad = fo.scale_by_sm3(b1=0.0, eps=0.0), fo.scale_by_rss(0.0, 0.0)
    state, other = sm3.init(params), adagrad.init(params)
    for step in range(5):
        ours, state = sm3.update(gradients_at(step, params), state)
        theirs, other = adagrad.update(gradients_at(step, params), other)
        assert all((x.abs() <= y.abs() + 1e-12).all() for x, y in zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True))


def test_holds_one_vector_per_axis():
    state = fo.scale_by_sm3().init(torch.zeros(5, 2, 3))
    assert [m.shape for m in state.mu] == [(5,), (2,), (3,)]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_sm3: b2 must be in \[0, 1\], got 1.5"):
        fo.scale_by_sm3(b2=1.5)
    with pytest.raises(ValueError, match=r"scale_by_sm3: b1 must be in \[0, 1\), got 1.0"):
        fo.sm3(0.1, momentum=1.0)
