"""Where the roulette differs from its reference on purpose: both numbers, side by side (the table in docs/methods/roulette.md)."""

import pytest
import torch

import funcopt as fo

START = torch.zeros(1, dtype=torch.float64)
NAN = float("nan")


def made(parity, lrs=(0.1, 0.001, 0.01, 0.02), **settings):
    pool = {name: fo.Member(fo.identity(), lr=lr) for name, lr in zip("abcd", lrs, strict=False)}
    tx = fo.roulette(pool, seed=0, parity=parity, **{"switch": "epoch", **settings})
    return tx, tx.init(START)


def both(play, **settings):
    """What `play(tx, state)` shows, in the default mode and as the reference does it."""
    return tuple(play(*made(parity, **settings)) for parity in (False, True))


def names(queue):
    return "".join("abcd"[i] for i in queue.tolist() if i >= 0)


def rate_of(tx, state):
    return tx.run(START, state, START)[1].base_lr.item()


FACTORS = fo.switch_rules(high_to_low=(0.01, [(["a"], ["b"])]), low_to_high=(10.0, [(["b"], ["a"])]))
POOL = {
    "active": ["a", "b"],
    "backup": ["c"],
    "reserve": ["d"],
    "failures": fo.Failures(threshold=0.0, in_a_row=1, drop=0.3, drops_in_a_row=1),
}


def test_q1_rules_know_groups():
    groups = fo.Compatibility({"low": fo.Group(["b"])}, across=True)
    rules = fo.switch_rules(high_to_low=(0.01, [(["a"], ["low"])]))
    ours, theirs = both(lambda tx, state: rate_of(tx, tx.lock(state, "b")), compatible=groups, rules=rules)
    assert (ours, theirs) == pytest.approx((1e-5, 1e-3))


def test_q2_rates_do_not_compound():
    def play(tx, state):
        for _ in range(3):
            state = tx.lock(tx.lock(state, "b"), "a")
        return rate_of(tx, state), rate_of(tx, tx.lock(state, "b"))

    ours, theirs = both(play, rules=FACTORS)
    assert ours == pytest.approx((1.0, 1e-5))
    assert theirs == pytest.approx((100.0, 1e-11), rel=1e-9)
    assert play(*made(False, rules=FACTORS, compounding=True)) == pytest.approx(theirs)


def test_q3_a_swap_is_one_switch():
    rules = fo.switch_rules(high_to_low=(0.1, [(["a"], ["c"])]))

    def play(parity):
        tx, state = made(parity, rules=(rules, rules) if parity else rules, **POOL)
        return rate_of(tx, tx.record(state, "a", -1.0, 0.5))

    assert play(False) == pytest.approx(0.001) and play(True) == pytest.approx(0.0001)


def test_q4_a_phase_set_by_hand_releases_the_lock():
    ours, theirs = both(lambda tx, state: int(tx.start_epoch(state, 0, "roulette").locked), warmup=fo.fixed_warmup(5, "a"))
    assert (ours, theirs) == (-1, 0)


def test_q5_the_probability_holds_for_epochs():
    def play(tx, state):
        switches = 0
        for epoch in range(40):
            state = tx.start_epoch(state, epoch)
            switches += int(state.events.any())
        return switches

    ours, theirs = both(play, probability=0.25)
    assert 0 < ours < 20 and theirs == 40


def test_q7_a_locked_member_is_swapped_when_it_is_unlocked():
    def play(tx, state):
        state = tx.record(tx.lock(state, "a"), "a", -1.0, 0.5)
        return names(state.active), int(state.pick), names(tx.unlock(state).active)

    ours, theirs = both(play, **POOL)
    assert ours == ("ab", 0, "bc") and theirs == ("bc", 2, "bc")


def test_q7_every_member_keeps_its_counter():
    def play(tx, state):
        return tx.start_batch(tx.lock(tx.record(state, "a", -1.0, 0.5), "a")).counts.tolist()

    assert play(*made(False, **POOL)) == [1, 0, 0, 0]
    with pytest.raises(KeyError, match="'a' was swapped out and has no counter"):
        play(*made(True, **POOL))


def test_q8_a_record_of_an_inactive_member_swaps_nobody():
    tx, state = made(False, **POOL)
    after = tx.record(state, "d", -1.0, 0.5)
    assert names(after.active) == "ab" and names(after.pool.backup) == "c" and after.pool.failures.tolist() == [0, 0, 0, 1]
    tx, state = made(True, **POOL)
    with pytest.raises(ValueError, match="must be active") as stopped:
        tx.record(state, "d", -1.0, 0.5)
    assert names(stopped.value.state.pool.backup) == ""


def test_q10_the_current_member_stays_where_all_are_blocked():
    def play(tx, state):
        for name in "abcd":
            state = tx.block(state, name)
        return int(tx.start_epoch(state, 0).pick)

    assert play(*made(False)) == 0
    with pytest.raises(IndexError, match="every member is blocked"):
        play(*made(True))


def test_q11_epochs_age():
    ours, theirs = both(lambda tx, state: tx.end_epoch(state).pool.age.tolist(), **POOL)
    assert ours == [1, 1, 0, 0] and theirs == [0, 0, 0, 0]


def test_q12_nan_is_a_failure():
    ours, theirs = both(
        lambda tx, state: (names(tx.record(state, "a", NAN, 0.5).active), tx.record(state, "a", NAN, 0.5).pool.average[0].item()), **POOL
    )
    assert ours == ("bc", 0.0) and theirs[0] == "ab" and theirs[1] != theirs[1]
    ours, theirs = both(lambda tx, state: names(tx.record(state, "a", 1.0, NAN).active), **POOL)
    assert (ours, theirs) == ("bc", "ab")


def test_q12_a_nan_metric_stays_out_of_the_window():
    def play(tx, state):
        for epoch, metric in enumerate((0.5, NAN, 0.5, 0.5, 0.5, 0.5)):
            state = tx.end_epoch(tx.start_epoch(state, epoch), metric)
        return int(state.phase)

    assert both(play, warmup=fo.plateau_warmup(threshold=0.1)) == (1, 0)


def test_q13_instability_asks_for_a_swap_of_its_own():
    def play(tx, state):
        state = tx.report_instability(tx.report_instability(state, "a"), "a")
        return names(tx.record(state, "a", 1.0, 0.5).active)

    assert both(play, **POOL) == ("bc", "ab")


def test_q13_a_cut_never_raises_a_rate_and_can_grow_back():
    recovery = fo.Recovery(instability_factor=0.5, instability_min_lr=0.01)
    ours, theirs = both(lambda tx, state: tx.report_instability(state, "b").lr[1].item(), recovery=recovery, **POOL)
    assert (ours, theirs) == (0.001, 0.01)
    tx, state = made(False, **POOL, recovery=fo.Recovery(instability_limit=9, instability_recovery=1.5))
    state, seen = tx.report_instability(state, "a"), []
    for _ in range(5):
        seen.append(state.lr[0].item())
        state = tx.record(state, "a", 1.0, 0.5)
    assert seen == pytest.approx([0.05, 0.05, 0.075, 0.1, 0.1])


def test_q14_reserves_follow_backups():
    def play(tx, state):
        state = tx.record(state, "a", -1.0, 0.5)
        return names(tx.record(state, "b", -1.0, 0.5).active)

    assert both(play, **POOL) == ("cd", "bc")


def test_q15_averages_bring_their_count():
    def play(parity):
        pool = {"a": fo.Member(fo.scale_by_adam(), lr=0.1), "b": fo.Member(fo.scale_by_adam(), lr=0.2)}
        settings = {"active": ["a"], "backup": ["b"], "failures": POOL["failures"], "recovery": fo.Recovery(transfer="all")}
        tx = fo.roulette(pool, seed=0, parity=parity, **settings)
        state = tx.init(START)
        gradient = torch.ones(1, dtype=torch.float64)
        for name in ("b", "a", "a", "a"):
            state = tx.run(gradient, tx.lock(state, name), START)[1]
        state = tx.record(tx.unlock(state), "a", -1.0, 0.5)
        assert state.members["b"].mu is not state.members["a"].mu
        torch.testing.assert_close(state.members["b"].mu, state.members["a"].mu)
        return int(state.members["b"].count)

    assert play(False) == 3 and play(True) == 1


def test_q15_a_newcomer_without_a_past_takes_over_too():
    def play(parity):
        roles = fo.Roles(velocity="trace")
        pool = {"a": fo.Member(fo.trace(0.5), lr=0.1, roles=roles), "b": fo.Member(fo.trace(0.9), lr=0.2, roles=roles)}
        settings = {"active": ["a"], "backup": ["b"], "failures": POOL["failures"], "recovery": fo.Recovery(transfer="momentum", scale=0.5)}
        tx = fo.roulette(pool, seed=0, parity=parity, **settings)
        state = tx.run(torch.ones(1, dtype=torch.float64), tx.init(START), START)[1]
        return tx.record(state, "a", -1.0, 0.5).members["b"].trace.item()

    assert play(False) == 0.5 and play(True) == 0.0


def test_q15_units_are_converted():
    pool = {
        "a": fo.Member(fo.scale_by_lion(b2=0.9), lr=0.1, roles=fo.Roles(mu="mu", decay=0.9)),
        "b": fo.Member(fo.trace(0.9), lr=0.2, roles=fo.Roles(velocity="trace")),
    }
    tx = fo.roulette(pool, seed=0, active=["a"], backup=["b"], failures=POOL["failures"], recovery=fo.Recovery(transfer="all"))
    state = tx.run(torch.ones(1, dtype=torch.float64), tx.init(START), START)[1]
    # the running mean is 0.1 after one gradient of 1; the undamped sum that goes with it is 0.1 / (1 - 0.9) = 1
    torch.testing.assert_close(tx.record(state, "a", -1.0, 0.5).members["b"].trace.item(), 1.0)


def test_q19_a_relaxed_threshold_is_laxer_whatever_its_sign():
    settings = POOL | {"failures": fo.Failures(threshold=0.2, in_a_row=1, drop=9.0), "recovery": fo.Recovery(grace=3, relax=2.0)}
    assert both(lambda tx, state: int(tx.record(state, "a", 0.1, 0.5).pool.failures[0]), **settings) == (0, 1)


def test_q20_the_hand_can_bring_back_a_dropped_member():
    def play(tx, state):
        state = tx.unblock(tx.start_epoch(tx.start_epoch(state, 0), 1), "a")
        return bool(tx.start_epoch(state, 2).blocked[0])

    assert both(play, warmup=fo.fixed_warmup(1, "a", drop=True)) == (False, True)


def test_q20_a_backup_can_take_the_dropped_place():
    tx, state = made(False, warmup=fo.fixed_warmup(1, "a", drop=True, refill=True), **POOL)
    state = tx.start_epoch(tx.start_epoch(state, 0), 1)
    assert (names(state.active), names(state.pool.backup), names(state.pool.reserve)) == ("bc", "", "da")


class Zero:
    """A source whose every uniform is 0."""

    def init(self, key):
        return torch.zeros((), dtype=torch.int64)

    def uniform(self, state):
        return torch.zeros((), dtype=torch.float64), state + 1

    def choice(self, state, order, mask):
        return torch.zeros((), dtype=torch.int64), state + 1


def test_q23_probability_zero_never_switches():
    ours, theirs = both(lambda tx, state: int(tx.start_batch(state).pick), switch="step", every=1, probability=0.0, draw=Zero())
    assert (ours, theirs) == (0, 1)


def test_q25_warns_of_preferences_out_of_reach():
    groups = fo.Compatibility({"in": fo.Group(["b"], internal=True), "out": fo.Group(["a"])}, across=True, preferred={"a": [["b"]]})
    with pytest.warns(UserWarning, match="'a' prefers 'b', which an internal group puts out of reach"):
        made(False, compatible=groups, **POOL)
