"""Warm-up: one member is held until a number of epochs has passed, or until the metric no longer moves.

    plateau: |slope| < threshold,  slope = sum_i (i - mean i) (y_i - mean y) / sum_i (i - mean i)^2

over a window of the last max(5, min_epochs) metrics y, of which there must be five.
Source: OptiRoulette 0.1.0.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers import select
from funcopt.controllers.roulette import pool, wheel
from funcopt.core import check

__all__ = ["Warmup", "fixed_warmup", "plateau_warmup"]

WARMUP, ROULETTE = 0, 1  # phases
FEWEST = 5  # metrics for a slope


class Warmup(NamedTuple):
    """What `fixed_warmup` and `plateau_warmup` make."""

    epochs: int | None  # None: until the plateau
    member: str | None  # whom it holds; None: the first active one
    drop: bool  # block it afterwards
    refill: bool  # and give its place to a backup
    min_metric: float = 0.0  # of `plateau_warmup`
    threshold: float = 0.0  # of `plateau_warmup`
    min_epochs: int = 0  # of `plateau_warmup`


def fixed_warmup(epochs: int, member: str | None = None, drop: bool = False, *, refill: bool = False) -> Warmup:
    """Holds one member for the first epochs.

    Args:
        epochs: how many, >= 1; epochs count from 0.
        member: whom; None: the first active one.
        drop: block it afterwards.
        refill: give its place among the active to the first backup when it is dropped.

    Returns:
        A `Warmup`, for `roulette(..., warmup=)`.

    Raises:
        ValueError: `epochs` is below 1.

    Example:
        >>> fo.fixed_warmup(3, "sgd").epochs
        3
    """
    check.integer("fixed_warmup", "epochs", epochs, 1)
    return Warmup(epochs, member, drop, refill)


def plateau_warmup(
    min_metric: float = 0.0,
    threshold: float = 1e-3,
    min_epochs: int = 0,
    member: str | None = None,
    drop: bool = False,
    *,
    refill: bool = False,
) -> Warmup:
    """Holds one member until the metric of the epochs has come to rest.

    Args:
        min_metric: what the metric must have reached; 0 or less: nothing.
        threshold: the slope must be nearer to zero, in units of the metric per epoch. A
            slow decline counts, too; with 0 or less the warm-up never ends.
        min_epochs: how many epochs must have ended; the window is that long, and at least 5.
        member, drop, refill: as in `fixed_warmup`.

    Returns:
        A `Warmup`, for `roulette(..., warmup=)`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> fo.plateau_warmup(min_metric=0.5, member="adam").threshold
        0.001
    """
    check.finite("plateau_warmup", "min_metric", min_metric)
    check.finite("plateau_warmup", "threshold", threshold)
    check.integer("plateau_warmup", "min_epochs", min_epochs, 0)
    return Warmup(None, member, drop, refill, min_metric, threshold, min_epochs)


class WindowState(NamedTuple):
    metrics: Tensor  # [capacity]; oldest first, zeros behind
    length: Tensor


def window(warmup: Warmup, like: Tensor) -> WindowState:
    return WindowState(torch.zeros(max(FEWEST, warmup.min_epochs), dtype=torch.float64, device=like.device), torch.zeros_like(like))


def pushed(window: WindowState, metric: Tensor) -> WindowState:
    capacity = window.metrics.shape[0]
    full = window.length == capacity
    metrics = torch.where(full, window.metrics.roll(-1), window.metrics)
    length = torch.where(full, window.length, window.length + 1)
    return WindowState(select.put(metrics, length - 1, metric), length)


def at_rest(warmup: Warmup, window: WindowState) -> Tensor:
    there = select.places(window.metrics) < window.length
    count = window.length.clamp(min=1)
    x = torch.where(there, select.places(window.metrics) - (count - 1) / 2, 0.0)
    y = torch.where(there, window.metrics - torch.where(there, window.metrics, 0.0).sum() / count, 0.0)
    slope = (x * y).sum() / (x * x).sum().clamp(min=0.5)
    return (slope.abs() < warmup.threshold) & (window.length >= FEWEST)


# --- phases -------------------------------------------------------------------------------------------------------------------


def transition(settings: Any, state: Any) -> Any:
    """From warm-up to roulette; nothing happens where it is over."""

    def go(state: Any) -> Any:
        released = state.locked == state.warmup_lock
        state = state._replace(
            phase=torch.full_like(state.phase, ROULETTE),
            warmup_completed=torch.full_like(state.warmup_completed, settings.warmup is not None),
            locked=torch.where(released, -1, state.locked),
        )
        state = dropped(settings, state)
        return pool.act_on_pending(settings, state)

    return select.when(settings, state.phase == WARMUP, go, state)


def dropped(settings: Any, state: Any) -> Any:
    """The member of the warm-up is blocked."""
    warmup = settings.warmup
    if warmup is None or not warmup.drop or warmup.member is None:
        return state
    i = settings.index(warmup.member, state.pick)
    state = state._replace(blocked=select.put(state.blocked, i, True))
    return pool.refilled(settings, state, i) if warmup.refill else state


def hold(settings: Any, state: Any, reason: int, row: int) -> Any:
    """The lock of the warm-up."""
    target = state.pick if settings.warmup.member is None else settings.index(settings.warmup.member, state.pick)
    state = state._replace(warmup_lock=target.clone(), locked=target.clone())
    return wheel.switch_to(settings, state, target, reason, row)


def watch(settings: Any, state: Any, metric: Tensor) -> Any:
    """The end of an epoch of a plateau warm-up."""
    warmup = settings.warmup

    def go(state: Any) -> Any:
        if settings.quirks.nan_succeeds:
            seen = pushed(state.window, metric)
        else:
            seen = select.choose(metric.isfinite(), pushed(state.window, metric), state.window)
        ends = at_rest(warmup, seen)
        if warmup.min_epochs > 0:
            ends = ends & (state.epoch + 1 >= warmup.min_epochs)
        if warmup.min_metric > 0:
            ends = ends & ~(metric < warmup.min_metric)
        if not settings.quirks.nan_succeeds:
            ends = ends & metric.isfinite()
        return select.when(settings, ends, lambda s: transition(settings, s), state._replace(window=seen))

    return select.when(settings, state.phase == WARMUP, go, state)
