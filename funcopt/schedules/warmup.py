"""Rise in a line first, then do something else.

    s(n) = init + (peak - init) n / warmup_steps             for n < warmup_steps
    s(n) = after(n - warmup_steps)                           from there on: constant, cosine or exponential

Reference: optax.warmup_constant_schedule, warmup_cosine_decay_schedule, warmup_exponential_decay_schedule 0.2.8.
"""

import torch
from torch import Tensor

from funcopt.core import Scalar, check
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.cosine import cosine_decay_schedule
from funcopt.schedules.exponential import exponential_decay
from funcopt.schedules.join import join_schedules
from funcopt.schedules.polynomial import linear_schedule

__all__ = ["warmup_constant_schedule", "warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule"]


def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: int) -> ComposableSchedule:
    """Rises from `init_value` to `peak_value` in a line and stays there.

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value from `warmup_steps` on.
        warmup_steps: length of the rise, >= 0. As in optax, 0 means that the value stays at
            `init_value` for ever.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.warmup_constant_schedule(0.0, 1.0, warmup_steps=4)
        >>> [schedule(count).item() for count in (0, 1, 4, 100)]
        [0.0, 0.25, 1.0, 1.0]
    """
    check.finite("warmup_constant_schedule", "init_value", init_value)
    check.finite("warmup_constant_schedule", "peak_value", peak_value)
    check.integer("warmup_constant_schedule", "warmup_steps", warmup_steps, 0)
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    decay_steps: int,
    end_value: Scalar = 0.0,
    exponent: Scalar = 1.0,
) -> ComposableSchedule:
    """Rises from `init_value` to `peak_value` in a line, then falls to `end_value` along half a cosine.

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the rise, >= 0.
        decay_steps: length of the whole, the rise included; > `warmup_steps`.
        end_value: the value from `decay_steps` on.
        exponent: power on the cosine, > 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
        >>> [round(schedule(count).item(), 12) for count in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    where = "warmup_cosine_decay_schedule"
    check.finite(where, "init_value", init_value)
    check.finite(where, "peak_value", peak_value)
    check.finite(where, "end_value", end_value)
    check.integer(where, "warmup_steps", warmup_steps, 0)
    check.integer(where, "decay_steps", decay_steps, 1)
    check.positive(where, "exponent", exponent)
    if decay_steps <= warmup_steps:
        raise ValueError(
            f"{where}: decay_steps counts the whole schedule and must be > warmup_steps, got {decay_steps} with warmup_steps {warmup_steps}"
        )
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    fall = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, _share(end_value, peak_value), exponent)
    return join_schedules([rise, fall], [warmup_steps])


def _share(end: Scalar, peak: Scalar) -> Scalar:
    """`end / peak`, and 0 where `peak` is 0, as in optax."""
    if isinstance(peak, Tensor):
        zero = peak == 0
        return torch.where(zero, torch.zeros_like(peak), end / torch.where(zero, torch.ones_like(peak), peak))
    return 0.0 if peak == 0 else end / peak


def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Scalar,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Scalar | None = None,
) -> ComposableSchedule:
    """Rises from `init_value` to `peak_value` in a line, then decays exponentially.

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the rise, >= 0.
        transition_steps, decay_rate, transition_begin, staircase, end_value: as in
            `exponential_decay`, counted from the end of the rise.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.warmup_exponential_decay_schedule(0.0, 1.0, 2, transition_steps=1, decay_rate=0.5)
        >>> [schedule(count).item() for count in (0, 1, 2, 3, 4)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    check.finite("warmup_exponential_decay_schedule", "init_value", init_value)
    check.finite("warmup_exponential_decay_schedule", "peak_value", peak_value)
    check.integer("warmup_exponential_decay_schedule", "warmup_steps", warmup_steps, 0)
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    fall = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return join_schedules([rise, fall], [warmup_steps])
