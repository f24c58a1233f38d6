"""What a rollout asks of an environment: pure functions of one state, written without a batch axis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import Scalar, TensorTree, check

__all__ = ["Environment"]


class Environment(NamedTuple):
    """An environment as functions. `torch.func.vmap` gives it members and episodes.

    Anything with these attributes will do for a rollout. Where `observe` is missing
    the state must be a tensor, which is then what the policy sees.
    """

    reset: Callable[[Tensor], TensorTree]  # key -> state
    step: Callable[[TensorTree, Tensor, Tensor], tuple[TensorTree, Any, Tensor, Tensor]]  # state, action, key -> state, obs, reward, done
    observe: Callable[[TensorTree], Any]  # state -> obs
    horizon: int  # steps after which an episode is cut off


def single(where: str, action: Tensor, what: str) -> Tensor:
    """The action as a 0-dim tensor."""
    if action.numel() != 1:
        raise ValueError(f"{where}: the action must be {what}, got a tensor of shape {tuple(action.shape)}")
    return action.reshape(())


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    """`x` in [low, high], either of which may be a number or a tensor."""
    if isinstance(low, Tensor) == isinstance(high, Tensor):
        return x.clamp(low, high)
    return x.clamp(min=low).clamp(max=high)


def check_constants(where: str, horizon: int, positive: dict[str, Scalar], finite: dict[str, Scalar], limits: dict[str, Scalar]) -> None:
    """Raises for what is no number of a world: a mass of zero or less, a gravity that is NaN; a limit may be infinite."""
    for name, value in positive.items():
        check.positive(where, name, value)
    for name, value in finite.items():
        check.finite(where, name, value)
    for name, value in limits.items():
        check.limit(where, name, value)
    check.integer(where, "horizon", horizon, 1)


def constants(dtype: torch.dtype, *values: Scalar) -> tuple[Scalar, ...]:
    """Numbers as they are, tensors in `dtype`: a 0-dim float64 would carry the whole state with it."""
    return tuple(value.to(dtype) if isinstance(value, Tensor) else value for value in values)
