"""Down along half a cosine.

    c    = (1 + cos(pi min(n, T) / T)) / 2                   T = decay_steps
    s(n) = init * ((1 - alpha) c^exponent + alpha)

Source: Loshchilov and Hutter, "SGDR", 2017, eq. 5, one period. Reference: optax.cosine_decay_schedule 0.2.8.
"""

import math

from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["cosine_decay_schedule"]


def cosine_decay_schedule(init_value: Scalar, decay_steps: Scalar, alpha: Scalar = 0.0, exponent: Scalar = 1.0) -> ComposableSchedule:
    """Falls from `init_value` to `alpha * init_value` along half a cosine.

    Args:
        init_value: the value at step 0.
        decay_steps: steps until it has fallen, > 0; constant from there on.
        alpha: the last value as a share of the first.
        exponent: power on the cosine, > 0; above 1 it falls sooner.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.cosine_decay_schedule(1.0, decay_steps=4)
        >>> [round(schedule(count).item(), 12) for count in (0, 2, 4, 100)]
        [1.0, 0.5, 0.0, 0.0]
    """
    check.finite("cosine_decay_schedule", "init_value", init_value)
    check.positive("cosine_decay_schedule", "decay_steps", decay_steps)
    check.finite("cosine_decay_schedule", "alpha", alpha)
    check.positive("cosine_decay_schedule", "exponent", exponent)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        gone = (n / decay_steps).clamp(min=0, max=1)
        cosine = 0.5 * (1 + (math.pi * gone).cos())
        return init_value * ((1 - alpha) * cosine**exponent + alpha)

    return schedule
