"""Chains with a plan: gradients compiled once, an update for each plan before the first step, and the numbers of an eager step."""

import pytest
import torch

import funcopt as fo
from funcopt.core import plans, tree
from funcopt.core.traits import outside_the_graph
from funcopt.execute import planned, policy, runner
from funcopt.execute.engines.dynamo import tensors_for_numbers
from tests.helpers import assert_trees_close, gradients_at, needs_compiler, small_params
from tests.zoo import ROWS

W = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)


def bowl(w):
    return (w**2).sum()


def pool(**settings):
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=0.05), "momentum": fo.Member(fo.trace(0.9), lr=0.01)}
    return fo.roulette({**members, "sign": fo.Member(fo.sign(), lr=0.02)}, every=1, seed=0, **settings)


def sentence():
    return fo.chain(fo.agreement_policy(), pool(), fo.ucb_episodes(episode_length=3, seed=0), fo.lr_scale())


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Names of the graphs that were compiled, in the order of their first calls, where nothing is small enough for one graph."""
    monkeypatch.setattr(policy, "CHOSEN_BYTES", 0)
    return counting(monkeypatch)


def counting(monkeypatch) -> list[str]:
    names, compiled = [], runner.compiled

    def counted(f, name, *rest, **settings):
        run, first = compiled(f, name, *rest, **settings), [name]

        def once(*arguments):
            names.extend(first)
            first.clear()
            return run(*arguments)

        return once

    monkeypatch.setattr(runner, "compiled", counted)
    return names


@needs_compiler
@pytest.mark.parametrize("donate", [False, True])
def test_all_graphs_are_made_before_the_first_step_and_the_gradients_once(made, donate):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    step, eager = fo.make_step(bowl, sentence(), compile=True, donate=donate), fo.make_step(bowl, sentence())
    ours, theirs = step.init(W), eager.init(W)
    for number in range(8):
        *ours, loss = step(*ours)
        *theirs, expected = eager(*theirs)
        assert_trees_close((ours, loss), (theirs, expected), rtol=1e-9, atol=1e-12)
        if number == 0:
            before = list(made)
    assert before == made
    assert len(made) == 4
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4
    )  # none of them was made anew, for the steps outside of a graph neither
    assert sum(name.startswith("gradients for") for name in made) == 1


@needs_compiler
def test_a_loss_that_draws_draws_once_a_step(made):
    """The graphs made ahead leave torch's generator where it was."""

    def noisy(w):
        return (w * torch.rand(3, dtype=w.dtype)).sum()

    losses = []
    for tx in (fo.chain(pool(), fo.lr_scale()), fo.sgd(0.0)):
        torch._dynamo.reset()
        step = fo.make_step(noisy, tx, compile=True)
        params, state = step.init(W)
        torch.manual_seed(3)
        losses.append(step(params, state)[2])
    assert len(made) > 4
    assert losses[0] == losses[1]


@needs_compiler
def test_of_a_large_pool_each_graph_is_made_when_it_is_drawn(made, monkeypatch):
    monkeypatch.setattr(planned, "MOST", 2)
    torch._dynamo.reset()
    step = fo.make_step(bowl, fo.chain(pool(), fo.lr_scale()), compile=True)
    step(*step.init(W))
    assert len(made) == 2


@needs_compiler
def test_what_is_due_every_k_steps_compiles_the_gradients_once(made):
    torch._dynamo.reset()
    tx = fo.multi_steps(fo.adam(0.1), 3)
    step, eager = fo.make_step(bowl, tx, compile=True, donate=True), fo.make_step(bowl, tx)
    ours, theirs = step.init(W), eager.init(W)
    for _ in range(7):
        *ours, _ = step(*ours)
        *theirs, _ = eager(*theirs)
    assert_trees_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert len(made) == 3


PLANNED = [row for row in ROWS if row.make().plan is not None]


@pytest.mark.parametrize("row", PLANNED, ids=[row.id for row in PLANNED])
def test_a_transformation_knows_all_its_plans(row):
    tx, params = row.make(), small_params()
    state = tx.init(params)
    known = plans.of_one(tx, state)
    assert known is None or len(set(known)) == len(known) > 0
    for number in range(13):
        extra = row.extra(number)
        plan = tx.plan(state, **extra)
        assert known is None or plan is None or outside_the_graph(plan) or plan in known
        updates, state = tx.update(gradients_at(number, params), state, params, **extra)
        params = fo.apply_updates(params, updates)


def test_all_know_their_plans_but_what_holds_a_class_of_others():
    unknown = {row.id for row in PLANNED if plans.of_one(tx := row.make(), tx.init(small_params())) is None}
    assert unknown == {"torch_optim.from_torch"}


def test_phases_of_an_episode_are_plans_where_they_are_asked_for():
    for dispatch, count in (("auto", 1), ("branch", 3), ("select", 1)):
        tx = fo.ucb_episodes(episode_length=4, dispatch=dispatch, seed=0)
        found = plans.of_one(tx, tx.init(W))
        assert len(found) == count
    assert fo.ucb_episodes(dispatch="auto", seed=0).plan(tx.init(W)) is None


@needs_compiler
def test_a_link_of_ones_own_that_plans_may_leave_its_plans_out(made):
    def update(updates, state, params=None, *, plan=None, **extra):
        return (fo.tree.scale(-0.1, updates) if plan else updates), state + 1

    own = fo.GradientTransformation(
        lambda params: torch.zeros((), dtype=torch.int64), update, name="own", turns=True, plan=lambda state, **extra: int(state) % 2 == 0
    )
    assert plans.of_all([(own, own.init(W))]) is None
    torch._dynamo.reset()
    step = fo.make_step(bowl, own, compile=True)
    params, state = step.init(W)
    for _ in range(2):
        params, state, _ = step(params, state)
    assert torch.allclose(params, W - 0.1 * 2 * W + 2 * (W - 0.2 * W))
    assert len(made) == 3  # the gradients, and two updates as they came


def test_too_many_combinations_are_not_listed():
    waits = fo.multi_steps(fo.sgd(0.1), 2)
    assert plans.of_all([(waits, waits.init(W))] * 7) is None
    assert len(plans.of_all([(waits, waits.init(W))] * 6)) == 64


@needs_compiler
def test_a_small_chain_chooses_in_one_graph(monkeypatch):
    names = counting(monkeypatch)
    torch._dynamo.reset()
    step, eager = fo.make_step(bowl, sentence(), compile=True, donate=True), fo.make_step(bowl, sentence())
    ours, theirs = step.init(W), eager.init(W)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(8):
            *ours, loss = step(*ours)
            *theirs, expected = eager(*theirs)
            assert_trees_close((ours, loss), (theirs, expected), rtol=1e-9, atol=1e-12)
    assert len(names) == 1
    params, state = step.init(torch.ones(2**20), None)  # too large for that: a graph for each plan
    assert step.tx.plan is not None
    params, state = step.init(W)
    assert step.tx.plan is None


@needs_compiler
def test_a_large_chain_with_one_plan_is_one_graph():
    step = fo.make_step(bowl, fo.aees(fo.adamw(0.1), seed=0), compile=True, donate=True)
    assert step.tx.plan is not None
    step.init(torch.ones(2**20))
    assert step.tx.plan is None


AS_ONE = [row for row in PLANNED if plans.in_one_graph(row.make()) is not None]


@pytest.mark.parametrize("row", AS_ONE, ids=[row.id for row in AS_ONE])
def test_what_chooses_in_one_graph_gives_the_numbers_of_its_plans(row):
    """Over enough steps for every member to be drawn and for episodes to end; without the compiler behind the graph."""
    torch._dynamo.reset()
    planning, one = row.make(), plans.in_one_graph(row.make())
    params, theirs = small_params(), small_params()
    state, other = one.init(params), planning.init(theirs)
    assert tree.structure(state) == tree.structure(other)
    graph = torch.compile(lambda g, s, p, extra: one.update(g, s, p, **extra), backend="eager", fullgraph=True, dynamic=False)
    for number in range(12):
        extra, gradients = row.extra(number), gradients_at(number, params)
        updates, state = graph(gradients, state, params, tensors_for_numbers(extra))
        expected, other = planning.update(gradients, other, theirs, **extra)
        assert_trees_close((updates, state), (expected, other), rtol=1e-9, atol=1e-12)
        params, theirs = fo.apply_updates(params, updates), fo.apply_updates(theirs, expected)


def test_what_chooses_in_one_graph():
    """Episodes, plain pools and what stands around them; no pool with records, none that must branch, no members that plan."""
    kept = {fo.average_params: (), fo.keep_best: (), fo.apply_if_finite: (3,)}
    for wrap, settings in kept.items():
        assert plans.in_one_graph(wrap(sentence(), *settings)).plan is None
    assert plans.in_one_graph(fo.chain(fo.scoped("inner", fo.ucb_episodes(seed=0)), fo.sgd(0.1))).plan is None
    planning = {"soap": fo.Member(fo.scale_by_soap(), lr=0.1), "adam": fo.Member(fo.scale_by_adam(), lr=0.1)}
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sign": fo.Member(fo.sign(), lr=0.1)}
    for stays in (
        fo.roulette(planning),
        fo.roulette(members, active=["adam"], failures={}),
        fo.roulette(members, dispatch="branch"),
        fo.multi_steps(fo.adam(0.1), 2),
        fo.chain(pool(), fo.soap(0.1)),
    ):
        assert plans.in_one_graph(stays) is None


@needs_compiler
def test_a_member_that_is_not_finite_is_mended_in_one_graph_too(monkeypatch):
    torch._dynamo.reset()
    tx = fo.chain(
        fo.roulette({"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "momentum": fo.Member(fo.trace(0.9), lr=0.1)}, every=20, seed=0),
        fo.lr_scale(),
    )
    broken = tree.map_plain(lambda x: torch.full_like(x, torch.nan) if x.shape == W.shape else x, tx.init(W))
    runs = []
    for compile in (False, True):
        step = fo.make_step(bowl, tx, compile=compile)
        params, state = step.init(W, broken)
        for _ in range(45):
            params, state, _ = step(params, state)
        runs.append((params, state))
    assert_trees_close(*runs, rtol=1e-9, atol=1e-12)
