"""Optimistic gradients: step along the gradient that is expected next, for games and saddle points.

    u_t = (alpha + beta) * g_t - beta * g_{t-1}        (g_0 = g_1)

Source: Mokhtari, Ozdaglar and Pattathil 2020; Daskalakis et al. 2018. Reference:
optax.optimistic_gradient_descent, optax.optimistic_adam_v2 (0.2.8).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, tree
from funcopt.optimizers.adam import scale_by_adam
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByOptimisticGradientState", "optimistic_adam_v2", "optimistic_gradient_descent", "scale_by_optimistic_gradient"]


class ScaleByOptimisticGradientState(NamedTuple):
    is_initial_step: Tensor  # bool: nothing has passed yet
    previous_gradient: TensorTree  # what passed last; like params


def scale_by_optimistic_gradient(alpha: Scalar = 1.0, beta: Scalar = 1.0) -> GradientTransformation[ScaleByOptimisticGradientState]:
    """Adds to what passes how it has changed.

    Args:
        alpha: weight of what passes.
        beta: weight of its change since the last step.

    Returns:
        A transform that keeps shapes and dtypes. Holds one tree like `params`.

    After a NaN:
        That entry of this step is NaN, later ones are clean again.

    Raises:
        ValueError: a number is not finite.

    Example:
        >>> optimistic = fo.scale_by_optimistic_gradient()
        >>> _, state = optimistic.update(torch.tensor([1.0]), optimistic.init(torch.zeros(1)))
        >>> optimistic.update(torch.tensor([3.0]), state)[0]
        tensor([5.])
    """
    check.finite("scale_by_optimistic_gradient", "alpha", alpha)
    check.finite("scale_by_optimistic_gradient", "beta", beta)

    def init(params: TensorTree) -> ScaleByOptimisticGradientState:
        first = torch.ones((), dtype=torch.bool, device=tree.device(params))
        return ScaleByOptimisticGradientState(is_initial_step=first, previous_gradient=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByOptimisticGradientState, params: TensorTree | None = None, **extra: Any):
        def ahead(g: Tensor, before: Tensor) -> Tensor:
            before = torch.where(state.is_initial_step, g, before)
            return ((alpha + beta) * g - beta * before).to(g.dtype)

        direction = tree.map(ahead, updates, state.previous_gradient)
        kept = tree.cast_like(tree.clone(updates), state.previous_gradient)
        return direction, ScaleByOptimisticGradientState(is_initial_step=torch.zeros_like(state.is_initial_step), previous_gradient=kept)

    return GradientTransformation(
        init, update, name="scale_by_optimistic_gradient", flattenable=True, leaves="complex", per_leaf=True, turns=False
    )


def optimistic_gradient_descent(
    lr: ScalarOrSchedule | None,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Optimistic gradient descent: `scale_by_optimistic_gradient`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    It converges on min-max problems such as x * y, which gradient descent spirals away from.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        alpha: weight of what passes.
        beta: weight of its change since the last step.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params`.

    After a NaN:
        That entry of this step is NaN, later ones are clean again.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.optimistic_gradient_descent(0.1)
        >>> tx.update(torch.tensor([2.0]), tx.init(torch.zeros(1)))[0]
        tensor([-0.2000])
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))


def optimistic_adam_v2(
    lr: ScalarOrSchedule | None,
    alpha: Scalar = 1.0,
    beta: Scalar = 1.0,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Optimistic Adam: Adam's direction and its change, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        alpha, beta: as in `scale_by_optimistic_gradient`.
        b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds three
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.optimistic_adam_v2(0.1, nesterov=False)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
