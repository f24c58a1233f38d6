"""trend: an integrator that follows the verdicts.

    lr             M <- clip(M * up if better, * down if worse)
    weight_decay   the roles change: less decay while the loss gets better
    reward         M on lr as above, and on momentum (else b1) a step of the logit

Source: AdaptiveScheduler's theory, whose factors (1.05 / 0.7 and the like) lose 10 to 26 %
with one up and one down together; ours hold their level when 60 % of the steps are better.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from funcopt.core import Scalar, ScalarOrSchedule, check
from funcopt.rules.rule import Bound, Integrator, Knob, Rule

__all__ = ["Relative", "Trend", "relative", "trend"]


def logit_step(step: Scalar, channel: str) -> Bound:
    """An integrator on the odds of an averaging coefficient."""
    up = step.exp() if isinstance(step, Tensor) else math.exp(step)
    return Bound(factor=lambda reading, base, m: 1 / (1 - base + base * m), integrator=Integrator(better=up, worse=1 / up, channel=channel))


@dataclass(frozen=True)
class Trend(Rule):
    up: Scalar | None = None
    down: Scalar | None = None
    step: Scalar | None = None

    name: ClassVar[str] = "trend"
    places: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "reward")

    def bind(self, knob: Knob, channel: str) -> Bound:
        if knob.averaging:
            return logit_step(0.05 if self.step is None else self.step, channel)
        if knob.name == "weight_decay":
            better, worse = 0.99 if self.down is None else self.down, 1.015 if self.up is None else self.up
        else:
            better, worse = 1.01 if self.up is None else self.up, 0.985 if self.down is None else self.down
        return Bound(factor=lambda reading, base, m: m, integrator=Integrator(better=better, worse=worse, channel=channel))


def trend(
    base: ScalarOrSchedule | None = None, *, up: Scalar | None = None, down: Scalar | None = None, step: Scalar | None = None
) -> Trend:
    """Up a little while things get better, down a little more when worse. For `lr`, `weight_decay` (the other way round) and `reward`.

    Args:
        base: what is multiplied; None: the default of the factory.
        up: the factor that raises, >= 1; 1.01, for weight decay 1.015.
        down: the factor that lowers, in (0, 1]; 0.985, for weight decay 0.99.
        step: for `reward`: by how much the logit of momentum (or b1) moves; 0.05.

    Returns:
        A rule, for a knob of `adaptive` or its `reward`.

    Raises:
        ValueError: a factor is on the wrong side of 1.

    Example:
        >>> fo.rules.trend(1e-3, up=1.02)
        Trend(base=0.001, up=1.02, down=None, step=None)
    """
    if up is not None and check.number("trend", "up", up) and not 1 <= up < math.inf:
        raise ValueError(f"trend: up must be >= 1, got {up}")
    if down is not None and check.number("trend", "down", down) and not 0 < down <= 1:
        raise ValueError(f"trend: down must be in (0, 1], got {down}")
    if step is not None:
        check.nonnegative("trend", "step", step)
    return Trend(base, up, down, step)


@dataclass(frozen=True)
class Relative(Rule):
    step: Scalar = 0.05

    name: ClassVar[str] = "relative"
    places: ClassVar[tuple[str, ...]] = ("momentum", "b1", "b2", "decay")

    def bind(self, knob: Knob, channel: str) -> Bound:
        return logit_step(self.step, channel)


def relative(base: ScalarOrSchedule | None = None, *, step: Scalar = 0.05) -> Relative:
    """A longer memory while the loss gets better, a shorter one when worse. For averaging coefficients, `momentum` and `b1` above all.

    Args:
        base: the coefficient to start from; None: the default of the factory.
        step: how far the logit moves with each verdict, >= 0.

    Returns:
        A rule, for a knob of `adaptive`.

    Raises:
        ValueError: `step` is negative.

    Example:
        >>> fo.rules.relative(0.9)
        Relative(base=0.9, step=0.05)
    """
    check.nonnegative("relative", "step", step)
    return Relative(base, step)
