"""Every row of the zoo on gradients that overflow, vanish or are none: one answer in every form, finite where torch's is."""

import math

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, spiked, tiny_params
from tests.zoo import ROWS, every

OF_ANY_DTYPE = every([row for row in ROWS if "dtype" not in row.cannot])
LARGEST = torch.finfo(torch.float32).max
SPIKES = [1e20, 1e30, LARGEST, -1e20, math.inf, math.nan, 1e-30, 1e-40]
STEPS = 4  # the spike is in the second


def narrow_params():
    return fo.tree.cast(tiny_params(), torch.float32)


def gradients(step, params, spike):
    return spiked(gradients_at(step, params), spike if step == 1 else 0.3 * step)


def alone(row, spike):
    """Every update, at fixed params: with those of an infinite step nothing could be compared."""
    tx, params, seen = row.make(), narrow_params(), []
    state = tx.init(params)
    for step in range(STEPS):
        updates, state = tx.update(gradients(step, params, spike), state, params, **row.extra(step))
        seen.append(updates)
    return seen


@every()
def test_eager_and_vmapped_and_flat_agree_in_what_overflows_and_a_huge_finite_gradient_makes_nothing_nan(row):
    params = narrow_params()
    one_by_one = [alone(row, spike) for spike in SPIKES]
    for spike, history in zip(SPIKES, one_by_one, strict=True):
        for step, updates in enumerate(history if spike in (1e20, 1e30) else []):
            for path, u in zip(fo.tree.paths(updates), fo.tree.leaves(updates), strict=True):
                assert u.isfinite().all(), f"{spike}, step {step}, '{path}': {u}"
    if "vmap" not in row.cannot:
        tx = row.make()
        lanes = fo.tree.map(lambda p: p.expand(len(SPIKES), *p.shape).clone(), params)
        state = torch.func.vmap(tx.init)(lanes)
        for step in range(STEPS):
            together = [gradients(step, params, spike) for spike in SPIKES]
            given = fo.tree.map(lambda *leaves: torch.stack(leaves), *together)
            updates, state = torch.func.vmap(lambda g, s, p, step=step: tx.update(g, s, p, **row.extra(step)))(given, state, lanes)
            for index, spike in enumerate(SPIKES):
                lane = fo.tree.map(lambda x, index=index: x[index], updates)
                assert_trees_close({spike: lane}, {spike: one_by_one[index][step]}, rtol=1e-4, atol=1e-6)
    if row.make().flattenable:
        layout = fo.Layout(params)
        for spike, expected in zip(SPIKES, one_by_one, strict=True):
            tx, held = row.make(), layout.ravel(params)
            state = tx.init(held)
            for step in range(STEPS):
                updates, state = tx.update(layout.ravel(gradients(step, params, spike)), state, held, **row.extra(step))
                assert_trees_close({spike: layout.unravel(updates)}, {spike: expected[step]}, rtol=1e-4, atol=1e-6)


def alternating(params):
    return fo.tree.map_plain(lambda p: 1 - 2 * (torch.arange(p.numel(), dtype=p.dtype).reshape(p.shape) % 2), params)


@every()
@pytest.mark.parametrize("spike", [1e155, 1e300])
def test_nor_do_two_of_both_signs_in_float64(row, spike):
    """Their products overflow to both sides, and a sum of such is NaN."""
    tx, params = row.make(), tiny_params()
    state = tx.init(params)
    for step in range(STEPS):
        signs = {1: 1.0, 2: -1.0}
        g = fo.tree.scale(spike * signs[step], alternating(params)) if step in signs else gradients_at(step, params)
        updates, state = tx.update(g, state, params, **row.extra(step))
        assert fo.tree.all_finite(updates), f"step {step}: {updates}"


def test_yogi_goes_on_from_two_huge_gradients_and_moves_as_far_as_they_say():
    tx, params = fo.scale_by_yogi(b1=0.0, eps=0.0, initial_accumulator_value=0.0), torch.zeros(2)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(torch.tensor([1e20, 3e38]), state)
    torch.testing.assert_close(state.nu, torch.tensor([2e37, math.inf]))  # of 3e38 no float32 holds a thousandth of the square
    assert tx.update(torch.ones(2), state)[0].isfinite().all()


LIKE_TORCH = {
    "adam": (lambda: fo.adam(0.1), torch.optim.Adam, {}),
    "adamw": (lambda: fo.adamw(0.1, weight_decay=0.01), torch.optim.AdamW, {"weight_decay": 0.01}),
    "amsgrad": (lambda: fo.amsgrad(0.1, correct_before_max=False), torch.optim.Adam, {"amsgrad": True}),
    "rmsprop": (lambda: fo.rmsprop(0.1, 0.99, eps_in_sqrt=False), torch.optim.RMSprop, {}),
    "rmsprop-centered": (lambda: fo.rmsprop(0.1, 0.99, eps_in_sqrt=False, centered=True), torch.optim.RMSprop, {"centered": True}),
    "nadam": (lambda: fo.nadam(0.1, momentum_decay=4e-3), torch.optim.NAdam, {}),
    "radam": (lambda: fo.radam(0.1, correct_eps=True), torch.optim.RAdam, {}),
    "adadelta": (lambda: fo.adadelta(0.1, 0.9, 1e-6), torch.optim.Adadelta, {}),
    "adagrad": (lambda: fo.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False), torch.optim.Adagrad, {}),
    "adamax": (lambda: fo.adamax(0.1), torch.optim.Adamax, {}),
    "sgd": (lambda: fo.sgd(0.1, momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
}


@pytest.mark.parametrize("spike", [*SPIKES, 5e20, 0.0])
@pytest.mark.parametrize("name", LIKE_TORCH)
def test_what_a_spike_does_is_what_it_does_in_torch(name, spike):
    make, kind, settings = LIKE_TORCH[name]
    params, theirs = torch.tensor([1.0, 2.0, 3.0]), torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    tx, optimizer = make(), kind([theirs], lr=0.1, **settings)
    state = tx.init(params)
    for step in range(8):  # radam trusts its variance from the sixth on
        theirs.grad = torch.tensor([0.3, spike if step == 1 else -0.2, 0.1 * step])
        optimizer.step()
        updates, state = tx.update(theirs.grad.clone(), state, params)
        params = fo.apply_updates(params, updates)
        torch.testing.assert_close(params, theirs.detach(), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_step_of_adam_after_a_huge_gradient_by_hand():
    # nu = 0.001 * 1e40 = 1e37 is a float32, though 1e40 is none.
    tx = fo.scale_by_adam(eps=0.0)
    _, state = tx.update(torch.tensor([1e20]), tx.init(torch.zeros(1)))
    direction, _ = tx.update(torch.tensor([0.0]), state)
    torch.testing.assert_close(direction, torch.tensor([(0.09 / (1 - 0.81)) / math.sqrt(0.000999 / (1 - 0.999**2))]))


def test_inductor_agrees_with_eager_in_what_overflows():
    torch._dynamo.reset()
    tx = {"adam": fo.adam(0.1), "clip": fo.clip_by_global_norm(1.0)}
    params = torch.ones(3)

    def update(g, states):
        found = {name: one.update(g, states[name], params) for name, one in tx.items()}
        return {name: u for name, (u, _) in found.items()}, {name: s for name, (_, s) in found.items()}

    graph = torch.compile(update, fullgraph=True, dynamic=False)
    for spike in SPIKES:
        plain = mine = {name: one.init(params) for name, one in tx.items()}
        for step in range(STEPS):
            g = gradients(step, params, spike)
            expected, plain = update(g, plain)
            updates, mine = graph(g, mine)
            assert_trees_close({spike: updates}, {spike: expected}, rtol=1e-4, atol=1e-6)


def in_dtype(row, params, spike, dtype):
    """Updates for gradients that are the same numbers in every dtype: a spike, zeros, a spike, zeros."""
    tx, seen = row.make(), []
    narrow = next(iter(params.values())).dtype
    params = fo.tree.cast(params, dtype)
    state = tx.init(params)
    for step in range(STEPS):
        g = fo.tree.cast(spiked(gradients_at(step, params), 0.0 if step % 2 else spike), narrow)
        updates, state = tx.update(fo.tree.cast(g, dtype), state, params, **row.extra(step))
        seen.append(updates)
    return seen, state


@OF_ANY_DTYPE
def test_float16_is_float32_rounded(row):
    params = fo.tree.cast(tiny_params(), torch.float16)
    for spike in (0.0, 6e-8, 300.0, 6e4):
        (wide, kept), (narrow, also) = (in_dtype(row, params, spike, dtype) for dtype in (torch.float32, torch.float16))
        assert {x.dtype for x in fo.tree.leaves(narrow)} == {torch.float16}
        assert_trees_close({spike: narrow}, {spike: fo.tree.cast(wide, torch.float16)}, rtol=2e-3, atol=1e-7)
        assert [x.dtype for x in fo.tree.leaves(also)] == [x.dtype for x in fo.tree.leaves(kept)]


@OF_ANY_DTYPE
def test_bfloat16_is_finite_where_float32_is(row):
    params = fo.tree.cast(tiny_params(), torch.bfloat16)
    for spike in (0.0, 1e-30, 1e20):
        wide, narrow = (in_dtype(row, params, spike, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
        for x, y in zip(fo.tree.leaves(narrow), fo.tree.leaves(wide), strict=True):
            assert torch.equal(x.isfinite(), y.isfinite())


@pytest.mark.parametrize("flat", [False, True])
def test_float16_params_that_get_no_gradient_stand_still(flat):
    step = fo.make_step(lambda p: 0 * p["w"].sum(), fo.adam(0.1), flat=flat)
    held, state = step.init({"w": torch.ones(3, dtype=torch.float16)})
    for _ in range(2):
        held, state, _ = step(held, state)
    assert step.params(held)["w"].tolist() == [1, 1, 1]
    traced = torch.compile(lambda g, s, p: fo.adam(0.1).update(g, s, p), backend="aot_eager", fullgraph=True)
    params = step.params(held)
    updates, state = traced(fo.tree.zeros_like(params), fo.adam(0.1).init(params), params)
    assert updates["w"].dtype == torch.float16 and updates["w"].tolist() == [0, 0, 0] and fo.find(state, "nu")["w"].dtype == torch.float32
