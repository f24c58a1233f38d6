"""What counts as fitness, and fitness of any size: real numbers, whole ones to the last, huge and tiny ones by the same formula."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

NAMES = ("ars", "cem", "cma_es", "openai_es", "pgpe", "sep_cma_es", "simple_es", "snes", "xnes")
# what a factor on the fitness does not change
SCALED = ("centered_rank", "linear_rank", "zscore", "minmax", "nes", "cma", "top_k", "sign", "ars")
SIZES = [1e300, 1e308, 1e200, 1e-200, 1e-300]
FITNESS = torch.tensor([0.3, -1.2, 0.9, 1.7, -0.4, 0.1, -0.8, 1.1], dtype=torch.float64)
OURS = r"must be a real number, since members are compared by it, got complex(64|128)"


def line(x):
    return (x.double() * torch.arange(1.0, x.numel() + 1, dtype=torch.float64)).sum()


# ------------------------------------------------------------------------------------------------ no real number


@pytest.mark.parametrize("name", NAMES)
def test_a_search_refuses_complex_fitness(name):
    search = getattr(fo.es, name)(4, sigma=0.1)
    state = search.init(torch.zeros(2), 0)
    with pytest.raises(TypeError, match=rf"es\.{name}: fitness {OURS}"):
        search.tell(state, torch.ones(4, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"es\.evaluator: what the objective returns must be a real number"):
        fo.es.run(search, lambda x: x.sum() + 0j, torch.zeros(2), 0, 1)


@pytest.mark.parametrize("how", ["vmap", "loop", "external", "number"])
def test_an_estimate_refuses_complex_fitness(how):
    objectives = {"external": lambda x: x.sum(1) + 0j, "number": lambda x: complex(float(x.sum()), 1.0)}
    grad = fo.es.grad(objectives.get(how, lambda x: x.sum() + 0j), popsize=4, sigma=0.1, vectorize="loop" if how == "number" else how)
    with pytest.raises(TypeError, match=r"es\.grad: what the objective returns must be a real number"):
        grad(torch.zeros(2), key=0)


CALLS = {
    "shaping": (r"es\.shaping: fitness ", lambda z: fo.es.shaping("nes")(z)),
    "bounded": (r"es\.shaping: fitness ", lambda z: fo.es.bounded(z)),
    "baseline": (r"es\.shaping: fitness ", lambda z: fo.es.baseline("mean")(z)),
    "shared ties": (r"es\.compat.centered_rank_shared_ties: fitness ", lambda z: fo.es.compat.centered_rank_shared_ties(z)),
    "two points": (r"es\.spsa_step: loss ", lambda z: fo.es.spsa_step(lambda p: p.sum() * z[0], lr=0.1)(torch.ones(2), key=0)),
    "persistent": (r"es\.persistent: fitness ", lambda z: told_persistently(z)),
    "unrolled": (r"es\.unrolled: the loss of a step ", lambda z: unrolled_once(lambda p: p * z[0])),
    "differentiable": (
        r"es\.differentiable: what the function returns ",
        lambda z: fo.es.differentiable(lambda x: x * z[0], popsize=4, sigma=0.1)(torch.ones(2), key=0),
    ),
    "rollout": (r"rollout: a reward ", lambda z: rolled_once(z[0])),
    "a shaping of one's own": (
        r"es\.grad: the utility that shaping returns ",
        lambda z: fo.es.grad(lambda x: x.sum(), popsize=4, sigma=0.1, shaping=lambda f: f + z)(torch.ones(2), key=0),
    ),
}


def told_persistently(fitness):
    pes = fo.es.persistent(popsize=4, sigma=0.1)
    _, state = pes.ask(pes.init(torch.zeros(2), 0), torch.zeros(2))
    return pes.tell(state, fitness, torch.tensor([True, True]))


def unrolled_once(loss):
    pes = fo.es.unrolled(lambda p, x, key: (x, loss(p), torch.tensor(False)), lambda key: torch.zeros(()), popsize=4, sigma=0.1, unroll=1)
    return pes.estimate(torch.zeros(()), pes.init(torch.zeros(()), 0))


def rolled_once(reward):
    env = fo.es.Environment(
        reset=lambda key: torch.zeros(2),
        step=lambda state, action, key: (state, state, reward, torch.tensor(False)),
        horizon=2,
        observe=lambda state: state,
    )
    return fo.es.rollout(lambda params, obs: obs.sum(), env, episodes=1)(torch.zeros(2), key=0)


@pytest.mark.parametrize("name", CALLS)
def test_whoever_is_told_complex_fitness_says_that_it_must_be_real(name):
    where, call = CALLS[name]
    with pytest.raises(TypeError, match=where + OURS):
        call(torch.ones(4, dtype=torch.complex64))


# ------------------------------------------------------------------------------------------------ whole numbers


@pytest.mark.parametrize("kind", ["int64", "number of Python", "int32"])
def test_whole_numbers_are_told_apart_beyond_the_24_bits_of_float32(kind):
    def misses(x):
        count = 2**24 + (x.sum() > 0).long()
        return int(count) if kind == "number of Python" else count.to(getattr(torch, kind))

    _, info = fo.es.grad(misses, popsize=16, sigma=0.1, vectorize="loop" if "Python" in kind else "vmap")(torch.zeros(3), key=0)
    assert info.fitness.unique().tolist() == [2**24, 2**24 + 1]


def test_truth_values_count_as_zero_and_one():
    grads, info = fo.es.grad(lambda x: x.sum() > 0, popsize=64, sigma=0.1, shaping="none")(torch.zeros(3), key=0)
    assert set(info.fitness.tolist()) == {0.0, 1.0} and bool((grads > 0).all())


def test_a_number_of_python_keeps_its_53_bits():
    _, info = fo.es.grad(lambda x: 1e8 + float(x.sum() > 0), popsize=16, sigma=0.1, vectorize="loop")(torch.zeros(3), key=0)
    assert info.fitness.unique().tolist() == [1e8, 1e8 + 1]


@pytest.mark.parametrize("name", NAMES)
def test_a_search_takes_whole_numbers_for_what_they_are(name):
    search = getattr(fo.es, name)(6, sigma=0.1)
    state = search.init(torch.zeros(2), 0)
    whole = torch.tensor([5, 2**24 + 1, 2**24, 7, -3, 0])
    assert fo.tree.allclose(search.tell(state, whole), search.tell(state, whole.double()), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------ of any size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCALED)
def test_a_shaping_that_knows_no_unit_gives_what_it_gives_near_one(name, size):
    options = {"eps": 0.0} if name == "zscore" else {}
    near, far = fo.es.shaping(name, **options)(FITNESS / 2), fo.es.shaping(name, **options)(FITNESS / 2 * size)
    torch.testing.assert_close(far, near, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=12).filter(lambda f: len(f) % 2 == 0), st.integers(-60, 60))
@settings(deadline=None, max_examples=40)
def test_in_float32_too(fitness, exponent):
    f = torch.tensor(fitness).round()  # no entry that gets lost among the smallest numbers
    for name in ("zscore", "minmax", "ars"):
        options = {"eps": 0.0} if name == "zscore" else {}
        torch.testing.assert_close(
            fo.es.shaping(name, **options)(f * 2.0**exponent), fo.es.shaping(name, **options)(f), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("size", [1e300, 1e-300])
@pytest.mark.parametrize("scale", ["inverse_sigma", "openai", "sigma"])
@pytest.mark.parametrize("baseline", ["none", "mean", "loo", "center"])
def test_an_estimate_of_fitness_as_it_stands_is_proportional_to_it(size, scale, baseline):
    options = {"popsize": 8, "sigma": 0.1, "shaping": "none", "scale": scale, "baseline": baseline}
    near, told = fo.es.grad(lambda x: line(x), **options)(torch.zeros(5, dtype=torch.float64), key=0)
    far, info = fo.es.grad(lambda x: line(x) * size, **options)(torch.zeros(5, dtype=torch.float64), key=0)
    torch.testing.assert_close(far / size, near, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(torch.stack([info.mean, info.std]) / size, torch.stack([told.mean, told.std]))


def test_what_does_not_fit_the_parameters_is_infinite_with_its_sign_and_no_nan():
    near, _ = fo.es.grad(lambda x: line(x), popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
    far, _ = fo.es.grad(lambda x: line(x) * 1e300, popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
    assert torch.equal(far, near.sign() * torch.inf)
    fits, _ = fo.es.grad(lambda x: line(x) * 1e36, popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
    torch.testing.assert_close(fits / 1e36, near, rtol=1e-5, atol=1e-7)


def test_what_is_too_small_for_the_parameters_is_zero():
    for size in (1e-60, 1e-200, 1e-300):
        tiny, _ = fo.es.grad(lambda x, size=size: line(x) * size, popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
        assert tiny.abs().tolist() == [0.0] * 5
    near, _ = fo.es.grad(lambda x: line(x), popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
    fits, _ = fo.es.grad(lambda x: line(x) * 1e-30, popsize=8, sigma=0.1, shaping="none")(torch.zeros(5), key=0)
    torch.testing.assert_close(fits * 1e30, near, rtol=1e-5, atol=1e-7)


def test_float8_counts_as_numbers_and_what_is_not_dense_is_refused():
    _, info = fo.es.grad(lambda x: x.sum().to(torch.float8_e4m3fn), popsize=4, sigma=0.1)(torch.zeros(3), key=0)
    assert info.fitness.dtype == torch.float32 and info.fitness.unique().numel() > 1
    for told in (torch.ones(4).to_sparse(), torch.ones(4, device="meta")):
        for name in NAMES:
            search = getattr(fo.es, name)(4, sigma=0.1)
            with pytest.raises(TypeError, match=rf"es\.{name}: fitness must be numbers in a dense tensor, got a (sparse|meta) one"):
                search.tell(search.init(torch.zeros(2), 0), told)


SPECIAL = {
    "NaN": [math.nan, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    "infinite": [math.inf, -math.inf, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    "huge": [1e300, -1e300, 1e308, -1e308, 1.7e308, 5.0, 6.0, 7.0],
    "subnormal": [5e-324, 1e-320, -1e-310, 0.0, 1e-323, 2e-323, 3e-310, -5e-324],
    "equal and huge": [1e308] * 8,
    "huge beside tiny": [1e308, 5e-324, 0.0, -1e308, 1.0, 2.0, math.nan, math.inf],
}


@pytest.mark.parametrize("fitness", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("name", NAMES)
def test_no_fitness_poisons_a_search(name, fitness):
    told = torch.tensor(fitness, dtype=torch.float64)
    for options in [{}] + [{"shaping": how} for how in ("none", "zscore") if name in ("openai_es", "pgpe", "snes", "xnes")]:
        search = getattr(fo.es, name)(8, 0.1, **options)
        state = search.init({"w": torch.ones(3), "b": torch.zeros(1)}, 0)
        for _ in range(2):
            state = search.tell(state, told)
        for field in set(state._fields) - {"common", "optimizer"}:
            assert all(x.isfinite().all() for x in fo.tree.leaves(getattr(state, field))), (options, field)
        assert state.common.n_failed == sum(not math.isfinite(f) for f in fitness)
        assert state.common.best_fitness == min(f for f in fitness if math.isfinite(f))
        search.tell(state, torch.arange(8.0))  # and it goes on


@pytest.mark.parametrize("fitness", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("name", [*SCALED, "group_zscore"])
def test_utilities_are_finite_whatever_the_fitness(name, fitness):
    utilities = fo.es.shaping(name, **({"group_size": 2} if name == "group_zscore" else {}))(torch.tensor(fitness, dtype=torch.float64))
    assert utilities.isfinite().all()


def test_persistent_estimates_and_two_points_of_huge_fitness():
    fitness = torch.tensor([1e300, -1e300, 2e300, 5e299], dtype=torch.float64)
    pes, params = fo.es.persistent(popsize=4, sigma=0.1), torch.zeros(3, dtype=torch.float64)
    _, state = pes.ask(pes.init(params, 0), params)
    done = torch.tensor([True, True])
    torch.testing.assert_close(pes.tell(state, fitness, done)[0] / 1e300, pes.tell(state, fitness / 1e300, done)[0])
    moved, info = fo.es.spsa_step(lambda p: p.double().sum() * 1e300, lr=0.1)(torch.ones(3), key=0)
    assert moved.tolist() == [1, 1, 1] and info.loss.isfinite()  # a slope of 1e300 does not fit float32
