"""RMSprop against torch.optim, against arithmetic by hand, and its one law."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("decay", [0.5, 0.99])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_follows_torch(decay, eps):
    ours = run(fo.rmsprop(1e-2, decay, eps, eps_in_sqrt=False), steps=200)
    assert_trees_close(ours, run_torch(torch.optim.RMSprop, lr=1e-2, alpha=decay, eps=eps, steps=200))


@pytest.mark.parametrize("centered", [False, True])
def test_follows_torch_with_momentum(centered):
    ours = run(fo.rmsprop(1e-3, 0.95, 1e-4, eps_in_sqrt=False, centered=centered, momentum=0.8), steps=100)
    theirs = run_torch(torch.optim.RMSprop, lr=1e-3, alpha=0.95, eps=1e-4, momentum=0.8, centered=centered, steps=100)
    assert_trees_close(ours, theirs)


def test_second_step_by_hand():
    # decay = 1/2, gradients 2 then 4: nu = 2, then 1 + 8 = 9, so u = 4 / 3.
    rms = fo.scale_by_rms(decay=0.5, eps=1e-12)
    state = rms.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = rms.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), 4 / 3)


@given(scale=st.floats(1e-3, 1e3))
def test_direction_does_not_depend_on_the_scale_of_the_gradient(scale):
    gradient = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    rms = fo.scale_by_rms(eps=1e-12)
    small, _ = rms.update(gradient, rms.init(gradient))
    large, _ = rms.update(scale * gradient, rms.init(gradient))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=0.0)


def test_bias_correction_makes_the_first_direction_a_sign():
    rms = fo.scale_by_rms(eps=1e-16, bias_correction=True)
    gradient = torch.tensor([3.0, -0.5], dtype=torch.float64)
    torch.testing.assert_close(rms.update(gradient, rms.init(gradient))[0], gradient.sign())


def test_a_constant_gradient_does_not_make_the_centred_form_nan():
    # nu - mu^2 rounds below zero there; torch's class takes the root of it.
    centred = fo.scale_by_stddev(0.9, 1e-8, eps_in_sqrt=False)
    gradient = torch.tensor([0.1, 1 / 3, 0.7])
    state = centred.init(gradient)
    for _ in range(400):
        direction, state = centred.update(gradient, state)
    assert torch.isfinite(direction).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decay": 1.0}, r"scale_by_rms: decay must be in \[0, 1\), got 1.0"),
        ({"eps": 0.0}, r"scale_by_rms: eps must be > 0, got 0.0"),
        ({"initial_scale": -1.0}, r"scale_by_rms: initial_scale must be >= 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.scale_by_rms(**arguments)
