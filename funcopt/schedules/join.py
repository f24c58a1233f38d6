"""One schedule after another, each on a count of its own.

    s(n) = s_i(n - b_i)   for b_i <= n < b_{i+1},   b_0 = 0

Reference: optax.join_schedules 0.2.8.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core import Schedule, check, tree
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["join_schedules"]


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> ComposableSchedule:
    """Runs several schedules one after the other; each counts from its own start.

    All of them are evaluated at every step and one is selected, so that it vmaps and compiles.

    Args:
        schedules: at least one.
        boundaries: the counts at which the second, third, ... take over; one fewer than
            `schedules`, not falling, >= 0.

    Returns:
        A schedule.

    Raises:
        ValueError: the numbers do not fit each other, or boundaries fall.
        TypeError: something among `schedules` cannot be called.

    Example:
        >>> up = fo.schedules.linear_schedule(0.0, 1.0, transition_steps=2)
        >>> schedule = fo.schedules.join_schedules([up, fo.schedules.constant_schedule(0.25)], [3])
        >>> [schedule(count).item() for count in range(5)]
        [0.0, 0.5, 1.0, 0.25, 0.25]
    """
    schedules, boundaries = tuple(schedules), tuple(boundaries)
    for position, piece in enumerate(schedules):
        if not callable(piece):
            raise TypeError(
                f"join_schedules: schedules must be functions of the count, got {piece!r} at position {position}; "
                "constant_schedule makes one"
            )
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(
            f"join_schedules: needs one boundary fewer than schedules, got {len(schedules)} schedules and {len(boundaries)} boundaries"
        )
    for boundary in boundaries:
        check.nonnegative("join_schedules", "boundaries", boundary)
    if list(boundaries) != sorted(boundaries):
        raise ValueError(f"join_schedules: boundaries must not fall, got {list(boundaries)}")

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        value = schedules[0](count)
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            # what is not chosen may be differentiated
            since: Any = (count - boundary).clamp(min=0) if isinstance(count, Tensor) else max(count - boundary, 0)
            value = torch.where(n < boundary, value, following(since))
        return value

    return schedule
