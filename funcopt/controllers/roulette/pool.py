"""The pool of a roulette: active, backup and reserve members, how they fare, and who is replaced by whom.

    a record (reward, metric) of member m fails if reward < threshold,
    and is a catastrophe if best - metric > drop
    enough failures in a row (not in the grace period) or catastrophes in a row: m is swapped out,
    the next in line takes its place at the end of the active list, m goes to the end of the reserve,
    and after `blacklist` swaps nowhere

Source: OptiRoulette 0.1.0. Unlike there (unless `parity`): a NaN reward fails and a NaN metric is a
catastrophe, neither enters an average; reports of instability ask for a swap of their own and never
raise a rate; a locked member is swapped only when it is unlocked; reserves follow backups; a relaxed
threshold is laxer whatever its sign.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import wheel
from funcopt.controllers.roulette.transfer import transferred
from funcopt.core import check, random
from funcopt.core.sent import sent

__all__ = ["Failures", "Recovery"]

Transfer = Literal["none", "all", "momentum"]

REMEMBERED = 20  # rewards in an average


@dataclass(frozen=True)
class Failures:
    """When a member has failed.

    Args:
        threshold: a reward below it fails.
        in_a_row: so many failing records in a row ask for a swap, >= 1.
        drop: a metric that is further below the best is a catastrophe, >= 0.
        drops_in_a_row: so many catastrophes in a row force a swap, >= 1.
        blacklist: swapped out so often, a member never comes back, >= 1.
        swaps: False: statistics alone.
    """

    threshold: float = -0.3
    in_a_row: int = 3
    drop: float = 0.2
    drops_in_a_row: int = 1
    blacklist: int = 3
    _: KW_ONLY
    swaps: bool = True

    def __post_init__(self):
        check.finite("Failures", "threshold", self.threshold)
        check.nonnegative("Failures", "drop", self.drop)
        for name in ("in_a_row", "drops_in_a_row", "blacklist"):
            check.integer("Failures", name, getattr(self, name), 1)


@dataclass(frozen=True)
class Recovery:
    """How a newcomer starts, and what instability costs.

    Args:
        grace: epochs for which ordinary failures of a newcomer do not count, >= 0.
        relax: how much laxer the threshold is in the grace period, >= 1: the threshold
            less (relax - 1) times its magnitude.
        transfer: what a newcomer takes over: "none", "all" (momentum and running means) or
            "momentum".
        scale: factor of momentum that is taken over, > 0.
        instability_factor: of the rate at each report of instability, in (0, 1], or 0 for 1.
        instability_min_lr: the rate is not cut below it, >= 0.
        instability_limit: so many reports ask for a swap, >= 1.
        instability_recovery: factor by which a cut rate grows back at each record without a
            report, up to where it was, >= 1.
    """

    grace: int = 0
    relax: float = 1.0
    transfer: Transfer = "none"
    scale: float = 1.0
    instability_factor: float = 0.5
    instability_min_lr: float = 1e-7
    instability_limit: int = 2
    instability_recovery: float = 1.0

    def __post_init__(self):
        check.integer("Recovery", "grace", self.grace, 0)
        check.integer("Recovery", "instability_limit", self.instability_limit, 1)
        check.choice("Recovery", "transfer", self.transfer, get_args(Transfer))
        check.positive("Recovery", "scale", self.scale)
        check.positive("Recovery", "relax", self.relax)
        check.within("Recovery", "instability_factor", self.instability_factor, 0, 1)
        check.nonnegative("Recovery", "instability_min_lr", self.instability_min_lr)
        check.within("Recovery", "instability_recovery", self.instability_recovery, 1, float("inf"))


class PoolState(NamedTuple):
    backup: Tensor  # [n]; next in line, padded with -1
    reserve: Tensor  # [n]; later in line, padded with -1
    epochs_used: Tensor  # [n]; records since activation
    failures: Tensor  # [n]; failing records in a row
    catastrophes: Tensor  # [n]; in a row
    instability: Tensor  # [n]; reports, less one for each record
    swaps: Tensor  # [n]; how often swapped out
    age: Tensor  # [n]; epochs since activation
    in_grace: Tensor  # bool [n]
    blacklisted: Tensor  # bool [n]
    pending: Tensor  # bool [n]; to be swapped when unlocked
    has_run: Tensor  # bool [n]
    rewards: Tensor  # [n, 20]; the newest last
    rewarded: Tensor  # [n]; how many of them
    average: Tensor  # [n]; of the rewards
    last: Tensor  # [n]; metric
    best: Tensor  # [n]; metric
    counts: Tensor  # [n]; `counts` when the epoch began
    metric: Tensor  # of the last epoch; NaN before the first
    best_metric: Tensor  # of all epochs; NaN before the first


def first(settings: Any, like: Tensor) -> PoolState:
    n, here = len(settings.members), like.device

    def queue(members: tuple[int, ...]) -> Tensor:
        return torch.tensor([*members, *[-1] * (n - len(members))], dtype=torch.int64, device=here)

    def zeros(dtype: torch.dtype = torch.int64, *shape: int) -> Tensor:
        return torch.zeros(n, *shape, dtype=dtype, device=here)

    names = ("epochs_used", "failures", "catastrophes", "instability", "swaps", "age", "rewarded", "counts")
    unknown = torch.full((), float("nan"), dtype=torch.float64, device=here)
    return PoolState(
        backup=queue(settings.backup),
        reserve=queue(settings.reserve),
        **{name: zeros() for name in names},
        **{name: zeros(torch.float64) for name in ("average", "last", "best")},
        **{name: zeros(torch.bool) for name in ("blacklisted", "pending", "has_run")},
        in_grace=torch.ones(n, dtype=torch.bool, device=here),
        rewards=zeros(torch.float64, REMEMBERED),
        metric=unknown,
        best_metric=unknown.clone(),
    )


# --- queues -------------------------------------------------------------------------------------------------------------------


def without(queue: Tensor, member: Tensor) -> Tensor:
    """The queue with one member gone and the others closed up."""
    keep = (queue != member) & (queue >= 0)
    to = keep.cumsum(0) - 1
    moves = keep.unsqueeze(1) & (to.unsqueeze(1) == select.places(queue))  # [from, to]
    return torch.where(moves, queue.unsqueeze(1) + 1, 0).sum(0) - 1


def joined(queue: Tensor, member: Tensor) -> Tensor:
    """The queue with a member behind the others."""
    return select.put(queue, (queue >= 0).sum(), member)


def lists(state: Any, member: Tensor) -> Tensor:
    """Whether a member is active."""
    return (state.active == member).any()


# --- records ------------------------------------------------------------------------------------------------------------------


def record(settings: Any, state: Any, member: Tensor, reward: Tensor, metric: Tensor, best: Tensor | None = None) -> Any:
    """What an epoch with a member brought; swaps it out if that asks for it."""
    pool, limits, recovery, quirks = state.pool, settings.failures, settings.recovery, settings.quirks
    at, put = select.at, select.put
    failed_before, unstable = at(pool.failures, member), at(pool.instability, member)
    age = at(pool.age, member)
    grace = at(pool.in_grace, member) & (age < recovery.grace)
    threshold = limits.threshold
    lax = threshold * recovery.relax if quirks.relaxes_by_factor else threshold - (recovery.relax - 1) * abs(threshold)
    bound = torch.where(grace, torch.full_like(reward, lax), torch.full_like(reward, threshold))
    fails, own_best = reward < bound, at(pool.best, member)
    reference = own_best if best is None else best
    catastrophe = reference - metric > limits.drop
    counts_reward = counts_metric = torch.ones_like(fails)
    if not quirks.nan_succeeds:
        counts_reward, counts_metric = reward.isfinite(), metric.isfinite()
        fails, catastrophe = fails | ~counts_reward, catastrophe | ~counts_metric
    failures = torch.where(fails, failed_before + 1, 0)
    catastrophes = torch.where(catastrophe, at(pool.catastrophes, member) + 1, 0)

    here = select.places(pool.failures) == member
    rewards, rewarded = _remembered(pool, here, reward, counts_reward)
    recent = torch.arange(REMEMBERED, device=here.device) >= REMEMBERED - rewarded.unsqueeze(1)
    mean = torch.where(recent, rewards, 0.0).sum(1) / rewarded.clamp(min=1)
    better = torch.where(metric > own_best, metric, own_best)
    pool = pool._replace(
        epochs_used=put(pool.epochs_used, member, at(pool.epochs_used, member) + 1),
        rewards=rewards,
        rewarded=rewarded,
        average=torch.where(here, mean, pool.average),
        last=torch.where(here & counts_metric, metric, pool.last),
        best=put(pool.best, member, better),
        instability=put(pool.instability, member, (unstable - 1).clamp(min=0)),
        in_grace=put(pool.in_grace, member, grace),
        failures=put(pool.failures, member, failures),
        catastrophes=put(pool.catastrophes, member, catastrophes),
    )
    state = state._replace(pool=pool)
    if not quirks.marks_fade and recovery.instability_recovery > 1 and not settings.compounding:
        state = _grown_back(settings, state, member, unstable == 0)
    if not limits.swaps:
        return state
    wanted = (~grace & (failures >= limits.in_a_row)) | (catastrophes >= limits.drops_in_a_row)
    if not quirks.marks_fade:
        wanted = wanted | (unstable >= recovery.instability_limit)
    if not quirks.swap_of_inactive:
        wanted = wanted & lists(state, member)
    if quirks.swap_breaks_lock:
        return select.when(settings, wanted, lambda s: swap(settings, s, member), state)
    locked = state.locked == member
    state = state._replace(pool=state.pool._replace(pending=put(state.pool.pending, member, wanted & locked)))
    return select.when(settings, wanted & ~locked, lambda s: swap(settings, s, member), state)


def _remembered(pool: PoolState, here: Tensor, reward: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    taken = here & counts
    rewards = torch.where(taken.unsqueeze(1), torch.cat([pool.rewards[:, 1:], reward.expand(here.shape[0], 1)], 1), pool.rewards)
    return rewards, torch.where(taken, (pool.rewarded + 1).clamp(max=REMEMBERED), pool.rewarded)


def _grown_back(settings: Any, state: Any, member: Tensor, calm: Tensor) -> Any:
    whole = settings.rates(state.lr)
    grown = torch.where(state.lr < whole, torch.minimum(whole, state.lr * settings.recovery.instability_recovery), state.lr)
    return state._replace(lr=torch.where((select.places(state.lr) == member) & calm, grown, state.lr))


def aged(settings: Any, state: Any) -> Any:
    """Active members are an epoch older."""
    pool = state.pool
    active = (state.active.unsqueeze(1) == select.places(pool.age)).any(0)
    age = pool.age + active
    return state._replace(pool=pool._replace(age=age, in_grace=pool.in_grace & ~(active & (age >= settings.recovery.grace))))


def unstable(settings: Any, state: Any, member: Tensor, times: Tensor) -> Any:
    """A member has been reported `times` times."""
    pool, recovery = state.pool, settings.recovery
    events = select.at(pool.instability, member) + times
    pool = pool._replace(instability=select.put(pool.instability, member, events))
    lr = state.lr
    if recovery.instability_factor > 0:
        now = select.at(lr, member)
        cut = (now * recovery.instability_factor ** times.to(lr.dtype)).clamp(min=recovery.instability_min_lr)
        lr = select.put(lr, member, torch.where(times > 0, cut if settings.quirks.marks_fade else torch.minimum(cut, now), now))
    if settings.quirks.marks_fade:
        marked = (events >= recovery.instability_limit) & (select.places(pool.failures) == member)
        pool = pool._replace(
            failures=torch.where(marked, pool.failures.clamp(min=settings.failures.in_a_row), pool.failures),
            catastrophes=torch.where(marked, pool.catastrophes.clamp(min=settings.failures.drops_in_a_row), pool.catastrophes),
        )
    return state._replace(pool=pool, lr=lr)


# --- swaps --------------------------------------------------------------------------------------------------------------------


def swap(settings: Any, state: Any, failed: Tensor) -> Any:
    """The next in line takes the place of a failed member, if there is one."""
    pool, everybody = state.pool, select.places(state.blocked)
    line = torch.cat([pool.backup, pool.reserve, everybody])
    known = line.clamp(min=0)
    fit = (line >= 0) & ~pool.blacklisted.gather(0, known)
    n, data = everybody.shape[0], settings.compatible is not None
    part = torch.arange(3 * n, device=line.device)
    waiting = fit & (part < (n if settings.quirks.reserve_needs_groups and not data else 2 * n))
    active = (state.active.unsqueeze(1) == everybody).any(0)
    idle = fit & (part >= 2 * n) & ~active.gather(0, known) & (known != failed)
    free = torch.where(waiting.any(), waiting, idle) if data else waiting
    row = everybody == failed
    valid = (sent(settings.valid, line.device) & row.unsqueeze(1)).any(0).gather(0, known)
    rank = torch.where(row.unsqueeze(1), sent(settings.rank, line.device), 0).sum(0).gather(0, known)
    score = torch.where(free & valid, rank * 3 * n + part, torch.iinfo(torch.int64).max)
    best = score.min()
    found = best < torch.iinfo(torch.int64).max
    new = torch.where(score == best, line, 0).sum()
    return select.when(settings, found, lambda s: replace(settings, s, failed, torch.where(found, new, 0)), state)


def replace(settings: Any, state: Any, failed: Tensor, new: Tensor) -> Any:
    """`new` becomes active in place of `failed`."""
    pool, put, at = state.pool, select.put, select.at
    taken = pool._replace(backup=without(pool.backup, new), reserve=without(pool.reserve, new))
    if settings.quirks.swap_of_inactive and random.readable(failed) and not random.host_int(lists(state, failed)):
        wheel.stop(ValueError("roulette: the failed member must be active"), state._replace(pool=taken))
    pool = taken
    active = put(without(state.active, failed), torch.full_like(failed, state.active.shape[0] - 1), new)
    times = at(pool.swaps, failed) + 1
    banned = times >= settings.failures.blacklist
    zero = torch.zeros_like(failed)

    def fresh(counter: Tensor, *members: Tensor) -> Tensor:
        for member in members:
            counter = put(counter, member, zero)
        return counter

    pool = pool._replace(
        reserve=torch.where(banned, pool.reserve, joined(pool.reserve, failed)),
        swaps=put(pool.swaps, failed, times),
        blacklisted=put(pool.blacklisted, failed, banned),
        pending=put(pool.pending, failed, False),
        failures=fresh(pool.failures, new),
        catastrophes=fresh(pool.catastrophes, failed, new),
        instability=fresh(pool.instability, failed, new),
        epochs_used=fresh(pool.epochs_used, new),
        age=fresh(pool.age, new),
        in_grace=put(pool.in_grace, new, True),
    )
    state = state._replace(pool=pool, active=active)
    if settings.pool_rules is not None:
        state = state._replace(lr=put(state.lr, new, settings.pool_rules.adjusted(failed, new, at(state.lr, new))))
    state = transferred(settings, state, failed, new)
    if settings.quirks.swap_breaks_lock:  # the entry of the failed member is dropped
        counts = put(state.counts, failed, -1)
        state = state._replace(counts=put(counts, new, at(counts, new).clamp(min=0)))
    current = state.pick == failed
    return select.when(settings, current, lambda s: wheel.switch_to(settings, s, new, wheel.POOL_SWAP, wheel.SWAP_ROW), state)


def refilled(settings: Any, state: Any, dropped: Tensor) -> Any:
    """The first backup takes the place of an active member that was dropped."""

    def go(state: Any) -> Any:
        new = state.pool.backup[0]
        pool = state.pool._replace(backup=without(state.pool.backup, new), in_grace=select.put(state.pool.in_grace, new, True))
        pool = pool._replace(reserve=joined(pool.reserve, dropped))
        active = select.put(without(state.active, dropped), torch.full_like(new, state.active.shape[0] - 1), new)
        return state._replace(pool=pool, active=active)

    return select.when(settings, lists(state, dropped) & (state.pool.backup[0] >= 0), go, state)


def act_on_pending(settings: Any, state: Any) -> Any:
    """Swaps out the member that had to stay because it was locked."""
    if settings.quirks.swap_breaks_lock or not (settings.has_pool and settings.failures.swaps):
        return state
    waiting = state.pool.pending & (select.places(state.pool.pending) != state.locked)
    member = torch.where(waiting & (waiting.cumsum(0) == 1), select.places(waiting), 0).sum()

    def go(state: Any) -> Any:
        state = state._replace(pool=state.pool._replace(pending=select.put(state.pool.pending, member, False)))
        return swap(settings, state, member)

    return select.when(settings, waiting.any(), go, state)
