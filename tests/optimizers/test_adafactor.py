"""Adafactor against torch.optim, by hand, and what it holds."""

import math

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, run, run_torch, small_params

needs_adafactor = pytest.mark.skipif(not hasattr(torch.optim, "Adafactor"), reason="this torch has no Adafactor")


def falling(lr):
    """torch's rate: `lr`, once 1 / sqrt(t) is no larger."""
    return lambda count: torch.clamp((count.double() + 1).rsqrt(), max=lr)


@needs_adafactor
@pytest.mark.parametrize("lr, weight_decay, d", [(0.3, 0.0, 1.0), (0.05, 0.1, 1.5)])
def test_follows_torch(lr, weight_decay, d):
    ours = fo.adafactor(falling(lr), 0, clipping_threshold=d, weight_decay=lr * weight_decay, factored_axes="last")
    theirs = run_torch(torch.optim.Adafactor, lr=lr, weight_decay=weight_decay, d=d, eps=(None, 1e-3), steps=60)
    assert_trees_close(run(ours, steps=60), theirs, rtol=1e-8)


def test_rows_and_columns_by_hand():
    # At the first step nothing is past. Squares [[1, 4], [4, 16]]: rows 2.5, 10, columns 2.5, 10, which say all: u = 1.
    rms = fo.scale_by_factored_rms(min_dim_size_to_factor=2)
    gradient = torch.tensor([[1.0, -2.0], [2.0, 4.0]], dtype=torch.float64)
    direction, state = rms.update(gradient, rms.init(gradient))
    torch.testing.assert_close(direction, gradient.sign())
    assert state.v_row.tolist() == state.v_col.tolist() == [2.5, 10.0]
    # At the second the share of the past is 1 - 2^-0.8.
    _, state = rms.update(torch.zeros_like(gradient), state)
    torch.testing.assert_close(state.v_row, (1 - 2**-0.8) * torch.tensor([2.5, 10.0], dtype=torch.float64))


def test_a_matrix_of_rank_one_is_known_exactly():
    whole, parts = fo.scale_by_factored_rms(factored=False), fo.scale_by_factored_rms(min_dim_size_to_factor=1)
    gradient = torch.outer(torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64), torch.tensor([0.5, 4.0], dtype=torch.float64))
    state, other = whole.init(gradient), parts.init(gradient)
    for _ in range(3):
        expected, state = whole.update(gradient, state)
        direction, other = parts.update(gradient, other)
        torch.testing.assert_close(direction, expected)


def test_holds_a_row_and_a_column():
    params = {"large": torch.zeros(3, 200, 150), "small": torch.zeros(3, 100), "vector": torch.zeros(300)}
    state = fo.scale_by_factored_rms().init(params)
    assert {name: tuple(v.shape) for name, v in state.v_row.items()} == {"large": (3, 150), "small": (1,), "vector": (1,)}
    assert {name: tuple(v.shape) for name, v in state.v_col.items()} == {"large": (3, 200), "small": (1,), "vector": (1,)}
    assert {name: tuple(v.shape) for name, v in state.v.items()} == {"large": (1,), "small": (3, 100), "vector": (300,)}


def test_steps_are_in_proportion_to_the_params():
    params = small_params()
    gradients = gradients_at(0, params)
    tx = fo.adafactor(0.1)
    updates, _ = tx.update(gradients, tx.init(params), params)
    tenfold = fo.tree.scale(10.0, params)
    assert_trees_close(tx.update(gradients, tx.init(tenfold), tenfold)[0], fo.tree.scale(10.0, updates))


def test_decay_has_no_rate_but_itself():
    params = torch.tensor([2.0, -2.0], dtype=torch.float64)
    for lr in (0.1, 0.0):
        tx = fo.adafactor(lr, weight_decay=0.25)
        updates, _ = tx.update(torch.zeros_like(params), tx.init(params), params)
        torch.testing.assert_close(updates, -0.25 * params)


def test_the_share_of_the_past_may_be_another():
    rms = fo.scale_by_factored_rms(decay_rate=0.5, decay_rate_fn=lambda steps, rate: torch.where(steps == 0, 0.0, rate))
    state = rms.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        _, state = rms.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(state.v.item(), 10.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decay_rate": 0.0}, "scale_by_factored_rms: decay_rate must be > 0, got 0.0"),
        ({"factored_axes": "first"}, "factored_axes must be one of 'largest', 'last', got 'first'"),
        ({"clipping_threshold": 0.0}, "clip_by_block_rms: threshold must be > 0, got 0.0"),
        ({"decay_offset": -1}, "step_offset must be >= 0, got -1"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.adafactor(0.1, **arguments)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_an_offset_that_is_not_reached_counts_each_square_alone(shape):
    # 1 - (count - offset + 1)^(-0.8) is infinite or no number up to the offset; there the share of the past is 0, as at a first step.
    torch.manual_seed(0)
    params, tx = torch.zeros(shape), fo.scale_by_factored_rms(step_offset=3, min_dim_size_to_factor=2)
    state = tx.init(params)
    for step in range(6):
        g = torch.randn(shape)
        alone, plain = fo.scale_by_factored_rms(min_dim_size_to_factor=2), g
        direction, state = tx.update(g, state)
        assert direction.isfinite().all()
        if step <= 3:
            torch.testing.assert_close(direction, alone.update(plain, alone.init(params))[0])
    asked = []
    told = fo.scale_by_factored_rms(step_offset=3, decay_rate_fn=lambda steps, rate: asked.append(steps.item()) or torch.zeros_like(steps))
    state = told.init(params)
    for _ in range(5):
        _, state = told.update(torch.ones(shape), state)
    assert asked == [0, 0, 0, 0, 1]


def test_a_huge_entry_gets_its_share_and_is_forgotten():
    tx = fo.scale_by_factored_rms(min_dim_size_to_factor=2)
    huge, params = torch.tensor([[1.0, 1e30], [1.0, 1.0]]), torch.zeros(2, 2)
    direction, state = tx.update(huge, tx.init(params))
    like, _ = tx.update(torch.tensor([[1e-15, 1e6], [1e-15, 1e-15]]), tx.init(params))  # of the same shares
    torch.testing.assert_close(direction[0, 1], like[0, 1], rtol=1e-3, atol=0)
    assert direction.isfinite().all()
    direction, _ = tx.update(torch.tensor([[1.0, math.inf], [1.0, 1.0]]), state)
    assert not direction[0, 1].isfinite()  # what is no number is not hidden
