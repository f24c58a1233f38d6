"""Multiply by the same factor every so many steps.

    k    = max(n - transition_begin, 0) / T                  T = transition_steps; floor(k) if staircase
    s(n) = init * rate^k, not beyond end (never below it if rate < 1, never above it else)

Reference: optax.exponential_decay 0.2.8.
"""

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.constant import constant_schedule

__all__ = ["exponential_decay"]


def exponential_decay(
    init_value: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> ComposableSchedule:
    """Multiplies by `decay_rate` in every `transition_steps` steps.

    Args:
        init_value: the value until `transition_begin`.
        transition_steps: steps for one factor. As in optax, 0 or less means that the value
            stays at `init_value` for ever.
        decay_rate: the factor, >= 0; above 1 the value grows. As in optax, the number 0
            means that it stays.
        transition_begin: steps before the decay begins; as in optax, less than 0 means 0.
        staircase: hold the value within each stretch of `transition_steps`.
        end_value: where it stops; None for never.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.exponential_decay(1.0, transition_steps=2, decay_rate=0.25)
        >>> [schedule(count).item() for count in (0, 1, 2, 4)]
        [1.0, 0.5, 0.25, 0.0625]
    """
    check.finite("exponential_decay", "init_value", init_value)
    check.nonnegative("exponential_decay", "decay_rate", decay_rate)
    check.finite("exponential_decay", "transition_begin", transition_begin)
    if end_value is not None:
        check.finite("exponential_decay", "end_value", end_value)
    check.finite("exponential_decay", "transition_steps", transition_steps)
    stays = check.number("exponential_decay", "transition_steps", transition_steps) and transition_steps <= 0
    if stays or (not isinstance(decay_rate, Tensor) and decay_rate == 0):
        return constant_schedule(init_value)
    begin = transition_begin if isinstance(transition_begin, Tensor) else max(transition_begin, 0)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        k = (n - begin).clamp(min=0) / transition_steps
        value = init_value * decay_rate ** (k.floor() if staircase else k)
        if end_value is None:
            return value
        end = tree.scalar(end_value, value)
        return torch.where(tree.scalar(decay_rate, value) < 1, torch.maximum(value, end), torch.minimum(value, end))

    return schedule
