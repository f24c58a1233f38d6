"""The hooks of a roulette: the functions by which a loop or a hand steers it, each from a state to a new one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import steering, wheel
from funcopt.controllers.roulette.pool import aged, record, unstable
from funcopt.controllers.roulette.settings import Settings
from funcopt.controllers.roulette.state import RouletteState
from funcopt.core import Scalar, check


def hooks_of(settings: Settings) -> dict[str, Any]:
    member = settings.index

    def fresh(state: RouletteState) -> RouletteState:
        return wheel.forget_events(settings, state)

    def needs_pool(what: str) -> None:
        if not settings.has_pool:
            raise ValueError(f"roulette: {what} needs a pool that keeps records; pass failures= or backup=")

    def start_epoch(state: RouletteState, epoch: int | Tensor, phase: Any = None):
        if phase is not None:
            check.choice("roulette.start_epoch", "phase", phase, tuple(steering.PHASES))
        return steering.start_epoch(settings, fresh(state), settings.whole(epoch, state), phase)

    def end_epoch(state: RouletteState, metric: Scalar | None = None, reward: Scalar | None = None, best: Scalar | None = None):
        return steering.end_epoch(settings, fresh(state), *[settings.real(value, state) for value in (metric, reward, best)])

    def records(state: RouletteState, m: Any, reward: Scalar | None, metric: Scalar | None, best: Scalar | None = None):
        needs_pool("record")
        return record(settings, fresh(state), member(m, state.pick), *[settings.real(value, state) for value in (reward, metric, best)])

    def age(state: RouletteState):
        needs_pool("age")
        return aged(settings, fresh(state))

    def known(hook: Callable[[RouletteState, Any], RouletteState]) -> Callable[[RouletteState, Any], RouletteState]:
        """Names that nobody bears are passed over, as in the reference."""
        return lambda state, m: fresh(state) if isinstance(m, str) and m not in settings.names else hook(fresh(state), m)

    def report_instability(state: RouletteState, m: Any) -> RouletteState:
        if settings.quirks.swallows and not settings.has_pool:
            return state
        needs_pool("report_instability")
        return unstable(settings, state, member(m, state.pick), torch.ones_like(state.count))

    def lock(state: RouletteState, m: Any) -> RouletteState:
        return steering.lock(settings, state, None if m is None else member(m, state.pick))

    def blocks(blocked: bool) -> Callable[[RouletteState, Any], RouletteState]:
        return lambda state, m: state._replace(blocked=select.put(state.blocked, member(m, state.pick), blocked))

    def set_phase(state: RouletteState, phase: Any):
        check.choice("roulette.set_phase", "phase", phase, tuple(steering.PHASES))
        return steering.set_phase(settings, fresh(state), phase)

    def set_lr(state: RouletteState, m: Any, lr: Scalar):
        check.nonnegative("roulette.set_lr", "lr", lr)
        if isinstance(m, str) and m in settings.names and (settings.members[m].has_size or settings.members[m].finds_rate):
            why = "finds its rate by itself" if settings.members[m].finds_rate else "has its size already, and its rate is its own"
            raise ValueError(f"roulette.set_lr: member '{m}' {why}")
        return fresh(state)._replace(lr=select.put(state.lr, member(m, state.pick), settings.real(lr, state)))

    def reset_counts(state: RouletteState):
        return fresh(state)._replace(counts=state.counts.clamp(max=0))  # -1: an entry that was dropped

    return {
        "start_epoch": start_epoch,
        "end_epoch": end_epoch,
        "record": records,
        "age": age,
        "report_instability": known(report_instability),
        "lock": known(lock),
        "unlock": lambda state: lock(fresh(state), None),
        "block": known(blocks(True)),
        "unblock": known(blocks(False)),
        "set_phase": set_phase,
        "set_lr": set_lr,
        "reset_counts": reset_counts,
        "start_batch": lambda state: steering.start_batch(settings, fresh(state)),
        "count_step": lambda state: fresh(state)._replace(count=state.count + 1),
    }
