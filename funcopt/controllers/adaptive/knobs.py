"""From the arguments of `adaptive` to a plan: which hyperparameters move, by which rules, from where and how far."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

from torch import Tensor

from funcopt.core import GradientTransformation, ScalarOrSchedule, check
from funcopt.rules import Product, Rule, named
from funcopt.rules.rule import AVERAGING, Absolute, Bound, Integrator, Knob
from funcopt.transforms.inject import signature

WHERE = "adaptive"
KNOBS = ("lr", *AVERAGING, "weight_decay")
BOUNDS = {
    "lr": (0.1, 2.0),
    "momentum": (0.5, 0.99),
    "b1": (0.5, 0.99),
    "b2": (0.9, 0.9999),
    "decay": (0.8, 0.9999),
    "weight_decay": (0.1, 10.0),
}
OFF_AT_ZERO = ("momentum", "weight_decay")  # a base of 0 says: not there
TARGETS = ("lr", "momentum", "b1")  # of reward rules


class Placed(NamedTuple):
    """A bound rule and the place of its integrator in the state."""

    bound: Bound
    index: int | None


class Plan(NamedTuple):
    bases: dict[str, ScalarOrSchedule]  # of the knobs that the controller hands to the factory
    fixed: dict[str, Any]  # handed on as they are: a momentum of 0 is none
    knobs: dict[str, Knob]  # those with rules
    placed: dict[str, tuple[Placed, ...]]
    integrators: tuple[tuple[Integrator, str], ...]  # and the knob of each
    cycle: tuple[int, float] | None
    compensated: bool


class _Asked(NamedTuple):
    base: Any
    rules: tuple[Rule, ...]


def plan(
    factory: Callable[..., GradientTransformation],
    asked: Mapping[str, Any],
    reward: Any,
    bounds: Mapping[str, Any] | None,
    compensate: bool,
    strict: bool,
) -> Plan:
    """Checks everything that can be known before the first step."""
    taken = _Factory(factory)
    specs = {knob: _asked(knob, spec) for knob, spec in asked.items() if spec is not None}
    rewards = _asked("reward", reward).rules if reward is not None else ()
    bases: dict[str, ScalarOrSchedule] = {}
    fixed: dict[str, Any] = {}
    rules: dict[str, list[tuple[Rule, str]]] = {}
    for knob, spec in specs.items():
        base = taken.base(knob, spec, strict)
        if base is None:
            continue
        if _off(knob, base):
            _dropped(knob, spec.rules, strict, "whose base is 0")
            fixed |= {knob: base} if spec.base is not None else {}
            continue
        bases[knob] = base
        rules[knob] = [(rule, "loss") for rule in spec.rules]
    for rule in rewards:
        for knob in _targets(rule, bases, fixed, taken, strict):
            rules.setdefault(knob, []).append((rule, "reward"))
    given = _bounds(bounds)
    knobs = {knob: _knob(knob, base, given.get(knob)) for knob, base in bases.items() if rules.get(knob)}
    placed, integrators, cycle = {}, [], None
    for knob in knobs:
        bound = [rule.bind(knobs[knob], channel) for rule, channel in rules[knob]]
        placed[knob] = []
        for part in bound:
            placed[knob].append(Placed(part, len(integrators) if part.integrator else None))
            integrators += [(part.integrator, knob)] if part.integrator else []
            cycle = part.cycle or cycle
    compensated = compensate and "momentum" in knobs
    if compensated and "lr" not in bases:
        base = taken.base("lr", _Asked(None, ()), strict=False)
        if base is None:
            raise ValueError(
                f"{WHERE}: a rule for momentum changes the length of the step, which lr makes up for; give lr=, or compensate=False"
            )
        bases["lr"] = base
    return Plan(bases, fixed, knobs, {knob: tuple(parts) for knob, parts in placed.items()}, tuple(integrators), cycle, compensated)


def _asked(place: str, spec: Any) -> _Asked:
    """A base and rules from a string, a rule, a product, a number, a tensor or a schedule."""
    if isinstance(spec, str):
        spec = named(spec)
    if not isinstance(spec, (Rule, Product)):
        if place == "reward":
            raise TypeError(f"{WHERE}: reward must be a rule, a product of rules or their names, got {spec!r}")
        if not callable(spec):
            check.number(WHERE, place, spec)
        elif getattr(spec, "__module__", "").startswith("funcopt.rules"):
            raise TypeError(f"{WHERE}: {place} must be a rule, got the function {spec.__name__}; call it: {spec.__name__}()")
        else:
            check.schedule_or(check.finite, WHERE, place, spec)
        return _Asked(spec, ())
    if callable(spec.base):
        check.schedule_or(check.finite, WHERE, place, spec.base)
    for rule in spec.rules:
        if place not in rule.places:
            raise ValueError(f"{WHERE}: {rule.name} is a rule for {', '.join(rule.places)}, got it for {place}")
    if place == "reward" and spec.base is not None:
        raise ValueError(f"{WHERE}: reward rules carry no base; give it to lr")
    return _Asked(spec.base, spec.rules)


class _Factory:
    """What the factory takes, by name."""

    def __init__(self, factory: Callable[..., Any]):
        self.parameters = signature(WHERE, factory).parameters
        self.open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in self.parameters.values())

    def takes(self, knob: str) -> bool:
        parameter = self.parameters.get(knob)
        if parameter is None or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return self.open_ended
        annotation = parameter.annotation
        if annotation in (inspect.Parameter.empty, Any, float, Tensor):
            return True
        return float in get_args(annotation) or Tensor in get_args(annotation)

    def base(self, knob: str, spec: _Asked, strict: bool) -> Any:
        """The base of a knob, checked; None if the factory has no such knob."""
        if not self.takes(knob):
            if spec.base is not None and not spec.rules:
                raise ValueError(f"{WHERE}: {knob} is given and the factory takes none; it takes {', '.join(self.parameters)}")
            _dropped(knob, spec.rules, strict, "which the factory does not take")
            return None
        base = spec.base
        if base is None:
            parameter = self.parameters.get(knob)
            base = inspect.Parameter.empty if parameter is None else parameter.default
            if base is None and knob in OFF_AT_ZERO:
                _dropped(knob, spec.rules, strict, "which is off by default; give the rule a base")
                return None
            if base is None or base is inspect.Parameter.empty:
                if not spec.rules:
                    return None
                raise ValueError(
                    f"{WHERE}: {knob} needs a base and the factory has no default for it; write {spec.rules[0].name}(base) with a number"
                )
        _check_base(knob, base)
        return base


def _check_base(knob: str, base: Any) -> None:
    if callable(base):
        return
    if not check.number(WHERE, knob, base):
        return
    if knob in AVERAGING and not (0 < base < 1 or (base == 0 and knob in OFF_AT_ZERO)):
        raise ValueError(f"{WHERE}: {knob} must be in (0, 1), got {base}")
    if knob not in AVERAGING:
        check.nonnegative(WHERE, knob, base)


def _off(knob: str, base: Any) -> bool:
    return knob in OFF_AT_ZERO and isinstance(base, (int, float)) and base == 0


def _dropped(knob: str, rules: tuple[Rule, ...], strict: bool, why: str) -> None:
    if strict and rules:
        raise ValueError(f"{WHERE}: strict, and {' and '.join(rule.name for rule in rules)} would steer {knob}, {why}")


def _targets(rule: Rule, bases: dict[str, Any], fixed: dict[str, Any], taken: _Factory, strict: bool) -> list[str]:
    """Where a reward rule acts: on lr, and `trend` also on momentum, else on b1. Adds the bases that only it needs."""
    found = []
    for knob in TARGETS if rule.name == "trend" else ("lr",):
        if found and found[-1] != "lr":
            break
        if knob not in bases and knob not in fixed:
            base = taken.base(knob, _Asked(None, (rule,) if knob == "lr" else ()), strict and knob == "lr")
            if base is not None and not _off(knob, base):
                bases[knob] = base
        if knob in bases:
            found.append(knob)
    return found


def _bounds(bounds: Mapping[str, Any] | None) -> dict[str, Any]:
    for knob in bounds or ():
        if knob not in KNOBS:
            raise ValueError(f"{WHERE}: bounds are for {', '.join(KNOBS)}, got {knob!r}")
    return dict(bounds or {})


def _knob(knob: str, base: ScalarOrSchedule, bounds: Any) -> Knob:
    absolute = isinstance(bounds, Absolute) or knob in AVERAGING
    try:
        lo, hi = (float(bound) for bound in (BOUNDS[knob] if bounds is None else bounds))
    except (TypeError, ValueError):
        raise TypeError(f"{WHERE}: the bounds of {knob} must be a pair of numbers, got {bounds!r}") from None
    if not (math.isfinite(lo) and math.isfinite(hi) and 0 <= lo <= hi):
        raise ValueError(f"{WHERE}: the bounds of {knob} must be 0 <= lo <= hi, got ({lo}, {hi})")
    if knob in AVERAGING and hi >= 1:
        raise ValueError(f"{WHERE}: the bounds of {knob} must be below 1, got ({lo}, {hi})")
    if not absolute and not lo <= 1 <= hi:
        raise ValueError(
            f"{WHERE}: the bounds of {knob} are multiples of its base and must hold 1, got ({lo}, {hi}); "
            "write rules.absolute(lo, hi) for its own units"
        )
    return Knob(knob, lo, hi, relative=not absolute, may_be_zero=absolute and not isinstance(base, (int, float)))
