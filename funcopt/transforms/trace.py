"""trace: the undamped heavy-ball sum of what passes.

    tr_t = g_t + decay * tr_{t-1}
    u_t  = tr_t,   or with Nesterov   g_t + decay * tr_t

Source: Polyak 1964; Nesterov 1983 in the form of Sutskever et al. 2013. Reference: optax.trace (0.2.8).
"""

from typing import Any, NamedTuple

import torch

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, tree

__all__ = ["TraceState", "trace"]


class TraceState(NamedTuple):
    trace: TensorTree  # decayed sum of what has passed; like params


def trace(decay: Scalar, nesterov: bool = False, accumulator_dtype: torch.dtype | None = None) -> GradientTransformation[TraceState]:
    """Adds a decaying memory of all that has passed.

    Args:
        decay: what is left of the sum after a step, in [0, 1). A constant gradient
            grows by 1 / (1 - decay).
        nesterov: look one step ahead.
        accumulator_dtype: dtype of the stored sum; None: that of the params.

    Returns:
        A transform from gradients to directions. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: `decay` is out of range.

    Example:
        >>> momentum = fo.trace(0.5)
        >>> _, state = momentum.update(torch.tensor([1.0]), momentum.init(torch.zeros(1)))
        >>> momentum.update(torch.tensor([1.0]), state)[0]
        tensor([1.5000])
    """
    check.half_open("trace", "decay", decay, 0, 1)
    check.dtype("trace", "accumulator_dtype", accumulator_dtype)

    def init(params: TensorTree) -> TraceState:
        return TraceState(trace=tree.zeros_like(params, accumulator_dtype))

    def update(updates: TensorTree, state: TraceState, params: TensorTree | None = None, **extra: Any):
        total = tree.map(lambda g, tr: g + decay * tr, updates, state.trace)
        direction = tree.map(lambda g, tr: g + decay * tr, updates, total) if nesterov else total
        return tree.cast_like(direction, updates), TraceState(trace=tree.cast_like(total, state.trace))

    return GradientTransformation(init, update, name="trace", flattenable=True, leaves="complex", per_leaf=True, turns=False)
