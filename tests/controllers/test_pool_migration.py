"""A pool whose members have changed takes its old checkpoint: what stayed goes on as it would have."""

import pytest
import torch

import funcopt as fo
from funcopt.controllers.rate.walk import Walk
from funcopt.controllers.roulette import pool_migration
from funcopt.controllers.roulette.member_rates import MemberRates
from funcopt.controllers.roulette.pool import PoolState

PARAMS = {"w": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}
MEMBERS = {
    "adam": lambda: fo.Member(fo.scale_by_adam(), lr=1e-2),
    "momentum": lambda: fo.Member(fo.trace(0.9), lr=3e-3),
    "lion": lambda: fo.Member(fo.scale_by_lion(), lr=1e-3),
    "sign": lambda: fo.Member(fo.sign(), lr=2e-3),
}


def pool(names):
    return {name: MEMBERS[name]() for name in names}


def roulette(names, **settings):
    return fo.chain(fo.clip(10.0), fo.roulette(pool(names), seed=3, **settings), fo.lr_scale())


def advance(tx, params, state, steps, start=0, **extra):
    for step in range(start, start + steps):
        gradients = fo.tree.map(lambda p, step=step: torch.sin(p + step), params)
        updates, state = tx.update(gradients, state, params, **{name: f(step) for name, f in extra.items()})
        params = fo.apply_updates(params, updates)
    return params, state


def test_every_field_of_a_roulette_is_spoken_for():
    known = {
        *pool_migration.ROWS,
        *pool_migration.POINTERS,
        *pool_migration.QUEUES,
        *pool_migration.AS_SAVED,
        "members",
        "events",
        "pool",
        "rates",
        "rates.walk",
    }
    fields = {*fo.RouletteState._fields, *(f"pool.{name}" for name in PoolState._fields)}
    fields |= {*(f"rates.{name}" for name in MemberRates._fields), *(f"rates.walk.{name}" for name in Walk._fields)}
    assert fields == known


def test_what_belonged_to_a_member_stays_its_own_wherever_it_stands():
    old, new = ["adam", "momentum"], ["lion", "momentum", "adam"]
    _, state = advance(roulette(old), PARAMS, roulette(old).init(PARAMS), 7)
    now = roulette(new).init(PARAMS)
    with pytest.raises(ValueError, match="missing: 1.members.lion"):
        fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(state))
    loaded = fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(state), migration=fo.pool_migration(now, old))
    before, after = state[1], loaded[1]
    assert new[int(after.pick)] == old[int(before.pick)]
    assert before.previous_pick >= 0 and new[int(after.previous_pick)] == old[int(before.previous_pick)]
    assert [new[i] for i in after.active.tolist()] == ["adam", "momentum", "lion"]
    assert after.counts.tolist() == [0, int(before.counts[1]), int(before.counts[0])]
    assert after.lr.tolist() == [1e-3, 3e-3, 1e-2]
    for name in old:
        for x, y in zip(fo.tree.leaves(after.members[name]), fo.tree.leaves(before.members[name]), strict=True):
            assert torch.equal(x, y)
    assert after.count == before.count and torch.equal(after.draw.key, before.draw.key)


def test_a_pool_in_another_order_goes_on_bit_for_bit():
    """Candidates are drawn in the order of the active list, which the file keeps."""
    old, new = ["adam", "momentum", "lion"], ["lion", "adam", "momentum"]
    params, state = advance(roulette(old), PARAMS, roulette(old).init(PARAMS), 5)
    now = roulette(new).init(PARAMS)
    loaded = fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(state), migration=fo.pool_migration(now, old))
    straight, _ = advance(roulette(old), params, state, 12, 5)
    resumed, _ = advance(roulette(new), params, loaded, 12, 5)
    assert torch.equal(straight["w"], resumed["w"])


def test_a_bench_keeps_its_order_and_its_records():
    settings = {"failures": fo.Failures(in_a_row=1), "active": ["adam", "momentum"], "backup": ["lion"]}
    tell = {"epoch": lambda step: step // 2, "metric": lambda step: 1.0 / (step + 1), "reward": lambda step: -1.0}
    old = roulette(["adam", "momentum", "lion"], **settings)
    _, state = advance(old, PARAMS, old.init(PARAMS), 9, **tell)
    new = roulette(["sign", "adam", "momentum", "lion"], **{**settings, "backup": ["sign", "lion"]})
    now = new.init(PARAMS)
    loaded = fo.checkpoint.load_state_dict(
        now, fo.checkpoint.state_dict(state), migration=fo.pool_migration(now, ["adam", "momentum", "lion"])
    )
    before, after = state[1], loaded[1]
    assert before.pool.swaps.sum() > 0
    assert after.active.tolist() == (before.active + 1).tolist()
    waiting = [int(i) + 1 for i in before.pool.backup if i >= 0]
    assert [i for i in after.pool.backup.tolist() if i >= 0] == [*waiting, 0]
    assert after.pool.swaps.tolist() == [0, *before.pool.swaps.tolist()]
    assert torch.equal(after.pool.rewards[1:], before.pool.rewards)
    assert torch.equal(after.events[:, 1:3][before.events[:, 3] != 0], before.events[:, 1:3][before.events[:, 3] != 0] + 1)
    advance(new, PARAMS, loaded, 6, 9, **tell)


def test_a_batch_of_roulettes_is_moved_too():
    old, new = ["adam", "momentum"], ["sign", "adam", "momentum"]
    batch = {"w": torch.stack([PARAMS["w"], 2 * PARAMS["w"]])}
    states = torch.func.vmap(fo.roulette(pool(old), dispatch="select").init)(batch)
    now = torch.func.vmap(fo.roulette(pool(new), dispatch="select").init)(batch)
    loaded = fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(states), migration=fo.pool_migration(now, old))
    assert loaded.active.tolist() == [[1, 2, 0]] * 2
    assert loaded.lr.tolist() == [[2e-3, 1e-2, 3e-3]] * 2
    assert loaded.pick.tolist() == [1, 1]


def test_a_member_may_go_unless_it_is_needed():
    old = ["adam", "momentum", "lion"]
    _, state = advance(roulette(old), PARAMS, roulette(old).init(PARAMS), 4)
    current = old[int(state[1].pick)]
    saved = fo.checkpoint.state_dict(state)
    other = next(name for name in old if name != current)
    now = roulette([name for name in old if name != other]).init(PARAMS)
    loaded = fo.checkpoint.load_state_dict(now, saved, migration=fo.pool_migration(now, old))
    assert loaded[1].lr.shape == (2,)
    now = roulette([name for name in old if name != current]).init(PARAMS)
    with pytest.raises(ValueError, match=f"the member that is current or locked must stay in the pool, and {current} has gone"):
        fo.checkpoint.load_state_dict(now, saved, migration=fo.pool_migration(now, old))


def finding(names):
    members = {"adam": fo.Member(fo.scale_by_adam()), "momentum": fo.Member(fo.trace(0.9)), "sgd": fo.Member(fo.identity(), start=1e-3)}
    members |= {"lion": MEMBERS["lion"]()}
    return fo.chain(fo.roulette({name: members[name] for name in names}, every=2, seed=3), fo.lr_scale())


def test_what_members_found_moves_with_them():
    old, new = ["adam", "momentum", "lion"], ["lion", "sgd", "momentum", "adam"]
    params, state = advance(finding(old), PARAMS, finding(old).init(PARAMS), 21)
    now = finding(new).init(PARAMS)
    loaded = fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(state), migration=fo.pool_migration(now, old))
    before, after = fo.read_signals(state), fo.read_signals(loaded)
    assert after["sgd/rate_multiplier"] == 1.0 and before["adam/rate_multiplier"] > 2.0
    for name in old:
        assert after[f"{name}/rate_multiplier"] == before[f"{name}/rate_multiplier"] and after[f"{name}/held"] == before[f"{name}/held"]
    assert new[int(loaded[0].rates.mover)] == old[int(state[0].rates.mover)]
    assert torch.equal(loaded[0].rates.last["w"], state[0].rates.last["w"])
    advance(finding(new), params, loaded, 3, 21)


@pytest.mark.parametrize("old, new", [(["lion"], ["lion", "adam"]), (["lion", "adam"], ["lion"])], ids=["comes", "goes"])
def test_whoever_finds_its_rate_may_come_and_go(old, new):
    tx = finding(old)
    _, state = advance(tx, PARAMS, tx.init(PARAMS), 2)
    state = (state[0]._replace(pick=torch.tensor(0)), state[1])
    now = finding(new).init(PARAMS)
    loaded = fo.checkpoint.load_state_dict(now, fo.checkpoint.state_dict(state), migration=fo.pool_migration(now, old))
    assert fo.tree.structure(loaded) == fo.tree.structure(now)
    advance(finding(new), PARAMS, loaded, 3, 2)


def test_says_what_is_wrong():
    state = roulette(["adam", "momentum"]).init(PARAMS)
    saved = fo.checkpoint.state_dict(state)
    with pytest.raises(ValueError, match="state must hold one roulette, got 0; give it what load is given"):
        fo.pool_migration(fo.adam(0.1).init(PARAMS), ["adam"])
    two = {"a": state, "b": state}
    with pytest.raises(ValueError, match=r"state must hold one roulette, got 2; say which: at='a.1', of a.1, b.1"):
        fo.pool_migration(two, ["adam"])
    with pytest.raises(ValueError, match="at must be the path of a roulette, 'a.1' or 'b.1', got 'c'"):
        fo.pool_migration(two, ["adam"], at="c")
    with pytest.raises(ValueError, match="before must name each member once"):
        fo.pool_migration(state, ["adam", "adam"])
    with pytest.raises(
        ValueError,
        match="before must be the members of the file in the order of its pool, got adam, lion; the file has '1.members.momentum.trace.w'",
    ):
        fo.checkpoint.load_state_dict(state, saved, migration=fo.pool_migration(state, ["adam", "lion"]))
    with pytest.raises(ValueError, match="got adam, momentum, sign; the file has 2"):
        fo.checkpoint.load_state_dict(state, saved, migration=fo.pool_migration(state, ["adam", "momentum", "sign"]))
    with pytest.raises(ValueError, match="the file must hold a roulette at '1', and has no entry '1.lr'"):
        fo.checkpoint.load_state_dict(state, {"2.lr": torch.ones(())}, migration=fo.pool_migration(state, ["adam", "momentum"]))
