"""scale and scale_by_schedule: multiply by a number, or by a number that depends on the count of steps.

    u_t = factor * g_t,   u_t = schedule(t-1) * g_t

Reference: optax.scale and optax.scale_by_schedule (0.2.8).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, Schedule, TensorTree, check, moments, tree

__all__ = ["ScaleByScheduleState", "scale", "scale_by_schedule"]


class ScaleByScheduleState(NamedTuple):
    count: Tensor  # steps taken


def scale(factor: Scalar) -> GradientTransformation[EmptyState]:
    """Multiplies the updates by a number.

    Args:
        factor: any finite number or 0-dim tensor.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `factor` is not finite.

    Example:
        >>> half = fo.scale(0.5)
        >>> half.update(torch.tensor([2.0]), half.init(torch.zeros(1)))[0]
        tensor([1.])
    """
    check.finite("scale", "factor", factor)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.map(lambda g: factor * g, updates), state

    turns = None if isinstance(factor, Tensor) else factor <= 0
    return GradientTransformation(
        lambda params: EmptyState(), update, name="scale", flattenable=True, leaves="complex", per_leaf=True, turns=turns
    )


def scale_by_schedule(schedule: Schedule) -> GradientTransformation[ScaleByScheduleState]:
    """Multiplies the updates by the value of a schedule at the count of completed steps.

    Args:
        schedule: from the count, 0-dim int64, to a 0-dim value or a number.

    Returns:
        A transformation that keeps shapes and dtypes; its state is the count of steps.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        TypeError: `schedule` is not callable.

    Example:
        >>> tx = fo.scale_by_schedule(lambda count: 1 / (count + 1.0))
        >>> updates, state = tx.update(torch.tensor([6.0]), tx.init(torch.zeros(1)))
        >>> tx.update(torch.tensor([6.0]), state)[0]
        tensor([3.])
    """
    if not callable(schedule):
        raise TypeError(f"scale_by_schedule: schedule must be a function of the count of steps, got {schedule!r}; for a number use scale")
    check.schedule_or(check.finite, "scale_by_schedule", "schedule", schedule)

    def init(params: TensorTree) -> ScaleByScheduleState:
        return ScaleByScheduleState(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)))

    def update(updates: TensorTree, state: ScaleByScheduleState, params: TensorTree | None = None, **extra: Any):
        factor = tree.scalar(check.value_at("scale_by_schedule", "factor", schedule, state.count), state.count)
        return tree.map(lambda g: factor * g, updates), ScaleByScheduleState(count=moments.increment(state.count))

    return GradientTransformation(init, update, name="scale_by_schedule", flattenable=True, leaves="complex", per_leaf=True)
