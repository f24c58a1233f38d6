"""The same value at every step.

    s(n) = value

Reference: optax.constant_schedule 0.2.8.
"""

from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["constant_schedule"]


def constant_schedule(value: Scalar) -> ComposableSchedule:
    """Always `value`; for places that take only a schedule.

    Args:
        value: a number or a 0-dim tensor.

    Returns:
        A schedule.

    Raises:
        ValueError: `value` is not finite.

    Example:
        >>> fo.schedules.constant_schedule(0.5)(torch.tensor(7))
        tensor(0.5000, dtype=torch.float64)
    """
    check.finite("constant_schedule", "value", value)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        return tree.scalar(value, count if isinstance(count, Tensor) else ())

    return schedule
