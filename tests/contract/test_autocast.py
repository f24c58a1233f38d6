"""Inside torch.autocast every update, search and estimate gives what it gives outside; the loss alone sees the context."""

import warnings

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at
from tests.zoo import every

HALF = {"device_type": "cpu", "dtype": torch.bfloat16}


def single_params():
    """In float32: autocast does not touch float64."""
    return {"w": torch.linspace(-1, 1, 24).reshape(4, 6), "b": torch.linspace(0.5, 1, 6), "s": torch.tensor(0.3)}


def rolled(row, inside: bool):
    with torch.autocast(**HALF, enabled=inside):
        tx, params = row.make(), single_params()
        state = tx.init(params)
        for step in range(2):
            updates, state = tx.update(gradients_at(step, params), state, params, **row.extra(step))
            params = fo.apply_updates(params, updates)
        return updates, state, params


@every()
def test_an_update_inside_autocast_is_that_of_outside(row):
    assert_trees_equal(rolled(row, inside=True), rolled(row, inside=False))


def valley(x):
    return ((x["w"] - 0.3).square() * torch.linspace(1, 10, 24).reshape(4, 6)).sum() + x["b"].square().sum() + x["s"]


SEARCHES = {
    name: lambda name=name: getattr(fo.es, name)(8, sigma=0.3)
    for name in ("ars", "cem", "cma_es", "openai_es", "pgpe", "sep_cma_es", "simple_es", "snes", "xnes")
}
SEARCHES["cma_es in pairs of pycma"] = lambda: fo.es.cma_es(8, 0.3, variant="pycma")
SEARCHES["snes with muon"] = lambda: fo.es.snes(8, 0.3, optimizer=fo.muon(0.1))


@pytest.mark.parametrize("make", SEARCHES.values(), ids=SEARCHES)
def test_a_search_inside_autocast_is_that_of_outside(make):
    def searched(inside):
        with torch.autocast(**HALF, enabled=inside):
            search = make()
            state = search.init(single_params(), 0)
            for _ in range(3):
                population, state = search.ask(state)
                fitness = torch.stack([valley(population.member(i)) for i in range(8)])
                assert_trees_equal(fo.tree.map(lambda x: x[3], population.stacked()), population.member(3))
                state = search.tell(state, fitness, population=population.stacked() if search.name != "cma_es" else None)
            return state

    assert_trees_equal(searched(True), searched(False))


LAWS = {"normal": "normal", "low rank": fo.es.low_rank(1, lazy=False), "orthogonal": fo.es.orthogonal(2), "sphere": fo.es.sphere()}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("memory", ["store", "regenerate"])
def test_an_estimate_inside_autocast_is_that_of_outside(law, memory):
    grad = fo.es.grad(valley, popsize=8, sigma=0.1, noise=law, memory=memory, shaping="zscore")
    outside = grad(single_params(), key=1)
    with torch.autocast(**HALF):
        inside = grad(single_params(), key=1)
        member = inside[1].member(2)
    assert_trees_equal(inside[0], outside[0])
    assert torch.equal(inside[1].fitness, outside[1].fitness)  # nothing that autocast touches in this objective
    assert_trees_equal(member, outside[1].member(2))


def test_the_objective_of_an_estimate_sees_autocast():
    seen = []

    def objective(x):
        seen.append((x["w"] @ x["w"].mT).dtype)
        return valley(x)

    with torch.autocast(**HALF):
        fo.es.grad(objective, popsize=4, sigma=0.1, vectorize="loop")(single_params(), key=0)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("what", ["two points", "persistent", "guided"])
def test_other_estimates_inside_autocast_are_those_of_outside(what):
    def estimated():
        params = single_params()
        if what == "two points":
            moved, info = fo.es.spsa_step(valley, lr=0.1, pairs=2, noise=fo.es.low_rank(1, lazy=False))(params, key=0)
            return moved, info.projected
        if what == "persistent":
            pes = fo.es.persistent(popsize=4, sigma=0.1)
            e, state = pes.ask(pes.init(params, 0), params)
            return e, pes.tell(state, torch.tensor([1.0, 3.0, 2.0, 7.0]), torch.tensor([False, True]))
        descent = fo.es.estimator(valley, popsize=8, sigma=0.1, subspace=2)
        memory = descent.init(params, 0)
        for _ in range(3):
            grads, memory, _ = descent.estimate(params, memory)
        return grads, memory

    outside = estimated()
    with torch.autocast(**HALF):
        inside = estimated()
    assert_trees_equal(inside, outside)


CUBE = fo.chain(fo.stateless(lambda updates, params: fo.tree.map(lambda u: u @ u.mT @ u, updates)), fo.scale(-0.1))
X = torch.linspace(-1, 1, 12).reshape(3, 4)


def loss_fn(w):
    return (X @ w).float().square().mean() + w.sum()


def assert_loss_alone_is_half(step):
    """`step(params, state)` is a step of CUBE on `loss_fn`."""
    w = torch.linspace(-1, 1, 24).reshape(4, 6)
    plain = step(w, CUBE.init(w))
    with torch.autocast(**HALF):
        moved, _, loss = step(w, CUBE.init(w))
        gradient, half = torch.func.grad_and_value(loss_fn)(w)
    assert abs(plain[2] - half) > 1e-3  # 0.3494 and 0.3478
    torch.testing.assert_close(loss, half, rtol=0, atol=1e-4)
    torch.testing.assert_close(moved, w - 0.1 * gradient @ gradient.mT @ gradient, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(step(w, CUBE.init(w))[0], plain[0])


def test_the_loss_of_a_step_sees_autocast_and_its_update_does_not():
    assert_loss_alone_is_half(fo.make_step(loss_fn, CUBE))


def test_so_it_is_in_a_graph_without_breaks():
    assert_loss_alone_is_half(torch.compile(fo.make_step(loss_fn, CUBE).__call__, backend="aot_eager", fullgraph=True))


@pytest.mark.long
@pytest.mark.parametrize("compile", [True, "ahead"])
def test_so_it_is_compiled(compile):
    step = fo.make_step(loss_fn, CUBE, compile=compile, flat=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # an engine that gives up says so
        assert_loss_alone_is_half(lambda w, state: step(*step.init(w)))
