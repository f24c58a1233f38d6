"""REX: stay high for long, then fall ever faster.

    z    = 1 - min(n, T) / T                                 the share of the run that is left;  T = decay_steps
    s(n) = end + (init - end) z / (1/2 + z / 2)

Source: Chen, Wolfe and Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", 2022, section 3, with beta = 1/2.
"""

from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["rex_decay_schedule"]


def rex_decay_schedule(init_value: Scalar, decay_steps: Scalar, end_value: Scalar = 0.0) -> ComposableSchedule:
    """Falls from `init_value` to `end_value`, slower than a line first and faster at last.

    Args:
        init_value: the value at step 0.
        decay_steps: steps until it has fallen, > 0; constant from there on.
        end_value: the last value.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.rex_decay_schedule(1.0, decay_steps=4)
        >>> [round(schedule(count).item(), 4) for count in (0, 1, 2, 3, 4, 100)]
        [1.0, 0.8571, 0.6667, 0.4, 0.0, 0.0]
    """
    check.finite("rex_decay_schedule", "init_value", init_value)
    check.positive("rex_decay_schedule", "decay_steps", decay_steps)
    check.finite("rex_decay_schedule", "end_value", end_value)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        z = 1 - (n / decay_steps).clamp(min=0, max=1)
        return end_value + (init_value - end_value) * z / (0.5 + 0.5 * z)

    return schedule
