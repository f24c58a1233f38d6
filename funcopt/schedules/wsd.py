"""Rise, stay, fall: a run whose length is decided late.

    s(n) = init + (peak - init) n / W                        for n < W                 W = warmup_steps
    s(n) = peak                                              for W <= n <= T - C       T = total_steps, C = cooldown_steps
    s(n) = end + (peak - end) f((n - T + C) / C)             from there on, x at most 1
    f(x) = 1 - x  (linear),   1 - sqrt(x)  (sqrt),   (1 + cos(pi x)) / 2  (cosine)

Until T - C nothing depends on T: a run can go on from any step of the plateau, or be ended from any.

Source: Hu et al., "MiniCPM", 2024, section 4; the fall by 1 - sqrt after Haegele et al., "Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations", 2024, eq. 1.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.polynomial import linear_schedule

__all__ = ["warmup_stable_decay_schedule"]

Fall = Literal["linear", "sqrt", "cosine"]


def warmup_stable_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: int,
    total_steps: int,
    cooldown_steps: int,
    end_value: Scalar = 0.0,
    shape: Fall = "sqrt",
) -> ComposableSchedule:
    """Rises from `init_value` to `peak_value` in a line, stays, and falls to `end_value` in the last steps ("WSD").

    Args:
        init_value: the value at step 0. With 0 the first step does nothing.
        peak_value: the value of the plateau.
        warmup_steps: length of the rise, >= 0.
        total_steps: length of the whole, rise and fall included.
        cooldown_steps: length of the fall, >= 1; the source of "sqrt" takes a fifth of the whole.
        end_value: the value from `total_steps` on.
        shape: of the fall: "linear", "sqrt" (fast first) or "cosine".

    Returns:
        A schedule.

    Raises:
        TypeError, ValueError: an argument is out of range, or rise and fall take more than the whole.

    Example:
        >>> schedule = fo.schedules.warmup_stable_decay_schedule(0.0, 1.0, 2, total_steps=10, cooldown_steps=4)
        >>> [schedule(count).item() for count in (0, 1, 2, 6, 7, 10, 99)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    where = "warmup_stable_decay_schedule"
    for name, value in (("init_value", init_value), ("peak_value", peak_value), ("end_value", end_value)):
        check.finite(where, name, value)
    check.integer(where, "warmup_steps", warmup_steps, 0)
    check.integer(where, "total_steps", total_steps, 1)
    check.integer(where, "cooldown_steps", cooldown_steps, 1)
    check.choice(where, "shape", shape, get_args(Fall))
    if warmup_steps + cooldown_steps > total_steps:
        raise ValueError(
            f"{where}: total_steps counts the whole schedule and must be >= warmup_steps + cooldown_steps, "
            f"got {total_steps} with {warmup_steps} + {cooldown_steps}"
        )
    begin = total_steps - cooldown_steps
    rise = linear_schedule(init_value, peak_value, warmup_steps)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        x = ((n - begin) / cooldown_steps).clamp(min=0, max=1)
        if shape == "linear":
            f = 1 - x
        else:
            f = 1 - x.sqrt() if shape == "sqrt" else 0.5 * (1 + (math.pi * x).cos())
        fall = end_value + (peak_value - end_value) * f
        return torch.where(n < warmup_steps, rise(count), fall) if warmup_steps else fall

    return schedule
