"""Adam against torch.optim, against arithmetic by hand, and its laws."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, run, run_torch


@pytest.mark.parametrize("b1, b2", [(0.9, 0.999), (0.5, 0.8)])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_follows_torch(b1, b2, eps):
    ours = run(fo.adam(0.02, b1, b2, eps), steps=60)
    theirs = run_torch(torch.optim.Adam, lr=0.02, betas=(b1, b2), eps=eps, steps=60)
    assert_trees_close(ours, theirs)


def test_coupled_decay_stands_left_of_it():
    ours = run(fo.chain(fo.add_decayed_weights(0.1), fo.adam(0.02)), steps=100)
    assert_trees_close(ours, run_torch(torch.optim.Adam, lr=0.02, weight_decay=0.1, steps=100))


def test_second_step_by_hand():
    # b1 = b2 = 1/2, gradients 2 then 4: mu = 1, 2.5; nu = 2, 9; m = 2.5 / (3/4), v = 9 / (3/4) = 12.
    adam = fo.scale_by_adam(0.5, 0.5, eps=0.0)
    state = adam.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = adam.update(torch.tensor(gradient, dtype=torch.float64), state)
    torch.testing.assert_close(direction.item(), (2.5 / 0.75) / 12**0.5)


def test_nesterov_by_hand():
    # First step, b1 = 1/2: m = b1 mu / (1 - b1^2) + (1 - b1) g / (1 - b1) = (g / 4) / (3/4) + g.
    adam = fo.scale_by_adam(0.5, 0.5, eps=0.0, nesterov=True)
    direction, _ = adam.update(torch.tensor(3.0, dtype=torch.float64), adam.init(torch.zeros((), dtype=torch.float64)))
    torch.testing.assert_close(direction.item(), 4 / 3)


@given(scale=st.floats(1e-3, 1e3))
def test_direction_does_not_depend_on_the_scale_of_the_gradient(scale):
    adam = fo.scale_by_adam(eps=0.0)
    state = large_state = adam.init(torch.zeros(3, dtype=torch.float64))
    for step in range(3):
        gradient = torch.tensor([1.0, -2.0, 0.5 + step], dtype=torch.float64)
        small, state = adam.update(gradient, state)
        large, large_state = adam.update(scale * gradient, large_state)
        torch.testing.assert_close(small, large, rtol=1e-10, atol=0.0)


def test_corrects_its_means_after_a_million_steps_as_well():
    adam = fo.scale_by_adam(b2=0.9999999)
    start = adam.init(torch.zeros(1, dtype=torch.float64))
    state = start._replace(count=torch.tensor(999_999), mu=torch.ones(1, dtype=torch.float64), nu=torch.ones(1, dtype=torch.float64))
    direction, _ = adam.update(torch.ones(1, dtype=torch.float64), state)
    torch.testing.assert_close(
        direction.item(), (-torch.expm1(1e6 * torch.tensor(0.9999999, dtype=torch.float64).log())).sqrt().item(), rtol=1e-8, atol=0.0
    )


def test_keeps_the_mean_in_another_dtype():
    adam = fo.scale_by_adam(mu_dtype=torch.bfloat16)
    direction, state = adam.update(torch.ones(2), adam.init(torch.zeros(2)))
    assert state.mu.dtype == torch.bfloat16 and state.nu.dtype == torch.float32 and direction.dtype == torch.float32


def test_the_dtype_of_the_means_does_not_follow_the_gradient():
    adam = fo.scale_by_adam()
    direction, state = adam.update(torch.ones(2), adam.init(torch.zeros(2, dtype=torch.bfloat16)))
    assert state.mu.dtype == state.nu.dtype == torch.bfloat16 and direction.dtype == torch.float32


def test_every_number_may_be_a_tensor():
    def number(value):
        return torch.tensor(value, dtype=torch.float64)

    tensors = fo.adam(number(0.02), number(0.9), number(0.99), number(1e-8), number(1e-12), weight_decay=number(0.1))
    assert_trees_close(run(tensors, steps=5), run(fo.adam(0.02, 0.9, 0.99, 1e-8, 1e-12, weight_decay=0.1), steps=5))


def test_hears_its_rate():
    gradient = torch.ones(2)
    tx, told = fo.adam(None), fo.adam(0.5)
    heard, _ = tx.update(gradient, tx.init(gradient), gradient, signals={"base_lr": torch.tensor(0.5)})
    assert_trees_equal(heard, told.update(gradient, told.init(gradient), gradient)[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"b1": 1.0}, r"scale_by_adam: b1 must be in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"scale_by_adam: b2 must be in \[0, 1\), got -0.1"),
        ({"eps": -1e-8}, r"scale_by_adam: eps must be >= 0, got -1e-08"),
        ({"eps_root": -1.0}, r"scale_by_adam: eps_root must be >= 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.adam(0.1, **arguments)
