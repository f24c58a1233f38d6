"""orthograd: what of a gradient only makes the weights longer or shorter is taken out, and the rest gets the gradient's length.

    h   = g - (g.w / w.w) w          for every leaf w
    u_t = h ||g|| / ||h||

Where the logits of a network that has fitted its data only grow, softmax ends in rounding; without this part they do not.

Source: Prieto et al., "Grokking at the Edge of Numerical Stability", 2025. Reference: pytorch_optimizer.OrthoGrad (4.1),
the authors' code, but for its eps beside w.w and ||h||, which is not needed, and for leaves of one entry: they have no
direction besides their own and pass, where the reference makes them stand still.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, TensorTree, check, numerics, tree
from funcopt.core.dtypes import at_least_float32

__all__ = ["orthograd"]

ROUNDING = 4.0  # a rest shorter than so many roundings of the gradient is none


def orthograd() -> GradientTransformation[EmptyState]:
    """Projects the gradient of every leaf onto what is orthogonal to the leaf, and keeps its length.

    Returns:
        A transform to stand left of an optimizer. A gradient along its leaf becomes zero; the gradient of a leaf of zeros,
        which has no direction, and leaves of one entry pass.

    After a NaN:
        Its leaf of this step is NaN, the next is clean.

    Raises:
        ValueError: at `update`, no params are given.

    Example:
        >>> tx = fo.orthograd()
        >>> tx.update(torch.tensor([3.0, 4.0]), fo.EmptyState(), torch.tensor([2.0, 0.0]))[0]
        tensor([0., 5.])
    """

    def unit(x: Tensor) -> tuple[Tensor, Tensor]:
        """A leaf of length 1 (of zeros: as it is), and the length that it had."""
        length = numerics.wide_norm(x)
        return numerics.divide(x, torch.where(length == 0, 1, length)), length

    def projected(g: Tensor, w: Tensor) -> Tensor:
        if g.numel() < 2:
            return g
        (x, size), (y, _) = unit(at_least_float32(g)), unit(at_least_float32(w))
        h = x - (tree.vdot(x, y) * y).to(x.dtype)  # what is left may be short: in bfloat16 it would be roundings
        h, rest = unit(h)
        short = rest <= ROUNDING * torch.finfo(g.dtype).eps
        return (torch.where(short, 0, size) * h).to(g.dtype)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params("orthograd", params)
        return tree.map(projected, updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name="orthograd", per_leaf=True, turns=False)
