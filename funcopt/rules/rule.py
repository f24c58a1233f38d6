"""Rules: what an adaptive hyperparameter is told, as frozen values.

    lr and weight decay      value = clip(base * product of factors)
    averaging coefficients   value = clip(1 - (1 - base) * product of factors)

A rule knows a base (or none) and its parameters, and nothing of where it stands;
`adaptive` binds it to a knob, which supplies defaults, base and bounds. `a * b`, `a + b`
and the string "a+b" are the product, in any order.

An integrator is a factor M that starts at 1 and is multiplied at every verdict, held
within what the bounds of its knob allow. On an averaging coefficient x it multiplies
the odds x / (1 - x), so that its steps are steps of the logit:

    1 - x_M = 1 / (1 + M x / (1 - x)),   so the factor on 1 - x is 1 / (1 - x + M x)

Source: AdaptiveOptimizer and its sister projects; the product form is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, ScalarOrSchedule
from funcopt.rules.statistics import Statistics

__all__ = ["AVERAGING", "Absolute", "Bound", "Integrator", "Knob", "Product", "Reading", "Rule", "absolute"]

AVERAGING = ("momentum", "b1", "b2", "decay")  # coefficients in (0, 1) with a memory of 1 / (1 - x) steps


class Reading(NamedTuple):
    """What factors are made from."""

    loss: Statistics
    reward: Statistics
    clock: Tensor  # updates done before this one
    cycle: Tensor  # [2], updates since the last restart and the length of the period


class Integrator(NamedTuple):
    better: Scalar  # multiplies M
    worse: Scalar
    channel: str  # "loss" or "reward"


class Bound(NamedTuple):
    """A rule bound to a knob."""

    factor: Callable[[Reading, Tensor, Any], Any]  # of reading, base and M (None without an integrator)
    integrator: Integrator | None = None
    cycle: tuple[int, float] | None = None  # first period, and what multiplies it at a restart


class Absolute(NamedTuple):
    lo: float
    hi: float


def absolute(lo: float, hi: float) -> Absolute:
    """Bounds of `lr` or `weight_decay` in their own units, where a plain pair means multiples of the base.

    Args:
        lo: lowest value, in the unit of the hyperparameter.
        hi: highest value, above `lo`.

    Returns:
        Bounds, for `adaptive(..., bounds=)`.

    Example:
        >>> fo.rules.absolute(1e-5, 1e-2)
        Absolute(lo=1e-05, hi=0.01)
    """
    return Absolute(lo, hi)


class Knob(NamedTuple):
    """A hyperparameter and its bounds."""

    name: str
    lo: float
    hi: float
    relative: bool  # the bounds are multiples of the base
    may_be_zero: bool = False  # the base is a tensor that may say: not there

    @property
    def averaging(self) -> bool:
        return self.name in AVERAGING

    def reach(self, base: Tensor) -> tuple[Any, Any]:
        """How far an integrator may go."""
        if self.relative:
            return self.lo, self.hi
        if self.averaging:
            odds = base / (1 - base)
            return (self.lo / (1 - self.lo) / odds).clamp(max=1), (self.hi / (1 - self.hi) / odds).clamp(min=1)
        return (self.lo / base).clamp(max=1), (self.hi / base).clamp(min=1)

    def value(self, base: Tensor, factor: Tensor) -> Tensor:
        """What the update uses. Absolute bounds are widened to hold the base."""
        if self.relative:
            return base * factor.clamp(self.lo, self.hi)
        value = 1 - (1 - base) * factor if self.averaging else base * factor
        value = torch.clamp(value, base.clamp(max=self.lo), base.clamp(min=self.hi))
        return torch.where(base == 0, base, value) if self.may_be_zero else value


@dataclass(frozen=True)
class Rule:
    """One rule: a base, or None for the default of the factory, and parameters."""

    base: ScalarOrSchedule | None = None  # what the rule moves

    name: ClassVar[str] = ""  # by which a string names it
    places: ClassVar[tuple[str, ...]] = ()  # knobs, and "reward", for which it is meant

    def bind(self, knob: Knob, channel: str) -> Bound:
        """The rule in its place; `channel` is the stream it listens to, "loss" or "reward"."""
        raise TypeError(f"{type(self).__name__} has no bind")

    @property
    def rules(self) -> tuple["Rule", ...]:
        """This one: a rule is a product of one."""
        return (self,)

    def __mul__(self, other: "Rule | Product") -> "Product":
        return Product.of(self, other) if isinstance(other, (Rule, Product)) else NotImplemented

    __add__ = __mul__


@dataclass(frozen=True)
class Product:
    """The product of rules, in the order of their names."""

    rules: tuple[Rule, ...]  # by name

    @classmethod
    def of(cls, *parts: "Rule | Product") -> "Product":
        """The product of rules and products; each rule may stand once, and at most one has a base."""
        rules = sorted((rule for part in parts for rule in part.rules), key=lambda rule: rule.name)
        names = [rule.name for rule in rules]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"rules: each rule may stand once in a product, got {twice[0]} {names.count(twice[0])} times")
        if "cosine" in names and "cosine_restart" in names:
            raise ValueError("rules: cosine and cosine_restart exclude each other; leave one of them out")
        if sum(rule.base is not None for rule in rules) > 1:
            raise ValueError(
                f"rules: one rule of a product may carry the base, got {' and '.join(rule.name for rule in rules if rule.base is not None)}"
            )
        return cls(tuple(rules))

    @property
    def base(self) -> ScalarOrSchedule | None:
        """That of the rule that has one; None: the default of the factory."""
        return next((rule.base for rule in self.rules if rule.base is not None), None)

    def __mul__(self, other: "Rule | Product") -> "Product":
        return Product.of(self, other) if isinstance(other, (Rule, Product)) else NotImplemented

    __add__ = __mul__
