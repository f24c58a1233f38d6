"""Argument checks and their wording: `where: what must hold, got what`.

Numbers are checked, tensors are taken on trust: looking at a tensor would read the device.
"""

import math
from collections.abc import Collection
from typing import Any

from torch import Tensor

__all__ = ["choice", "finite", "half_open", "integer", "loss", "nonnegative", "number", "params", "positive", "schedule_or", "within"]


def number(where: str, name: str, value: Any) -> bool:
    """Checks that `value` is a number or a 0-dim tensor; returns whether its range can be checked (it is a number)."""
    if isinstance(value, Tensor):
        if value.dim() != 0:
            raise ValueError(f"{where}: {name} must be a number or a 0-dim tensor, got a tensor of shape {tuple(value.shape)}")
        return False
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{where}: {name} must be a number or a 0-dim tensor, got {value!r}")
    return True


def finite(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not math.isfinite(value):
        raise ValueError(f"{where}: {name} must be finite, got {value}")


def positive(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{where}: {name} must be > 0, got {value}")


def nonnegative(where: str, name: str, value: Any) -> None:
    if number(where, name, value) and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{where}: {name} must be >= 0, got {value}")


def half_open(where: str, name: str, value: Any, low: float, high: float) -> None:
    if number(where, name, value) and not low <= value < high:
        raise ValueError(f"{where}: {name} must be in [{low}, {high}), got {value}")


def within(where: str, name: str, value: Any, low: float, high: float) -> None:
    if number(where, name, value) and not low <= value <= high:
        raise ValueError(f"{where}: {name} must be in [{low}, {high}], got {value}")


def integer(where: str, name: str, value: Any, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} must be an int, got {value!r}")
    if value < at_least:
        raise ValueError(f"{where}: {name} must be >= {at_least}, got {value}")


def choice(where: str, name: str, value: Any, options: Collection) -> None:
    if value not in options:
        raise ValueError(f"{where}: {name} must be one of {', '.join(repr(option) for option in options)}, got {value!r}")


def schedule_or(check, where: str, name: str, value: Any, *bounds: float) -> None:
    """Applies a check above to what is a number or tensor; a schedule passes."""
    if not callable(value):
        check(where, name, value, *bounds)


def params(where: str, params: Any) -> None:
    if params is None:
        raise ValueError(f"{where}: needs the params; call update(updates, state, params)")


def loss(where: str, loss: Any, name: str = "loss") -> None:
    if loss is None:
        raise ValueError(f"{where}: needs the {name} of this step; call update(..., {name}={name})")
