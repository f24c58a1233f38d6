"""Every row of the zoo: states keep their dtypes, and a narrow gradient moves params as the same numbers in their dtype do."""

import inspect

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, small_params, tiny_params
from tests.zoo import every

HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64
STEPS = 2

# Each transformation with every argument that says in which dtype something is kept.
KEPT = {
    "adam": lambda dtype: fo.adam(0.1, mu_dtype=dtype),
    "adam-nesterov": lambda dtype: fo.adamw(0.1, mu_dtype=dtype, nesterov=True),
    "ademamix": lambda dtype: fo.ademamix(0.1, mu_dtype=dtype),
    "adopt": lambda dtype: fo.adopt(0.1, mu_dtype=dtype),
    "amsgrad": lambda dtype: fo.amsgrad(0.1, mu_dtype=dtype),
    "lion": lambda dtype: fo.lion(0.1, mu_dtype=dtype),
    "muon": lambda dtype: fo.muon(0.1, mu_dtype=dtype),
    "nadam": lambda dtype: fo.nadam(0.1, mu_dtype=dtype),
    "novograd": lambda dtype: fo.chain(fo.scale_by_novograd(mu_dtype=dtype), fo.lr_scale(0.1)),
    "optimistic_adam_v2": lambda dtype: fo.optimistic_adam_v2(0.1, mu_dtype=dtype),
    "sgd": lambda dtype: fo.sgd(0.1, momentum=0.9, nesterov=True, accumulator_dtype=dtype),
    "ema": lambda dtype: fo.ema(0.9, accumulator_dtype=dtype),
    "multi_steps": lambda dtype: fo.multi_steps(fo.sgd(0.1), 2, accumulator_dtype=dtype),
    "average_params": lambda dtype: fo.average_params(fo.sgd(0.1), average_dtype=dtype),
    "schedule_free": lambda dtype: fo.schedule_free_sgd(0.1, state_dtype=dtype),
    "adafactor": lambda dtype: fo.adafactor(0.1, momentum=0.9, dtype_momentum=dtype),
    "scale_by_distance_over_gradients": lambda dtype: fo.scale_by_distance_over_gradients(param_dtype=dtype),
    "pilot": lambda dtype: fo.pilot(0.1, mu_dtype=dtype, nu_dtype=dtype, last_grad_dtype=dtype),
    "inject_hyperparams": lambda dtype: fo.inject_hyperparams(fo.sgd, hyperparam_dtype=dtype)(0.1),
}


def described(values):
    return [(path, tuple(x.shape), x.dtype) for path, x in zip(fo.tree.paths(values), fo.tree.leaves(values), strict=True)]


def keeps_its_form(tx, params, given, extra=lambda step: {}):
    """Steps, with gradients in another dtype; the updates come in the wider of the two."""
    first = state = tx.init(params)
    for step in range(STEPS):
        updates, state = tx.update(fo.tree.cast(gradients_at(step, params), given), state, params, **extra(step))
        assert described(state) == described(first)
        params = fo.apply_updates(params, updates)
    return updates


@every()
def test_a_state_keeps_dtypes_and_shapes_under_gradients_of_another_dtype(row):
    for kept, given in ((SINGLE, DOUBLE), (BRAIN, SINGLE)):
        updates = keeps_its_form(row.make(), small_params(kept), given, row.extra)
        if "dtype" not in row.cannot:
            assert {x.dtype for x in fo.tree.leaves(updates)} == {torch.promote_types(kept, given)}


@every()
def test_a_gradient_in_half_precision_moves_params_in_single_as_the_same_numbers_do(row):
    params, tx = small_params(SINGLE), row.make()
    here = there = tx.init(params)
    for step in range(STEPS):
        narrow = fo.tree.cast(gradients_at(step, params, 1e-4), HALF)
        ours, here = tx.update(narrow, here, params, **row.extra(step))
        theirs, there = tx.update(fo.tree.cast(narrow, SINGLE), there, params, **row.extra(step))
        assert_trees_equal(ours, theirs)
        assert_trees_equal(here, there)
    assert described(here) == described(tx.init(params))


@pytest.mark.parametrize("dtype", [HALF, BRAIN, SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_in_a_dtype_of_its_own_stays_in_it_in_leaves_without_dimensions_too(name, dtype):
    for own in (SINGLE, BRAIN):
        keeps_its_form(KEPT[name](dtype), tiny_params_in(own), own)


def tiny_params_in(dtype):
    return fo.tree.cast(tiny_params(), dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.bool, torch.complex64, "float32", float], ids=str)
@pytest.mark.parametrize("name", KEPT)
def test_a_dtype_that_cannot_hold_a_state_is_refused_where_it_is_said(name, dtype):
    with pytest.raises(TypeError, match=r"\w+: \w*dtype\w* must be None or one of torch.float16, .*, got "):
        KEPT[name](dtype)


def test_every_argument_that_names_a_dtype_refuses_integers():
    said = {}
    for name, thing in vars(fo).items():
        if inspect.isfunction(thing):
            said |= {(name, argument): thing for argument in inspect.signature(thing).parameters if "dtype" in argument}
    assert len(said) > 20
    for (_, argument), factory in said.items():
        needed = {
            p.name: NEEDED[p.name] for p in inspect.signature(factory).parameters.values() if p.default is p.empty and p.name in NEEDED
        }
        with pytest.raises(TypeError, match=f"{argument} must be None or one of"):
            factory(**needed, **{argument: torch.int64})


NEEDED = {
    "lr": 0.1,
    "tx": fo.sgd(0.1),
    "decay": 0.9,
    "inner": fo.sgd(0.1),
    "every_k_schedule": 2,
    "base_optimizer": fo.sgd(0.1),
    "factory": fo.sgd,
}


def test_squares_are_taken_in_the_wider_dtype_without_params_too():
    # 1e-4 squared is 0 in float16: the direction would be 1e-4 / eps = 1e4 in place of 1.
    adam = fo.scale_by_adam()
    direction, state = adam.update(torch.tensor([1e-4], dtype=HALF), adam.init(torch.zeros(1)))
    torch.testing.assert_close(direction, torch.ones(1, dtype=HALF), rtol=1e-3, atol=0)
    torch.testing.assert_close(state.nu, torch.tensor([1e-11]), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    "make",
    [fo.scale_by_rss, fo.scale_by_yogi, fo.scale_by_sm3, fo.scale_by_rms, fo.scale_by_adamax, fo.scale_by_factored_rms],
    ids=lambda f: f.__name__,
)
def test_what_is_kept_of_narrow_gradients_is_what_is_kept_of_the_same_numbers(make):
    tx, narrow = make(), torch.tensor([1e-4, -3e-5], dtype=HALF)
    _, ours = tx.update(narrow, tx.init(torch.zeros(2)))
    _, theirs = tx.update(narrow.float(), tx.init(torch.zeros(2)))
    assert_trees_close(ours, theirs, rtol=1e-3)


def test_a_first_step_of_adam_on_a_tiny_float16_gradient_is_the_rate():
    params = torch.zeros(1)
    tx = fo.adam(0.01)
    updates, _ = tx.update(torch.tensor([1e-4], dtype=HALF), tx.init(params), params)
    torch.testing.assert_close(updates, torch.tensor([-0.01]), rtol=1e-3, atol=0)


def test_integer_gradients_count_as_the_numbers_they_are():
    params, tx = torch.zeros(2), fo.adam(0.1)
    ours, _ = tx.update(torch.tensor([3, -7]), tx.init(params), params)
    theirs, _ = tx.update(torch.tensor([3.0, -7.0]), tx.init(params), params)
    assert_trees_equal(ours, theirs)


@pytest.mark.parametrize(
    "make", [lambda: fo.adam(0.1), lambda: fo.sgd(0.1), lambda: fo.apply_if_finite(fo.adam(0.1), 2), lambda: fo.pilot(0.1)]
)
def test_a_complex_gradient_of_a_real_leaf_is_refused_and_the_other_way_round(make):
    tx, params = make(), {"w": torch.ones(2), "b": torch.ones(())}
    gradients = {"w": torch.ones(2, dtype=torch.complex64), "b": torch.ones(())}
    with pytest.raises(TypeError, match="the gradient of a real leaf must be real, got complex64 at 'w'"):
        tx.update(gradients, tx.init(params), params)
    sgd = fo.sgd(0.1, momentum=0.9)
    params = {"w": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(TypeError, match="the gradient of a complex leaf must be complex, got float32 at 'w'"):
        sgd.update({"w": torch.ones(2)}, sgd.init(params), params)


def test_complex_leaves_keep_their_moments_complex():
    params = {"w": torch.tensor([1 + 2j, 3 - 1j]), "s": torch.tensor(1 - 1j)}
    tx = fo.adam(0.1, mu_dtype=DOUBLE)
    first = state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        assert described(state) == described(first)
    assert {x.dtype for x in fo.tree.leaves(fo.find(state, "mu"))} == {torch.complex128}
    assert {x.dtype for x in fo.tree.leaves(updates)} == {torch.complex64}
    plain = fo.adam(0.1)
    same, _ = plain.update(params, plain.init(params), params)
    torch.testing.assert_close(same["w"], -0.1 * params["w"] / params["w"].abs())  # as long as the rate, downhill
    with pytest.raises(TypeError, match="a complex leaf must be kept in parts of torch.float32 or torch.float64, got torch.bfloat16"):
        fo.adam(0.1, mu_dtype=BRAIN).init(params)


def test_a_complex_tree_is_cast_whole():
    kept = fo.tree.cast({"w": torch.tensor([1 + 2j])}, DOUBLE)
    torch.testing.assert_close(kept["w"], torch.tensor([1 + 2j], dtype=torch.complex128))


@pytest.mark.parametrize(
    "make", [fo.scale_by_adam, lambda: fo.trace(0.9), lambda: fo.ema(0.9), fo.scale_by_adan, fo.scale_by_optimistic_gradient]
)
def test_a_complex_gradient_is_refused_by_a_real_state_without_params_too(make):
    tx = make()
    with pytest.raises(TypeError, match="must be real, got torch.complex64"):
        tx.update(torch.tensor([1 + 1j]), tx.init(torch.zeros(1)))


def test_a_complex_update_of_real_params_is_refused():
    with pytest.raises(TypeError, match="apply_updates: what is kept as torch.float32 must be real, got torch.complex64"):
        fo.apply_updates(torch.zeros(1), torch.tensor([1j]))


@pytest.mark.parametrize(
    "make", [lambda: fo.adam(0.1, mu_dtype=BRAIN), lambda: fo.novograd(0.1), lambda: fo.sgd(0.1, momentum=0.9, accumulator_dtype=BRAIN)]
)
def test_a_compiled_step_keeps_dtypes_and_is_traced_once(make):
    tx, params, traced = make(), tiny_params_in(SINGLE), []

    def counting(graph, inputs):
        traced.append(graph)
        return graph.forward

    run = torch.compile(lambda g, s, p: tx.update(g, s, p), backend=counting, fullgraph=True)
    state = first = tx.init(params)
    for step in range(3):
        narrow = fo.tree.cast(gradients_at(step, params, 1e-4), HALF)
        expected, _ = tx.update(narrow, state, params)
        updates, state = run(narrow, state, params)
        assert_trees_close(updates, expected, rtol=1e-5, atol=1e-7)
    assert described(state) == described(first) and len(traced) == 1


def test_a_state_of_leaves_without_dimensions_is_saved_and_loaded_after_a_step():
    tx, params = fo.adam(0.1, mu_dtype=BRAIN), {"s": torch.ones(())}
    _, state = tx.update(params, tx.init(params), params)
    assert_trees_equal(fo.checkpoint.load_state_dict(tx.init(params), fo.checkpoint.state_dict(state)), state)
