"""Adan: Adam on the gradient and on how it changes, which is Nesterov's step without a second gradient.

    d_t = g_t - g_{t-1}   (0 at the first step)
    m_t = b1 * m_{t-1} + (1 - b1) * g_t
    v_t = b2 * v_{t-1} + (1 - b2) * d_t
    n_t = b3 * n_{t-1} + (1 - b3) * (g_t + b2 * d_t)^2
    u_t = (m^ + b2 * v^) / (sqrt(n^ + eps_root) + eps),   x^ divided by 1 - b^t

Source: Xie et al. 2022, whose betas are one minus these. Reference: optax.adan (0.2.8) but for the
coefficient of d and v^: optax writes 1 - b2 there, the paper and the authors' code b2.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByAdanState", "adan", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    m: TensorTree  # running mean of g; like params
    v: TensorTree  # running mean of the change of g; like params
    n: TensorTree  # running mean of the square of g and its change; like params
    g: TensorTree  # the last gradient; like params
    t: Tensor  # steps taken


def scale_by_adan(
    b1: Scalar = 0.98, b2: Scalar = 0.92, b3: Scalar = 0.99, eps: Scalar = 1e-8, eps_root: Scalar = 0.0
) -> GradientTransformation[ScaleByAdanState]:
    """Divides running means of the gradient and of its change by the running RMS of both.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its change, in [0, 1), and the weight of that.
        b3: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds four trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adan = fo.scale_by_adan()
        >>> adan.update(torch.tensor([3.0, -0.5]), adan.init(torch.zeros(2)))[0]
        tensor([ 1.0000, -1.0000])
    """
    for name, value in (("b1", b1), ("b2", b2), ("b3", b3)):
        check.half_open("scale_by_adan", name, value, 0, 1)
    check.nonnegative("scale_by_adan", "eps", eps)
    check.nonnegative("scale_by_adan", "eps_root", eps_root)

    def init(params: TensorTree) -> ScaleByAdanState:
        return ScaleByAdanState(
            m=tree.zeros_like(params),
            v=tree.zeros_like(params),
            n=tree.zeros_like(params),
            g=tree.zeros_like(params),
            t=moments.zero_count(params),
        )

    def update(updates: TensorTree, state: ScaleByAdanState, params: TensorTree | None = None, **extra: Any):
        first = state.t == 0
        t = moments.increment(state.t)
        change = tree.map(lambda g, before: torch.where(first, 0, _held(g - before)), updates, state.g)
        m = moments.update_moment(updates, state.m, b1)
        v = moments.update_moment(change, state.v, b2)
        n = moments.update_moment(tree.map(lambda g, d: g + b2 * d, updates, change), state.n, b3, order=2)
        f1, f2, f3 = moments.bias_factors(t, b1, b2, b3)
        (root,) = entrywise.stacked(f3.sqrt())

        def turn(g: Tensor, m: Tensor, v: Tensor, n: Tensor) -> Tensor:
            return entrywise.over_root(f1 * m + b2 * f2 * v, n, eps, eps_root, root).to(g.dtype)

        direction = tree.map(turn, updates, m, v, n)
        return direction, ScaleByAdanState(m=m, v=v, n=n, g=tree.cast_like(tree.clone(updates), state.g), t=t)

    return GradientTransformation(init, update, name="scale_by_adan", flattenable=True, per_leaf=True, turns=False)


def _held(d: Tensor) -> Tensor:
    """A change within half the range of its dtype: the mean of two that are longer, one up and one down, would be that of infinities."""
    most = torch.finfo(d.dtype).max / 2
    return d if d.is_complex() else d.clamp(-most, most)  # complex ones are refused where they are to be kept


def adan(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Adan: `scale_by_adan`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Its rates are larger than Adam's, by a factor of five to ten.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its change, in [0, 1), and the weight of that.
        b3: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds four
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.adan(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_adan(b1, b2, b3, eps, eps_root), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
