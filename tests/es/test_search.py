"""What holds for every search: by laws, on trees, in ensembles, in a graph, saved and resumed, with members that fail."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import vmap

import funcopt as fo
from funcopt.es.search import population as populations
from tests.helpers import assert_trees_close

NAN, INF = float("nan"), float("inf")
SEARCHES = {
    "openai_es": lambda **k: fo.es.openai_es(**{"popsize": 20, "sigma": 0.3, "lr": 0.05, **k}),
    "openai_es/adam": lambda **k: fo.es.openai_es(**{"popsize": 20, "sigma": 0.3, "optimizer": fo.adam(0.1), **k}),
    "openai_es/unpaired": lambda **k: fo.es.openai_es(**{"popsize": 20, "sigma": 0.3, "lr": 0.05, "antithetic": False, **k}),
    "snes": lambda **k: fo.es.snes(**{"popsize": 12, "sigma": 0.5, **k}),
    "xnes": lambda **k: fo.es.xnes(**{"popsize": 16, "sigma": 0.5, **k}),
    "pgpe": lambda **k: fo.es.pgpe(**{"popsize": 20, "sigma": 0.3, "lr": 0.1, **k}),
    "pgpe/unpaired": lambda **k: fo.es.pgpe(**{"popsize": 20, "sigma": 0.3, "lr": 0.1, "antithetic": False, **k}),
    "cem": lambda **k: fo.es.cem(**{"popsize": 30, "sigma": 0.7, "rho": 0.4, **k}),
    "simple_es": lambda **k: fo.es.simple_es(**{"popsize": 16, "sigma": 0.5, **k}),
    "ars": lambda **k: fo.es.ars(**{"popsize": 16, "sigma": 0.1, "directions": 5, "lr": 0.1, **k}),
    "sep_cma_es": lambda **k: fo.es.sep_cma_es(**{"popsize": 10, "sigma": 0.5, **k}),
    "sep_cma_es/active": lambda **k: fo.es.sep_cma_es(**{"popsize": 10, "sigma": 0.5, "active": True, "accelerate": True, **k}),
    "cma_es": lambda **k: fo.es.cma_es(**{"popsize": 10, "sigma": 0.5, **k}),
    "cma_es/pycma": lambda **k: fo.es.cma_es(**{"popsize": 10, "sigma": 0.5, "variant": "pycma", **k}),
}
BY_SEARCH = pytest.mark.parametrize("name", SEARCHES)
BY_RANK = [name for name in SEARCHES if not name.startswith("ars") and "adam" not in name]


def tree():
    return {"a": torch.tensor([[0.3, -0.7], [0.1, 0.9]], dtype=torch.float64), "b": [torch.tensor(0.4, dtype=torch.float64)]}


def vector():
    return torch.tensor([0.3, -0.7, 0.1, 0.9, 0.4], dtype=torch.float64)


def bowl(x):
    """A bowl around 1 whose axes differ, with a ripple; over the last axis."""
    scales = torch.linspace(1, 3, x.shape[-1], dtype=x.dtype)
    return ((x - 1).square() * scales).sum(-1) + 0.01 * torch.cos(7 * x).sum(-1)


def rows(stacked):
    return populations.ravel_rows(stacked, torch.float64)


def generations(search, state, number, fitness=bowl):
    for _ in range(number):
        population, state = search.ask(state)
        state = search.tell(state, fitness(rows(population.stacked())))
    return state


def alike(left, right, tolerance=1e-9):
    assert_trees_close(left, right, rtol=tolerance, atol=tolerance)


# -------------------------------------------------------------------------------------------------------- what it finds


@BY_SEARCH
def test_comes_down_a_bowl(name):
    search = SEARCHES[name]()
    start = vector()
    state = generations(search, search.init(start, 0), 100)
    assert bowl(search.center(state)) < 0.05 * bowl(start)
    params, fitness = search.best(state)
    torch.testing.assert_close(bowl(params), fitness)


@pytest.mark.parametrize("name", ["cma_es", "cma_es/pycma", "xnes"])
def test_follows_the_valley_of_rosenbrock(name):
    def rosenbrock(x):
        return (100 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(1)

    search = SEARCHES[name](popsize=None)
    state = generations(search, search.init(torch.zeros(3, dtype=torch.float64), 0), 400, rosenbrock)
    assert rosenbrock(search.center(state)[None]) < 1e-6


@pytest.mark.parametrize("name", ["sep_cma_es", "snes"])
def test_learns_scales_that_differ_by_a_million(name):
    def ellipsoid(x):
        return (x * torch.logspace(0, 3, 4, dtype=x.dtype)).square().sum(1)

    search = SEARCHES[name](popsize=None)
    state = generations(search, search.init(torch.ones(4, dtype=torch.float64), 0), 400, ellipsoid)
    assert ellipsoid(search.center(state)[None]) < 1e-8


# -------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", BY_RANK)
@given(key=st.integers(0, 1000))
@settings(max_examples=3, deadline=None)
def test_only_the_order_of_fitness_counts(name, key):
    search = SEARCHES[name]()
    plain = generations(search, search.init(vector(), key), 4)
    bent = generations(search, search.init(vector(), key), 4, lambda x: torch.exp(3 * bowl(x)) - 7)
    alike(plain._replace(common=()), bent._replace(common=()))


@BY_SEARCH
def test_where_the_origin_lies_does_not_matter(name):
    search = SEARCHES[name]()
    here = generations(search, search.init(vector(), 3), 4)
    there = generations(search, search.init(vector() + 8, 3), 4, lambda x: bowl(x - 8))
    alike(here._replace(mean=here.mean + 8, common=()), there._replace(common=()), 1e-8)


@pytest.mark.parametrize("name", ["cma_es", "xnes"])
def test_how_the_space_is_turned_does_not_matter(name):
    rotation, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.3], [0.1, -1.0, 0.7], [2.0, 0.4, 1.0]], dtype=torch.float64))
    search = SEARCHES[name]()
    state, turned = search.init(torch.ones(3, dtype=torch.float64), 1), search.init(rotation @ torch.ones(3, dtype=torch.float64), 2)
    for _ in range(5):
        population, state = search.ask(state)
        x = population.stacked()
        state = search.tell(state, bowl(x))
        turned = search.tell(turned, bowl(x), population=x @ rotation.T)
        torch.testing.assert_close(turned.mean, rotation @ state.mean)
    torch.testing.assert_close(turned.factor @ turned.factor.T, rotation @ state.factor @ state.factor.T @ rotation.T)


@BY_SEARCH
def test_maximising_is_minimising_the_negative(name):
    down, up = SEARCHES[name](), SEARCHES[name](maximize=True)
    low = generations(down, down.init(vector(), 0), 3)
    high = generations(up, up.init(vector(), 0), 3, lambda x: -bowl(x))
    alike(low._replace(common=()), high._replace(common=()), 0)
    assert low.common.best_fitness == -high.common.best_fitness


@BY_SEARCH
def test_a_tree_is_searched_like_the_vector_of_its_elements(name):
    search = SEARCHES[name]()
    as_tree = generations(search, search.init(tree(), 5), 3)
    as_vector = generations(search, search.init(vector(), 5), 3)
    assert fo.tree.paths(search.center(as_tree)) == ["a", "b.0"]
    torch.testing.assert_close(populations.ravel(search.center(as_tree), torch.float64), search.center(as_vector), rtol=1e-10, atol=1e-12)


@BY_SEARCH
def test_what_is_told_as_population_or_noise_is_what_was_drawn(name):
    search = SEARCHES[name]()
    state = generations(search, search.init(tree(), 5), 2)
    population, _ = search.ask(state)
    x = population.stacked()
    fitness = bowl(rows(x))
    drawn = search.tell(state, fitness)
    alike(search.tell(state, fitness, population=x), drawn, 1e-8)
    alike(search.tell(state, fitness, population=rows(x)), drawn, 1e-8)
    alike(search.tell(state, fitness, population=population), drawn, 0)
    alike(search.tell(state, fitness, population=population.drawn()), drawn, 0)
    alike(search.tell(state, fitness, noise=population.rows(range(population.popsize))), drawn, 1e-12)


@BY_SEARCH
def test_float32_follows_float64(name):
    search = SEARCHES[name]()
    state = search.init(torch.zeros(3), 0)
    population, _ = search.ask(state)
    x = population.stacked()
    assert x.dtype == torch.float32
    fitness = bowl(x.double())
    told = search.tell(state, fitness, population=x)
    wide = search.tell(search.init(torch.zeros(3, dtype=torch.float64), 0), fitness, population=x.double())
    assert told.mean.dtype == torch.float32
    torch.testing.assert_close(told.mean.double(), wide.mean, rtol=1e-4, atol=1e-5)


def test_no_graph_grows_from_fitness_that_requires_grad():
    search = fo.es.openai_es(4)
    state = search.tell(search.init(torch.ones(2), 0), torch.ones(4, requires_grad=True) * torch.arange(4.0))
    assert not any(leaf.requires_grad for leaf in fo.tree.leaves(state))


# ----------------------------------------------------------------------------------------------- populations on demand


@BY_SEARCH
def test_members_are_the_same_in_chunks_and_alone(name):
    search = SEARCHES[name]()
    population, _ = search.ask(search.init(tree(), 2))
    whole = population.stacked()
    for size in (1, 3, 7, 100):
        cut = list(population.chunks(size))
        joined = fo.tree.map(lambda *parts: torch.cat(parts), *cut)
        alike(joined, whole, 1e-12)
    last = population.popsize - 1
    alike(population.member(last), fo.tree.map(lambda leaf: leaf[last], whole), 1e-12)


@pytest.mark.parametrize("name", ["openai_es", "pgpe", "ars"])
def test_the_second_half_mirrors_the_first(name):
    search = SEARCHES[name]()
    state = search.init(vector(), 2)
    x = search.ask(state)[0].stacked() - state.mean
    torch.testing.assert_close(x[: len(x) // 2], -x[len(x) // 2 :])


@BY_SEARCH
def test_noise_that_is_drawn_in_blocks_sums_to_the_same(name, monkeypatch):
    search = SEARCHES[name]()
    state = generations(search, search.init(vector(), 0), 1)
    fitness = bowl(rows(search.ask(state)[0].stacked()))
    whole = search.tell(state, fitness)
    monkeypatch.setattr(populations, "BLOCK", 3 * len(vector()))
    alike(search.tell(state, fitness), whole, 1e-10)


@pytest.mark.parametrize("name", ["xnes", "cma_es"])
def test_no_matrix_for_every_member_is_made(name):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for leaf in fo.tree.leaves(out) if not isinstance(out, torch.Tensor) else [out]:
                if isinstance(leaf, torch.Tensor):
                    self.largest = max(self.largest, leaf.numel())
            return out

    search = SEARCHES[name](popsize=50)
    state = search.init(torch.zeros(20, dtype=torch.float64), 0)
    population, state = search.ask(state)
    fitness, z = bowl(population.stacked()), population.rows(range(50))
    with Sizes() as sizes:
        search.tell(state, fitness, noise=z)
    assert sizes.largest <= 50 * 20


# -------------------------------------------------------------------------------------------- ensembles, graphs, files


@BY_SEARCH
def test_an_ensemble_equals_its_members(name):
    search = SEARCHES[name]()
    starts = torch.stack([vector(), vector() + 0.5, -vector()])
    keys = fo.random.split(fo.random.key(1), 3)

    def generation(state):
        population, state = search.ask(state)
        return search.tell(state, bowl(population.stacked()))

    together = vmap(search.init)(starts, keys)
    apart = [search.init(start, key) for start, key in zip(starts, keys, strict=True)]
    for _ in range(3):
        together = vmap(generation)(together)
        apart = [generation(state) for state in apart]
    for number, state in enumerate(apart):
        alike(fo.tree.map(lambda leaf, n=number: leaf[n], together), state, 1e-8)


@BY_SEARCH
def test_vmap_over_a_population_is_vmap_over_its_members(name):
    search = SEARCHES[name]()
    population, _ = search.ask(search.init(vector(), 0))
    members = population.stacked()
    close = {"rtol": 1e-12, "atol": 0.0}
    torch.testing.assert_close(vmap(lambda x: x.square().sum())(population), members.square().sum(1), **close)
    torch.testing.assert_close(vmap(lambda x, y: (x * y).sum(), in_dims=(0, None))(population.drawn(), members[0]), members @ members[0])


@BY_SEARCH
def test_populations_of_an_ensemble_pass_between_its_functions(name):
    search = SEARCHES[name]()
    state = vmap(search.init)(torch.stack([vector(), -vector()]), fo.random.split(fo.random.key(1), 2))
    x, state = vmap(search.ask)(state)  # of populations that leave a map, the members
    told = vmap(search.tell)(state, bowl(x))
    alike(vmap(search.center)(told), vmap(lambda state, f, x: search.tell(state, f, population=x).mean)(state, bowl(x), x), 1e-8)
    alike(search.center(told)[1], search.tell(fo.tree.map(lambda leaf: leaf[1], state), bowl(x[1])).mean, 1e-8)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "openai_es/adam"])
def test_hyperparameters_may_be_mapped_over(name):
    sigmas = torch.tensor([0.1, 0.4], dtype=torch.float64)

    def two_generations(sigma):
        search = SEARCHES[name](sigma=sigma)
        return generations(search, search.init(vector(), 0), 2).mean

    together = vmap(two_generations)(sigmas)
    for sigma, mean in zip(sigmas.tolist(), together, strict=True):
        torch.testing.assert_close(two_generations(sigma), mean, rtol=1e-8, atol=1e-8)


QUICK = ("snes", "cma_es", "openai_es")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name not in QUICK)) for name in SEARCHES])
def test_tell_is_traced_whole(name):
    search = SEARCHES[name]()
    state = search.init(vector(), 0)
    population, _ = search.ask(state)
    fitness, z = bowl(population.stacked()), population.rows(range(population.popsize))
    torch.compiler.reset()
    compiled = torch.compile(lambda state, fitness, z: search.tell(state, fitness, noise=z), backend="aot_eager", fullgraph=True)
    alike(compiled(state, fitness, z), search.tell(state, fitness), 1e-8)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in SEARCHES])
def test_a_generation_is_traced_whole(name):
    """Slow for the cipher: ten rounds of integer arithmetic, traced twice over."""
    search = SEARCHES[name]()

    def generation(state):
        population, state = search.ask(state)
        return search.tell(state, bowl(population.stacked()))

    torch.compiler.reset()
    compiled = torch.compile(generation, backend="aot_eager", fullgraph=True)
    compiled_state, state = search.init(vector(), 0), search.init(vector(), 0)
    for _ in range(2):
        compiled_state, state = compiled(compiled_state), generation(state)
    alike(compiled_state, state, 1e-6)


@BY_SEARCH
def test_resumes_bit_for_bit(name):
    search = SEARCHES[name]()
    state = generations(search, search.init(tree(), 0), 2)
    saved = fo.checkpoint.state_dict(state)
    resumed = fo.checkpoint.load_state_dict(search.init(tree(), 9), saved)
    on, again = generations(search, state, 3), generations(search, resumed, 3)
    assert all(torch.equal(x, y) for x, y in zip(fo.tree.leaves(on), fo.tree.leaves(again), strict=True))


@BY_SEARCH
def test_changes_nothing_it_is_given(name):
    search = SEARCHES[name]()
    start = tree()
    state = generations(search, search.init(start, 0), 1)
    before = fo.tree.clone(state)
    first, second = generations(search, state, 1), generations(search, state, 1)
    alike(state, before, 0)
    alike(first, second, 0)
    alike(start, tree(), 0)


# ---------------------------------------------------------------------------------------------------- members that fail


@BY_SEARCH
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_member_that_fails_is_the_worst(name, bad):
    search = SEARCHES[name]()
    state = search.init(vector(), 0)
    fitness = bowl(search.ask(state)[0].stacked())
    worst = fitness.argmax()
    failed = fitness.clone()
    failed[worst] = bad
    if name == "ars":  # fitness itself counts: the failed member is as bad as the worst of the others
        fitness[worst] = fitness.sort().values[-2]
    told, failing = search.tell(state, fitness), search.tell(state, failed)
    alike(told._replace(common=()), failing._replace(common=()))
    assert failing.common.n_failed == 1 and told.common.n_failed == 0


@BY_SEARCH
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_from_members_that_all_fail_nothing_is_learned(name, bad):
    search = SEARCHES[name]()
    state = generations(search, search.init(vector(), 0), 1)
    told = search.tell(state, torch.full((search.ask(state)[0].popsize,), bad))
    alike(told._replace(common=()), state._replace(common=()), 0)
    alike(told.common.best, state.common.best, 0)
    assert told.common.n_failed == search.ask(state)[0].popsize and told.common.count == 2


@BY_SEARCH
def test_the_best_of_a_failing_generation_is_finite(name):
    search = SEARCHES[name]()
    state = search.init(vector(), 0)
    x = search.ask(state)[0].stacked()
    fitness = bowl(x)
    fitness[0], fitness[1] = NAN, -INF
    params, best = search.best(search.tell(state, fitness))
    assert best == fitness[2:].min()
    torch.testing.assert_close(params, x[2:][fitness[2:].argmin()])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fo.es.snes(popsize=1), ValueError, r"es.snes: popsize must be >= 2, got 1"),
        (lambda: fo.es.openai_es(popsize=5), ValueError, r"es.openai_es: popsize must be even, since members come in pairs, got 5"),
        (lambda: fo.es.pgpe(popsize=7), ValueError, r"es.pgpe: popsize must be even"),
        (lambda: fo.es.cma_es(sigma=0.0), ValueError, r"es.cma_es: sigma must be > 0, got 0.0"),
        (lambda: fo.es.cma_es(sigma={"a": 1.0, "b": -1.0}), ValueError, r"es.cma_es: sigma must be > 0, got -1.0"),
        (
            lambda: fo.es.cma_es(variant="cmaes"),
            ValueError,
            r"es.cma_es: variant must be one of 'tutorial', 'pycma', 'evosax', got 'cmaes'",
        ),
        (lambda: fo.es.cem(rho=0.0), ValueError, r"rho must be in \(0, 1\], got 0.0"),
        (lambda: fo.es.ars(popsize=8, directions=5), ValueError, r"es.ars: directions must be <= 4, half the popsize, got 5"),
        (lambda: fo.es.pgpe(sigma_max_change=2.0), ValueError, r"es.pgpe: sigma_max_change must be in \[0, 1\], got 2.0"),
        (lambda: fo.es.openai_es(scale="none"), ValueError, r"es.openai_es: scale must be one of 'inverse_sigma', 'openai', 'sigma'"),
        (lambda: fo.es.snes().init({}, 0), ValueError, r"es.snes: params must hold at least one number"),
        (
            lambda: fo.es.snes().init({"n": torch.ones(2, dtype=torch.int64)}, 0),
            TypeError,
            r"floating point tensors, got torch.int64 at 'n'",
        ),
        (
            lambda: fo.es.snes().init({"a": torch.ones(1), "b": torch.ones(1, device="meta")}, 0),
            ValueError,
            r"one device, got cpu and another at 'b'",
        ),
        (lambda: fo.es.snes(sigma={"x": 1.0}).init(tree(), 0), ValueError, r"es.snes: sigma must have the structure of params"),
        (
            lambda: fo.es.snes(sigma={"a": torch.ones(3), "b": 1.0}).init(tree(), 0),
            ValueError,
            r"sigma must broadcast to the shape \(2, 2\) at 'a'",
        ),
        (
            lambda: told(torch.ones(5)),
            ValueError,
            r"es.snes: fitness must be a tensor of shape \(6,\), one number for each member, or an array or a list of them, got \(5,\)",
        ),
        (lambda: told(["a"] * 6), ValueError, r"one number for each member, or an array or a list of them, got list"),
        (lambda: told([1.0] * 5), ValueError, r"fitness must be a tensor of shape \(6,\), .* or an array or a list of them, got \(5,\)"),
        (lambda: told(torch.ones(6), population=torch.ones(5, 2)), ValueError, r"population must have the leading axis 6, got 5"),
        (
            lambda: told(torch.ones(6), population=torch.ones(6, 3)),
            ValueError,
            r"es.snes: a member of what is told and params must be alike",
        ),
        (
            lambda: told(torch.ones(6), population=torch.ones(6, 2), noise=torch.ones(6, 2)),
            ValueError,
            r"tell takes population= or noise=, not both",
        ),
        (lambda: fo.es.cem(popsize=4, rho=0.25).tell(*few(4)), ValueError, r"es.cem: rho must leave at least 2 elites of 4 members"),
        (lambda: fo.es.sep_cma_es(variant="pycma", accelerate=True), ValueError, r"es.sep_cma_es: accelerate is not for variant='pycma'"),
        (lambda: asked().member(6), ValueError, r"es.Population.member: i must be < 6, the popsize, got 6"),
        (lambda: next(asked().chunks(0)), ValueError, r"es.Population.chunks: size must be >= 1, got 0"),
    ],
)
def test_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def asked():
    search = fo.es.snes(popsize=6)
    return search.ask(search.init(torch.zeros(2), 0))[0]


def told(fitness, **given):
    search = fo.es.snes(popsize=6)
    return search.tell(search.init(torch.zeros(2), 0), fitness, **given)


def few(popsize):
    return fo.es.cem(popsize=popsize).init(torch.zeros(2), 0), torch.arange(float(popsize))


@pytest.mark.parametrize("kind", ["array", "array in float32", "list", "list of tensors", "tuple of both"])
def test_fitness_may_be_an_array_or_a_list(kind):
    search = fo.es.snes(popsize=6)
    population, state = search.ask(search.init(torch.zeros(3, dtype=torch.float64), 0))
    values = population.stacked().square().sum(1)
    given = {
        "array": values.numpy(),
        "array in float32": values.float().numpy(),
        "list": values.tolist(),
        "list of tensors": list(values),
        "tuple of both": (*values[:3].tolist(), *values[3:]),
    }[kind]
    ours, theirs = search.tell(state, given), search.tell(state, values.float() if kind == "array in float32" else values)
    for x, y in zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
