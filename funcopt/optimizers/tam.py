"""TAM: momentum that takes less of a gradient the more it turns away from where the momentum points.

    s_t = gamma * s_{t-1} + (1 - gamma) * cos(b_{t-1}, g_t)        (one number per leaf)
    b_t = beta * b_{t-1} + ((1 + s_t) / 2 + eps) * g_t
    u_t = b_t

Source: Malviya et al., "Torque-Aware Momentum", 2024. Reference: pytorch_optimizer's TAM (4.1) with entrywise=True: in place of the
cosine of two leaves it multiplies, entry by entry, their columns normalised along the first axis, and b_0 is the first gradient.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, tree
from funcopt.core.math.lengths import length as length_of
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["TamState", "scale_by_tam", "tam"]

SHORTEST = 1e-12  # of a column that is divided by


class TamState(NamedTuple):
    count: Tensor  # steps taken
    b: TensorTree  # the momentum; like params
    s: TensorTree  # running mean of the cosine: 0-dim for each leaf, or like params


def unit(x: Tensor) -> Tensor:
    """A leaf divided by its length; zero where that is zero."""
    length = numerics.wide_norm(x)
    return numerics.divide(x, torch.where(length == 0, 1, length))


def unit_columns(x: Tensor) -> Tensor:
    """A leaf divided by its lengths along the first axis."""
    length = length_of(x, 0, keepdim=True) if x.dim() else length_of(x)
    return x / length.clamp(min=SHORTEST).to(x.dtype)


def scale_by_tam(
    beta: Scalar = 0.9, gamma: Scalar = 0.9, eps: Scalar = 1e-8, *, entrywise: bool = False
) -> GradientTransformation[TamState]:
    """Sums gradients, each weighed by how far it points where the sum does.

    Args:
        beta: what is left of the sum after a step, in [0, 1).
        gamma: share of the past in the mean of the cosine, in [0, 1).
        eps: added to the weight, >= 0, so that a gradient against the sum counts, too.
        entrywise: as in pytorch_optimizer: the product, entry by entry, of columns normalised along the first axis takes
            the place of the cosine, and the sum begins as the first gradient, which then counts twice.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given.
        Holds one tree like `params` (two with `entrywise`).

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tam = fo.scale_by_tam(beta=0.5, gamma=0.0, eps=0.0)
        >>> first, state = tam.update(torch.tensor([2.0, 0.0]), tam.init(torch.zeros(2)))
        >>> first, tam.update(torch.tensor([-2.0, 0.0]), state)[0]  # half of it; then nothing of the opposite
        (tensor([1., 0.]), tensor([0.5000, 0.0000]))
    """
    where = "scale_by_tam"
    check.half_open(where, "beta", beta, 0, 1)
    check.half_open(where, "gamma", gamma, 0, 1)
    check.nonnegative(where, "eps", eps)

    def init(params: TensorTree) -> TamState:
        s = tree.zeros_like(params) if entrywise else tree.map_plain(lambda p: tree.scalar(0.0, p), params)
        return TamState(count=moments.zero_count(params), b=tree.zeros_like(params), s=s)

    def agreement(g: Tensor, b: Tensor) -> Tensor:
        return unit_columns(b) * unit_columns(g) if entrywise else tree.vdot(unit(b), unit(g))

    def update(updates: TensorTree, state: TamState, params: TensorTree | None = None, **extra: Any):
        first = state.count == 0
        before = tree.map(lambda g, b: torch.where(first, g.to(b.dtype), b), updates, state.b) if entrywise else state.b
        s = tree.map_plain(lambda g, b, s: (gamma * s + (1 - gamma) * agreement(g, b)).to(s.dtype), updates, before, state.s)
        b = tree.map(lambda g, b, s: (beta * b + ((1 + s) / 2 + eps) * g).to(b.dtype), updates, before, s)
        return tree.cast_like(tree.clone(b), updates), TamState(count=moments.increment(state.count), b=b, s=s)

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False)


def tam(
    lr: ScalarOrSchedule | None,
    beta: Scalar = 0.9,
    gamma: Scalar = 0.9,
    eps: Scalar = 1e-8,
    *,
    entrywise: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Torque-aware momentum: `scale_by_tam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        beta, gamma, eps, entrywise: as in `scale_by_tam`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one tree like `params`, two with `entrywise`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.tam(0.1)
        >>> tx.update(torch.tensor([4.0, -2.0]), tx.init(torch.zeros(2)))[0]
        tensor([-0.2000,  0.1000])
    """
    return chain(scale_by_tam(beta, gamma, eps, entrywise=entrywise), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
