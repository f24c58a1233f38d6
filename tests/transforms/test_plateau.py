"""reduce_on_plateau against torch's scheduler, and its errors."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

LOSSES = st.lists(st.floats(0.1, 2.0), min_size=1, max_size=30)


@settings(deadline=None, max_examples=30)
@given(losses=LOSSES, patience=st.integers(0, 3))
def test_follows_torch_which_waits_one_more(losses, patience):
    parameter = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, factor=0.5, patience=patience, threshold=1e-3)
    tx = fo.reduce_on_plateau(factor=0.5, patience=patience + 1, rtol=1e-3)
    state = tx.init(torch.ones(1))
    for loss in losses:
        scheduler.step(loss)
        updates, state = tx.update(torch.ones(1, dtype=torch.float64), state, loss=loss)
        assert updates == sgd.param_groups[0]["lr"]


@settings(deadline=None, max_examples=30)
@given(losses=LOSSES)
def test_the_scale_never_grows_and_never_falls_below_its_floor(losses):
    tx = fo.reduce_on_plateau(factor=0.1, patience=1, cooldown=1, accumulation_size=2, min_scale=0.05)
    state, last = tx.init(torch.ones(1)), 1.0
    for loss in losses:
        _, state = tx.update(torch.ones(1), state, loss=torch.tensor(loss))
        assert 0.05 <= state.scale <= last
        last = float(state.scale)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"factor": 1.0}, r"reduce_on_plateau: factor must be in \(0, 1\), got 1.0"),
        ({"patience": 0}, "reduce_on_plateau: patience must be >= 1, got 0"),
        ({"rtol": 0.0}, "reduce_on_plateau: rtol or atol must be > 0"),
        ({"rtol": 2.0}, "reduce_on_plateau: rtol must be <= 1, got 2.0"),
        ({"accumulation_size": 0}, "reduce_on_plateau: accumulation_size must be >= 1, got 0"),
        ({"min_scale": -1.0}, "reduce_on_plateau: min_scale must be >= 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.reduce_on_plateau(**arguments)


def test_needs_the_loss():
    tx = fo.reduce_on_plateau()
    with pytest.raises(ValueError, match="reduce_on_plateau: needs the loss of this step"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))


def test_a_loss_that_is_a_number_is_held_as_precisely_as_a_tensor():
    tx, params = fo.reduce_on_plateau(), torch.ones(1)
    assert tx.update(params, tx.init(params), params, loss=0.1)[1].best_value.item() == 0.1
