"""What a roulette is told in an update: where an epoch ends, where one begins, and that a batch does."""

from typing import Any

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import steering, wheel
from funcopt.controllers.roulette.settings import Settings
from funcopt.controllers.roulette.state import RouletteState
from funcopt.core import Scalar, check, random


def before_step(
    settings: Settings,
    state: RouletteState,
    *,
    epoch: int | Tensor | None = None,
    metric: Scalar | None = None,
    reward: Scalar | None = None,
    best: Scalar | None = None,
    loss: Scalar | None = None,
    epoch_start: bool | None = None,
    epoch_end: bool | None = None,
    **extra: Any,
) -> RouletteState:
    """All that may change the pick of this step: the end of an epoch, a new one, a new batch."""
    state = wheel.forget_events(settings, state)
    if epoch is None and epoch_start is None and (settings.by_epoch or settings.warmup is not None):
        why = "switch='epoch'" if settings.by_epoch else "a warm-up"
        raise check.Missing(f"roulette: needs the epoch of this step with {why}", "epoch")
    loss = None if loss is None else check.told("roulette", "loss", loss)
    if settings.has_pool and loss is not None:
        told_loss = loss if isinstance(loss, Tensor) else torch.full_like(state.base_lr, loss)
        state = state._replace(bad_losses=state.bad_losses + ~told_loss.detach().isfinite().to(state.bad_losses.device))
    turned_outside = settings.planned is not None and settings.has_pool and metric is not None  # by a plan that was EAGER
    if (epoch is None and epoch_start is None) or turned_outside:
        return steering.start_batch(settings, state)
    if epoch is not None:
        now = settings.whole(epoch, state)
        new = ~state.started | (now != state.epoch)
    else:
        new, now = settings.flag(epoch_start, state), torch.where(state.started, state.epoch + 1, state.epoch)

    def turn(state: RouletteState) -> RouletteState:
        if epoch_end is None:
            told = [settings.real(value, state) for value in (metric, reward, best)]
            state = select.when(settings, state.started, lambda s: steering.end_epoch(settings, s, *told), state)
        return steering.start_epoch(settings, state, now)

    return steering.start_batch(settings, select.when(settings, new, turn, state))


def after_step(
    settings: Settings,
    state: RouletteState,
    *,
    metric: Scalar | None = None,
    reward: Scalar | None = None,
    best: Scalar | None = None,
    epoch_end: bool | None = None,
    **extra: Any,
) -> RouletteState:
    if epoch_end is None or (settings.planned is not None and settings.has_pool and metric is not None):
        return state
    told = [settings.real(value, state) for value in (metric, reward, best)]
    return select.when(settings, settings.flag(epoch_end, state), lambda s: steering.end_epoch(settings, s, *told), state)


def turns(state: RouletteState, told: dict[str, Any]) -> bool | None:
    """Whether an epoch ends or begins in this call; None where that cannot be read."""
    answers = []
    for flag in (told.get("epoch_start") if told.get("epoch") is None else None, told.get("epoch_end")):
        if isinstance(flag, Tensor) and not random.readable(flag):
            return None
        answers.append(bool(random.host_int(flag)) if isinstance(flag, Tensor) else bool(flag))
    epoch = told.get("epoch")
    if isinstance(epoch, Tensor) and not random.readable(epoch):
        return None
    if epoch is not None:
        number = random.host_int(epoch) if isinstance(epoch, Tensor) else epoch
        answers.append(not random.host_int(state.started) or random.host_int(state.epoch) != number)
    return any(answers)
