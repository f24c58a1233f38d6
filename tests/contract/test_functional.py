"""Every row of the zoo under torch.func: vmapped lanes equal single runs, and derivatives are finite from the first step."""

import inspect
from operator import attrgetter

import pytest
import torch
from torch.func import grad, vmap

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, quartic, small_params
from tests.zoo import ROWS, every

LANES, STEPS = 3, 3


def stacked(trees):
    return fo.tree.map(lambda *leaves: torch.stack(leaves), *trees)


def lane(tree, index):
    return fo.tree.map(lambda x: x[index], tree)


@every()
def test_vmapped_lanes_equal_single_runs(row):
    tx = row.make()
    alone = [small_params(shift=0.1 * index) for index in range(LANES)]
    together = stacked(alone)

    def advance(params, state, scale, step):
        return tx.update(fo.tree.scale(scale, gradients_at(step, params)), state, params, **row.extra(step))

    scales = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    if "vmap" in row.cannot:
        with pytest.raises(Exception, match=row.cannot["vmap"]):
            state = vmap(tx.init)(together)
            vmap(lambda params, state, scale: advance(params, state, scale, 0))(together, state, scales)
        return
    state, states = vmap(tx.init)(together), [tx.init(params) for params in alone]
    for step in range(STEPS):
        updates, state = vmap(lambda params, state, scale, step=step: advance(params, state, scale, step))(together, state, scales)
        together = fo.apply_updates(together, updates)
        for index in range(LANES):
            single, states[index] = advance(alone[index], states[index], scales[index], step)
            alone[index] = fo.apply_updates(alone[index], single)
            assert_trees_close(lane(updates, index), single)
    for index in range(LANES):
        assert_trees_close(lane(state, index), states[index])


@every()
def test_derivatives_through_two_updates_are_finite_from_the_first(row):
    tx = row.make()
    start = small_params()

    def after(scale, params):
        state = tx.init(params)
        for step in range(2):
            updates, state = tx.update(fo.tree.scale(scale, gradients_at(step, params)), state, params, **row.extra(step))
            params = fo.apply_updates(params, updates)
        return quartic(params)

    scale = torch.tensor(1.0, dtype=torch.float64)
    if "hypergradient" in row.cannot:
        with pytest.raises(Exception, match=row.cannot["hypergradient"]):
            grad(after, argnums=(0, 1))(scale, start)
        return
    for derivative in fo.tree.leaves(grad(after, argnums=(0, 1))(scale, start)):
        assert torch.isfinite(derivative).all()


def takes_a_rate(row) -> bool:
    parameters = list(inspect.signature(attrgetter(row.name)(fo)).parameters)
    return (
        bool(parameters) and parameters[0] == "lr" and row.descends and "on_a_" not in inspect.getsource(row.make)
    )  # told more than a gradient


# What says that it cannot be differentiated through is held to that above.
RATED = sorted({row.name for row in ROWS if takes_a_rate(row)} - {row.name for row in ROWS if "hypergradient" in row.cannot})


@pytest.mark.parametrize("name", RATED)
def test_the_derivative_with_respect_to_the_rate_equals_finite_differences(name):
    def after(lr):
        tx, params = attrgetter(name)(fo)(lr), small_params()
        state = tx.init(params)
        for _ in range(2):
            gradients, loss = torch.func.grad_and_value(quartic)(params)
            updates, state = tx.update(gradients, state, params, loss=loss)
            params = fo.apply_updates(params, updates)
        return quartic(params)

    lr, h = torch.tensor(0.01, dtype=torch.float64), 1e-5
    slope = grad(after)(lr)
    difference = (after(lr + h) - after(lr - h)) / (2 * h)
    torch.testing.assert_close(slope, difference, rtol=2e-3, atol=1e-4)
