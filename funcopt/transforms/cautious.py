"""cautious: entries of a step that disagree with the gradient of that step are left out, and the others grow to make up for them.

    phi_t = 1 where u_t g_t > 0, else 0           (of a step that points downhill already: where u_t g_t < 0)
    u_t  <- u_t phi_t d / (|phi_t|_1 + xi)        for every leaf of d entries

Source: Liang et al., "Cautious Optimizers", 2024 (C-AdamW, C-Lion). The authors' code divides by the mean of phi, at
least 1e-3, in place of (|phi|_1 + xi) / d. Reference: the option `cautious` of pytorch_optimizer 4.1.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, read_signals, tree
from funcopt.core.wrap import field, wrapped

__all__ = ["CautiousState", "cautious"]


class CautiousState(NamedTuple):
    inner_state: Any  # of what is masked

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def cautious(inner: GradientTransformation, xi: Scalar = 1.0) -> GradientTransformation[CautiousState]:
    """Masks the entries in which `inner` would move against the gradient it was given.

    Args:
        inner: a direction (`scale_by_adam()`) or a whole optimizer (`lion(1e-4)`). What it does besides, such as a
            decoupled decay, is masked with it; `chain(cautious(scale_by_adam()), add_decayed_weights(0.1), lr_scale(lr))`
            keeps the decay out of it, as the authors do.
        xi: added to the count of entries that are kept, > 0: a leaf that disagrees everywhere stays where it is.

    Returns:
        A transformation with the units of `inner`, whose state it holds and nothing else.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `inner`.

    Raises:
        ValueError: `xi` is out of range; it is not known on which side of the gradient `inner` points.

    Example:
        >>> tx = fo.cautious(fo.trace(0.5))
        >>> _, state = tx.update(torch.tensor([4.0, 4.0, 4.0]), tx.init(torch.zeros(3)))
        >>> tx.update(torch.tensor([1.0, -1.0, 1.0]), state)[0]  # the sums are 3, 1 and 3; two of three entries agree
        tensor([3., 0., 3.])
    """
    check.positive("cautious", "xi", xi)
    if inner.turns is None:
        raise ValueError(
            f"cautious: inner must be known to point along the gradient or against it, got {inner.name}, which does not say; "
            "declare turns= of it, or put cautious around the links that make the direction"
        )
    downhill = -1.0 if inner.turns else 1.0

    def kept(u: Tensor, g: Tensor) -> Tensor:
        agrees = downhill * u.sign() * g.sign() > 0  # the product itself may be too small to be a number
        return (torch.where(agrees | u.isnan(), u, 0) * (u.numel() / (agrees.sum(dtype=tree.scalar_dtype(u.device)) + xi))).to(u.dtype)

    def update(updates: TensorTree, state: CautiousState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        changed, inner_state = inner.update(updates, state.inner_state, params, signals=signals, **extra)
        return tree.map(kept, changed, updates), CautiousState(inner_state=inner_state)

    def init(params: TensorTree) -> CautiousState:
        return CautiousState(inner_state=inner.init(params))

    return wrapped(init, update, inner, field("inner_state"), name=f"cautious {inner.name}", flattenable=False, per_leaf=inner.per_leaf)
