"""Yogi: Adam whose mean square moves by as much as the gradient's square, not by as much as they differ.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = nu_{t-1} - (1 - b2) * sign(nu_{t-1} - g_t^2) * g_t^2
    u_t  = mu_t / (1 - b1^t) / (sqrt(nu_t / (1 - b2^t) + eps_root) + eps)

Both start at `initial_accumulator_value`. So the step grows back slowly after a large gradient.

Source: Zaheer et al. 2018. Reference: optax.yogi (0.2.8); pytorch_optimizer's Yogi.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState, corrected_ratio
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["scale_by_yogi", "yogi"]


def scale_by_yogi(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-3, eps_root: Scalar = 0.0, initial_accumulator_value: float = 1e-6
) -> GradientTransformation[ScaleByAdamState]:
    """Divides a running mean of the gradient by a root mean square that shrinks slowly.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: 1 - b2 is the share of the squared gradient by which the mean square moves, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        initial_accumulator_value: what both means start from, >= 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> yogi = fo.scale_by_yogi(b1=0.0, b2=0.0, eps=0.0, initial_accumulator_value=0.0)
        >>> _, state = yogi.update(torch.tensor([2.0]), yogi.init(torch.zeros(1)))
        >>> yogi.update(torch.tensor([1.0]), state)[1].nu
        tensor([3.])
    """
    check.half_open("scale_by_yogi", "b1", b1, 0, 1)
    check.half_open("scale_by_yogi", "b2", b2, 0, 1)
    check.nonnegative("scale_by_yogi", "eps", eps)
    check.nonnegative("scale_by_yogi", "eps_root", eps_root)
    check.nonnegative("scale_by_yogi", "initial_accumulator_value", initial_accumulator_value)

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(
            count=moments.zero_count(params),
            mu=tree.full_like(params, initial_accumulator_value),
            nu=tree.full_like(tree.real(params), initial_accumulator_value),
        )

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)

        def moved(g: Tensor, nu: Tensor) -> Tensor:
            square, size = entrywise.square(g, nu), entrywise.at_least(g.abs(), nu)
            amount = ((1 - b2) * size) * size  # in this order it stays finite longer than the square
            return (nu - torch.where(nu == square, 0, moments.sign(nu - square) * amount)).to(nu.dtype)

        nu = tree.map(moved, updates, state.nu)
        ratio = corrected_ratio(updates, count, b1, b2, eps, eps_root)
        direction = tree.map(ratio, updates, mu, nu)
        return direction, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_yogi", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def yogi(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-3,
    *,
    eps_root: Scalar = 0.0,
    initial_accumulator_value: float = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Yogi: `scale_by_yogi`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: 1 - b2 is the share of the squared gradient by which the mean square moves, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        initial_accumulator_value: what both means start from, >= 0.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.yogi(0.1, eps=0.0, initial_accumulator_value=0.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_yogi(b1, b2, eps, eps_root, initial_accumulator_value), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr)
    )
