"""Restarts and boxes: runs end where nothing is left to learn, sizes follow the strategy, params stay inside."""

import functools
import math

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_equal

START = torch.full((2,), 3.0, dtype=torch.float64)


def bowl(x):
    return x.square().sum()


def sizes(search, objective, generations, key=0):
    """The popsize and the first sigma of every run, and the last state."""
    state, found = search.init(START, key), []
    for _ in range(generations):
        population, state = search.ask(state)
        run = (state.run.item(), population.popsize, round(state.sigma.item(), 6))
        if run not in found:
            found.append(run)
        state = search.tell(state, vmap(objective)(population))
    return found, state


def test_ipop_doubles_and_keeps_the_best_of_all_runs():
    search = fo.es.restarts(fo.es.cma_es, 6, 0.5)
    runs, state = sizes(search, bowl, 250)
    assert [(number, size) for number, size, _ in runs[:3]] == [(0, 6), (1, 12), (2, 24)]
    assert {sigma for *_, sigma in runs} == {0.5}
    assert search.best(state)[1] < 1e-12 and bowl(search.best(state)[0]) == search.best(state)[1]


def test_bipop_spends_as_much_on_small_runs_as_on_large_ones():
    runs, state = sizes(fo.es.restarts(fo.es.cma_es, 6, 0.5, strategy="bipop"), bowl, 400)
    large = [size for _, size, sigma in runs if sigma == 0.5]
    assert large == [6 * 2**i for i in range(len(large))] and len(large) >= 2
    small = [(size, sigma) for _, size, sigma in runs if sigma != 0.5]
    assert small and all(2 <= size <= 24 and 0.005 <= sigma < 0.5 for size, sigma in small)


def test_a_flat_function_ends_a_run_after_its_patience():
    # 10 + ceil(30 * 2 / 6) = 20 generations
    search = fo.es.restarts(fo.es.snes, 6, 0.5)
    state, runs = search.init(START, 0), []
    for _ in range(21):
        population, state = search.ask(state)
        runs.append(state.run.item())
        state = search.tell(state, torch.ones(population.popsize, dtype=torch.float64))
    assert runs == [0] * 20 + [1]


def test_a_search_that_was_saved_goes_on_as_it_would_have():
    search = fo.es.restarts(fo.es.cma_es, 4, 0.5, strategy="bipop")
    state = sizes(search, bowl, 200)[1]
    assert state.run > 0
    loaded = fo.checkpoint.load_state_dict(search.init(START, 1), fo.checkpoint.state_dict(state))
    for _ in range(3):
        population, state = search.ask(state)
        again, loaded = search.ask(loaded)
        state, loaded = search.tell(state, vmap(bowl)(population)), search.tell(loaded, vmap(bowl)(again))
    assert_trees_equal(loaded, state)


def test_a_run_begins_in_its_box():
    box = fo.es.domain({"": (-5.0, 5.0)})
    search = fo.es.restarts(functools.partial(fo.es.cma_es, variant="pycma"), 4, 1.0, start=box.uniform)
    starts = [search.init(START, key).mean for key in range(20)]
    assert all((start.abs() <= 5).all() for start in starts) and torch.stack(starts).std() > 1


@pytest.mark.parametrize(
    "how, out", [("reflect", [0.25, 0.5, 0.75, 0.5]), ("clip", [0.0, 0.5, 1.0, 1.0]), ("wrap", [0.75, 0.5, 0.25, 0.5])]
)
def test_a_box_by_hand(how, out):
    box = fo.es.domain({"deep.*": (0.0, 1.0)}, how)
    params = {"deep": {"w": torch.tensor([-0.25, 0.5, 1.25, 2.5])}, "free": torch.tensor(9.0)}
    inside = box(params)
    torch.testing.assert_close(inside["deep"]["w"], torch.tensor(out))
    assert inside["free"] is params["free"]


def test_one_side_may_be_open_and_a_search_stays_inside():
    box = fo.es.domain({"x": (1.0, None)})
    objective = box.of(lambda params, key=None: params["x"].square().sum())
    state, _ = fo.es.run(fo.es.cma_es(sigma=0.5), objective, {"x": START}, 0, 60)
    torch.testing.assert_close(box(state.common.best)["x"], torch.ones(2, dtype=torch.float64), rtol=0.0, atol=1e-4)
    assert math.isclose(box.of(lambda params: params["x"].sum())({"x": torch.tensor([0.5])}), 1.5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fo.es.restarts(fo.es.cma_es, 1), ValueError, r"es.restarts: popsize must be >= 2, got 1"),
        (lambda: fo.es.restarts(fo.es.cma_es, sigma=torch.ones(())), TypeError, r"es.restarts: sigma must be a number"),
        (lambda: fo.es.restarts(lambda popsize, sigma: None), TypeError, r"es.restarts: factory must make a search, got NoneType"),
        (
            lambda: vmap(lambda x: fo.es.restarts(fo.es.snes, 4).ask(fo.es.restarts(fo.es.snes, 4).init(x, 0))[0])(torch.ones(2, 3)),
            ValueError,
            "es.restarts: a value cannot be read inside vmap",
        ),
        (lambda: fo.es.domain({"x": (1.0, 0.0)}), ValueError, r"es.domain: low must be below high for 'x', got \(1.0, 0.0\)"),
        (lambda: fo.es.domain({"x": (None, 0.0)}, "wrap"), ValueError, r"es.domain: how='wrap' needs both sides of 'x'"),
        (lambda: fo.es.domain({"y": (0.0, 1.0)})({"x": START}), KeyError, r"es.domain: no leaf of params is named 'y'; there are x"),
    ],
)
def test_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
