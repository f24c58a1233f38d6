"""Rise, cool down along half a cosine, and stay there as long as there are data; then anneal.

    s(n) = init + (peak - init) n / W                                        for n < W              W = warmup_steps
    s(n) = const + (peak - const) (1 + cos(pi (n - W) / C)) / 2              for W <= n < W + C     C = cooldown_steps
    s(n) = const                                                             for W + C <= n < A     A = anneal_begin
    s(n) = const (end / const)^((n - A) / D)                                 for A <= n < A + D     D = anneal_steps;  then end

Without A the third line goes on for ever: nothing depends on the length of the run, which can be taken up again with new data
from any step of it, and be annealed from any.

Source: Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train Large Language Models", 2024, section 7, the
infinite schedule with a cool-down of half a cosine.
"""

import math

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.polynomial import linear_schedule

__all__ = ["infinite_cosine_schedule"]


def infinite_cosine_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    cooldown_steps: int,
    constant_value: Scalar,
    anneal_begin: int | None = None,
    anneal_steps: int = 0,
    end_value: Scalar = 0.0,
) -> ComposableSchedule:
    """Rises to `peak_value`, falls to `constant_value` along half a cosine and stays there; from `anneal_begin` on it falls to `end_value`.

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the rise, >= 0.
        cooldown_steps: length of the fall to the constant, >= 1.
        constant_value: the value that it then keeps, > 0.
        anneal_begin: the step from which on it falls further, >= `warmup_steps + cooldown_steps`; None: never.
        anneal_steps: length of that fall, >= 1 where `anneal_begin` is given.
        end_value: where it ends, > 0 where `anneal_begin` is given, since the fall is exponential.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: an argument is out of range, or the last fall begins before the first has ended.

    Example:
        >>> schedule = fo.schedules.infinite_cosine_schedule(0.0, 1.0, 2, 4, 0.25, anneal_begin=100, anneal_steps=2, end_value=0.0625)
        >>> [round(schedule(count).item(), 4) for count in (0, 1, 2, 4, 6, 99, 100, 101, 102, 999)]
        [0.0, 0.5, 1.0, 0.625, 0.25, 0.25, 0.25, 0.125, 0.0625, 0.0625]
    """
    where = "infinite_cosine_schedule"
    check.finite(where, "init_value", init_value)
    check.finite(where, "peak_value", peak_value)
    check.integer(where, "warmup_steps", warmup_steps, 0)
    check.integer(where, "cooldown_steps", cooldown_steps, 1)
    check.positive(where, "constant_value", constant_value)
    if anneal_begin is not None:
        check.integer(where, "anneal_begin", anneal_begin, warmup_steps + cooldown_steps)
        check.integer(where, "anneal_steps", anneal_steps, 1)
        check.positive(where, "end_value", end_value)
    elif anneal_steps != 0:
        raise ValueError(f"{where}: anneal_begin must be given where anneal_steps is, got {anneal_steps!r} of them and no first")
    rise = linear_schedule(init_value, peak_value, warmup_steps)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        x = ((n - warmup_steps) / cooldown_steps).clamp(min=0, max=1)
        value = constant_value + (peak_value - constant_value) * 0.5 * (1 + (math.pi * x).cos())
        if anneal_begin is not None:
            y = ((n - anneal_begin) / anneal_steps).clamp(min=0, max=1)
            value = torch.where(n < anneal_begin, value, constant_value * (end_value / constant_value) ** y)
        return torch.where(n < warmup_steps, rise(count), value) if warmup_steps else value

    return schedule
