"""Ranks that do not make the same call are told in what they differ; a rank that hangs or dies is told by the others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.es import quarrels
from tests.es.quarrels import BY_SIZE, QUARRELS, bowl, closing_over
from tests.es.test_team import together

WHO = r"es\.(grad|run of es\.(snes|cem)), generation 0: "


def said(results):
    assert all(isinstance(error, RuntimeError) for error in results), results
    return [str(error) for error in results]


@pytest.mark.parametrize("name", QUARRELS)
def test_ranks_that_make_different_calls_are_told_in_what(name):
    act, sentence = QUARRELS[name]
    for text in said(together(2, lambda team: act(team, team.rank))):
        assert re.match(WHO, text) and re.search(sentence, text), text


SAME = {
    "a function of the same code": lambda team: fo.es.grad(lambda p: p.sum(), popsize=4, sigma=0.1, chunk_size=2, process_group=team)(
        torch.ones(3), key=0
    ),
    "a list of one's own": lambda team: watched(team, []),
    "a closure over equal tensors": lambda team: fo.es.grad(
        closing_over(torch.ones(())), popsize=4, sigma=0.1, chunk_size=2, process_group=team
    )(torch.ones(3), key=0),
    "memory": lambda team: quarrels.estimated(team, memory=("store", "regenerate")[team.rank]),
    "an object that knows its rank": lambda team: quarrels.estimated(team, objective=quarrels.Weighed(1.0, team.rank).method),
    "a module": lambda team: fo.es.grad(lambda p: MODULE(p).sum(), popsize=4, sigma=0.1, chunk_size=2, process_group=team)(
        torch.ones(3), key=0
    ),
}
MODULE = torch.nn.Linear(3, 1)


def watched(team, seen):
    seen.extend([None] * team.rank)
    return fo.es.grad(lambda p: seen.append(None) or (team.rank >= 0) * p.sum(), popsize=4, sigma=0.1, chunk_size=2, process_group=team)(
        torch.ones(3), key=0
    )


@pytest.mark.parametrize("name", SAME)
def test_ranks_may_differ_in_what_changes_no_result(name):
    (first, _), (second, _) = together(2, SAME[name])
    assert torch.equal(first, second)


def test_data_that_is_changed_in_place_on_one_rank_is_noticed():
    def act(team):
        data, grad = torch.ones(5000), fo.es.grad(bowl, popsize=4, sigma=0.1, chunk_size=2, process_group=team)
        for generation in range(3):
            grad(torch.ones(3), data, key=generation)
        data[17] += team.rank
        return grad(torch.ones(3), data, key=3)

    for text in said(together(2, act)):
        assert "es.grad, generation 3: all ranks must make the same call, but they differ in arguments of the objective" in text


def test_a_search_of_ones_own_loop_is_told_of_a_spread_that_differs():
    def act(team):
        search = fo.es.snes(4, sigma=0.1 + 0.1 * team.rank)
        population, _ = search.ask(search.init(torch.ones(3), 0))
        return fo.es.evaluator(bowl, process_group=team, chunk_size=2)(population)

    for text in said(together(2, act)):
        assert "es.evaluator, generation 0" in text and "noise, sigma or mask" in text


@pytest.mark.parametrize("other", ["maximize", "subspace"])
def test_an_estimator_is_held_to_it_too(other):
    def act(team):
        options = {"maximize": team.rank == 1} if other == "maximize" else {"subspace": 1 + team.rank}
        descent = fo.es.estimator(bowl, popsize=4, sigma=0.1, chunk_size=2, process_group=team, **options)
        return descent.estimate(torch.ones(3), descent.init(torch.ones(3), 0))

    assert all("es.estimator, generation 0: all ranks must make the same call" in text for text in said(together(2, act)))


def test_over_gloo_nothing_aborts_and_those_who_wait_or_are_left_say_what_happened(tmp_path):
    root, env = Path(__file__).parents[2], {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = [subprocess.Popen([sys.executable, "-m", "tests.es.quarrels", str(rank), str(tmp_path)], cwd=root, env=env) for rank in range(2)]
    try:
        codes = [job.wait(400) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert codes == [0, -9]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for told in (first, second):
        for name in BY_SIZE:
            assert re.match("RuntimeError: " + WHO, told[name]) and re.search(QUARRELS[name][1], told[name]), told[name]
    lost = r"the ranks have lost each other: one died, hangs, or made another call .* start all of them again from the last checkpoint"
    lost += r".* <- \w+: \S"
    assert re.match(r"RuntimeError: es\.grad, generation 1: " + lost, first["hangs"]), first["hangs"]
    assert re.match(r"RuntimeError: es\.run of es\.snes, generation 0: " + lost, first["dies"]), first["dies"]
