"""Line searches: trials by hand, every form, what is evaluated, and what is refused; optax's recordings replay in tests/parity."""

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_close, quartic, small_params

SEARCHES = {
    "backtracking": lambda **d: fo.scale_by_backtracking_linesearch(12, decrease_factor=0.5, store_grad=True, **d),
    "zoom": lambda **d: fo.scale_by_zoom_linesearch(12, curv_rtol=0.2, **d),
}
EITHER = pytest.mark.parametrize("name", SEARCHES)


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def square(p):
    return (p * p).sum()


class Counted:
    """A loss that counts how often it is asked."""

    def __init__(self, loss):
        self.loss, self.calls = loss, 0

    def __call__(self, p):
        self.calls += 1
        return self.loss(p)


def run(tx, params, steps, loss=quartic):
    state, found = tx.init(params), []
    for _ in range(steps):
        grads, value = torch.func.grad_and_value(loss)(params)
        updates, state = tx.update(grads, state, params, loss=value, grad=grads, value_fn=loss)
        params = fo.apply_updates(params, updates)
        found.append({word: x.clone() for word, x in fo.read_signals(state).items()})
    return params, found


def test_backtracking_by_hand():
    # From 2 along -4: 1 -> -2 (4 again), 1/2 -> 0. Next round: 1/2 * 3/2 = 3/4.
    tx = fo.chain(fo.sgd(1.0), fo.scale_by_backtracking_linesearch(5, decrease_factor=0.5))
    params, state = number([2.0]), None
    state = tx.init(params)
    updates, state = tx.update(2 * params, state, params, value_fn=square)
    assert updates.item() == -2 and fo.read_signals(state)["linesearch_steps"] == 2
    updates, state = tx.update(number([2.0]), state, number([1.0]), value_fn=square)
    assert updates.item() == -1.5 and fo.read_signals(state)["linesearch_rate"] == 0.75


def test_the_strong_wolfe_conditions_hold_where_the_search_says_so():
    torch.manual_seed(0)
    for _ in range(20):
        params, scale = torch.randn(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1

        def loss(p, scale=scale):
            return (scale * p**4 - p).sum() + torch.sin(3 * p).sum()

        tx = fo.chain(fo.sgd(1.0), fo.scale_by_zoom_linesearch(30, approx_dec_rtol=None, curv_rtol=0.3))
        g, f0 = torch.func.grad_and_value(loss)(params)
        updates, state = tx.update(g, tx.init(params), params, value_fn=loss)
        words = fo.read_signals(state)
        slopes, f1 = torch.func.grad_and_value(loss)(params + updates)
        rate = words["linesearch_rate"]
        if words["decrease_error"] == 0:
            assert f1 <= f0 - 1e-4 * rate * g @ g + 1e-12
        if words["curvature_error"] == 0:
            assert (slopes @ g).abs() <= 0.3 * g @ g + 1e-12
        torch.testing.assert_close(state[-1].value, f1)
        torch.testing.assert_close(state[-1].grad, slopes)


@EITHER
def test_all_trials_and_as_many_as_it_takes_find_the_same(name):
    few, many = (run(fo.chain(fo.sgd(2.0), SEARCHES[name](dispatch=how)), small_params(), 5) for how in ("auto", "select"))
    assert_trees_close(few, many, rtol=1e-12)


@EITHER
def test_lanes_search_each_for_itself(name):
    tx = fo.chain(fo.sgd(2.0), SEARCHES[name]())
    scales = number([0.1, 1.0, 30.0])

    def one(scale):
        def loss(p):
            return scale * (p**2 + 0.1 * p**4).sum()

        params = number([1.0, -2.0])
        return tx.update(torch.func.grad(loss)(params), tx.init(params), params, value_fn=loss)

    together, _ = vmap(one)(scales)
    assert_trees_close(together, torch.stack([one(scale)[0] for scale in scales]), rtol=1e-12)


def test_a_step_tells_the_search_its_loss_held_flat_and_in_parts():
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)

    def loss(p, x):
        return (p["a"] * x + p["b"] - x.sin()).square().mean()

    start = {"a": number([2.0]), "b": number([-1.0])}
    moved = {}
    for label, settings in {"plain": {}, "flat": {"flat": True}, "parts": {"accumulate": 4}}.items():
        step = fo.make_step(loss, fo.lbfgs(memory_size=3), **settings)
        held, state = step.init(start)
        for _ in range(4):
            held, state, _ = step(held, state, x)
        moved[label] = step.params(held)
    assert_trees_close(moved["flat"], moved["plain"])
    assert_trees_close(moved["parts"], moved["plain"])
    best = loss(moved["plain"], x)
    assert torch.func.grad(lambda p: loss(p, x))(moved["plain"])["a"].abs() < 1e-3 and best < 0.01


def test_nothing_is_evaluated_twice_after_the_first_step():
    counted = Counted(quartic)
    value_and_grad = fo.value_and_grad_from_state(counted)
    tx, params = fo.lbfgs(), small_params()
    state = tx.init(params)
    for step in range(4):
        before = counted.calls
        loss, grad = value_and_grad(params, state=state)
        assert counted.calls - before == (step == 0)
        updates, state = tx.update(grad, state, params, loss=loss, grad=grad, value_fn=counted)
        assert counted.calls - before == (step == 0) + int(fo.read_signals(state)["linesearch_steps"])
        params = fo.apply_updates(params, updates)


@EITHER
def test_where_nothing_is_finite_the_params_stay_and_the_next_search_is_whole(name):
    tx = fo.chain(fo.sgd(1.0), SEARCHES[name]())
    params = number([1.0])
    state = tx.init(params)
    updates, state = tx.update(2 * params, state, params, value_fn=lambda p: square(p) * torch.nan)
    assert updates.item() == 0 and fo.read_signals(state)["linesearch_rate"] == 0
    updates, state = tx.update(2 * params, state, params, value_fn=square)
    assert abs((params + updates).item()) < 0.1


@EITHER
def test_uphill_the_error_says_that_nothing_was_found(name):
    tx = fo.chain(fo.scale(1.0), SEARCHES[name]())
    params = number([1.0])
    _, state = tx.update(2 * params, tx.init(params), params, value_fn=square)
    assert fo.read_signals(state)["decrease_error"] > 0


def test_a_loss_is_told_the_extra_arguments_that_it_names_and_no_others():
    tx = fo.chain(fo.sgd(1.0), fo.scale_by_backtracking_linesearch(5))
    params = number([2.0])

    def loss(p, x, *, weight=1.0):
        return weight * ((p - x) ** 2).sum()

    updates, _ = tx.update(2 * params, tx.init(params), params, value_fn=loss, x=number(0.0), weight=number(2.0), epoch=3)
    assert loss(params + updates, 0.0) < loss(params, 0.0)


def test_the_rate_is_a_constant_to_derivatives():
    def after(scale):
        tx, params = fo.chain(fo.sgd(1.0), fo.scale_by_zoom_linesearch(5)), number([2.0])
        updates, _ = tx.update(scale * 2 * params, tx.init(params), params, value_fn=square)
        return updates.sum()

    slope, value = torch.func.grad_and_value(after)(number(1.0))
    torch.testing.assert_close(slope, value)


def test_says_what_is_wrong():
    for name, make in SEARCHES.items():
        tx = make()
        with pytest.raises(
            ValueError, match=r"scale_by_\w+: needs the loss as a function of the params; call update\(..., value_fn=value_fn\)"
        ):
            tx.update(torch.ones(1), tx.init(torch.ones(1)), torch.ones(1))
        with pytest.raises(ValueError, match="needs the params"):
            tx.update(torch.ones(1), tx.init(torch.ones(1)), value_fn=square)
        with pytest.raises(TypeError, match=f"scale_by_{name}.*: value_fn must give the loss, a real 0-dim tensor, got tuple; cut a pair"):
            tx.update(torch.ones(1), tx.init(torch.ones(1)), torch.ones(1), value_fn=lambda p: (square(p), 1), loss=0.0, grad=torch.ones(1))
    with pytest.raises(ValueError, match="max_linesearch_steps must be >= 1, got 0"):
        fo.scale_by_zoom_linesearch(0)
    with pytest.raises(ValueError, match="increase_factor must be > 1, got 1.0"):
        fo.scale_by_zoom_linesearch(3, increase_factor=1.0)
    with pytest.raises(ValueError, match=r"decrease_factor must be in \[0, 1\), got 1.5"):
        fo.scale_by_backtracking_linesearch(3, decrease_factor=1.5)
    without = fo.chain(fo.sgd(1.0), fo.scale_by_backtracking_linesearch(3))
    with pytest.raises(ValueError, match="keeps no gradient; make it with store_grad=True"):
        fo.value_and_grad_from_state(square)(torch.ones(1), state=without.init(torch.ones(1)))
    with pytest.raises(KeyError, match="must hold one line search, got none"):
        fo.value_and_grad_from_state(square)(torch.ones(1), state=fo.sgd(1.0).init(torch.ones(1)))
