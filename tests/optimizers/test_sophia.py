"""Sophia and Hutchinson's estimate: steps by hand, what is estimated when, and that the estimate is right on the average."""

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_close


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def test_the_first_step_is_of_the_length_of_the_bound_and_the_second_by_hand():
    # b1 = b2 = 1/2, gamma = 1: h = 0, then h = 2. Second: mu / (1 - 1/4) = (1/4 + 3/2) / (3/4) = 7/3 over 2, cut at 1.
    tx = fo.scale_by_sophia(0.5, 0.5, gamma=1.0, clip_threshold=None, update_interval=1, hessian_diagonal_fn="told")
    cut = fo.scale_by_sophia(0.5, 0.5, gamma=1.0, update_interval=1, hessian_diagonal_fn="told")
    params = number([0.0])
    state, other = tx.init(params), cut.init(params)
    _, state = tx.update(number([1.0]), state, params, hessian=number([4.0]))
    first, other = cut.update(number([1.0]), other, params, hessian=number([4.0]))
    assert first.item() == 1 and fo.read_signals(other)["win_rate"] == 0
    whole, _ = tx.update(number([3.0]), state, params, hessian=number([4.0]))
    second, _ = cut.update(number([3.0]), other, params, hessian=number([4.0]))
    torch.testing.assert_close(whole, number([7 / 6]))
    assert second.item() == 1


def test_estimates_in_every_kth_call_alone_and_choosing_gives_the_same():
    calls = []

    def obj_fn(p):
        calls.append(1)
        return (p**3).sum()

    moved = {}
    for how in ("auto", "select"):
        tx, params = fo.sophia(0.1, update_interval=3, key=0, dispatch=how), number([1.0, 2.0])
        state = tx.init(params)
        calls.clear()
        for _ in range(7):
            updates, state = tx.update(3 * params**2, state, params, obj_fn=obj_fn)
            params = fo.apply_updates(params, updates)
        moved[how] = params, len(calls)
    assert_trees_close(moved["auto"][0], moved["select"][0])
    assert moved["auto"][1] == 3 and moved["select"][1] == 7


def test_the_estimate_is_the_diagonal_on_the_average_and_in_every_draw_of_a_diagonal_one():
    torch.manual_seed(0)
    A = torch.randn(4, 4, dtype=torch.float64)
    A = A + A.mT + 6 * torch.eye(4, dtype=torch.float64)

    def estimate(key, matrix):
        tx, params = fo.hutchinson_estimator_diag_hessian(key), torch.ones(4, dtype=torch.float64)
        return tx.update(params, tx.init(params), params, obj_fn=lambda p: 0.5 * p @ matrix @ p)[0]

    found = vmap(lambda key: estimate(key, A))(torch.arange(2000)).mean(0)
    assert ((found - A.diagonal()).abs() < 0.05 * A.diagonal().abs().max()).all()
    torch.testing.assert_close(estimate(3, torch.diag(A.diagonal())), A.diagonal())


def test_each_estimate_has_signs_of_its_own_and_the_same_for_any_cut_of_the_tree():
    A = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    tx, params = fo.hutchinson_estimator_diag_hessian(5), torch.ones(2, dtype=torch.float64)
    state, found = tx.init(params), []
    for _ in range(20):
        estimate, state = tx.update(params, state, params, obj_fn=lambda p: 0.5 * p @ A @ p)
        found.append(estimate)
    assert {tuple(x.tolist()) for x in found} == {(1.0, 1.0), (3.0, 3.0)}
    parts = {"a": params[:1], "b": params[1:]}
    apart, _ = tx.update(parts, tx.init(parts), parts, obj_fn=lambda p: 0.5 * torch.cat([p["a"], p["b"]]) @ A @ torch.cat([p["a"], p["b"]]))
    torch.testing.assert_close(torch.cat([apart["a"], apart["b"]]), found[0])


def test_an_estimator_of_ones_own_is_told_what_it_needs():
    def update(updates, state, params=None, *, curvature, **extra):
        return fo.tree.full_like(updates, curvature), state

    mine = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="mine", needs={"curvature": "always"})
    tx = fo.scale_by_sophia(hessian_diagonal_fn=mine)
    assert tx.needs == {"curvature": "always"}
    params = torch.ones(2)
    _, state = tx.update(params, tx.init(params), params, curvature=100.0)
    torch.testing.assert_close(state.nu, torch.ones(2))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_sophia: update_interval must be >= 1, got 0"):
        fo.sophia(0.1, update_interval=0)
    with pytest.raises(ValueError, match="hessian_diagonal_fn must be one of 'hutchinson', 'told', got 'exact'"):
        fo.sophia(0.1, hessian_diagonal_fn="exact")
    tx = fo.sophia(0.1, key=0)
    with pytest.raises(
        ValueError,
        match=r"hutchinson_estimator_diag_hessian: needs the loss as a function of the params; call update\(..., obj_fn=obj_fn\)",
    ):
        tx.update(torch.ones(2), tx.init(torch.ones(2)), torch.ones(2))
    told = fo.sophia(0.1, hessian_diagonal_fn="told")
    with pytest.raises(ValueError, match="scale_by_sophia: needs the diagonal of the Hessian"):
        told.update(torch.ones(2), told.init(torch.ones(2)), torch.ones(2))
