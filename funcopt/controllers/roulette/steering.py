"""What follows where an epoch or a batch begins or ends, a member is held or a phase set: pure functions of the state of a roulette.

Source: OptiRoulette 0.1.0, sections by the names of its methods.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import pool, warmup, wheel
from funcopt.controllers.roulette.warmup import ROULETTE, WARMUP
from funcopt.core import random

PHASES = {"warmup": WARMUP, "roulette": ROULETTE}


def start_epoch(settings: Any, state: Any, epoch: Tensor, phase: str | None = None) -> Any:
    """A new epoch: the end of a fixed warm-up, the lock, or a draw."""
    state = state._replace(epoch=epoch.clone(), started=torch.ones_like(state.started))
    if settings.has_pool:
        state = state._replace(pool=state.pool._replace(counts=state.counts.clone()))
    if phase is not None:
        state = set_phase(settings, state, phase)
    fixed = settings.warmup
    if fixed is not None:
        if fixed.epochs is not None:
            state = select.when(
                settings, (state.phase == WARMUP) & (epoch >= fixed.epochs), lambda s: warmup.transition(settings, s), state
            )
        held = state.phase == WARMUP
        if settings.quirks.drops_in_every_epoch:
            after = ~held & state.warmup_completed
            state = select.when(settings, after, lambda s: warmup.dropped(settings, s), state)
        state = select.when(settings, held, lambda s: warmup.hold(settings, s, wheel.LOCK, wheel.EPOCH_ROW), state)
    locked = state.locked >= 0
    state = select.when(settings, locked, lambda s: wheel.switch_to(settings, s, s.locked, wheel.LOCKED_EPOCH, wheel.EPOCH_ROW), state)
    if not settings.by_epoch:
        return state
    if settings.probability < 1 and not settings.quirks.always_at_epochs:
        return select.when(settings, ~locked, lambda s: wheel.chance(settings, s, wheel.EPOCH_START, wheel.EPOCH_ROW), state)
    return select.when(settings, ~locked, lambda s: wheel.spin(settings, s, wheel.EPOCH_START, wheel.EPOCH_ROW), state)


def end_epoch(settings: Any, state: Any, metric: Tensor | None, reward: Tensor | None = None, best: Tensor | None = None) -> Any:
    """The end of an epoch: what it brought is credited to the member that had most of it."""
    if metric is not None and settings.warmup is not None and settings.warmup.epochs is None:
        state = warmup.watch(settings, state, metric)
    if not settings.has_pool or settings.quirks.epochs_by_hand:
        return state
    if metric is not None:
        known = state.pool.metric
        if reward is None:
            reward = torch.where(known.isnan() & metric.isfinite(), torch.zeros_like(metric), metric - known)
        shares = state.counts - state.pool.counts
        member = (shares == shares.max()).to(torch.int64).argmax()
        top = state.pool.best_metric
        top = torch.where(metric.isfinite() & ~(metric <= top), metric, top)
        known = torch.where(metric.isfinite(), metric, known)
        state = state._replace(pool=state.pool._replace(metric=known, best_metric=top))
        bad = state.bad_losses.to(state.count.device).clamp(max=settings.recovery.instability_limit)
        state = select.when(settings, bad > 0, lambda s: pool.unstable(settings, s, member, bad), state)
        state = state._replace(bad_losses=torch.zeros_like(state.bad_losses))
        state = pool.record(settings, state, member, reward, metric, top if best is None else best)
    return pool.aged(settings, state)


def start_batch(settings: Any, state: Any) -> Any:
    """A new batch: a draw if one is due."""
    if not settings.select and random.readable(state.count):
        i = random.host_int(state.pick)
        if not settings.by_epoch and random.host_int(state.count) % settings.every == 0 and random.host_int(state.locked) < 0:
            state = wheel.chance(settings, state, wheel.BATCH_START, wheel.BATCH_ROW)
            i = random.host_int(state.pick)
        if settings.quirks.swap_breaks_lock and random.host_int(state.counts[i]) < 0:
            wheel.stop(KeyError(f"roulette: '{settings.names[i]}' was swapped out and has no counter"), state)
        return state._replace(counts=state.counts + settings.one[i])
    if not settings.by_epoch:
        due = (state.count % settings.every == 0) & (state.locked < 0)
        state = select.when(settings, due, lambda s: wheel.chance(settings, s, wheel.BATCH_START, wheel.BATCH_ROW), state)
    return state._replace(counts=state.counts + (select.places(state.counts) == state.pick))


def lock(settings: Any, state: Any, member: Tensor | None) -> Any:
    """Holds a member, at once and until it is unlocked; None: unlocks."""
    if member is None:
        state = state._replace(locked=torch.full_like(state.locked, -1))
    else:
        state = state._replace(locked=member.clone())
        state = wheel.switch_to(settings, state, member, wheel.LOCK, wheel.EPOCH_ROW)
    return pool.act_on_pending(settings, state)


def set_phase(settings: Any, state: Any, phase: str) -> Any:
    if settings.quirks.phase_keeps_lock:
        return state._replace(phase=torch.full_like(state.phase, PHASES[phase]))
    if phase == "roulette":
        return warmup.transition(settings, state)
    return state._replace(phase=torch.full_like(state.phase, WARMUP))
