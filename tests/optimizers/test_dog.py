"""DoG, layer-wise DoG and DoWG by hand, and that they find their rate."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, quartic, small_params


def test_two_steps_by_hand():
    # d = 1/2, gradients (3, 4) twice: G = 25, then 50; the first step is 1/2 long, so d stays.
    dog = fo.dog(init_step=("distance", 0.5), eps=1e-30)
    params = torch.zeros(2, dtype=torch.float64)
    state, gradient = dog.init(params), torch.tensor([3.0, 4.0], dtype=torch.float64)
    first, state = dog.update(gradient, state, params)
    torch.testing.assert_close(first, -gradient / 10)
    second, state = dog.update(gradient, state, 4 * first)  # come as far as 2
    torch.testing.assert_close(second, -2 * gradient / 50**0.5)


def test_the_first_step_may_be_said_in_three_ways():
    params = small_params()
    gradients = gradients_at(0, params)
    size, length = fo.tree.norm(params), fo.tree.norm(gradients)
    steps = []
    for first in (("heuristic", 0.1), ("distance", 0.1 * (1 + size)), ("learning_rate", 0.1 * (1 + size) / length)):
        tx = fo.scale_by_dog(first, eps=1e-30)
        steps.append(tx.update(gradients, tx.init(params), params)[0])
    assert_trees_close(steps[1], steps[0])
    assert_trees_close(steps[2], steps[0])


def test_dowg_by_hand():
    # d2 = 1/4, |g|^2 = 25: G = 25/4, u = 1/4 / (5/2) g.
    dowg = fo.scale_by_dowg(0.25, eps=1e-30)
    params = torch.zeros(2, dtype=torch.float64)
    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64)
    first, state = dowg.update(gradient, dowg.init(params), params)
    torch.testing.assert_close(first, gradient / 10)
    second, _ = dowg.update(gradient, state, params + 1)  # squared distance 2
    torch.testing.assert_close(second, 2 / (25 / 4 + 2 * 25) ** 0.5 * gradient)


def test_layer_wise_is_dog_on_every_leaf_alone():
    params = small_params()
    layers = fo.scale_by_distance_over_gradients(0.1, param_dtype=None)
    state, alone = layers.init(params), [fo.scale_by_dog(("heuristic", 0.1)) for _ in fo.tree.leaves(params)]
    states = [tx.init(p) for tx, p in zip(alone, fo.tree.leaves(params), strict=True)]
    for step in range(3):
        gradients = gradients_at(step, params)
        direction, state = layers.update(gradients, state, params)
        for index, (g, p, ours) in enumerate(zip(*map(fo.tree.leaves, (gradients, params, direction)), strict=True)):
            expected, states[index] = alone[index].update(g, states[index], p)
            torch.testing.assert_close(ours, expected)
        params = fo.tree.add_scale(params, -1.0, direction)


@pytest.mark.parametrize("tx", [fo.dog(), fo.dowg()], ids=["dog", "dowg"])
def test_finds_its_rate(tx):
    params = small_params()
    state = tx.init(params)
    for _ in range(300):
        updates, state = tx.update(torch.func.grad(quartic)(params), state, params)
        params = fo.apply_updates(params, updates)
    assert quartic(params) < 0.3 * quartic(small_params())


def test_says_what_is_wrong():
    with pytest.raises(
        ValueError, match=r"scale_by_dog: init_step\[0\] must be one of 'distance', 'learning_rate', 'heuristic', got 'guess'"
    ):
        fo.dog(init_step=("guess", 1.0))
    with pytest.raises(ValueError, match="scale_by_dowg: eps must be > 0, got -1.0"):
        fo.dowg(init_estim_sq_dist=1.0, eps=-1.0)
    tx = fo.dog()
    with pytest.raises(ValueError, match="scale_by_dog: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
