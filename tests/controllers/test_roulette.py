"""The roulette: one member moves, both dispatches agree, words and errors."""

import pytest
import torch

import funcopt as fo
from funcopt.core.random import host_int


def small_pool():
    return {
        "adam": fo.Member(fo.scale_by_adam(), lr=0.1),
        "momentum": fo.Member(fo.trace(0.9), lr=0.01),
        "lion": fo.Member(fo.scale_by_lion(), lr=0.01),
        "sgd": fo.Member(fo.sgd(0.05)),
        "adamw": fo.Member(fo.adamw(0.1)),
    }


START = {"a": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), "b": torch.ones(2, 2, dtype=torch.float64)}


def descend(tx, steps=12, params=START, update=None):
    """Steps down half the squared norm; the params, the state and the picks."""
    state, picks = tx.init(params), []
    for _ in range(steps):
        updates, state = (update or tx.update)(params, state, params)
        params = fo.apply_updates(params, updates)
        picks.append(host_int(state[0].pick))
    return params, state, picks


def sentence(pool=None, **settings):
    return fo.chain(fo.roulette(pool or small_pool(), **{"every": 2, "probability": 0.8, "seed": 3, **settings}), fo.lr_scale())


def test_a_pool_of_one_is_that_member():
    ours, _, _ = descend(sentence({"adam": fo.Member(fo.scale_by_adam(), lr=0.1)}))
    theirs = START
    adam, state = fo.adam(0.1), fo.adam(0.1).init(START)
    for _ in range(12):
        updates, state = adam.update(theirs, state, theirs)
        theirs = fo.apply_updates(theirs, updates)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_only_the_pick_moves():
    tx = sentence(every=1, probability=1.0)
    params, state = START, tx.init(START)
    for _ in range(10):
        updates, new = tx.update(params, state, params)
        for i, name in enumerate(small_pool()):
            still = all(torch.equal(x, y) for x, y in zip(fo.tree.leaves(new[0].members[name]), fo.tree.leaves(state[0].members[name]), strict=True))
            assert still or i == host_int(new[0].pick)
        params, state = fo.apply_updates(params, updates), new


def test_a_ready_made_member_makes_its_own_step():
    pool = {"sgd": fo.Member(fo.sgd(0.05)), "still": fo.Member(fo.sgd(0.0))}
    tx = sentence(pool, every=1, probability=1.0)
    params, state = START, tx.init(START)
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        rate = 0.05 if host_int(state[0].pick) == 0 else 0.0
        torch.testing.assert_close(updates, fo.tree.scale(-rate, params))
        torch.testing.assert_close(fo.read_signals(state)["lr"].item(), rate)


def test_both_dispatches_and_the_graph_agree():
    params, state, picks = descend(sentence(dispatch="branch"))
    assert len(set(picks)) > 2
    for dispatch, traced in (("select", False), ("auto", True), ("select", True)):
        tx = sentence(dispatch=dispatch)
        update = torch.compile(tx.update, backend="aot_eager", fullgraph=True) if traced else tx.update
        others = descend(tx, update=update)
        torch.testing.assert_close(others[0], params, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(fo.tree.leaves(others[1]), fo.tree.leaves(state), rtol=1e-12, atol=1e-14)
        assert others[2] == picks


def test_every_lane_of_a_vmapped_factory_draws_for_itself():
    seeds = torch.arange(6)
    states = torch.func.vmap(lambda seed: sentence(seed=seed).init(START))(seeds)
    params = fo.tree.map(lambda x: x.expand(6, *x.shape).clone(), START)

    def step(seed, params, state):
        updates, state = sentence(seed=seed).update(params, state, params)
        return fo.apply_updates(params, updates), state

    for _ in range(12):
        params, states = torch.func.vmap(step)(seeds, params, states)
    for lane in range(6):
        alone, state, _ = descend(sentence(seed=lane))
        torch.testing.assert_close(fo.tree.map(lambda x, lane=lane: x[lane], params), alone, rtol=1e-12, atol=1e-14)
        assert torch.equal(states[0].pick[lane], state[0].pick) and torch.equal(states[0].counts[lane], state[0].counts)


def test_the_plan_is_the_pick_and_its_graph_holds_that_member_alone():
    tx = sentence(dispatch="branch")
    params, state, plans = START, tx.init(START), []
    updates = {}
    for _ in range(12):
        plan = tx.plan(state)
        plans.append(plan[0])
        run = updates.setdefault(plan, torch.compile(lambda *a, plan=plan: tx.update(*a, plan=plan), backend="aot_eager", fullgraph=True))
        change, state = run(params, state, params)
        params = fo.apply_updates(params, change)
    expected, _, picks = descend(sentence())
    assert plans == picks
    torch.testing.assert_close(params, expected, rtol=1e-12, atol=1e-14)


def test_epochs_switch_and_their_absence_is_an_error():
    tx = sentence(switch="epoch", probability=1.0)
    state, picks = tx.init(START), []
    for epoch in (0, 0, 1, 1, 2, 2):
        _, state = tx.update(START, state, START, epoch=epoch)
        picks.append(host_int(state[0].pick))
    assert picks[0::2] == picks[1::2] and picks[0] != picks[2] != picks[4]
    with pytest.raises(ValueError, match=r"roulette: needs the epoch of this step with switch='epoch'; call update\(..., epoch=epoch\)"):
        tx.update(START, state, START)


@pytest.mark.parametrize(
    "pool, message",
    [
        ({"adam": fo.Member(fo.adam(0.1), lr=0.1)}, "member 'adam' says 'lr', so its step has its size already"),
        ({"adam": fo.Member(fo.scale_by_adam())}, "member 'adam' has no lr and says none"),
        ({}, "pool must have at least one member"),
        ({"adam": fo.Member(fo.adam(None))}, "member 'adam' needs 'base_lr', and members hear nothing"),
    ],
)
def test_refuses_members_without_a_size_or_with_two(pool, message):
    with pytest.raises(ValueError, match="roulette: " + message):
        fo.roulette(pool).init(START)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"every": 0}, "every must be >= 1, got 0"),
        ({"probability": 1.5}, r"probability must be in \[0, 1\], got 1.5"),
        ({"switch": "batch"}, "switch must be one of 'step', 'epoch', got 'batch'"),
        ({"active": ["adam", "unknown"]}, "active must name members of the pool, got 'unknown'"),
        ({"dispatch": "fast"}, "dispatch must be one of"),
    ],
)
def test_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match="roulette: " + message):
        fo.roulette(small_pool(), **settings)
