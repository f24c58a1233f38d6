"""mars: the gradient, corrected by how it differs from the last one, which takes noise out of whatever follows.

    c_t = g_t + gamma * beta1 / (1 - beta1) * (g_t - g_{t-1})        (g_0 = 0)
    u_t = c_t / max(1, ||c_t|| / max_norm)                           for every leaf

Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large Models", 2024; the approximate
form, which takes the last gradient as it was, from the last batch, in place of a second gradient from this one.
Reference: pytorch_optimizer.MARS (4.1), the authors' code: MARS-AdamW is
`chain(mars(), scale_by_adam(0.95, 0.99), add_decayed_weights(...), lr_scale(lr))`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, numerics, tree
from funcopt.core.math import entrywise

__all__ = ["MarsState", "mars"]


class MarsState(NamedTuple):
    last_grad: TensorTree  # g_{t-1}; like params


def mars(gamma: Scalar = 0.025, beta1: Scalar = 0.95, max_norm: Scalar | None = 1.0) -> GradientTransformation[MarsState]:
    """Adds to every gradient a share of its change, and shortens what comes of it leaf by leaf.

    Args:
        gamma: how much variance reduction, >= 0; 0 leaves the gradient as it is.
        beta1: share of the past in the mean that the optimizer to the right takes, in [0, 1).
        max_norm: longest a leaf may be, > 0; None: no bound.

    Returns:
        A transform that keeps units, to stand left of an optimizer. Holds one tree like `params`.

    After a NaN:
        Its leaf of this step is NaN, later ones are clean again.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.mars(gamma=0.5, beta1=0.5, max_norm=None)
        >>> updates, state = tx.update(torch.tensor([2.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.update(torch.tensor([4.0]), state)[0]  # 2 + (2 - 0) / 2, then 4 + (4 - 2) / 2
        (tensor([3.]), tensor([5.]))
    """
    check.nonnegative("mars", "gamma", gamma)
    check.half_open("mars", "beta1", beta1, 0, 1)
    if max_norm is not None:
        check.positive("mars", "max_norm", max_norm)

    def init(params: TensorTree) -> MarsState:
        return MarsState(last_grad=tree.zeros_like(params))

    def update(updates: TensorTree, state: MarsState, params: TensorTree | None = None, **extra: Any):
        share = gamma * beta1 / (1 - beta1)

        def corrected(g: Tensor, last: Tensor) -> Tensor:
            wide = entrywise.at_least(g, last)
            c = (wide + share * (wide - last)).to(wide.dtype)
            if max_norm is not None:
                length = numerics.wide_norm(c)
                short = length <= max_norm
                c = numerics.divide(c, torch.where(short, 1, length), torch.where(short, torch.ones_like(length), max_norm))
            return c.to(g.dtype)

        return tree.map(corrected, updates, state.last_grad), MarsState(last_grad=tree.cast_like(tree.clone(updates), state.last_grad))

    return GradientTransformation(init, update, name="mars", flattenable=max_norm is None, per_leaf=True, turns=False)
