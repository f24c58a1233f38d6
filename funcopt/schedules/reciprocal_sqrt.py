"""Rise in a line, then fall with the root of the count: without an end.

    s(n) = init + (peak - init) n / W                        for n < W           W = warmup_steps
    s(n) = peak sqrt(t / (t + n - W))                        from there on       t = timescale; W by default: peak sqrt(W / n)

Source: Vaswani et al., "Attention Is All You Need", 2017, section 5.3, whose rate is this with peak = (d W)^(-1/2) and t = W; the
timescale of its own after Zhai et al., "Scaling Vision Transformers", 2022, section 3.5.
"""

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.polynomial import linear_schedule

__all__ = ["reciprocal_sqrt_schedule"]


def reciprocal_sqrt_schedule(
    init_value: Scalar, peak_value: Scalar, warmup_steps: int, timescale: Scalar | None = None
) -> ComposableSchedule:
    """Rises from `init_value` to `peak_value` in a line, then falls as one over the root of the count.

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the rise, >= 0; without one (0) a timescale must be given.
        timescale: steps after which it has fallen to sqrt(1/2) of the peak, > 0; None: `warmup_steps`.

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: an argument is out of range; there is neither a rise nor a timescale.

    Example:
        >>> schedule = fo.schedules.reciprocal_sqrt_schedule(0.0, 1.0, warmup_steps=4)
        >>> [schedule(count).item() for count in (0, 2, 4, 16, 64)]
        [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    where = "reciprocal_sqrt_schedule"
    check.finite(where, "init_value", init_value)
    check.finite(where, "peak_value", peak_value)
    check.integer(where, "warmup_steps", warmup_steps, 0)
    if timescale is None:
        if warmup_steps == 0:
            raise ValueError(f"{where}: timescale must be given where warmup_steps is 0, since it has none to take")
        timescale = float(warmup_steps)
    check.positive(where, "timescale", timescale)
    t = timescale
    rise = linear_schedule(init_value, peak_value, warmup_steps)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        fall = peak_value * (t / (t + (n - warmup_steps).clamp(min=0))) ** 0.5
        return torch.where(n < warmup_steps, rise(count), fall) if warmup_steps else fall

    return schedule
