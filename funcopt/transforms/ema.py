"""ema: the running mean of what passes.

    e_t = (1 - decay) g_t + decay e_{t-1}
    u_t = e_t / (1 - decay^t),   or e_t without debias

Reference: optax.ema (0.2.8).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, tree
from funcopt.core.math import entrywise

__all__ = ["EmaState", "ema"]


class EmaState(NamedTuple):
    count: Tensor  # steps taken
    ema: TensorTree  # running mean of what has passed, not debiased; like params


def ema(decay: Scalar, debias: bool = True, accumulator_dtype: torch.dtype | None = None) -> GradientTransformation[EmaState]:
    """Replaces what passes by its running mean.

    Args:
        decay: share of the past, in [0, 1). The memory is about 1 / (1 - decay) steps.
        debias: divide by the weight that the start at zero leaves out, so that the first
            result is the first gradient.
        accumulator_dtype: dtype of the stored mean; None: that of the params.

    Returns:
        A transform that keeps units, shapes and dtypes. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: `decay` is out of range.

    Example:
        >>> mean = fo.ema(0.5)
        >>> _, state = mean.update(torch.tensor([3.0]), mean.init(torch.zeros(1)))
        >>> mean.update(torch.tensor([0.0]), state)[0]
        tensor([1.])
    """
    check.half_open("ema", "decay", decay, 0, 1)
    check.dtype("ema", "accumulator_dtype", accumulator_dtype)

    def init(params: TensorTree) -> EmaState:
        return EmaState(
            count=torch.zeros((), dtype=torch.int64, device=tree.device(params)), ema=tree.zeros_like(params, accumulator_dtype)
        )

    def update(updates: TensorTree, state: EmaState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mean = tree.map(lambda g, e: (1 - decay) * entrywise.at_least(g, e) + decay * e, updates, state.ema)
        result = mean
        if debias:
            (factor,) = moments.bias_factors(count, decay)
            result = tree.map(lambda e: factor * e, mean)
        return tree.cast_like(result, updates), EmaState(count=count, ema=tree.cast_like(mean, state.ema))

    return GradientTransformation(init, update, name="ema", flattenable=True, leaves="complex", per_leaf=True, turns=False)
