"""cosine and cosine_restart: down along half a cosine of the clock, once or again and again.

    cosine           f + (1 - f) (1 + cos(pi min(c, L) / L)) / 2,   c updates before this one
    cosine_restart   the same with tau / T;   after each update tau <- tau + 1,
                     at tau >= T: tau <- 0, T <- max(1, int(T * mult))

The clock goes on when no loss is given. The very end of a period is never used, as in SGDR.
Source: Loshchilov and Hutter 2017; AdaptiveOptimizer's names and lengths.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from funcopt.core import Scalar, ScalarOrSchedule, check
from funcopt.rules.rule import Bound, Knob, Reading, Rule

__all__ = ["Cosine", "CosineRestart", "cosine", "cosine_restart"]


def _half_cosine(share: Tensor, floor: Scalar) -> Tensor:
    return floor + (1 - floor) * (0.5 * (1 + (math.pi * share).cos()))


@dataclass(frozen=True)
class Cosine(Rule):
    length: int = 500
    floor: Scalar = 0.1

    name: ClassVar[str] = "cosine"
    places: ClassVar[tuple[str, ...]] = ("lr",)

    def bind(self, knob: Knob, channel: str) -> Bound:
        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            clock = reading.clock.to(base.dtype)
            return _half_cosine((clock / self.length).clamp(max=1), self.floor)

        return Bound(factor=factor)


@dataclass(frozen=True)
class CosineRestart(Rule):
    length: int = 500
    mult: float = 2.0
    floor: Scalar = 0.1

    name: ClassVar[str] = "cosine_restart"
    places: ClassVar[tuple[str, ...]] = ("lr",)

    def bind(self, knob: Knob, channel: str) -> Bound:
        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            tau, period = reading.cycle.to(base.dtype).unbind(-1)
            return _half_cosine(tau / period, self.floor)

        return Bound(factor=factor, cycle=(self.length, self.mult))


def cosine(base: ScalarOrSchedule | None = None, *, length: int = 500, floor: Scalar = 0.1) -> Cosine:
    """Falls to `floor` times the base within `length` updates and stays there. For `lr`.

    Args:
        base: the rate at the start; None: the default of the factory.
        length: updates, >= 1.
        floor: what is left at the end, in [0, 1].

    Returns:
        A rule, for a knob of `adaptive`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> fo.rules.cosine(1e-3, length=1000)
        Cosine(base=0.001, length=1000, floor=0.1)
    """
    check.integer("cosine", "length", length, 1)
    check.within("cosine", "floor", floor, 0, 1)
    return Cosine(base, length, floor)


def cosine_restart(base: ScalarOrSchedule | None = None, *, length: int = 500, mult: float = 2.0, floor: Scalar = 0.1) -> CosineRestart:
    """Falls towards `floor` times the base, jumps back and falls again, each time `mult` times as long. For `lr`.

    Args:
        base: the rate at the start; None: the default of the factory.
        length: updates of the first period, >= 1.
        mult: ratio of one period to the one before, > 0.
        floor: the share towards which it falls, in [0, 1].

    Returns:
        A rule, for a knob of `adaptive`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> fo.rules.cosine_restart(1e-3, length=100)
        CosineRestart(base=0.001, length=100, mult=2.0, floor=0.1)
    """
    check.integer("cosine_restart", "length", length, 1)
    if isinstance(mult, Tensor):
        raise TypeError("cosine_restart: mult must be a number, got a tensor")
    check.positive("cosine_restart", "mult", mult)
    check.within("cosine_restart", "floor", floor, 0, 1)
    return CosineRestart(base, length, mult, floor)
