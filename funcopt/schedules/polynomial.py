"""From one value to another along a power of the share of steps left.

    k    = clip(n - transition_begin, 0, T)                  T = transition_steps
    s(n) = (init - end) (1 - k / T)^power + end

Reference: optax.polynomial_schedule and optax.linear_schedule 0.2.8.
"""

from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.constant import constant_schedule

__all__ = ["linear_schedule", "polynomial_schedule"]


def polynomial_schedule(
    init_value: Scalar, end_value: Scalar, power: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0
) -> ComposableSchedule:
    """Goes from `init_value` to `end_value` along a power of the share of steps that are left.

    Args:
        init_value: the value until `transition_begin`.
        end_value: the value from `transition_begin + transition_steps` on.
        power: > 0; 1 is a line, above 1 it changes fast at first, below 1 at last.
        transition_steps: length of the way, in steps. As in optax, 0 or less means that
            the value stays at `init_value` for ever.
        transition_begin: steps before the way begins; as in optax, less than 0 means 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.polynomial_schedule(1.0, 0.0, power=2, transition_steps=4)
        >>> schedule(torch.tensor(2))  # half of the way is left: (1/2)^2
        tensor(0.2500, dtype=torch.float64)
    """
    return _polynomial("polynomial_schedule", init_value, end_value, power, transition_steps, transition_begin)


def linear_schedule(init_value: Scalar, end_value: Scalar, transition_steps: Scalar, transition_begin: Scalar = 0) -> ComposableSchedule:
    """Goes from `init_value` to `end_value` in a straight line.

    Args:
        init_value: the value until `transition_begin`.
        end_value: the value from `transition_begin + transition_steps` on.
        transition_steps: length of the way, in steps. As in optax, 0 or less means that
            the value stays at `init_value` for ever.
        transition_begin: steps before the way begins; as in optax, less than 0 means 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.linear_schedule(1.0, 0.0, transition_steps=4)
        >>> [schedule(count).item() for count in (0, 1, 4, 100)]
        [1.0, 0.75, 0.0, 0.0]
    """
    return _polynomial("linear_schedule", init_value, end_value, 1, transition_steps, transition_begin)


def _polynomial(
    where: str, init_value: Scalar, end_value: Scalar, power: Scalar, transition_steps: Scalar, transition_begin: Scalar
) -> ComposableSchedule:
    check.finite(where, "init_value", init_value)
    check.finite(where, "end_value", end_value)
    check.positive(where, "power", power)
    check.finite(where, "transition_begin", transition_begin)
    check.finite(where, "transition_steps", transition_steps)
    if check.number(where, "transition_steps", transition_steps) and transition_steps <= 0:
        return constant_schedule(init_value)
    begin = transition_begin if isinstance(transition_begin, Tensor) else max(transition_begin, 0)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        gone = ((n - begin) / transition_steps).clamp(min=0, max=1)
        return (init_value - end_value) * (1 - gone) ** power + end_value

    return schedule
