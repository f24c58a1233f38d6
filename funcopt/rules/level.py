"""Rules that read the level of a signal: inverse, normalized, scaling.

    inverse      h = (2 |m| + e) / (|m| + |m_1| + e)       on 1 - x; m_1 the first mean
    normalized   z = clip(gain (l - m') / (|m'| + e), -2, 2),   h = 1 + tanh(z / 2)      on 1 - x
    scaling      1 + (r - center) / span                   on lr; r the smoothed reward

Sources: AdaptiveOptimizer (names and direction; its sister's formula for inverse,
1 - 1/(1 + l), goes the other way and depends on the unit of the loss), RewardAdaptiveScheduler.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from funcopt.core import Scalar, ScalarOrSchedule, check
from funcopt.rules.rule import AVERAGING, Bound, Knob, Reading, Rule
from funcopt.rules.statistics import TINY

__all__ = ["Inverse", "Normalized", "Scaling", "inverse", "normalized", "scaling"]

LARGEST_FACTOR = 1e30  # what reaches a clip must be a number


@dataclass(frozen=True)
class Inverse(Rule):
    name: ClassVar[str] = "inverse"
    places: ClassVar[tuple[str, ...]] = AVERAGING

    def bind(self, knob: Knob, channel: str) -> Bound:
        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            mean, first = reading.loss.number("mean").abs(), reading.loss.number("first").abs()
            return (2 * mean + TINY) / (mean + first + TINY)

        return Bound(factor=factor)


def inverse(base: ScalarOrSchedule | None = None) -> Inverse:
    """A memory that grows as the loss falls below where it began. For averaging coefficients, `momentum` above all.

    Args:
        base: the coefficient at the first level of the loss; None: the default of the factory.

    Returns:
        A rule, for a knob of `adaptive`.

    Example:
        >>> fo.rules.inverse(0.9)
        Inverse(base=0.9)
    """
    return Inverse(base)


@dataclass(frozen=True)
class Normalized(Rule):
    gain: Scalar = 1.0

    name: ClassVar[str] = "normalized"
    places: ClassVar[tuple[str, ...]] = AVERAGING

    def bind(self, knob: Knob, channel: str) -> Bound:
        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            before = reading.loss.number("previous")
            z = self.gain * ((reading.loss.number("last") - before) / (before.abs() + TINY))
            return 1 + (0.5 * z.clamp(-2, 2)).tanh()

        return Bound(factor=factor)


def normalized(base: ScalarOrSchedule | None = None, *, gain: Scalar = 1.0) -> Normalized:
    """A shorter memory for a loss above its running level, a longer one below it. For averaging coefficients, `momentum` above all.

    Args:
        base: the coefficient at the running level; None: the default of the factory.
        gain: how strongly the memory answers to the distance from the level, >= 0.

    Returns:
        A rule, for a knob of `adaptive`.

    Raises:
        ValueError: `gain` is negative.

    Example:
        >>> fo.rules.normalized(0.9, gain=2.0)
        Normalized(base=0.9, gain=2.0)
    """
    check.nonnegative("normalized", "gain", gain)
    return Normalized(base, gain)


@dataclass(frozen=True)
class Scaling(Rule):
    center: Scalar = 1.0
    span: Scalar = 1.0

    name: ClassVar[str] = "scaling"
    places: ClassVar[tuple[str, ...]] = ("reward",)

    def bind(self, knob: Knob, channel: str) -> Bound:
        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            scaled = 1 + (reading.reward.number("mean") - self.center) / self.span
            return torch.where(reading.reward.seen > 0, scaled.clamp(-LARGEST_FACTOR, LARGEST_FACTOR), 1)

        return Bound(factor=factor)


def scaling(*, center: Scalar = 1.0, span: Scalar = 1.0) -> Scaling:
    """A rate in proportion to the smoothed reward. For `reward`.

    Args:
        center: the reward at which the rate is its base.
        span: how far above the center it doubles, > 0; as far below it is 0 (and then held by the bounds).

    Returns:
        A rule, for `adaptive(..., reward=)`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> fo.rules.scaling(center=0.5, span=0.5)
        Scaling(base=None, center=0.5, span=0.5)
    """
    check.finite("scaling", "center", center)
    check.positive("scaling", "span", span)
    return Scaling(None, center, span)
