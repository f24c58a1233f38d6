"""The same value at every step.

    s(n) = value

Reference: optax.constant_schedule 0.2.8.
"""

from torch import Tensor

from funcopt.core import Scalar, Schedule, check, tree

__all__ = ["constant_schedule"]


def constant_schedule(value: Scalar) -> Schedule:
    """Always `value`; for places that take only a schedule.

    Args:
        value: a number or a 0-dim tensor.

    Returns:
        A schedule.

    Example:
        >>> fo.schedules.constant_schedule(0.5)(torch.tensor(7))
        tensor(0.5000, dtype=torch.float64)
    """
    check.finite("constant_schedule", "value", value)

    def schedule(count: Tensor) -> Tensor:
        return tree.scalar(value, count if isinstance(count, Tensor) else ())

    return schedule
