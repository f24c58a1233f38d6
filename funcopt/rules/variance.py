"""variance: smaller steps, and other memories, while the signal is noisy.

    w = 1 + strength * v,   v the variance of the window (over its mean square, if normalize)
    lr, reward                factor 1 / w
    averaging coefficients    factor w on 1 - x ("react": a shorter memory), or 1 / w ("smooth": a longer one)

`stable` is `variance` with "react": full memory while the loss is stable.
Source: AdaptiveOptimizer, RewardAdaptiveScheduler; the normalised form is ours.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from funcopt.core import Scalar, ScalarOrSchedule, check
from funcopt.rules.rule import AVERAGING, Bound, Knob, Reading, Rule

__all__ = ["Stable", "Variance", "stable", "variance"]

Sense = Literal["react", "smooth"]


@dataclass(frozen=True)
class Variance(Rule):
    strength: Scalar = 1.0
    normalize: bool = True
    sense: Sense | None = None

    name: ClassVar[str] = "variance"
    places: ClassVar[tuple[str, ...]] = ("lr", *AVERAGING, "reward")

    def bind(self, knob: Knob, channel: str) -> Bound:
        if self.sense is not None and not knob.averaging:
            raise ValueError(f"adaptive: sense is for averaging coefficients, and {knob.name} is none; leave it out of variance(...)")
        react = knob.averaging and self.sense != "smooth"

        def factor(reading: Reading, base: Tensor, m: Tensor | None) -> Tensor:
            seen = reading.reward if channel == "reward" else reading.loss
            w = 1 + self.strength * (seen.variance if self.normalize else seen.number("raw_variance"))
            return w if react else 1 / w

        return Bound(factor=factor)


@dataclass(frozen=True)
class Stable(Variance):
    name: ClassVar[str] = "stable"
    places: ClassVar[tuple[str, ...]] = AVERAGING


def _check(where: str, strength: Scalar, normalize: bool) -> None:
    check.nonnegative(where, "strength", strength)
    if not isinstance(normalize, bool):
        raise TypeError(f"{where}: normalize must be True or False, got {normalize!r}")


def variance(
    base: ScalarOrSchedule | None = None, *, strength: Scalar = 1.0, normalize: bool = True, sense: Sense | None = None
) -> Variance:
    """Damps by the variance of the last losses (rewards). For `lr`, averaging coefficients (`b2` above all) and `reward`.

    Args:
        base: what is damped; None: the default of the factory.
        strength: of the damping, >= 0.
        normalize: take the variance over the mean square of the window, which does not
            change when losses are scaled; else the variance itself.
        sense: on an averaging coefficient "react" (the default: noise shortens the
            memory) or "smooth" (noise lengthens it).

    Returns:
        A rule, for a knob of `adaptive` or its `reward`.

    Raises:
        ValueError: `strength` is negative, or `sense` is unknown.

    Example:
        >>> fo.rules.variance(0.999, sense="smooth")
        Variance(base=0.999, strength=1.0, normalize=True, sense='smooth')
    """
    _check("variance", strength, normalize)
    if sense is not None:
        check.choice("variance", "sense", sense, get_args(Sense))
    return Variance(base, strength, normalize, sense)


def stable(base: ScalarOrSchedule | None = None, *, strength: Scalar = 1.0, normalize: bool = True) -> Stable:
    """The full memory while the loss is stable, a shorter one when it is not. For averaging coefficients, `decay` above all.

    Args:
        base: the coefficient while the loss is stable; None: the default of the factory.
        strength, normalize: as in `variance`.

    Returns:
        A rule, for a knob of `adaptive`.

    Raises:
        ValueError: `strength` is negative.

    Example:
        >>> fo.rules.stable(0.99)
        Stable(base=0.99, strength=1.0, normalize=True, sense=None)
    """
    _check("stable", strength, normalize)
    return Stable(base, strength, normalize)
