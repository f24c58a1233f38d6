"""Adai: momentum in place of a rate for each entry: the noisier an entry, the less of its past counts.

    v_t = b2 * v_{t-1} + (1 - b2) * g_t^2,            v^ = v_t / (1 - b2^t)
    b   = clip(1 - b1 * v^ / max(mean of v^ over all entries of all leaves, eps), 0, 1 - eps)
    m_t = b * m_{t-1} + (1 - b) * g_t
    u_t = m_t / (1 - product of all b so far)

Source: Xie et al., "Adaptive Inertia: Disentangling the Effects of Adaptive Learning Rate and Momentum", 2022. Reference:
pytorch_optimizer's Adai (4.1), whose decay is coupled unless told otherwise:
`chain(add_decayed_weights(weight_decay), scale_by_adai(), lr_scale(lr))`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.dtypes import at_least_float32
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["AdaiState", "adai", "scale_by_adai"]


class AdaiState(NamedTuple):
    count: Tensor  # steps taken
    m: TensorTree  # running mean of g; like params
    v: TensorTree  # running mean of g^2; like params
    product: TensorTree  # of all b so far; like params, half precision in float32


def scale_by_adai(b1: Scalar = 0.1, b2: Scalar = 0.99, eps: Scalar = 1e-3) -> GradientTransformation[AdaiState]:
    """A running mean of the gradient that forgets faster where gradients are large beside those of all others.

    Args:
        b1: how much of an entry of mean size is new, in [0, 1].
        b2: share of the past in the mean of the square, in [0, 1).
        eps: the least share of the new, and the floor of the mean of squares, in (0, 1).

    Returns:
        A transform from gradients to directions of the size of the gradient, in the shapes and dtypes it is given.
        Holds three trees like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adai = fo.scale_by_adai(b1=0.5, b2=0.0)
        >>> _, state = adai.update(torch.tensor([2.0, 2.0]), adai.init(torch.zeros(2)))  # both of mean size: b = 1/2
        >>> adai.update(torch.tensor([4.0, 0.0]), state)[0]  # v is twice the mean, then zero: b = 0 and 0.999
        tensor([4.0000, 1.9960])
    """
    where = "scale_by_adai"
    check.within(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.positive(where, "eps", eps)
    check.half_open(where, "eps", eps, 0, 1)

    def init(params: TensorTree) -> AdaiState:
        return AdaiState(
            count=moments.zero_count(params),
            m=tree.zeros_like(params),
            v=tree.zeros_like(params),
            product=tree.map_plain(lambda p: at_least_float32(torch.ones_like(p, requires_grad=False)), params),
        )

    def update(updates: TensorTree, state: AdaiState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        v = moments.update_moment(updates, state.v, b2, order=2)
        correction = moments.bias_correction(count, b2)[0]
        total = tree.sum(tree.map_plain(lambda v: v.to(correction.dtype), v))
        # (1 - b2^t) max(mean of v^, eps): v is divided by it as it is, since v^ may overflow where v does not.
        (mean,) = entrywise.stacked(torch.maximum(total / max(1, tree.size(v)), eps * correction))

        def share(v: Tensor) -> Tensor:
            v = at_least_float32(v)  # bfloat16 holds no number between 0.996 and 1
            relative = torch.where(v.isinf(), v, v / mean.to(v.dtype))  # what has overflowed is large beside anything
            b = (1 - b1 * relative).clamp(min=0)
            return torch.minimum(b, entrywise.scalar_of(1 - eps, b))

        b = tree.map_plain(share, v)
        product = tree.map_plain(lambda b, product: b * product, b, state.product)
        m = tree.map(lambda g, b, m: (b * m + (1 - b) * g).to(m.dtype), updates, b, state.m)
        direction = tree.map(lambda g, m, product: (m / (1 - product)).to(g.dtype), updates, m, product)
        return direction, AdaiState(count=count, m=m, v=v, product=product)

    return GradientTransformation(init, update, name=where, flattenable=True, turns=False)


def adai(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.1,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-3,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adai: `scale_by_adai`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its rates are those of gradient descent, near 1 with normalised layers.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps: as in `scale_by_adai`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds three trees like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.adai(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.3000,  0.0500])
    """
    return chain(scale_by_adai(b1, b2, eps), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
