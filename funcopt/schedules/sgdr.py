"""Cosine decay with warm restarts.

    s(n) = piece_i(n - b_i)                                  piece_i: warm-up and cosine decay; b_i: sum of the decay_steps before

Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017. Reference: optax.sgdr_schedule 0.2.8.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.join import join_schedules
from funcopt.schedules.warmup import warmup_cosine_decay_schedule

__all__ = ["sgdr_schedule"]


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> ComposableSchedule:
    """Runs one `warmup_cosine_decay_schedule` after the other.

    Args:
        cosine_kwargs: the arguments of each piece, as mappings; at least one.

    Returns:
        A schedule.

    Raises:
        ValueError: there is no piece, or one of them has a number out of range.
        TypeError: a piece lacks an argument or has one that is not known.

    Example:
        >>> piece = {"init_value": 1.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 4}
        >>> schedule = fo.schedules.sgdr_schedule([piece, piece])
        >>> [round(schedule(count).item(), 12) for count in (0, 2, 4, 6, 8)]
        [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    pieces = list(cosine_kwargs)
    if not pieces:
        raise ValueError("sgdr_schedule: needs the arguments of at least one piece, got none")
    schedules = [warmup_cosine_decay_schedule(**piece) for piece in pieces]
    ends = list(accumulate(piece["decay_steps"] for piece in pieces))
    return join_schedules(schedules, ends[:-1])
