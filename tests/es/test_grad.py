"""es.grad: the estimate by hand and by expectation, and what may not change a bit of it."""

import dataclasses
import inspect
from typing import NamedTuple

import pytest
import torch

import funcopt as fo
from funcopt.es.options import Estimand, Execution
from tests.helpers import assert_trees_close, assert_trees_equal

X = fo.random.normal(fo.random.key(5), (6, 3))


def regression(params, x):
    """A smooth function of a tree with a matrix, a vector and a number."""
    x = x.to(params["w"].dtype)
    return ((x @ params["w"] + params["b"]).tanh() - 0.3).square().mean() + params["s"].square() * 0.1


def params_of(dtype=torch.float32):
    return {
        "w": fo.random.normal(fo.random.key(1), (3, 2), dtype),
        "b": fo.random.normal(fo.random.key(2), 2, dtype),
        "s": torch.tensor(0.7, dtype=dtype),
    }


def estimate(params=None, key=3, **options):
    return fo.es.grad(regression, **{"popsize": 70, "sigma": 0.1, **options})(params_of() if params is None else params, X, key=key)


# ------------------------------------------------------------------------------------------------------ the estimate


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("scale", ["inverse_sigma", "openai", "sigma"])
@pytest.mark.parametrize("maximize", [True, False])
def test_is_the_formula(antithetic, scale, maximize):
    params, sigma, popsize = params_of(torch.float64), 0.2, 10
    grads, info = estimate(params, antithetic=antithetic, scale=scale, maximize=maximize, popsize=popsize, sigma=sigma, shaping="zscore")
    members = [info.member(i) for i in range(popsize)]
    torch.testing.assert_close(info.fitness, torch.stack([regression(member, X) for member in members]), rtol=1e-12, atol=1e-14)
    utilities = fo.es.shaping("zscore")(info.fitness if maximize else -info.fitness)
    power = {"inverse_sigma": -2, "openai": -1, "sigma": 0}[scale]  # theta_i - theta is sigma eps already
    for name, leaf in params.items():
        expected = -sum(u * (member[name] - leaf) for u, member in zip(utilities, members, strict=True)) / popsize * sigma**power
        torch.testing.assert_close(grads[name], expected, rtol=1e-9, atol=1e-12)


def test_pairs_stand_half_a_population_apart():
    params = params_of(torch.float64)
    _, info = estimate(params, popsize=8)
    for i in range(4):
        both = fo.tree.map(lambda a, b: (a + b) / 2, info.member(i), info.member(i + 4))
        assert_trees_close(both, params, rtol=1e-12)
    with pytest.raises(IndexError, match="members are numbered from 0 to 7, got 8"):
        info.member(8)


@pytest.mark.parametrize("noise", ["normal", "rademacher", "binomial32"])
@pytest.mark.parametrize("options", [{}, {"antithetic": False, "baseline": "loo"}, {"antithetic": False, "baseline": "center"}])
def test_is_unbiased_on_a_quadratic(noise, options):
    # E over the noise of the estimate is the gradient of the smoothed function, which on a quadratic is the gradient.
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)

    def quadratic(x):
        return 0.5 * x @ matrix @ x

    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    grads, _ = fo.es.grad(quadratic, popsize=40000, sigma=0.3, shaping="none", noise=noise, chunk_size=8192, **options)(x, key=0)
    torch.testing.assert_close(grads, matrix @ x, rtol=0.06, atol=0.06)


def test_value_estimates_the_smoothed_objective():
    grads, (value, info) = fo.es.grad_and_value(lambda x: x.square().sum(), popsize=20000, sigma=0.5, shaping="none")(torch.ones(2), key=0)
    torch.testing.assert_close(value.item(), 2 + 2 * 0.25, rtol=0.02, atol=0)
    assert value.dim() == 0
    torch.testing.assert_close(grads, torch.full((2,), 2.0), rtol=0.1, atol=0)


def test_feeds_a_chain():
    params, tx = {"w": torch.zeros(3, 1), "b": torch.zeros(1)}, fo.adam(0.1)
    grad_fn, state, root = fo.es.grad(wrong, popsize=32, sigma=0.3), None, fo.random.key(0)
    labels = X[:, 0] > 0.2
    state = tx.init(params)
    for step in range(40):
        grads, info = grad_fn(params, labels, key=fo.random.fold_in(root, step))
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)
    assert wrong(params, labels) == 0


def wrong(params, labels):
    return (((X @ params["w"] + params["b"])[:, 0] > 0) != labels).float().mean()


# ----------------------------------------------------------------------------------------------- what changes no bit


SAME = [
    {"memory": "store"},
    {"memory": "regenerate"},
    {"memory_budget": 0},
    {"chunk_size": 1},
    {"chunk_size": 6},
    {"chunk_size": None},
    {"chunk_size": 32, "memory": "regenerate"},
    {"vectorize": "vmap"},
    {"vectorize": "loop"},
    {"devices": ["cpu", "cpu"], "chunk_size": 8},
]


def linear(params, x):
    """Fitness without sums over members' rows: every chunk gives the same bits."""
    return params["w"].sum() * 2.0 + params["b"][0] - params["s"]


@pytest.mark.parametrize("options", SAME, ids=str)
@pytest.mark.parametrize(
    "noise", ["normal", "rademacher", fo.es.sphere(), {"w": "normal", "b": fo.es.sphere(), "s": fo.es.sphere()}], ids=str
)
def test_is_the_same_bit_for_bit(options, noise):
    make = lambda **more: fo.es.grad(linear, popsize=70, sigma=0.1, noise=noise, **more)(params_of(), X, key=3)  # noqa: E731
    grads, info = make()
    others, told = make(**options)
    assert torch.equal(info.fitness, told.fitness)
    assert_trees_equal(others, grads)
    assert_trees_equal(told.member(41), info.member(41))


@pytest.mark.parametrize("size", [9000, 20000])
@pytest.mark.parametrize(
    "dtype, noise_dtype", [(torch.float32, None), (torch.float64, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16)]
)
def test_stored_noise_and_noise_drawn_again_sum_to_the_same_bits(size, dtype, noise_dtype):
    params = {"large": torch.zeros(size, dtype=dtype), "small": torch.zeros(3, 5, dtype=dtype)}
    results = []
    for memory in ("store", "regenerate"):
        grad_fn = fo.es.grad(
            lambda p: p["large"][:10].sum() + p["small"].sum(), popsize=78, sigma=0.1, memory=memory, noise_dtype=noise_dtype, chunk_size=10
        )
        results.append(grad_fn(params, key=1)[0])
    assert_trees_equal(*results)
    assert results[0]["large"].dtype == dtype


def test_fitness_differs_by_rounding_only_between_chunk_sizes():
    _, info = estimate(chunk_size=64)
    for chunk_size in (2, 12, None):
        torch.testing.assert_close(estimate(chunk_size=chunk_size)[1].fitness, info.fitness, rtol=1e-6, atol=1e-7)


def test_vmaps_over_keys_and_over_params():
    keys = fo.random.split(fo.random.key(0), 3)
    grad_fn = fo.es.grad(regression, popsize=12, sigma=0.1)
    grads, info = torch.func.vmap(lambda key: grad_fn(params_of(), X, key=key))(keys)
    for n, key in enumerate(keys):
        alone, _ = grad_fn(params_of(), X, key=key)
        assert_trees_close(fo.tree.map(lambda g, n=n: g[n], grads), alone, rtol=1e-4, atol=1e-5)
    assert info.fitness.shape == (3, 12)
    with pytest.raises(ValueError, match="the info of 3 estimates made under vmap"):
        info.member(0)
    many = fo.tree.map(lambda p: torch.stack([p, p + 1]), params_of())
    grads, _ = torch.func.vmap(lambda params: grad_fn(params, X, key=keys[0]))(many)
    alone, _ = grad_fn(fo.tree.map(lambda p: p + 1, params_of()), X, key=keys[0])
    assert_trees_close(fo.tree.map(lambda g: g[1], grads), alone, rtol=1e-4, atol=1e-5)


def test_leaves_its_arguments_and_the_global_generator_alone():
    params, before = params_of(), torch.get_rng_state()
    copy = fo.tree.clone(params)
    for _ in range(2):
        estimate(params)
        estimate(params, randomness="same")
        estimate(params, vectorize="loop", randomness="different")
    assert_trees_equal(params, copy)
    assert torch.equal(torch.get_rng_state(), before)
    assert_trees_equal(estimate(params)[0], estimate(params)[0])
    with torch.inference_mode():
        assert_trees_equal(estimate(params)[0], estimate(copy)[0])


# -------------------------------------------------------------------------------------------------------------- trees


class Pair(NamedTuple):
    first: torch.Tensor
    second: list


def test_any_tree_and_what_cannot_be_perturbed_passes():
    params = Pair(
        torch.ones(2),
        [torch.tensor(1.0, dtype=torch.float64), None, {"n": torch.arange(3), "flag": torch.tensor(True), "empty": torch.zeros(0)}],
    )
    seen = []

    def objective(p):
        assert p.second[1] is None
        seen.append(p.second[2]["n"])
        return p.first.sum() * p.second[0].float()

    grads, info = fo.es.grad(objective, popsize=8, sigma=0.1, vectorize="loop")(params, key=0)
    assert fo.tree.structure(grads) == fo.tree.structure(params)
    assert [g.dtype for g in fo.tree.leaves(grads)] == [p.dtype for p in fo.tree.leaves(params)]
    assert (grads.second[2]["n"] == 0).all() and all(torch.equal(n, torch.arange(3)) for n in seen)
    assert grads.first.abs().min() > 0
    assert torch.equal(info.member(3).second[2]["n"], torch.arange(3))


def test_several_arguments_and_keyword_arguments():
    def objective(a, b, *, power):
        return (a * b).sum() ** power

    grads, _ = fo.es.grad(objective, (0, 1), popsize=2000, sigma=0.01, shaping="none")(torch.ones(2), torch.full((2,), 3.0), power=1, key=0)
    torch.testing.assert_close(grads[0], torch.full((2,), 3.0), rtol=0.15, atol=0.1)
    torch.testing.assert_close(grads[1], torch.full((2,), 1.0), rtol=0.3, atol=0.3)
    second, _ = fo.es.grad(objective, 1, popsize=4, sigma=0.01)(torch.ones(2), torch.ones(2), power=1, key=0)
    assert second.shape == (2,)


def test_sigma_by_leaf_and_by_element():
    params = {"w": torch.zeros(3), "b": torch.zeros(2)}
    _, info = fo.es.grad(lambda p: p["w"].sum() + p["b"].sum(), popsize=4, sigma=1.0)(params, key=0)
    scales = {"w": torch.tensor([1.0, 0.0, 2.0]), "b": 0.5}
    grads, scaled = fo.es.grad(lambda p: p["w"].sum() + p["b"].sum(), popsize=4, sigma=scales, scale="sigma")(params, key=0)
    torch.testing.assert_close(scaled.member(1)["w"], info.member(1)["w"] * scales["w"])
    torch.testing.assert_close(scaled.member(1)["b"], info.member(1)["b"] * 0.5)
    assert grads["w"][1] == 0


@pytest.mark.parametrize(
    "mask",
    [{"w": True, "b": False}, "w", ["w*"], lambda params: {"w": True, "b": False}, {"w": torch.tensor([1, 1, 1]), "b": torch.tensor(0)}],
)
def test_masked_leaves_keep_still_and_the_others_keep_their_noise(mask):
    params = {"w": torch.zeros(3), "b": torch.zeros(2)}
    grad_fn = fo.es.grad(lambda p: p["w"].square().sum() + p["b"].sum(), popsize=8, sigma=0.5, shaping="none", mask=mask)
    grads, info = grad_fn(params, key=0)
    assert torch.equal(grads["b"], torch.zeros(2)) and torch.equal(info.member(2)["b"], params["b"])
    _, whole = fo.es.grad(lambda p: p["w"].sum(), popsize=8, sigma=0.5)(params, key=0)
    assert torch.equal(info.member(2)["w"], whole.member(2)["w"])
    element = fo.es.grad(lambda p: p["w"].sum(), popsize=8, sigma=0.5, shaping="none", mask={"w": torch.tensor([1, 0, 1]), "b": False})
    assert torch.equal(element(params, key=0)[0]["w"] != 0, torch.tensor([True, False, True]))


def test_streams_by_path_do_not_move_when_a_leaf_is_added():
    small, large = {"b": torch.zeros(3)}, {"a": torch.zeros(2), "b": torch.zeros(3)}
    make = lambda **options: fo.es.grad(lambda p: p["b"].sum(), popsize=4, sigma=1.0, **options)  # noqa: E731
    assert torch.equal(make(stable_by_path=True)(small, key=0)[1].member(0)["b"], make(stable_by_path=True)(large, key=0)[1].member(0)["b"])
    assert not torch.equal(make()(small, key=0)[1].member(0)["b"], make()(large, key=0)[1].member(0)["b"])


def test_equal_leaves_get_different_noise():
    _, info = fo.es.grad(lambda p: p["a"].sum() + p["b"].sum(), popsize=4, sigma=1.0)({"a": torch.zeros(8), "b": torch.zeros(8)}, key=0)
    assert not torch.isclose(info.member(0)["a"], info.member(0)["b"]).any()


def test_evaluates_in_another_dtype():
    dtypes = []

    def objective(p):
        dtypes.append(p["w"].dtype)
        return p["w"].float().sum()

    grads, _ = fo.es.grad(objective, popsize=4, sigma=0.1, dtype=torch.bfloat16)({"w": torch.zeros(4)}, key=0)
    assert set(dtypes) == {torch.bfloat16} and grads["w"].dtype == torch.float32


# ------------------------------------------------------------------------------------------------- several objectives


def test_objectives_are_shaped_each_on_its_own():
    def both(p):
        return p["w"].sum(), 1000 * p["w"].square().sum()

    params = {"w": torch.ones(3)}
    grads, info = fo.es.grad(both, popsize=16, sigma=0.1, weights=(0.7, -0.3))(params, key=0)
    assert info.fitness.shape == (16, 2) and info.mean.shape == (2,) and info.best.shape == (2,)
    first, _ = fo.es.grad(lambda p: both(p)[0], popsize=16, sigma=0.1)(params, key=0)
    second, _ = fo.es.grad(lambda p: both(p)[1], popsize=16, sigma=0.1)(params, key=0)
    torch.testing.assert_close(grads["w"], 0.7 * first["w"] - 0.3 * second["w"])
    summed, _ = fo.es.grad(
        lambda p: torch.stack(both(p)), popsize=16, sigma=0.1, weights=torch.tensor([0.7, -0.3]), combine="sum_then_shape"
    )(params, key=0)
    alone, _ = fo.es.grad(lambda p: 0.7 * both(p)[0] - 0.3 * both(p)[1], popsize=16, sigma=0.1)(params, key=0)
    torch.testing.assert_close(summed["w"], alone["w"])
    _, (value, info) = fo.es.grad_and_value(both, popsize=16, sigma=0.1, weights=(0.7, -0.3))(params, key=0)
    torch.testing.assert_close(value, 0.7 * info.mean[0] - 0.3 * info.mean[1])


# ---------------------------------------------------------------------------------------------------- info, failures


def test_info_tells_about_the_population():
    _, info = fo.es.grad(lambda p: (p.sum(), {"p": p}), popsize=10, sigma=0.1, has_aux=True, baseline="center", maximize=True)(
        torch.zeros(3), key=0
    )
    torch.testing.assert_close(info.mean, info.fitness.mean())
    torch.testing.assert_close(info.std, info.fitness.std(correction=0))
    assert info.best == info.fitness.max() and info.best_index == info.fitness.argmax() and info.n_failed == 0
    assert info.center == 0
    assert torch.equal(info.user_aux["p"], torch.stack([info.member(i) for i in range(10)]))
    assert estimate()[1].center.isnan() and estimate()[1].best == estimate()[1].fitness.min()


def failing(x, bad):
    """NaN where the first element is above zero."""
    return torch.where(x[0] > 0, bad, x.sum())


@pytest.mark.parametrize("shaping", ["centered_rank", "none", "zscore", "minmax", "nes", lambda f: f])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_nan_is_the_worst_and_is_counted(shaping, maximize):
    grads, info = fo.es.grad(failing, popsize=40, sigma=0.1, shaping=shaping, maximize=maximize)(
        torch.zeros(2), torch.tensor(torch.nan), key=0
    )
    assert grads.isfinite().all() and info.n_failed == info.fitness.isnan().sum() == 20
    assert grads[0] > 0  # going down leads away from where it fails, whichever way the objective counts
    assert info.mean.isfinite() and info.best.isfinite()


def test_all_members_failing_gives_zero():
    for bad in (torch.nan, torch.inf):
        for options in ({}, {"shaping": "none"}, {"on_failure": "drop"}, {"antithetic": False}):
            grads, info = fo.es.grad(lambda x, bad=bad: x.sum() * bad, popsize=6, sigma=0.1, **options)(torch.ones(2), key=0)
            assert torch.equal(grads, torch.zeros(2)) and info.n_failed == 6


def test_dropping_leaves_the_pair_out():
    x = torch.zeros(2)
    grads, info = fo.es.grad(failing, popsize=40, sigma=0.1, shaping="none", on_failure="drop")(x, torch.tensor(torch.nan), key=0)
    assert torch.equal(grads, torch.zeros(2))  # one of every pair fails
    grads, info = fo.es.grad(failing, popsize=40, sigma=0.1, shaping="none", on_failure="drop", antithetic=False)(
        x, torch.tensor(torch.nan), key=0
    )
    members = torch.stack([info.member(i) for i in range(40)])
    kept = info.fitness.isfinite()
    torch.testing.assert_close(grads, (info.fitness[kept, None] * members[kept]).sum(0) / kept.sum() / 0.01)
    with pytest.raises(RuntimeError, match=r"es.grad: \d+ members are not finite, member \d+ first"):
        fo.es.grad(failing, popsize=40, sigma=0.1, on_failure="raise")(x, torch.tensor(torch.nan), key=0)


def test_infinities_rank_as_numbers():
    values = torch.tensor([1.0, torch.inf, -torch.inf, torch.nan])
    noise = torch.eye(4)
    settings = {"popsize": 4, "sigma": 1.0, "antithetic": False, "maximize": True, "vectorize": "external", "scale": "openai"}
    grads, info = fo.es.grad(lambda stack: values, noise=lambda key, leaf, pairs: noise[pairs.start : pairs.stop], **settings)(
        torch.zeros(4), key=0
    )
    torch.testing.assert_close(-4 * grads, torch.tensor([1 / 6, 0.5, -1 / 6, -0.5]))
    assert info.n_failed == 3


def test_flat_fitness_gives_zero():
    grads, _ = fo.es.grad(lambda p: p.sum() * 0, popsize=8, sigma=0.1)(torch.ones(3), key=0)
    assert torch.equal(grads, torch.zeros(3))


def test_an_option_has_one_place_and_one_default():
    shown = {name: p.default for name, p in inspect.signature(fo.es.grad).parameters.items() if p.kind is p.KEYWORD_ONLY}
    held = [(field.name, field.default) for kind in (Estimand, Execution) for field in dataclasses.fields(kind)]
    required = {"popsize": inspect.Parameter.empty, "sigma": inspect.Parameter.empty}
    assert len(held) == len(shown) and {**dict(held), **required} == shown
