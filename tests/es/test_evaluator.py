"""From a population to its fitness: chunks, loops, keys, ranks; and the loop around a search."""

import pytest
import torch
from torch.func import vmap

import funcopt as fo


def bowl(params, target=1.0):
    return sum((leaf - target).square().sum() for leaf in fo.tree.leaves(params))


def tree():
    return {"a": torch.tensor([[0.3, -0.7], [0.1, 0.9]], dtype=torch.float64), "b": torch.tensor(0.4, dtype=torch.float64)}


def asked(search, params=None):
    return search.ask(search.init(tree() if params is None else params, 3))[0]


SEARCHES = [fo.es.snes(11), fo.es.openai_es(10), fo.es.cma_es(7)]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
@pytest.mark.parametrize(
    "options", [{}, {"chunk_size": 3}, {"chunk_size": None}, {"vectorize": "loop"}, {"vectorize": "vmap", "chunk_size": 4}], ids=str
)
def test_every_way_gives_the_fitness_of_the_members(search, options):
    population = asked(search)
    expected = vmap(bowl)(population.stacked())
    torch.testing.assert_close(fo.es.evaluator(bowl, **options)(population), expected)
    torch.testing.assert_close(fo.es.evaluator(bowl, **options)(population, 2.0), vmap(lambda x: bowl(x, 2.0))(population.stacked()))


def test_noise_at_hand_is_not_drawn_again(monkeypatch):
    search = fo.es.openai_es(10)
    state = search.init(tree(), 3)
    population, _ = search.ask(state)
    measure = fo.es.evaluator(bowl)
    fitness = measure(population)
    after, drawn = search.tell(state, fitness), population.drawn()
    monkeypatch.setattr(fo.es.Population, "noise", None)
    assert torch.equal(measure(drawn), fitness)
    assert torch.equal(search.tell(state, fitness, population=drawn).mean["a"], after.mean["a"])


@pytest.mark.long
def test_run_in_compiled_chunks_draws_compiled_noise():
    search = fo.es.openai_es(8, sigma=0.5)
    plain, _ = fo.es.run(search, bowl, torch.zeros(3), 0, 2)
    compiled, _ = fo.es.run(search, bowl, torch.zeros(3), 0, 2, compile={"backend": "aot_eager"}, vectorize="vmap")
    torch.testing.assert_close(plain.mean, compiled.mean, rtol=1e-4, atol=1e-5)


def test_an_objective_for_the_whole_stack():
    population = asked(fo.es.pgpe(8))
    fitness = fo.es.evaluator(lambda stacked: sum(leaf.reshape(8, -1).sum(1) for leaf in fo.tree.leaves(stacked)), vectorize="external")(
        population
    )
    torch.testing.assert_close(fitness, vmap(lambda x: sum(leaf.sum() for leaf in fo.tree.leaves(x)))(population.stacked()))


def test_an_objective_with_a_key_gets_another_one_every_generation():
    def noisy(x, key):
        return x.sum() * 0 + fo.random.uniform(key)

    search = fo.es.openai_es(6)
    state = search.init(torch.zeros(2), 0)
    measure = fo.es.evaluator(noisy)
    first = measure(search.ask(state)[0])
    assert len(first.unique()) == 1  # common random numbers
    state = search.tell(state, first)
    assert measure(search.ask(state)[0])[0] != first[0]
    assert len(fo.es.evaluator(noisy, common_random_numbers=False)(search.ask(state)[0]).unique()) == 6


def test_what_members_return_beside():
    population = asked(fo.es.snes(5))
    fitness, aux = fo.es.evaluator(lambda x: (bowl(x), x["b"]), has_aux=True)(population)
    torch.testing.assert_close(aux, population.stacked()["b"])
    assert fitness.shape == (5,)


def test_restarts_side_by_side():
    search = fo.es.cma_es(8, sigma=0.5)
    measure = fo.es.evaluator(bowl, vectorize="vmap")

    def generation(state):
        population, state = search.ask(state)
        return search.tell(state, measure(population))

    starts = torch.tensor([[0.0, 0.0], [3.0, -1.0]], dtype=torch.float64)
    states = vmap(search.init)(starts, fo.random.split(fo.random.key(0), 2))
    alone = search.init(starts[1], fo.random.split(fo.random.key(0), 2)[1])
    for _ in range(30):
        states, alone = vmap(generation)(states), generation(alone)
    torch.testing.assert_close(states.mean[1], alone.mean, rtol=1e-6, atol=1e-6)
    assert (states.common.best_fitness < 0.05).all()


def test_run_is_ask_evaluate_tell():
    search = fo.es.snes(10, sigma=0.4)
    state, history = fo.es.run(search, bowl, tree(), 5, 6, 0.5, chunk_size=4)
    ours = search.init(tree(), 5)
    for _ in range(6):
        population, ours = search.ask(ours)
        ours = search.tell(ours, vmap(lambda x: bowl(x, 0.5))(population.stacked()))
    torch.testing.assert_close(search.center(state)["a"], search.center(ours)["a"])
    assert history.best.shape == history.mean.shape == (6,)
    assert (history.best.diff() <= 0).all() and history.best[-1] == search.best(state)[1]
    assert fo.es.run(search, bowl, tree(), 5, 0)[1].best.shape == (0,)


def test_run_tells_how_wide_and_after_how_many_evaluations():
    start = torch.zeros(3, dtype=torch.float64)
    for search in (fo.es.openai_es(8, sigma=0.3), fo.es.snes(8, sigma=0.3), fo.es.cma_es(8, sigma=0.3)):  # a number, [D] and [D, D]
        _, history = fo.es.run(search, bowl, start, 0, 4)
        assert history.evaluations.tolist() == [8, 16, 24, 32]
        torch.testing.assert_close(history.sigma[0].item(), 0.3)
    state = search.init(start, 0)
    for told in history.sigma:
        population, state = search.ask(state)
        torch.testing.assert_close(told, (population.spread @ population.spread.mT).diagonal().mean().sqrt())
        state = search.tell(state, fo.es.evaluator(bowl)(population))


def test_run_counts_members_that_fail():
    _, history = fo.es.run(fo.es.openai_es(20, sigma=1.0), lambda x: x.log().sum(), torch.zeros(1), 0, 4)
    assert (history.n_failed > 0).all() and history.mean.isfinite().all()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fo.es.evaluator(bowl, popsize=3), TypeError, r"es.evaluator: unknown option 'popsize'; the options are buffers, "),
        (lambda: fo.es.evaluator(bowl)(torch.zeros(2)), TypeError, r"es.evaluator: needs the population that ask gave, got Tensor"),
        (lambda: fo.es.evaluator(bowl, chunk_size=0)(asked(SEARCHES[0])), ValueError, r"es.evaluator: chunk_size must be >= 1, got 0"),
        (lambda: fo.es.evaluator(lambda x: x["a"])(asked(SEARCHES[0])), (ValueError, TypeError), r"es.evaluator: .*objective"),
        (lambda: fo.es.run(SEARCHES[0], bowl, tree(), 0, 1, has_aux=True), ValueError, r"es.run: has_aux is for es.evaluator"),
        (lambda: fo.es.run(SEARCHES[0], bowl, tree(), 0, -1), ValueError, r"es.run: generations must be >= 0, got -1"),
    ],
)
def test_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
