"""Running means of gradients and of their powers, and what corrects their start at zero.

m_t = (1 - decay) * g_t^order + decay * m_{t-1}
m^_t = m_t / (1 - decay^t)

What Adam makes of a pair of them is in `optimizers/adam.py`; arithmetic that meets every entry in `core/math/entrywise.py`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.dtypes import at_least_float32, kept_as, steering
from funcopt.core.math.entrywise import at_least, once, stacked
from funcopt.core.math.lengths import safe_sqrt
from funcopt.core.protocol import Scalar, TensorTree
from funcopt.core.versions import compiling, followed

__all__ = [
    "bias_correction",
    "bias_factors",
    "increment",
    "safe_sqrt",
    "sign",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "zero_count",
]

Value = TypeVar("Value", bound=float | Tensor)

LAST = torch.iinfo(torch.int64).max
PLAIN = (torch.float32, torch.float64)


def update_moment(updates: TensorTree, moments: TensorTree, decay: Scalar, order: int = 1) -> TensorTree:
    """The running mean of `|updates|^order` (of `updates` for order 1), in the dtypes of `moments`.

    Args:
        updates: tree of tensors.
        moments: the running mean so far, like `updates` in structure and shapes.
        decay: share of the past, in [0, 1).
        order: 1 or 2. For 2 the mean stays finite up to gradients of `sqrt(largest / (1 - decay))`.

    Returns:
        A tree like `moments`.

    Raises:
        ValueError: `order` is neither 1 nor 2.

    Example:
        >>> fo.moments.update_moment(torch.tensor([4.0]), torch.tensor([2.0]), 0.5)
        tensor([3.])
    """

    if order not in (1, 2):
        raise ValueError(f"moments.update_moment: order must be 1 or 2, got {order!r}; others are update_moment_per_elem_norm's")
    fresh, kept = once(moments, 1 - decay, decay)
    mean = _mean_of_squares(fresh, kept) if order == 2 else _mean(fresh, kept)
    return tree.map(mean, updates, moments)


def _mean(fresh: Scalar, kept: Scalar) -> Callable[[Tensor, Tensor], Tensor]:
    """`(g, m) -> fresh g + kept m`, in every form the arithmetic of `torch.lerp`, also where something is infinite."""
    number = not isinstance(fresh, Tensor)
    eager = number and not compiling()

    def mean(g: Tensor, m: Tensor) -> Tensor:
        if g.dtype != m.dtype:
            kept_as("moments.update_moment", g, m.dtype)
            g = at_least(g, m)
        if eager and g.dtype == m.dtype:
            return torch.lerp(m, g, fresh)  # the same in one operation in place of three
        g, old = at_least_float32(g), at_least_float32(m)  # a sum is rounded once
        if not number:
            return (fresh * g + kept * old).to(m.dtype)
        return (old + fresh * (g - old) if fresh < 0.5 else g - kept * (g - old)).to(m.dtype)

    return mean


def _mean_of_squares(fresh: Scalar, kept: Scalar) -> Callable[[Tensor, Tensor], Tensor]:
    """`(g, m) -> fresh |g|^2 + kept m`, where `(fresh g) g` stays finite longer than `fresh (g g)`; torch.optim too multiplies so."""
    share: Any = fresh  # a number, where eager
    rest: Any = kept
    eager = not isinstance(fresh, Tensor) and not followed()
    weights: dict[torch.dtype, Tensor] = {}  # `rest`, which torch would wrap anew for every leaf

    def weight(dtype: torch.dtype) -> Tensor:
        if dtype not in weights:
            weights[dtype] = torch.scalar_tensor(rest, dtype=dtype, device="cpu")
        return weights[dtype]

    def mean(g: Tensor, m: Tensor) -> Tensor:
        if eager and type(g) is type(m) is Tensor and g.dtype == m.dtype in PLAIN and not (g.requires_grad or m.requires_grad):
            if g.is_cpu:
                return torch.mul(m, weight(m.dtype)).addcmul_(g, g, value=share)  # one new tensor
            return torch.mul(g, share).mul_(g).add_(m, alpha=rest)  # elsewhere addcmul multiplies in another order
        g = at_least(at_least_float32(g), m)
        g = g.abs() if g.is_complex() else g
        return (kept * at_least_float32(m) + (fresh * g) * g).to(m.dtype)

    return mean


def update_moment_per_elem_norm(updates: TensorTree, moments: TensorTree, decay: Scalar, order: float) -> TensorTree:
    """The running mean of `|updates|^order` for any order, in the dtypes of `moments`; `update_moment` has the common ones.

    Args:
        updates: tree of tensors.
        moments: the running mean so far, like `updates` in structure and shapes.
        decay: share of the past, in [0, 1).
        order: power of the magnitudes, > 0.

    Returns:
        A tree like `moments`.

    Example:
        >>> fo.moments.update_moment_per_elem_norm(torch.tensor([-2.0]), torch.tensor([0.0]), 0.5, 3)
        tensor([4.])
    """
    if order == 2:
        return update_moment(updates, moments, decay, 2)
    return update_moment(tree.map_plain(lambda g, m: at_least(g, m).abs() ** order, updates, moments), moments, decay)


def update_infinity_moment(updates: TensorTree, moments: TensorTree, decay: Scalar, eps: Scalar) -> TensorTree:
    """The decaying maximum `max(|updates| + eps, decay * moments)`, in the dtypes of `moments`.

    Args:
        updates: tree of tensors.
        moments: the maximum so far, like `updates` in structure and shapes.
        decay: what is left of the maximum after a step, in [0, 1).
        eps: added to the magnitude, >= 0.

    Returns:
        A tree like `moments`.

    Example:
        >>> fo.moments.update_infinity_moment(torch.tensor([-2.0, 0.5]), torch.tensor([1.0, 4.0]), 0.5, 0.0)
        tensor([2., 2.])
    """
    return tree.map(lambda g, m: torch.maximum((at_least(g, m).abs() + eps).to(m.dtype), (decay * m).to(m.dtype)), updates, moments)


def bias_correction(count: Tensor, *decays: Scalar) -> Tensor:
    """`1 - decay^count` for each decay, accurate at the first step and at the millionth.

    Args:
        count: steps taken, this one included; 0-dim int64, >= 1.
        decays: in [0, 1); numbers or 0-dim tensors.

    Returns:
        A tensor of shape (number of decays,), float64 where the device has it; index it
        with Python ints. It is stacked from 0-dim results because the compiler then
        computes it once; as loose scalars it would be worked out again for every entry
        of every leaf.

    Raises:
        ValueError: there is no decay.

    Example:
        >>> fo.moments.bias_correction(torch.tensor(2), 0.9, 0.5)
        tensor([0.1900, 0.7500], dtype=torch.float64)
    """
    if not decays:
        raise ValueError("moments.bias_correction: needs at least one decay, got none; call it as bias_correction(count, b1)")
    return torch.stack(corrections(count, decays))


def corrections(count: Tensor, decays: Sequence[Scalar]) -> list[Tensor]:
    """The entries of `bias_correction` one by one, for arithmetic on them before they are stacked."""
    if not isinstance(count, Tensor):
        raise TypeError(f"moments: count must be a 0-dim tensor, the steps taken so far, got {count!r}; write torch.tensor({count!r})")
    t = count.to(steering(count.device))
    return [-torch.expm1(t * _log(decay)) for decay in decays]


def _log(decay: Scalar) -> Scalar:
    if isinstance(decay, Tensor):
        return decay.to(tree.scalar_dtype(decay.device)).log()
    return math.log(decay) if decay > 0 else -math.inf


def bias_factors(count: Tensor, *decays: Scalar) -> tuple[Tensor, ...]:
    """`1 / bias_correction` as one 0-dim tensor for each decay: every entry is multiplied, which takes less time than to divide it.

    Args:
        count, decays: as in `bias_correction`.

    Returns:
        As many 0-dim tensors as there are decays.

    Example:
        >>> [round(float(f), 4) for f in fo.moments.bias_factors(torch.tensor(2), 0.9, 0.5)]
        [5.2632, 1.3333]
    """
    return stacked(*[correction.reciprocal() for correction in corrections(count, decays)])


def zero_count(params: TensorTree) -> Tensor:
    """The count of steps before the first: 0-dim int64 on the device of `params`.

    Args:
        params: tree of tensors; only its device counts.

    Returns:
        0-dim int64.

    Example:
        >>> fo.moments.zero_count({"w": torch.zeros(2)})
        tensor(0)
    """
    return torch.zeros((), dtype=torch.int64, device=tree.device(params))


def increment(count: Tensor) -> Tensor:
    """`count + 1`, held at the largest int64.

    Args:
        count: steps taken so far, 0-dim int64.

    Returns:
        0-dim int64.

    Example:
        >>> fo.moments.increment(torch.tensor(3))
        tensor(4)
    """
    return count + (count < LAST)


def sign(x: Tensor) -> Tensor:
    """The sign of every entry; NaN stays NaN (`torch.sign` makes it 0 and so hides it).

    Args:
        x: a real tensor.

    Returns:
        A tensor like `x`.

    Example:
        >>> fo.moments.sign(torch.tensor([-2.0, 0.0, torch.nan]))
        tensor([-1., 0., nan])
    """
    return torch.where(x.isnan(), x, x.sign())
