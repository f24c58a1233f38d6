"""Values that change at given steps, at once or along the way.

    v_0 = init,  v_i = v_{i-1} * scale_i                     at the boundaries 0 = b_0 < b_1 < ...
    constant:    s(n) = v_i                                  for b_i <= n < b_{i+1}
    linear:      s(n) = v_i + (v_{i+1} - v_i) x              x = (n - b_i) / (b_{i+1} - b_i)
    cosine:      s(n) = v_{i+1} + (v_i - v_{i+1}) (1 + cos(pi x)) / 2

Reference: optax.piecewise_constant_schedule and optax.piecewise_interpolate_schedule 0.2.8.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from funcopt.core import Scalar, check, tree
from funcopt.schedules.composable import ComposableSchedule

__all__ = ["piecewise_constant_schedule", "piecewise_interpolate_schedule"]

Interpolation = Literal["linear", "cosine"]


def piecewise_constant_schedule(init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None) -> ComposableSchedule:
    """Multiplies by a factor at each boundary and holds the value in between.

    Args:
        init_value: the value before the first boundary.
        boundaries_and_scales: from the count at which it applies (that step included,
            >= 0) to the factor, >= 0. None or empty: constant.

    Returns:
        A schedule.

    Raises:
        ValueError: a boundary or a factor is a number out of range.

    Example:
        >>> schedule = fo.schedules.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.5})
        >>> [schedule(count).item() for count in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    bounds, values = _corners("piecewise_constant_schedule", init_value, boundaries_and_scales)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        value = tree.scalar(values[0], n)
        for bound, following in zip(bounds[1:], values[1:], strict=True):
            value = torch.where(n < bound, value, tree.scalar(following, n))
        return value

    return schedule


def piecewise_interpolate_schedule(
    interpolate_type: Interpolation, init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None = None
) -> ComposableSchedule:
    """Goes from corner to corner along lines or half cosines; constant after the last.

    Args:
        interpolate_type: "linear" or "cosine".
        init_value: the value at step 0.
        boundaries_and_scales: from the count of a corner (>= 0) to the factor, >= 0, by which
            its value differs from that of the corner before. None or empty: constant.

    Returns:
        A schedule.

    Raises:
        ValueError: the type is unknown, or a boundary or a factor is a number out of range.

    Example:
        >>> schedule = fo.schedules.piecewise_interpolate_schedule("linear", 1.0, {2: 3.0, 6: 0.0})
        >>> [schedule(count).item() for count in (0, 1, 2, 4, 6, 100)]
        [1.0, 2.0, 3.0, 1.5, 0.0, 0.0]
    """
    where = "piecewise_interpolate_schedule"
    check.choice(where, "interpolate_type", interpolate_type, get_args(Interpolation))
    bounds, values = _corners(where, init_value, boundaries_and_scales)

    @ComposableSchedule
    def schedule(count: Tensor) -> Tensor:
        n = tree.scalar(count, ())
        value = tree.scalar(values[0], n)
        for i in range(len(bounds) - 1):
            start, end = values[i], values[i + 1]
            if bounds[i + 1] > bounds[i]:  # else the corner is jumped to, below
                x = ((n - bounds[i]) / (bounds[i + 1] - bounds[i])).clamp(min=0, max=1)
                between = (
                    start + (end - start) * x if interpolate_type == "linear" else end + (start - end) * 0.5 * (1 + (math.pi * x).cos())
                )
                value = torch.where(n < bounds[i], value, between)
            value = torch.where(n < bounds[i + 1], value, tree.scalar(end, n))
        return value

    return schedule


def _corners(where: str, init_value: Scalar, boundaries_and_scales: Mapping[int, Scalar] | None) -> tuple[list[int], list[Scalar]]:
    """The corners of the schedule in order: counts, the first of them 0, and values."""
    check.finite(where, "init_value", init_value)
    bounds, values = [0], [init_value]
    for boundary, scale in sorted((boundaries_and_scales or {}).items()):
        check.integer(where, "a boundary", boundary, 0)
        check.nonnegative(where, f"the scale at {boundary}", scale)
        bounds.append(boundary)
        values.append(values[-1] * scale)
    return bounds, values
