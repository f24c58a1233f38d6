"""Argument checks and their wording: `where: what must hold, got what`.

Numbers are checked, tensors are taken on trust: looking at a tensor would read the device.
"""

import math
import re
from collections.abc import Callable, Collection
from inspect import isclass, signature
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from funcopt.core.door.shown import shown
from funcopt.core.dtypes import FLOATS
from funcopt.core.versions import compiling, transforming

__all__ = [
    "OWN_WORDS",
    "Missing",
    "choice",
    "dtype",
    "finite",
    "flag",
    "functions",
    "given",
    "half_open",
    "integer",
    "limit",
    "loss",
    "nonnegative",
    "number",
    "params",
]
__all__ += ["positive", "schedule_or", "takes_the_count", "told", "value_at", "within"]

FINITE = " and finite"
OWN_WORDS = re.compile(r"(?!torch\.|vmap)[\w.]+(: '[^']*')?: ")  # how such a sentence begins, torch's excepted


def number(where: str, name: str, value: Any) -> bool:
    """Checks that `value` is a number or a 0-dim tensor; returns whether its range can be checked (it is a number)."""
    if isinstance(value, Tensor):
        if value.dim() != 0:
            raise ValueError(f"{where}: {name} must be a number or a 0-dim tensor, got a tensor of shape {tuple(value.shape)}")
        if value.is_complex() or value.dtype is torch.bool or (value.is_meta and not compiling()):
            kind = "tensor on meta, which holds no number" if value.is_meta else f"{str(value.dtype).removeprefix('torch.')} tensor"
            raise TypeError(f"{where}: {name} must be a number or a real 0-dim tensor, got a {kind}")
        return False
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where}: {name} must be a number or a 0-dim tensor, got {shown(value)}")
    return True


def finite(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not -math.inf < value < math.inf:
        raise ValueError(f"{where}: {name} must be finite, got {value}")


def positive(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not 0 < value < math.inf:
        raise ValueError(f"{where}: {name} must be > 0{FINITE if value == math.inf else ''}, got {value}")


def limit(where: str, name: str, value: Any) -> None:
    """Checks a bound of something: a number above 0, or infinity, which bounds nothing."""
    if number(where, name, value) and not value > 0:
        raise ValueError(f"{where}: {name} must be > 0, got {value}")


def nonnegative(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not 0 <= value < math.inf:
        raise ValueError(f"{where}: {name} must be >= 0{FINITE if value == math.inf else ''}, got {value}")


def half_open(where: str, name: str, value: Any, low: float, high: float) -> None:
    if number(where, name, value) and not low <= value < high:
        raise ValueError(f"{where}: {name} must be in [{low}, {high}), got {value}")


def within(where: str, name: str, value: Any, low: float, high: float) -> None:
    if number(where, name, value) and not low <= value <= high:
        raise ValueError(f"{where}: {name} must be in [{low}, {high}], got {value}")


def integer(where: str, name: str, value: Any, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} must be an int, got {shown(value)}")
    if value < at_least:
        raise ValueError(f"{where}: {name} must be >= {at_least}, got {value}")


def functions(where: str, name: str, value: Any, names: Collection[str]) -> Any:
    """The value, if it has these functions."""
    missing = next((function for function in names if not callable(getattr(value, function, None))), None)
    if missing is not None:
        raise TypeError(f"{where}: {name} must have the functions {', '.join(names)}, got {type(value).__name__} without {missing!r}")
    return value


def choice(where: str, name: str, value: Any, options: Collection[Any]) -> None:
    if not any(
        (type(value) is bool) == (type(option) is bool) and isinstance(value, type(option)) and value == option for option in options
    ):
        raise ValueError(f"{where}: {name} must be one of {', '.join(repr(option) for option in options)}, got {value!r}")


def dtype(where: str, name: str, value: Any) -> None:
    """What a state is kept in must hold fractions: an int keeps none, a bool one bit, and a complex leaf finds its dtype by itself."""
    if value is not None and value not in FLOATS:
        raise TypeError(f"{where}: {name} must be None or one of {', '.join(map(str, FLOATS))}, got {value!r}")


def flag(where: str, name: str, value: Any) -> None:
    if type(value) is not bool:
        raise TypeError(f"{where}: {name} must be True or False, got {shown(value)}")


def schedule_or(check: Callable[..., None], where: str, name: str, value: Any, *bounds: float) -> None:
    """Applies a check above to what is a number or tensor, and to what a schedule gives for step 0, as far as that can be known."""
    if not callable(value):
        check(where, name, value, *bounds)
    elif not (compiling() or transforming()):
        _probed(check, where, name, value, *bounds)


def takes_the_count(where: str, name: str, schedule: Any) -> Tensor:
    """Raises a TypeError for what cannot be called with a count of steps; returns the first count."""
    count = torch.zeros((), dtype=torch.int64, device="cpu")
    called = getattr(schedule, "__name__", type(schedule).__name__)
    if isclass(schedule):
        raise TypeError(f"{where}: {name} must be a number or a function of the count of steps, got the class {called}")
    try:
        signature(schedule).bind(count)
    except TypeError:
        takes = ", ".join(signature(schedule).parameters) or "nothing"
        raise TypeError(
            f"{where}: {name} must be a number or a function of the count of steps alone, got {called}, which takes {takes}; call it"
        ) from None
    except ValueError:  # a builtin that does not say what it takes
        pass
    return count


def _probed(check: Callable[..., None], where: str, name: str, schedule: Any, *bounds: float) -> None:
    count = takes_the_count(where, name, schedule)
    called = getattr(schedule, "__name__", type(schedule).__name__)
    try:
        with torch.no_grad():
            value = schedule(count)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        if "device" in str(error):  # what needs a count where the params are is seen at the first step
            return
        raise TypeError(
            f"{where}: {name} must be a number or a function of the count of steps, a 0-dim int64 tensor; "
            f"{called} of 0 ended in {type(error).__name__}: {error}"
        ) from error
    given(where, name, value)
    if not isinstance(value, Tensor) or (value.device.type == "cpu" and type(value) is Tensor and not value.is_complex()):
        check = nonnegative if check is positive else check  # a warm-up begins at zero
        check(where, f"{name} at step 0", float(value), *bounds)


def given(where: str, name: str, value: Any) -> Any:
    """What a schedule has given, if it is a number or a 0-dim tensor."""
    if isinstance(value, Tensor):
        if value.dim() != 0 or value.is_complex() or value.dtype is torch.bool:
            kind = f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
            raise ValueError(f"{where}: the schedule of {name} must give a number or a real 0-dim tensor, got a {kind}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        remedy = f"; call it: {getattr(value, '__name__', 'it')}(...)" if callable(value) else ""
        raise TypeError(f"{where}: the schedule of {name} must give a number or a 0-dim tensor, got {shown(value)}{remedy}")
    if not math.isfinite(value):
        raise ValueError(f"{where}: the schedule of {name} must give finite numbers, got {value}")
    return value


def value_at(where: str, name: str, value: Any, count: Tensor) -> Any:
    """A number as it is, a schedule at a count; of what it gives the shape and kind are checked, at numbers on a device nobody looks."""
    return given(where, name, value(count)) if callable(value) else value


def params(where: str, params: Any) -> None:
    if params is None:
        raise ValueError(f"{where}: needs the params; call update(updates, state, params)")


class Missing(ValueError):
    """An update was not told what it needs: `what` says so, `word` is the name of the extra argument."""

    def __init__(self, what: str, word: str, hint: str = ""):
        super().__init__(f"{what}; call update(..., {word}={word}){hint}")
        self.what, self.word = what, word


def loss(where: str, loss: Any, name: str = "loss") -> Any:
    """The loss of a step, which must have been told."""
    if loss is None:
        raise Missing(f"{where}: needs the {name} of this step", name)
    return told(where, name, loss)


def told(where: str, name: str, value: Any) -> Any:
    """What a step is told, if it is one real number: of several a state would take the shape, and of a complex one the real part."""
    if isinstance(value, Tensor):
        if value.dim() != 0:
            raise ValueError(f"{where}: {name} must be a number or a 0-dim tensor, got a tensor of shape {tuple(value.shape)}")
        if value.is_complex() or value.dtype is torch.bool:
            raise TypeError(f"{where}: {name} must be a real number, got a {str(value.dtype).removeprefix('torch.')} tensor")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{where}: {name} must be a number or a 0-dim tensor, got {shown(value)}")
    return value
