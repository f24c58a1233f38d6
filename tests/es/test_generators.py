"""torch's generators inside an objective: the same numbers for all members, or others for each, in whatever way members are evaluated."""

import multiprocessing
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import funcopt as fo
from funcopt.es.evaluate import processes
from tests.es import programs

PARAMS = {"w": torch.ones(64)}
TINY = {"popsize": 8, "sigma": 1e-12}  # below the rounding of the parameters: members differ in what they draw alone


def seen(how, randomness, chunk_size="auto", key=0, **options):
    crew = {"workers": 1} if how == "processes" else {}
    grad_fn = fo.es.grad(programs.dropped, randomness=randomness, vectorize=how, chunk_size=chunk_size, **{**TINY, **crew, **options})
    return grad_fn(PARAMS, key=key)[1].fitness


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 2, 6, None])
@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_same_is_the_same_for_all_members(how, chunk_size, antithetic):
    fitness = seen(how, "same", chunk_size, antithetic=antithetic)
    assert fitness.unique().numel() == 1
    assert torch.equal(fitness, seen("loop", "same", antithetic=antithetic))
    assert not torch.equal(fitness, seen(how, "same", chunk_size, key=1, antithetic=antithetic))


@pytest.mark.parametrize("chunk_size", [1, 2, 6, None])
@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_different_differs_and_comes_again(how, chunk_size):
    fitness = seen(how, "different", chunk_size)
    assert fitness.unique().numel() == 8
    assert torch.equal(fitness, seen(how, "different", chunk_size))
    if how == "loop":
        assert torch.equal(fitness, seen(how, "different"))


def hire_a_thread(self):
    """A worker of this process, at work in a moment."""
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=processes._work, args=(theirs,), daemon=True)
    thread.start()
    ours.send_bytes(b"p" + self.program)
    self.crew.append((thread, ours))
    return ours


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_a_worker_draws_what_the_loop_draws(monkeypatch, randomness):
    monkeypatch.setattr(processes.Workers, "hire", hire_a_thread)
    assert torch.equal(seen("processes", randomness), seen("loop", randomness))


@pytest.mark.long
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_worker_processes_draw_what_the_loop_draws(randomness):
    assert torch.equal(seen("processes", randomness), seen("loop", randomness))


def test_the_center_draws_what_members_draw():
    for how in ("vmap", "loop"):
        info = fo.es.grad(programs.dropped, randomness="same", baseline="center", vectorize=how, **TINY)(PARAMS, key=0)[1]
        assert info.fitness.unique().tolist() == [info.center.item()]


def test_populations_of_a_search_too():
    search = fo.es.snes(popsize=8, sigma=1e-12)
    population, _ = search.ask(search.init(PARAMS, 0))
    for how in ("vmap", "loop"):
        assert fo.es.evaluator(programs.dropped, randomness="same", vectorize=how)(population).unique().numel() == 1
        assert fo.es.evaluator(programs.dropped, randomness="different", vectorize=how, chunk_size=2)(population).unique().numel() == 8


def test_the_generators_of_the_caller_stay_where_they_were():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for how in ("vmap", "loop"):
        for randomness in ("same", "different"):
            seen(how, randomness)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("randomness", ["keyed", "error"])
def test_an_objective_of_all_members_is_refused_its_draws_too_and_so_is_the_value_that_is_differentiated(randomness):
    stacked = fo.es.grad(lambda p: nn.functional.dropout(p["w"]).sum(1), randomness=randomness, vectorize="external", **TINY)
    with pytest.raises(ValueError, match="es.grad: the objective draws random numbers from torch's generator"):
        stacked(PARAMS, key=0)
    steps = fo.es.differentiable(nn.functional.dropout, randomness=randomness, **TINY)
    with pytest.raises(ValueError, match="es.differentiable: the objective draws random numbers from torch's generator"):
        steps(PARAMS["w"], key=0)


def test_a_value_that_is_differentiated_is_that_of_its_key():
    steps = fo.es.differentiable(nn.functional.dropout, randomness="same", **TINY)
    assert torch.equal(steps(PARAMS["w"], key=0), steps(PARAMS["w"], key=0)) and not torch.equal(
        steps(PARAMS["w"], key=0), steps(PARAMS["w"], key=1)
    )


def test_says_where_it_cannot_be_had():
    with pytest.raises(
        ValueError,
        match="with vectorize='external' the objective draws for all members at once, and nobody can make that the same for each",
    ):
        fo.es.grad(programs.dropped, vectorize="external", randomness="same", **TINY)
    noisy = fo.es.grad(lambda p: nn.functional.dropout(p["w"]).sum(), randomness="same", vectorize="loop", **TINY)
    with pytest.raises(
        ValueError, match="randomness='same' seeds torch's generators with the key, whose numbers cannot be read inside vmap or a graph"
    ):
        torch.func.vmap(lambda key: noisy(PARAMS, key=key)[1].fitness)(fo.random.split(fo.random.key(0), 2))


SIMULATORS = {"Python": lambda p: p["w"].sum() * random.random(), "numpy": lambda p: p["w"].sum() * float(np.random.rand())}


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_generators_of_python_and_numpy_go_with_them(name):
    def simulated(randomness, how="loop", chunk_size=2, key=0):
        return fo.es.grad(SIMULATORS[name], randomness=randomness, vectorize=how, chunk_size=chunk_size, **TINY)(PARAMS, key=key)[1].fitness

    before = random.getstate(), np.random.get_state()[1].copy()
    same = simulated("same")
    assert (
        same.unique().numel() == 1
        and torch.equal(same, simulated("same", "vmap", None))
        and not torch.equal(same, simulated("same", key=1))
    )
    different = simulated("different")
    assert different.unique().numel() == 8 and torch.equal(different, simulated("different", chunk_size=6))
    with pytest.raises(ValueError, match="es.grad: vmap does not take these draws of random numbers with randomness='different'"):
        simulated("different", "vmap")  # draws one number for a whole chunk
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])


OWN = torch.Generator()


def drawn_from(generator):
    return lambda p: p["w"].sum() * torch.rand((), generator=generator())


@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize("how, chunk_size", [("loop", "auto"), ("vmap", 2), ("vmap", None), ("external", 2)])
def test_a_generator_of_the_callers_own_that_goes_on_from_member_to_member_is_refused(how, chunk_size, randomness):
    if how == "external":
        randomness = "different"
    estimate = fo.es.grad(
        lambda p: p["w"].sum(-1) * torch.rand((), generator=OWN), randomness=randomness, vectorize=how, chunk_size=chunk_size, **TINY
    )
    with pytest.raises(
        ValueError, match="es.grad: the objective draws from a torch.Generator of its own that goes on from one evaluation to the next"
    ):
        for key in range(2):  # all in one chunk are drawn for at once, and the next call finds it elsewhere
            estimate(PARAMS, key=key)


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_one_that_is_seeded_where_it_is_drawn_from_gives_all_members_the_same(how):
    for generator in (lambda: OWN.manual_seed(3), lambda: torch.Generator().manual_seed(3)):
        for key in range(2):
            fitness = fo.es.grad(drawn_from(generator), randomness="same", vectorize=how, chunk_size=2, **TINY)(PARAMS, key=key)[1].fitness
            assert fitness.unique().numel() == 1


def test_a_loop_and_a_two_point_step_notice_it_whatever_the_randomness():
    with pytest.raises(ValueError, match="es.grad: the objective draws from a torch.Generator of its own"):
        fo.es.grad(drawn_from(lambda: OWN), vectorize="loop", **TINY)(PARAMS, key=0)
    with pytest.raises(ValueError, match="es.spsa_step: the loss draws from a torch.Generator of its own"):
        fo.es.spsa_step(drawn_from(lambda: OWN), lr=0.1)(PARAMS, key=0)
    with pytest.raises(ValueError, match="es.evaluator: the objective draws from a torch.Generator of its own"):
        search = fo.es.snes(popsize=8, sigma=0.1)
        fo.es.evaluator(drawn_from(lambda: OWN), vectorize="loop")(search.ask(search.init(PARAMS, 0))[0])


@pytest.mark.parametrize("draw, randomness", [(torch.bernoulli, "same"), (lambda p: torch.empty(64).normal_() * p, "different")])
def test_draws_that_vmap_cannot_make_are_made_in_a_loop(draw, randomness):
    def noisy(p):
        return (draw(p["w"].sigmoid()) * torch.arange(64)).sum()

    with pytest.raises(ValueError, match=f"vmap does not take these draws of random numbers with randomness='{randomness}'"):
        fo.es.grad(noisy, randomness=randomness, vectorize="vmap", **TINY)(PARAMS, key=0)
    with pytest.warns(UserWarning, match="members are evaluated one after the other"):
        fitness = fo.es.grad(noisy, randomness=randomness, **TINY)(PARAMS, key=0)[1].fitness
    assert fitness.unique().numel() == {"same": 1, "different": 8}[randomness]
