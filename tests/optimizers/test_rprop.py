"""Rprop against torch.optim, by hand, and the step that optax returns too late."""

import json
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, run, run_torch

RECORDED = Path(__file__).parents[1] / "golden" / "optax" / "rprop.json"


@pytest.mark.parametrize("etas, sizes", [((0.5, 1.2), (1e-6, 50.0)), ((0.3, 1.5), (0.01, 0.05))])
def test_follows_torch(etas, sizes):
    ours = run(fo.rprop(0.02, *etas, *sizes), steps=60)
    assert_trees_close(ours, run_torch(torch.optim.Rprop, lr=0.02, etas=etas, step_sizes=sizes, steps=60))


def step_by_step(gradients, **settings):
    tx = fo.rprop(1.0, **settings)
    state = tx.init(torch.zeros((), dtype=torch.float64))
    taken = []
    for gradient in gradients:
        updates, state = tx.update(torch.tensor(gradient, dtype=torch.float64), state)
        taken.append(updates.item())
    return taken


def test_by_hand():
    # Same sign: 1.2; flips: no step and half the size; whatever follows a missing step counts as no flip.
    assert step_by_step([5.0, 0.1, -3.0, -3.0, 0.0, -1.0]) == pytest.approx([-1.0, -1.2, 0.0, 0.6, 0.0, 0.6])


def test_steps_at_once_where_optax_first_returns_nothing():
    case = json.loads(RECORDED.read_text())["cases"][0]
    assert case["known_bug"]
    assert not any(case["updates"][0]["w"]["$a"]) and all(abs(u) == 0.1 for u in case["corrected"]["updates"][0]["w"]["$a"] if u)
    assert step_by_step([5.0])[0] == -1.0


def test_only_signs_count():
    tx = fo.rprop(0.1)
    state = other = tx.init(torch.zeros(2))
    for gradient in (torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 1.0])):
        small, state = tx.update(1e-3 * gradient, state)
        large, other = tx.update(1e3 * gradient, other)
        assert_trees_equal(small, large)


def test_sizes_keep_within_their_bounds():
    assert step_by_step([1.0] * 10, max_step_size=1.5)[-1] == -1.5
    assert step_by_step([1.0, -1.0, -1.0], min_step_size=0.8)[-1] == pytest.approx(0.8)


def test_hears_its_first_size():
    gradient = torch.tensor([1.0, -2.0])
    tx, told = fo.rprop(None), fo.rprop(0.5)
    state, other = tx.init(gradient), told.init(gradient)
    for _ in range(3):
        heard, state = tx.update(gradient, state, gradient, signals={"base_lr": torch.tensor(0.5)})
        expected, other = told.update(gradient, other, gradient)
        assert_trees_equal(heard, expected)


def test_differentiates_with_respect_to_the_first_size():
    gradient = torch.ones(1, dtype=torch.float64)

    def second(lr):
        tx = fo.rprop(lr)
        _, state = tx.update(gradient, tx.init(gradient))
        return tx.update(gradient, state)[0].sum()

    assert torch.func.grad(second)(torch.tensor(0.1, dtype=torch.float64)).item() == pytest.approx(-1.2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lr": 0.0}, "scale_by_rprop: lr must be > 0, got 0.0"),
        ({"lr": 0.1, "eta_minus": 1.0}, r"scale_by_rprop: eta_minus must be in \(0, 1\), got 1.0"),
        ({"lr": 0.1, "eta_plus": 1.0}, "scale_by_rprop: eta_plus must be > 1, got 1.0"),
        ({"lr": 0.1, "min_step_size": 2.0, "max_step_size": 1.0}, "min_step_size must be at most max_step_size, got 2.0 and 1.0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fo.rprop(**arguments)


def test_a_schedule_is_no_first_size():
    with pytest.raises(TypeError, match="lr is the first step size and must be a number"):
        fo.rprop(lambda count: 0.1)
