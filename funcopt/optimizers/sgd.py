"""SGD: the gradient, or its heavy-ball sum, times the rate.

    u_t = g_t,   or with momentum the trace of transforms/trace.py

Source: Robbins and Monro 1951; Polyak 1964. Reference: optax.sgd (0.2.8); torch.optim.SGD without dampening.
"""

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, identity
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.trace import trace
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["sgd"]


def sgd(
    lr: ScalarOrSchedule | None,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    accumulator_dtype: torch.dtype | None = None,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """SGD: momentum if given, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        momentum: in [0, 1), or None for none (and no state).
        nesterov: look one step ahead.
        accumulator_dtype: dtype of the stored sum; None: that of the params.
        weight_decay: decoupled, >= 0. For torch's coupled decay put `add_decayed_weights` before `sgd`.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params` with momentum, else none.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.sgd(0.1)
        >>> tx.update(torch.tensor([2.0]), tx.init(torch.zeros(1)))[0]
        tensor([-0.2000])
    """
    check.dtype("sgd", "accumulator_dtype", accumulator_dtype)
    return chain(
        identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
