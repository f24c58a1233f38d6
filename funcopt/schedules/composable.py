"""Schedules that multiply: `warm_up * decay`.

(s r)(n) = s(n) r(n),   (c s)(n) = c s(n)
"""

from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import Tensor

from funcopt.core import check
from funcopt.core.door.shown import shown
from funcopt.core.versions import compiling

__all__ = ["ComposableSchedule"]


class ComposableSchedule:
    """A schedule that can be multiplied: what all schedules here are, and what makes one of a function of your own.

    Args:
        function: from the count of steps taken, a 0-dim tensor or an int, to a number or a 0-dim tensor.

    Raises:
        TypeError: `function` cannot be called with a count.

    Example:
        >>> rise = fo.schedules.linear_schedule(0.0, 1.0, transition_steps=4)
        >>> fall = fo.schedules.ComposableSchedule(lambda count: 1 / (1 + count))
        >>> schedule = 0.5 * rise * fall
        >>> [round(float(schedule(count)), 4) for count in (0, 1, 3, 9)]
        [0.0, 0.0625, 0.0938, 0.05]
    """

    def __init__(self, function: Callable[[Any], Any]):
        if not callable(function):
            raise TypeError(
                f"ComposableSchedule: function must be a function of the count of steps, got {function!r}; take constant_schedule"
            )
        if not compiling():
            check.takes_the_count("ComposableSchedule", "function", function)
        self._function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, count: Any) -> Any:
        if not (isinstance(count, Tensor) or isinstance(count, Real)):  # in this order: a count in a graph is a tensor
            raise TypeError(f"{self.__name__}: count must be a 0-dim tensor or an int, the steps taken so far, got {shown(count)}")
        return self._function(count)

    def __mul__(self, other: "float | Tensor | Callable[[Tensor], Any]") -> "ComposableSchedule":
        if callable(other):
            return ComposableSchedule(_product(self._function, other))
        if isinstance(other, (int, float, Tensor)) and not isinstance(other, bool):
            return ComposableSchedule(_multiple(self._function, other))
        return NotImplemented

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__name__})"


def _product(first: Callable[[Tensor], Any], second: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def product(count: Tensor) -> Any:
        return first(count) * second(count)

    return product


def _multiple(function: Callable[[Tensor], Any], factor: float | Tensor) -> Callable[[Tensor], Any]:
    def multiple(count: Tensor) -> Any:
        return factor * function(count)

    return multiple
