"""Up once, down once, and a last fall to almost nothing.

    linear:  peak/div at 0, peak at int(pct_start T), peak/div at int(pct_final T), peak/(div final) at T
    cosine:  peak/div at 0, peak at int(pct_start T), peak/(div final) at T          T = transition_steps

Source: Smith and Topin, "Super-Convergence", 2019. Reference: optax.linear_onecycle_schedule and optax.cosine_onecycle_schedule 0.2.8.
"""

from funcopt.core import Scalar, check
from funcopt.schedules.composable import ComposableSchedule
from funcopt.schedules.piecewise import piecewise_interpolate_schedule

__all__ = ["cosine_onecycle_schedule", "linear_onecycle_schedule"]


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> ComposableSchedule:
    """Up to the peak and back in lines, then down to almost nothing.

    Args:
        transition_steps: length of the whole, > 0.
        peak_value: the highest value.
        pct_start: share of the steps that go up, in [0, 1].
        pct_final: share of the steps after which the last fall begins, in [pct_start, 1].
        div_factor: it starts, and begins its last fall, at `peak_value / div_factor`; > 0.
        final_div_factor: it ends at `peak_value / (div_factor * final_div_factor)`; > 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.linear_onecycle_schedule(10, 1.0, pct_start=0.4, pct_final=0.8, div_factor=2.0)
        >>> [round(schedule(count).item(), 12) for count in (0, 2, 4, 6, 8, 10)]
        [0.5, 0.75, 1.0, 0.75, 0.5, 5e-05]
    """
    where = "linear_onecycle_schedule"
    _check(where, transition_steps, peak_value, pct_start, div_factor, final_div_factor)
    check.within(where, "pct_final", pct_final, pct_start, 1)
    corners = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1 / div_factor,
        transition_steps: 1 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, corners)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Scalar,
    pct_start: float = 0.3,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
) -> ComposableSchedule:
    """Up to the peak and down to almost nothing along half cosines.

    Args:
        transition_steps: length of the whole, > 0.
        peak_value: the highest value.
        pct_start: share of the steps that go up, in [0, 1].
        div_factor: it starts at `peak_value / div_factor`; > 0.
        final_div_factor: it ends at `peak_value / (div_factor * final_div_factor)`; > 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is a number out of range.

    Example:
        >>> schedule = fo.schedules.cosine_onecycle_schedule(10, 1.0, pct_start=0.4, div_factor=2.0)
        >>> [round(schedule(count).item(), 12) for count in (0, 2, 4, 10)]
        [0.5, 0.75, 1.0, 5e-05]
    """
    _check("cosine_onecycle_schedule", transition_steps, peak_value, pct_start, div_factor, final_div_factor)
    corners = {int(pct_start * transition_steps): div_factor, transition_steps: 1 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, corners)


def _check(where: str, transition_steps: int, peak_value: Scalar, pct_start: float, div_factor: Scalar, final_div_factor: Scalar) -> None:
    check.integer(where, "transition_steps", transition_steps, 1)
    check.finite(where, "peak_value", peak_value)
    check.within(where, "pct_start", pct_start, 0, 1)
    check.positive(where, "div_factor", div_factor)
    check.positive(where, "final_div_factor", final_div_factor)
