"""grokfast: what changes slowly in the gradient is amplified, which makes networks generalise sooner after they have fitted.

    mu_t = alpha mu_{t-1} + (1 - alpha) g_t        (mu_0 = g_1)
    u_t  = g_t + lamb mu_t

Source: Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024; the filter is Grokfast-EMA.
Reference: `gradfilter_ema` of pytorch_optimizer (4.1), the authors' code.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, moments, tree

__all__ = ["GrokfastState", "grokfast"]


class GrokfastState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params


def grokfast(alpha: Scalar = 0.98, lamb: Scalar = 2.0) -> GradientTransformation[GrokfastState]:
    """Adds to every gradient its running mean, `lamb` times.

    Args:
        alpha: share of the past in the mean, in [0, 1): its memory is about 1 / (1 - alpha) steps.
        lamb: by how much slow gradients are amplified, >= 0. Steady gradients become 1 + lamb times as long,
            which an optimizer that does not look at their length (Adam, Lion) does not notice.

    Returns:
        A transform that keeps units, to stand left of an optimizer. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.grokfast(alpha=0.5, lamb=2.0)
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.update(torch.tensor([-1.0]), state)[0]  # 1 + 2 * 1, then -1 + 2 * 0
        (tensor([3.]), tensor([-1.]))
    """
    check.half_open("grokfast", "alpha", alpha, 0, 1)
    check.nonnegative("grokfast", "lamb", lamb)

    def init(params: TensorTree) -> GrokfastState:
        return GrokfastState(count=moments.zero_count(params), mu=tree.zeros_like(params))

    def update(updates: TensorTree, state: GrokfastState, params: TensorTree | None = None, **extra: Any):
        first = state.count == 0
        before = tree.map(lambda g, mu: torch.where(first, g.to(mu.dtype), mu), updates, state.mu)
        mu = moments.update_moment(updates, before, alpha)
        u = tree.map(lambda g, mu: (g + lamb * mu).to(g.dtype), updates, mu)
        return u, GrokfastState(count=moments.increment(state.count), mu=mu)

    return GradientTransformation(init, update, name="grokfast", flattenable=True, per_leaf=True, turns=False)
