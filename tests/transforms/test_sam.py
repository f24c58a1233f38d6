"""SAM and ASAM: steps by hand, one call against two, and which of the two optimizers runs; optax's recordings replay in tests/parity."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, quartic, small_params


def in_two_calls(tx, params, steps):
    state = tx.init(params)
    for _ in range(2 * steps):
        updates, state = tx.update(torch.func.grad(quartic)(params), state, params)
        params = fo.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("adaptive", [False, True])
def test_in_one_call_and_in_two_it_is_the_same(adaptive):
    settings = {"rho": 0.1, "adaptive": adaptive}
    apart, _ = in_two_calls(fo.sam(fo.adam(0.05), **settings), small_params(), 6)
    step = fo.make_step(quartic, fo.sam(fo.adam(0.05), opaque_mode=True, **settings))
    params, state = step.init(small_params())
    for _ in range(6):
        params, state, _ = step(params, state)
    assert_trees_close(params, apart)


def test_the_worst_point_of_asam_by_hand():
    # T = |p| + eta = (2, 1), T g = (4, 3), so w = p + rho (2 * 4, 1 * 3) / 5.
    tx = fo.sam(fo.sgd(1.0), rho=0.5, adaptive=True, eta=1.0)
    params = torch.tensor([1.0, 0.0])
    updates, _ = tx.update(torch.tensor([2.0, 3.0]), tx.init(params), params)
    torch.testing.assert_close(updates, 0.5 * torch.tensor([8.0, 3.0]) / 5)


def test_asam_does_not_depend_on_how_a_layer_is_scaled():
    # f(a b) with a scaled by c and b by 1 / c: the relative ascent is the same.
    def ascent(c):
        params = {"a": torch.tensor([2.0 * c], dtype=torch.float64), "b": torch.tensor([3.0 / c], dtype=torch.float64)}
        grads = torch.func.grad(lambda p: (p["a"] * p["b"]).square().sum())(params)
        tx = fo.normalize_adaptively(eta=0.0)
        return fo.tree.div(tx.update(grads, tx.init(params), params)[0], params)

    assert_trees_close(ascent(1.0), ascent(10.0))


def test_a_period_of_one_is_the_optimizer_alone():
    tx, plain, params = fo.sam(fo.sgd(0.1, momentum=0.9), sync_period=1), fo.sgd(0.1, momentum=0.9), small_params()
    ours = theirs = params
    state, other = tx.init(params), plain.init(params)
    for _ in range(4):
        updates, state = tx.update(torch.func.grad(quartic)(ours), state, ours)
        ours = fo.apply_updates(ours, updates)
        updates, other = plain.update(torch.func.grad(quartic)(theirs), other, theirs)
        theirs = fo.apply_updates(theirs, updates)
    assert_trees_close(ours, theirs)


def test_one_of_the_two_runs_in_a_call_and_choosing_gives_the_same():
    calls = []

    def counting(tx, label):
        def update(updates, state, params=None, **extra):
            calls.append(label)
            return tx.update(updates, state, params, **extra)

        return fo.GradientTransformation(tx.init, update, name=label, turns=True)

    make = lambda **d: fo.sam(counting(fo.adam(0.05), "step"), counting(fo.sgd(0.1), "ascent"), **d)  # noqa: E731
    one, _ = in_two_calls(make(), small_params(), 2)
    assert calls == ["ascent", "step"] * 2
    both, _ = in_two_calls(make(dispatch="select"), small_params(), 2)
    assert_trees_close(one, both)


def test_the_params_to_evaluate_are_in_the_state():
    tx, params = fo.sam(fo.sgd(0.1), rho=0.5), torch.tensor([1.0])
    updates, state = tx.update(torch.tensor([1.0]), tx.init(params), params)
    assert updates.item() == 0.5 and fo.find(state, "cache").item() == 1.0


def test_a_compiled_step_has_a_graph_for_either_kind():
    step = fo.make_step(quartic, fo.sam(fo.sgd(0.1)))
    params, state = step.init({"w": torch.ones(2)})
    for _ in range(4):
        params, state, _ = step(params, state)
    assert set(step._steps) == {(False, None), (True, None)}


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="sam: sync_period must be >= 1, got 0"):
        fo.sam(fo.sgd(0.1), sync_period=0)
    with pytest.raises(ValueError, match="sam: rho must be >= 0, got -1"):
        fo.sam(fo.sgd(0.1), rho=-1)
    tx = fo.sam(fo.sgd(0.1), opaque_mode=True)
    with pytest.raises(ValueError, match=r"sam: needs the gradient as a function of the params .*; call update\(..., grad_fn=grad_fn\)"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)), torch.ones(1))
    with pytest.raises(ValueError, match="normalize_adaptively: needs the params"):
        fo.normalize_adaptively().update(torch.ones(1), fo.EmptyState())
