"""Members of a pool that find their own rates: whose walk moves, both dispatches, resumes, cuts, errors."""

import math

import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st

import funcopt as fo
from funcopt.controllers.rate import walk as walks
from funcopt.core.protocol import EmptyState
from funcopt.core.random import host_int

F64 = torch.float64
START = {"a": torch.tensor([1.0, -2.0, 0.5], dtype=F64), "b": torch.ones(2, 2, dtype=F64)}
CURVED = {"a": torch.tensor([1.0, 0.3, 0.1], dtype=F64), "b": torch.full((2, 2), 0.5, dtype=F64)}


def pool():
    return {
        "adam": fo.Member(fo.scale_by_adam()),
        "sgd": fo.Member(fo.identity(), start=1e-5),
        "momentum": fo.Member(fo.trace(0.9)),
        "tuned": fo.Member(fo.scale_by_adam(), lr=1e-3),
        "adamw": fo.Member(fo.adamw(1e-3)),
    }


def small():
    """Two that compile soon."""
    return {"momentum": fo.Member(fo.trace(0.9)), "tuned": fo.Member(fo.identity(), lr=1e-3)}


def made(members=None, **settings):
    return fo.chain(fo.roulette(members or pool(), **{"every": 2, "seed": 3, **settings}), fo.lr_scale())


def gradient(params):
    return fo.tree.map(lambda h, p: h * p, CURVED, params)


def loss_of(params):
    return 0.5 * fo.tree.vdot(params, gradient(params))


def descend(tx, steps, params=START, state=None, update=None, each=None):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        before = state
        updates, state = (update or tx.update)(gradient(params), state, params, loss=loss_of(params))
        params = fo.apply_updates(params, updates)
        if each is not None:
            each(before, state)
    return params, state


def test_a_pool_of_one_finds_what_find_rate_finds():
    ours, state = descend(made({"adam": fo.Member(fo.scale_by_adam())}), 80)
    theirs, other = descend(fo.chain(fo.find_rate(lag=1, stretch=0.0), fo.adam(1e-6)), 80)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0.0)
    mine, words = fo.read_signals(state), fo.read_signals(other)
    assert words["rate_multiplier"] > 100
    torch.testing.assert_close(mine["adam/rate_multiplier"], words["rate_multiplier"], rtol=1e-9, atol=0.0)
    assert mine["adam/held"] == words["held"] and mine["lr"] == pytest.approx(float(words["lr"]))


def test_only_the_walk_of_the_member_that_made_the_step_moves():
    names, moved = list(pool()), set()

    def each(before, after):
        mover, was, now = host_int(before[0].rates.mover), before[0].rates, after[0].rates
        for i, name in enumerate(names):
            still = all(torch.equal(x[i], y[i]) for x, y in zip(was.walk, now.walk, strict=True))
            joins = i == host_int(after[0].pick) and host_int(was.walk.seen[i].clone()) == 0
            assert still or ((i == mover or joins) and name in ("adam", "sgd", "momentum"))
            moved.update(() if still else (name,))
        assert host_int(now.mover) == host_int(after[0].pick)

    _, state = descend(made(every=1), 30, each=each)
    words = fo.read_signals(state)
    assert moved == {"adam", "sgd", "momentum"}
    assert words["tuned/rate_multiplier"] == words["adamw/rate_multiplier"] == 1.0 and words["tuned/held"] and words["adamw/held"]


def test_the_walk_of_each_member_is_that_of_its_own_cosines():
    """Two members by turns on a slope of one direction: every step agrees, c = 1, whoever made it."""
    members = {"one": fo.Member(fo.identity(), start=1.0), "other": fo.Member(fo.identity(), start=1e-3)}
    tx = made(members, every=1, active=["one", "other"])
    params = torch.zeros(1, dtype=F64)
    state, sizes = tx.init(params), {"one": [], "other": []}
    for _ in range(6):
        updates, state = tx.update(torch.ones(1, dtype=F64), state, params)
        params = params + updates
        sizes[list(members)[host_int(state[0].pick)]].append(-float(updates))
    assert sizes["one"] == pytest.approx([1.0, math.e, math.e**2])
    assert sizes["other"] == pytest.approx([1e-3, 1e-3 * math.e, 1e-3 * math.e**2])


@pytest.mark.parametrize("power", [-3, 0, 4])
def test_members_find_the_rate_of_a_quadratic(power):
    h = 10.0**power
    members = {"low": fo.Member(fo.identity(), start=1e-8), "high": fo.Member(fo.identity(), start=1e-5)}
    tx, params = made(members, every=3), torch.tensor([1.0, -2.0, 0.3], dtype=F64)
    state = tx.init(params)
    for _ in range(240):
        updates, state = tx.update(h * params, state, params)
        params = fo.apply_updates(params, updates)
    words = fo.read_signals(state)
    assert 0.5 / h < 1e-8 * words["low/rate_multiplier"] < 2.0 / h
    assert 0.5 / h < 1e-5 * words["high/rate_multiplier"] < 2.0 / h


@pytest.mark.long
def test_both_dispatches_and_the_graph_agree():
    for members, dispatch, traced in ((pool, "select", False), (small, "auto", True)):
        params, state = descend(made(members(), dispatch="branch"), 24)
        tx = made(members(), dispatch=dispatch)
        update = torch.compile(tx.update, backend="eager", fullgraph=True) if traced else None
        others = descend(tx, 24, update=update)
        torch.testing.assert_close(others[0], params, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(fo.tree.leaves(others[1]), fo.tree.leaves(state), rtol=1e-10, atol=1e-14)


def test_one_graph_a_member_does_the_same():
    tx, graphs = made(small()), {}

    def planned(updates, state, params, loss):
        plan = tx.plan(state, loss=loss)
        run = torch.compile(lambda *a: tx.update(*a[:3], loss=a[3], plan=plan), backend="eager", fullgraph=True)
        return graphs.setdefault(plan, run)(updates, state, params, loss)

    params, state = descend(tx, 16, update=planned)
    others = descend(tx, 16)
    assert len(graphs) == 2
    torch.testing.assert_close((params, fo.read_signals(state)), (others[0], fo.read_signals(others[1])), rtol=1e-10, atol=1e-14)


def test_every_lane_finds_its_own():
    seeds = torch.arange(4)
    states = torch.func.vmap(lambda seed: made(seed=seed).init(START))(seeds)
    params = fo.tree.map(lambda x: x.expand(4, *x.shape).clone(), START)

    def step(seed, params, state):
        updates, state = made(seed=seed).update(gradient(params), state, params, loss=loss_of(params))
        return fo.apply_updates(params, updates), state

    for _ in range(16):
        params, states = torch.func.vmap(step)(seeds, params, states)
    words = fo.read_signals(states)
    for lane in range(4):
        alone, state = descend(made(seed=lane), 16)
        torch.testing.assert_close(fo.tree.map(lambda x, lane=lane: x[lane], params), alone, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close({word: value[lane] for word, value in words.items()}, fo.read_signals(state), rtol=1e-10, atol=1e-14)


@given(st.integers(0, 30), st.sampled_from(["branch", "select"]))
@hypothesis_settings(max_examples=6, deadline=None)
def test_resumes_bit_for_bit(stop, dispatch):
    tx = made(dispatch=dispatch)
    straight = descend(tx, 30)
    params, state = descend(tx, stop)
    state = fo.checkpoint.load_state_dict(tx.init(START), fo.checkpoint.state_dict(state))
    resumed = descend(tx, 30 - stop, params, state)
    for x, y in zip(fo.tree.leaves(straight), fo.tree.leaves(resumed), strict=True):
        assert torch.equal(x, y)


def test_a_pool_whose_members_have_rates_keeps_and_hears_nothing_more():
    members = {"adam": fo.Member(fo.scale_by_adam(), lr=1e-3), "sgd": fo.Member(fo.sgd(1e-3))}
    tx = made(members)
    state = tx.init(START)
    assert isinstance(state[0].rates, EmptyState) and not any("rates" in path for path in fo.checkpoint.state_dict(state))
    assert "adam/rate_multiplier" not in fo.read_signals(state)
    tx.update(START, state, loss=torch.tensor(float("nan")))  # no params, and nobody is cut


@pytest.mark.parametrize("first", ["tuned", "adam", "adamw"])
@pytest.mark.parametrize("bad", [float("nan"), 11.0])
def test_who_made_the_loss_blow_up_is_cut_to_half_and_nobody_else(first, bad):
    tx = made(every=1000, dispatch="branch", active=[first, *(name for name in pool() if name != first)])
    state = fo.control(tx, tx.init(START), "lock", first)
    for loss in (1.0, 0.5, bad):
        before = state
        _, state = tx.update(gradient(START), state, START, loss=loss)  # params stand still: no cosine moves a walk
    was, now = fo.read_signals(before), fo.read_signals(state)
    for name in pool():
        assert now[f"{name}/rate_multiplier"] == pytest.approx(float(was[f"{name}/rate_multiplier"]) * (0.5 if name == first else 1.0))
        assert now[f"{name}/setbacks"] == (name == first)
    assert float(now["lr"]) == pytest.approx(0.5 * float(was["lr"]))


@pytest.mark.parametrize(
    "wild",
    [fo.Member(fo.identity(), lr=100.0), fo.Member(fo.identity(), start=10.0), fo.Member(fo.trace(0.9), lr=30.0), fo.Member(fo.sgd(100.0))],
    ids=["tuned", "found", "momentum", "ready-made"],
)
@pytest.mark.parametrize("first", ["adam", "wild"])
def test_a_member_whose_rate_blows_up_does_not_ruin_the_run(wild, first):
    tx = made({"adam": fo.Member(fo.scale_by_adam()), "wild": wild}, every=20, active=[first, "wild" if first == "adam" else "adam"])
    params, state = descend(tx, 600)
    assert fo.read_signals(state)["wild/setbacks"] >= 2
    assert loss_of(params) < 1e-2 * loss_of(START)


def test_a_loss_that_grows_step_by_step_is_held_against_who_is_at_it():
    """Fourfold a step is never ten times the largest of late: it is compared with that of when the member took over."""
    tx = made({"sgd": fo.Member(fo.identity(), lr=3.0), "adam": fo.Member(fo.scale_by_adam())}, every=1000, active=["sgd", "adam"])
    state, said = tx.init(START), []
    for loss in (1.0, 4.0, 16.0, 64.0, 256.0):
        _, state = tx.update(gradient(START), state, START, loss=loss)
        said.append(int(sum(value for word, value in fo.read_signals(state).items() if word.endswith("setbacks"))))
    assert said == [0, 0, 1, 1, 2]


def test_a_loss_that_stays_high_is_held_against_the_one_that_raised_it():
    tx = made({"sgd": fo.Member(fo.identity(), lr=1e-3), "adam": fo.Member(fo.scale_by_adam())}, every=1)
    state = tx.init(START)
    for loss in (1.0, 1.0, 50.0, 50.0, 45.0, 60.0):
        _, state = tx.update(gradient(START), state, START, loss=loss)
    assert sum(int(value) for word, value in fo.read_signals(state).items() if word.endswith("setbacks")) == 1


def test_losses_below_zero_and_a_first_loss_of_any_size_cut_nobody():
    tx = made()
    state = tx.init(START)
    for loss in (-1e6, -1.0, -1e6, -1e-3, 1e9):
        _, state = tx.update(gradient(START), state, START, loss=loss)
    assert not any(value for word, value in fo.read_signals(state).items() if word.endswith("setbacks"))


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_gradient_that_says_nothing_moves_no_walk(bad):
    tx = made()
    params, state = descend(tx, 8)
    _, after = tx.update(fo.tree.map(lambda x: torch.full_like(x, bad), START), state, params)
    assert torch.equal(after[0].rates.walk.log, state[0].rates.walk.log) and torch.equal(after[0].rates.walk.seen, state[0].rates.walk.seen)


def test_walks_side_by_side_are_the_walks_one_by_one():
    settings = walks.Settings(0.3, 1.0, 8.0, 10, 24.0, True, math.log(1e-4), math.log(1e12))
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(40, 3, generator=generator, dtype=F64) * 2 - torch.tensor([0.5, 1.0, 1.2], dtype=F64)
    together, alone = walks.first(torch.zeros(3, dtype=F64)), [walks.first(torch.zeros((), dtype=F64)) for _ in range(3)]
    for c in cosines:
        together = walks.step(together, c, torch.zeros(3, dtype=torch.bool), settings)
        alone = [walks.step(walk, c[i], torch.zeros((), dtype=torch.bool), settings) for i, walk in enumerate(alone)]
    for i, walk in enumerate(alone):
        torch.testing.assert_close([x[i] for x in together], list(walk), rtol=1e-12, atol=0.0)


def test_rules_multiply_what_was_found():
    rules = fo.switch_rules(high_to_low=(0.5, [(["adam"], ["sgd"])]))
    members = {"adam": fo.Member(fo.scale_by_adam()), "sgd": fo.Member(fo.identity())}
    tx = made(members, every=1, rules=rules, active=["sgd", "adam"])
    _, state = descend(tx, 9)
    words = fo.read_signals(state)
    factor = 0.5 if host_int(words["pick"]) == 1 else 1.0
    found = words["sgd/rate_multiplier" if host_int(words["pick"]) == 1 else "adam/rate_multiplier"]
    assert float(words["base_lr"]) == pytest.approx(factor * 1e-6 * float(found)) and found > 1.0


def test_complex_params_find_a_rate_too():
    tx = made({"sgd": fo.Member(fo.identity())})
    params = torch.tensor([1.0 + 2.0j, -1.0j])
    state = tx.init(params)
    for _ in range(100):
        updates, state = tx.update(params, state, params)
        params = fo.apply_updates(params, updates)
    assert 0.5 < fo.read_signals(state)["lr"] < 2.0


def test_it_is_legal_wherever_a_direction_says_that_it_is_one():
    plain = fo.GradientTransformation(
        lambda params: fo.EmptyState(), lambda updates, state, params=None, **extra: (updates, state), name="plain"
    )
    assert fo.Member(fo.chain(fo.clip(1.0), fo.scale_by_adam())).finds_rate and not fo.Member(fo.sgd(0.1)).finds_rate
    assert not fo.Member(plain).finds_rate and fo.Member(plain, rate_free=True).finds_rate
    assert not fo.Member(fo.scale_by_adam(), lr=0.1).finds_rate and not fo.Member(fo.scale_by_adam(), sized=True).finds_rate
    with pytest.raises(ValueError, match="member 'plain' has no lr and says none; give the direction its rate.*rate_free=True"):
        fo.roulette({"plain": fo.Member(plain)}).init(START)


@pytest.mark.parametrize(
    "member, message",
    [
        (lambda: fo.Member(fo.scale_by_lion()), "Member: scale_by_lion takes steps of one length whatever the gradient"),
        (lambda: fo.Member(fo.scale_by_dog()), "Member: scale_by_dog finds its own rate"),
        (lambda: fo.Member(fo.chain(fo.trace(0.9), fo.sign())), "Member: sign takes steps of one length"),
        (
            lambda: fo.Member(fo.scale_by_adam(), lr=0.1, rate_free=True),
            "Member: rate_free=True is for a direction that finds its rate; leave lr out",
        ),
        (lambda: fo.Member(fo.adam(0.1), rate_free=True), "leave chain, which sizes its step itself, out"),
        (lambda: fo.Member(fo.scale_by_adam(), sized=True, rate_free=True), "leave sized=True out"),
        (lambda: fo.Member(fo.scale_by_adam(), lr=0.1, start=1e-6), "Member: start is where the search of a member without a rate begins"),
        (lambda: fo.Member(fo.scale_by_adam(), start=0.0), "Member: start must be > 0, got 0.0"),
    ],
)
def test_says_what_is_wrong_with_a_member(member, message):
    with pytest.raises(ValueError, match=message):
        member()


def test_says_what_a_pool_cannot_do_with_it():
    with pytest.raises(ValueError, match="roulette: with parity=True each member has its rate, and 'adam' has none; give it lr="):
        fo.roulette(pool(), parity=True)
    with pytest.raises(ValueError, match="rules set or limit the rate of 'adam', which finds it by itself"):
        fo.roulette(pool(), rules=fo.switch_rules(special={"adam": {"lr": 0.1}}))
    tx = fo.roulette(pool())
    with pytest.raises(ValueError, match=r"roulette.set_lr: member 'adam' finds its rate by itself"):
        tx.set_lr(tx.init(START), "adam", 0.1)
    with pytest.raises(ValueError, match="a member that finds its rate"):
        tx.update(START, tx.init(START))
