"""Any row of the zoo as a torch.optim.Optimizer, saved at any step in any way: what follows is what would have followed."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.core.versions import TORCH
from tests.helpers import gradients_at, small_params
from tests.zoo import ROWS, every

# Told by the loop in a form that `step` has no word for.
SPEAKING = [row for row in ROWS if "signals" not in row.extra(0)]


class Model(torch.nn.Module):
    """A model that is nothing but its parameters."""

    def __init__(self, tensors):
        super().__init__()
        self.tensors = torch.nn.ParameterList([tensor.clone() for tensor in tensors])


def new(row):
    model = Model(fo.tree.leaves(small_params()))
    return model, fo.torch_optim.Optimizer(model.parameters(), row.make())


def advance(row, model, optimizer, start, steps):
    for step in range(start, start + steps):
        tensors = list(model.tensors)
        for p, gradient in zip(tensors, gradients_at(step, [p.detach() for p in tensors]), strict=True):
            p.grad = gradient
        optimizer.step(**row.extra(step))


def with_torch_save(row, model, optimizer):
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved, (again, resumed) = torch.load(file, weights_only=True), new(row)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    return again, resumed


def with_deepcopy(row, model, optimizer):
    return copy.deepcopy((model, optimizer))


def with_dcp(row, model, optimizer, flat=False):
    from torch.distributed.checkpoint import state_dict as dcp

    saved = copy.deepcopy(dcp.get_state_dict(model, optimizer, options=dcp.StateDictOptions(flatten_optimizer_state_dict=flat)))
    # Strict loading refuses an optimizer that keeps something for some parameters and nothing for others (masks, partitions) and says so.
    whole = len(optimizer.state) in (0, len(list(model.parameters())))
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat, strict=whole)
    again, resumed = new(row)
    dcp.set_state_dict(again, resumed, model_state_dict=saved[0], optim_state_dict=saved[1], options=options)
    return again, resumed


def with_flat_dcp(row, model, optimizer):
    return with_dcp(row, model, optimizer, flat=True)


def resumes(row, at, more, way):
    model, optimizer = new(row)
    advance(row, model, optimizer, 0, at)
    again, resumed = way(row, model, optimizer)
    advance(row, model, optimizer, at, more)
    advance(row, again, resumed, at, more)
    for x, y in zip(model.tensors, again.tensors, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@every(SPEAKING)
def test_a_resumed_run_is_the_uninterrupted_run(row):
    resumes(row, 3, 3, with_torch_save)


@settings(max_examples=30, deadline=None)
@given(
    row=st.sampled_from(SPEAKING),
    at=st.integers(0, 6),
    more=st.integers(1, 3),
    way=st.sampled_from(
        [with_torch_save, with_deepcopy, *([with_dcp, with_flat_dcp] if TORCH >= (2, 5) else [])]
    ),  # DCP of 2.4 wants no gradients
)
def test_at_any_step_in_any_way(row, at, more, way):
    resumes(row, at, more, way)


def adam_and_noise():
    """A function of a module, so that what it makes can be pickled."""
    return fo.chain(fo.add_noise(0.01, 0.55, key=0), fo.adam(0.1))


@pytest.mark.parametrize("at", [0, 2])
def test_a_pickled_optimizer_goes_on(at):
    row = next(row for row in SPEAKING if row.id == "adam")._replace(make=adam_and_noise)
    model = Model(fo.tree.leaves(small_params()))
    optimizer = fo.torch_optim.Optimizer(model.parameters(), adam_and_noise)
    advance(row, model, optimizer, 0, at)
    again, resumed = pickle.loads(pickle.dumps((model, optimizer)))
    advance(row, model, optimizer, at, 3)
    advance(row, again, resumed, at, 3)
    assert all(torch.equal(x, y) for x, y in zip(model.tensors, again.tensors, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("row", SPEAKING, ids=[row.id for row in SPEAKING])
@pytest.mark.parametrize("way", [with_torch_save, with_deepcopy, with_dcp, with_flat_dcp], ids=lambda way: way.__name__)
def test_every_row_at_every_step(row, way):
    """Of what is saved at a step, the ways differ in the form alone: one of them goes through all steps."""
    for at in range(8) if way is with_torch_save else (0, 4):
        resumes(row, at, 3, way)
