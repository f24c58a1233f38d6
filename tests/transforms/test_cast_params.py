"""cast_params: bfloat16 params that walk with float32 ones on the average, land on bfloat16 numbers, and do so in every form."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

HALF = torch.bfloat16


@given(st.lists(st.tuples(st.floats(-2, 2, width=16), st.floats(-1, 1, width=32)), min_size=1, max_size=20), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_step_lands_on_one_of_the_two_neighbours_of_the_exact_one(pairs, key):
    params = torch.tensor([p for p, _ in pairs]).to(HALF)
    tx = fo.cast_params(fo.scale(1.0), key=key)
    step = torch.tensor([u for _, u in pairs])
    updates, _ = tx.update(step, tx.init(params), params)
    moved = fo.apply_updates(params, updates).double()
    exact = params.double() + step.double()
    assert ((moved - exact).abs() <= 2.0**-7 * exact.abs() + 2.0**-23).all()


def test_small_steps_add_up_where_rounding_to_the_nearest_stands_still():
    start = torch.ones(2000, dtype=HALF)
    grad = torch.full_like(start, -1.0)
    fates = {}
    for name, tx in {"chance": fo.cast_params(fo.sgd(2.0**-12), key=1), "nearest": fo.sgd(2.0**-12)}.items():
        params, state = start, tx.init(start)
        for _ in range(64):
            updates, state = tx.update(grad, state, params)
            params = fo.apply_updates(params, updates)
        fates[name] = params
    assert (fates["nearest"] == 1).all()
    assert fates["chance"].float().mean().item() == pytest.approx(1 + 64 * 2.0**-12, abs=1e-3)  # standard error 0.00025


def test_the_state_is_that_of_float32_and_the_step_is_worked_out_there():
    params = {"w": torch.tensor([1.0, -2.0], dtype=HALF), "n": torch.tensor([0.5])}
    tx, plain = fo.cast_params(fo.adamw(0.01), key=0), fo.adamw(0.01)
    updates, state = tx.update(params, tx.init(params), params)
    wide = fo.tree.cast(params, torch.float32)
    exact, inner = plain.update(wide, plain.init(wide), wide)
    assert {x.dtype for x in fo.tree.leaves(fo.find(state, "mu"))} == {torch.float32}
    torch.testing.assert_close(fo.find(state, "nu"), fo.find(inner, "nu"))
    torch.testing.assert_close(updates["n"], exact["n"], rtol=0, atol=0)


@pytest.mark.parametrize("held", [{}, {"flat": True}])
def test_the_torch_optimizer_rounds_by_chance_and_lets_the_step_be_small(held):
    weight = torch.nn.Parameter(torch.ones(4000, dtype=HALF))
    opt = fo.torch_optim.Optimizer([weight], fo.cast_params(fo.compress_state(fo.sgd(2.0**-12, momentum=0.5), "bf16+8"), key=0), **held)
    for _ in range(32):
        weight.grad = torch.full_like(weight, -1.0)
        opt.step()
    assert weight.dtype == HALF
    assert weight.float().mean().item() == pytest.approx(1 + (64 - 2) * 2.0**-12, abs=1.5e-3)


def test_a_rate_of_the_loop_is_heard_and_none_multiplies_a_rounded_step():
    weight = torch.nn.Parameter(torch.ones(2000, dtype=HALF))
    opt = fo.torch_optim.Optimizer([weight], fo.cast_params(fo.sgd(None), key=0), lr=1.0)
    torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 2.0**-10)
    for _ in range(16):
        weight.grad = torch.full_like(weight, -1.0)
        opt.step()
    assert weight.float().mean().item() == pytest.approx(1 + 16 * 2.0**-10, abs=2e-3)
    own = fo.torch_optim.Optimizer([weight], fo.cast_params(fo.sgd(1.0), key=0))
    own.param_groups[0]["lr"] = 0.1
    other = torch.nn.Parameter(torch.ones(3, dtype=HALF))
    two = fo.torch_optim.Optimizer([{"params": [weight]}, {"params": [other], "lr": 0.2}], fo.cast_params(fo.sgd(None), key=0), lr=0.1)
    other.grad = torch.ones_like(other)
    for refused in (own, two):
        with pytest.raises(ValueError, match="cast_params chain rounds whole steps, which the rates of groups must not multiply"):
            refused.step()


def test_a_step_made_of_it_is_the_loop():
    params = {"w": torch.linspace(-1, 1, 6).to(HALF)}
    tx = fo.cast_params(fo.compress_state(fo.adamw(0.1), "bf16", key=1), key=0)

    def loss(params):
        return params["w"].float().square().sum()

    step = fo.make_step(loss, tx, flat=True)
    held, state = step.init(params)
    plain, plain_state = params, tx.init(params)
    for _ in range(3):
        held, state, _ = step(held, state)
        grads = torch.func.grad(loss)(plain)
        updates, plain_state = tx.update(grads, plain_state, plain)
        plain = fo.apply_updates(plain, updates)
    assert torch.equal(step.params(held)["w"], plain["w"]) and held.vectors["bfloat16 cpu"].dtype == HALF


def test_says_what_is_wrong():
    tx = fo.cast_params(fo.sgd(0.1))
    with pytest.raises(ValueError, match="cast_params: needs the params"):
        tx.update(torch.ones(2), tx.init(torch.ones(2)))
    with pytest.raises(TypeError, match="cast_params: seed must be an int"):
        fo.cast_params(fo.sgd(0.1), key=0.5)
