"""Laws of the roulette: lists, draws, dispatches, and what becomes of states under any sequence of calls."""

import pytest
import torch
from hypothesis import given, settings as hypothesis_settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import funcopt as fo

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
MEMBERS = st.sampled_from("abcdefg")


def pool_of(names, lr=0.01):
    """Members that differ: directions with and without state, and a ready-made one."""
    kinds = [
        lambda: fo.Member(fo.trace(0.5), lr=lr),
        lambda: fo.Member(fo.scale_by_adam(), lr=lr),
        lambda: fo.Member(fo.sgd(lr, momentum=0.5)),
        lambda: fo.Member(fo.identity(), lr=lr),
    ]
    return {name: kinds[i % 4]() for i, name in enumerate(names)}


def listed(queue):
    return [i for i in queue.tolist() if i >= 0]


class PoolOfMembers(RuleBasedStateMachine):
    """Any sequence of calls of the loop and of the hand."""

    settings: dict = {}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.names = list("abcdefg")
        self.tx = fo.roulette(
            pool_of(self.names),
            switch="epoch",
            probability=0.9,
            active=["c", "a", "d"],
            backup=["b", "e"],
            reserve=["g", "f"],
            failures=fo.Failures(threshold=0.0, in_a_row=1, drop=0.3, drops_in_a_row=1, blacklist=2),
            recovery=fo.Recovery(transfer="all", grace=1),
            rules=fo.switch_rules(high_to_low=(0.5, [(["a"], ["b"])])),
            seed=5,
            **self.settings,
        )
        self.params = START
        self.state = self.tx.init(START)
        self.epoch = -1
        self.gone = set()

    @rule()
    def new_epoch(self):
        self.epoch += 1
        self.state = self.tx.start_epoch(self.state, self.epoch)

    @rule(metric=st.floats(0, 1) | st.just(float("nan")))
    def epoch_ends(self, metric):
        self.state = self.tx.end_epoch(self.state, metric)

    @rule(member=MEMBERS, reward=st.sampled_from([-1.0, 0.5, float("nan")]), metric=st.sampled_from([0.1, 0.9, float("nan")]))
    def record(self, member, reward, metric):
        self.state = self.tx.record(self.state, member, reward, metric)

    @rule(member=MEMBERS)
    def lock(self, member):
        self.state = self.tx.lock(self.state, member)

    @rule()
    def unlock(self):
        self.state = self.tx.unlock(self.state)

    @rule(member=MEMBERS, which=st.sampled_from(["block", "unblock", "report_instability"]))
    def treat(self, member, which):
        self.state = getattr(self.tx, which)(self.state, member)

    @rule()
    def age(self):
        self.state = self.tx.age(self.state)

    @rule()
    def reset(self):
        self.state = self.tx.reset_counts(self.state)

    @precondition(lambda self: self.epoch >= 0)
    @rule()
    def step(self):
        before = self.state
        updates, self.state = self.tx.update(self.params, self.state, self.params, epoch=self.epoch)
        assert all(torch.isfinite(x).all() for x in fo.tree.leaves(updates))
        for i, name in enumerate(self.names):
            if i != int(self.state.pick):
                for x, y in zip(fo.tree.leaves(before.members[name]), fo.tree.leaves(self.state.members[name]), strict=True):
                    assert torch.equal(x, y), "a frozen member's state moved"

    @invariant()
    def every_member_is_in_one_list_or_blacklisted(self):
        state = self.state
        lists = [listed(state.active), listed(state.pool.backup), listed(state.pool.reserve)]
        banned = state.pool.blacklisted.nonzero().flatten().tolist()
        assert sorted([*sum(lists, []), *banned]) == list(range(len(self.names)))
        assert len(lists[0]) == 3 and -1 not in state.active.tolist()

    @invariant()
    def nobody_comes_back_from_the_blacklist(self):
        banned = set(self.state.pool.blacklisted.nonzero().flatten().tolist())
        assert self.gone <= banned
        self.gone = banned

    @invariant()
    def the_numbers_are_sane(self):
        state, pool = self.state, self.state.pool
        assert 0 <= int(state.pick) < len(self.names) and (int(state.locked) < 0 or int(state.pick) == int(state.locked))
        assert (state.counts >= 0).all() and (state.lr >= 0).all() and (state.lr <= 1).all()
        assert torch.isfinite(pool.average).all() and torch.isfinite(pool.best).all()
        assert not (pool.pending & (torch.arange(len(self.names)) != state.locked)).any(), "pending, though not locked"

    @invariant()
    def the_structure_stands(self):
        first = self.tx.init(self.params)
        assert [(x.shape, x.dtype) for x in fo.tree.leaves(first)] == [(x.shape, x.dtype) for x in fo.tree.leaves(self.state)]


PoolOfMembers.TestCase.settings = hypothesis_settings(max_examples=12, stateful_step_count=25, deadline=None)
TestAPoolOfMembers = PoolOfMembers.TestCase


class PoolWithGroups(PoolOfMembers):
    settings = {  # noqa: RUF012
        "compatible": fo.Compatibility(
            {
                "low": fo.Group(["a", "b"], enabled=True, priority=2),
                "high": fo.Group(["c", "d"], internal=True),
                "mid": fo.Group(["e"], priority=1),
            },
            across=True,
            preferred={"a": [["mid"], ["f"]]},
            avoid={"b": ["g"]},
            transfer={"a": ["b", "e"], "c": ["a"]},
        )
    }


PoolWithGroups.TestCase.settings = hypothesis_settings(max_examples=8, stateful_step_count=25, deadline=None)
TestAPoolWithGroups = PoolWithGroups.TestCase


# --- dispatches ---------------------------------------------------------------------------------------------------------------


@st.composite
def configurations(draw):
    n = draw(st.integers(1, 5))
    names = list("abcde"[:n])
    order = draw(st.permutations(names))
    cut = draw(st.integers(1, n))
    managed = draw(st.booleans())
    settings = {
        "switch": draw(st.sampled_from(["step", "epoch"])),
        "every": draw(st.integers(1, 3)),
        "probability": draw(st.sampled_from([0.3, 0.8, 1.0])),
        "avoid_repeat": draw(st.booleans()),
        "compounding": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**40)),
        "active": order[:cut],
    }
    if managed:
        settings |= {
            "backup": order[cut:],
            "failures": fo.Failures(0.0, draw(st.integers(1, 2)), draw(st.sampled_from([0.05, 0.5])), 1, draw(st.integers(1, 3))),
            "recovery": fo.Recovery(grace=draw(st.integers(0, 2)), transfer=draw(st.sampled_from(["none", "all"])), scale=0.5),
        }
    if draw(st.booleans()) and n > 1:
        settings["rules"] = fo.switch_rules(high_to_low=(0.5, [(names[:1], names[1:])]), low_to_high=(2.0, [(names[1:], names[:1])]))
    warmup = draw(st.sampled_from(["none", "fixed", "plateau"]))
    held = {"member": draw(st.sampled_from(names)), "drop": draw(st.booleans()) and n > 1}
    if warmup == "fixed":
        settings["warmup"] = fo.fixed_warmup(draw(st.integers(1, 3)), **held)
    if warmup == "plateau":
        settings["warmup"] = fo.plateau_warmup(0.0, 0.2, draw(st.integers(0, 6)), **held)
    return names, settings


def told(step, metrics):
    epoch = step // 2
    return {"epoch": epoch, "metric": metrics[epoch % len(metrics)]}


def go(tx, params, metrics, steps=16):
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(params, state, params, **told(step, metrics))
        params = fo.apply_updates(params, updates)
    return params, state


METRICS = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9, float("nan")]), min_size=1, max_size=6)


@given(configurations(), METRICS)
@hypothesis_settings(max_examples=10, deadline=None)
def test_select_equals_branch(configuration, metrics):
    names, settings = configuration

    def made(dispatch):
        return fo.chain(fo.roulette(pool_of(names), dispatch=dispatch, **settings), fo.lr_scale())

    branch, select = go(made("branch"), START, metrics), go(made("select"), START, metrics)
    for x, y in zip(fo.tree.leaves(branch), fo.tree.leaves(select), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.long
@given(configurations(), METRICS)
@hypothesis_settings(max_examples=1000, deadline=None)
def test_select_equals_branch_for_a_thousand_pools(configuration, metrics):
    test_select_equals_branch.hypothesis.inner_test(configuration, metrics)


@pytest.mark.long
def test_records_and_swaps_trace_whole():
    settings = {"failures": fo.Failures(0.0, 1, 0.3, 1, 2), "recovery": fo.Recovery(transfer="all"), "active": ["a", "b"], "backup": ["c"]}
    pool, metrics = pool_of("abc"), [0.5, 0.4, 0.6, 0.1]
    tx = fo.chain(fo.roulette(pool, switch="epoch", warmup=fo.fixed_warmup(1, "a"), seed=1, **settings), fo.lr_scale())
    traced = torch.compile(lambda g, s, p, told: tx.update(g, s, p, **told), backend="aot_eager", fullgraph=True)
    params, state = START, tx.init(START)
    for step in range(12):
        extra = {name: torch.tensor(value) for name, value in told(step, metrics).items()}
        updates, state = traced(params, state, params, extra)
        params = fo.apply_updates(params, updates)
    for x, y in zip(fo.tree.leaves((params, state)), fo.tree.leaves(go(tx, START, metrics, steps=12)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9, equal_nan=True)


@given(configurations(), METRICS, st.integers(0, 15))
@hypothesis_settings(max_examples=20, deadline=None)
def test_resumes_at_any_step(configuration, metrics, stop):
    names, settings = configuration
    tx = fo.chain(fo.roulette(pool_of(names), **settings), fo.lr_scale())
    params, state = START, tx.init(START)
    for step in range(16):
        if step == stop:
            state = fo.checkpoint.load_state_dict(tx.init(START), fo.checkpoint.state_dict(state))
        updates, state = tx.update(params, state, params, **told(step, metrics))
        params = fo.apply_updates(params, updates)
    for x, y in zip(fo.tree.leaves((params, state)), fo.tree.leaves(go(tx, START, metrics)), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def test_lanes_equal_single_runs_to_the_last_field():
    seeds = torch.arange(8)
    settings = {
        "active": ["a", "b", "c"],
        "backup": ["d"],
        "failures": fo.Failures(0.0, 1, 0.5, 1, 2),
        "recovery": fo.Recovery(transfer="all"),
    }

    def made(seed):
        return fo.chain(fo.roulette(pool_of("abcd"), switch="epoch", warmup=fo.fixed_warmup(1, "a"), seed=seed, **settings), fo.lr_scale())

    states = torch.func.vmap(lambda seed: made(seed).init(START))(seeds)
    params = START.expand(8, 2).clone()
    metrics = [0.5, 0.4, 0.6, 0.1]
    for step in range(12):
        run = torch.func.vmap(lambda seed, p, s, step=step: made(seed).update(p, s, p, **told(step, metrics)))
        updates, states = run(seeds, params, states)
        params = fo.apply_updates(params, updates)
    for lane in range(8):
        alone = go(made(lane), START, metrics, steps=12)
        for x, y in zip(fo.tree.leaves((params, states)), fo.tree.leaves(alone), strict=True):
            torch.testing.assert_close(x[lane], y, rtol=1e-12, atol=1e-14, equal_nan=True)


# --- draws --------------------------------------------------------------------------------------------------------------------


def picks(tx, names, steps):
    state, seen = tx.init(START), []
    for epoch in range(steps):
        state = tx.start_epoch(state, epoch)
        seen.append(names[int(state.pick)])
    return seen


@given(st.permutations("abcde"), st.integers(0, 1000))
@hypothesis_settings(max_examples=15, deadline=None)
def test_other_names_give_other_names(order, seed):
    """Relabelling: the draws see places in the list and never names."""
    ours = picks(fo.roulette(pool_of("abcde"), switch="epoch", seed=seed), "abcde", 12)
    theirs = picks(fo.roulette(pool_of(order), switch="epoch", seed=seed), order, 12)
    assert theirs == [order["abcde".index(name)] for name in ours]


@given(st.integers(0, 2**60))
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_same_seed_is_the_same_run_and_never_repeats(seed):
    tx = fo.roulette(pool_of("abc"), switch="epoch", seed=seed)
    seen = picks(tx, "abc", 12)
    assert seen == picks(tx, "abc", 12)
    assert all(x != y for x, y in zip(seen, seen[1:], strict=False))


@pytest.mark.long
def test_every_ordered_pair_is_as_frequent_as_any_other():
    n, steps = 4, 100_000
    tx = fo.roulette(pool_of("abcd"), switch="epoch", seed=1)
    pairs = torch.zeros(n, n)
    state = tx.start_epoch(tx.init(START), 0)
    for epoch in range(1, steps + 1):
        before = int(state.pick)
        state = tx.start_epoch(state, epoch)
        pairs[before, int(state.pick)] += 1
    p = 1 / (n * (n - 1))
    deviation = (steps * p * (1 - p)) ** 0.5
    off = ~torch.eye(n, dtype=torch.bool)
    assert (pairs[~off] == 0).all() and ((pairs[off] - steps * p).abs() < 4 * deviation).all()
