"""AdaHessian: Adam whose denominator is the running RMS of the Hessian's diagonal.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    nu_t = b2 * nu_{t-1} + (1 - b2) * h_t^2,   h_t the diagonal, or an estimate z * (H z) with random signs z
    u_t  = mu_t / (1 - b1^t) / ((nu_t / (1 - b2^t))^(hessian_power / 2) + eps)

Source: Yao et al. 2020, without the average of h over blocks. Reference: pytorch_optimizer's AdaHessian.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adahessian", "scale_by_adahessian"]


def scale_by_adahessian(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-4, *, hessian_power: Scalar = 1.0
) -> GradientTransformation[ScaleByAdamState]:
    """Divides a running mean of the gradient by a power of the running RMS of the Hessian's diagonal.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared diagonal, in [0, 1).
        eps: added to the denominator, >= 0.
        hessian_power: how much of the curvature counts, in [0, 1].

    Returns:
        A transformation that is told `hessian`, a tree like `params`: the diagonal or an
        unbiased estimate, such as `z * jvp(grad(f), (params,), (z,))[1]` with random signs z.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, `hessian` is missing.

    Example:
        >>> tx = fo.scale_by_adahessian()
        >>> direction, state = tx.update(torch.tensor([3.0]), tx.init(torch.zeros(1)), hessian=torch.tensor([2.0]))
        >>> direction
        tensor([1.4999])
    """
    check.half_open("scale_by_adahessian", "b1", b1, 0, 1)
    check.half_open("scale_by_adahessian", "b2", b2, 0, 1)
    check.nonnegative("scale_by_adahessian", "eps", eps)
    check.within("scale_by_adahessian", "hessian_power", hessian_power, 0, 1)

    def init(params: TensorTree) -> ScaleByAdamState:
        count = torch.zeros((), dtype=torch.int64, device=tree.device(params))
        return ScaleByAdamState(count=count, mu=tree.zeros_like(params), nu=tree.zeros_like(params))

    def update(
        updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, *, hessian: TensorTree | None = None, **extra: Any
    ):
        if hessian is None:
            raise check.Missing("scale_by_adahessian: needs the diagonal of the Hessian", "hessian")
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(hessian, state.nu, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        (root,) = entrywise.stacked(f2.sqrt())

        def direct(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
            return (f1 * mu / ((root * moments.safe_sqrt(nu)) ** hessian_power + eps)).to(g.dtype)

        return tree.map(direct, updates, mu, nu), ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(
        init, update, name="scale_by_adahessian", flattenable=True, per_leaf=True, turns=False, needs={"hessian": "always"}
    )


def adahessian(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-4,
    *,
    hessian_power: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdaHessian: `scale_by_adahessian`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the squared diagonal, in [0, 1).
        eps: added to the denominator, >= 0.
        hessian_power: how much of the curvature counts, in [0, 1].
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients and `hessian=`, the diagonal of the Hessian as a tree like them, to the updates
        that `apply_updates` adds. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, `hessian` is not given, or weights decay and no params are
            given.

    Example:
        >>> tx = fo.adahessian(0.1)
        >>> tx.update(torch.tensor([3.0]), tx.init(torch.zeros(1)), hessian=torch.tensor([2.0]))[0]
        tensor([-0.1500])
    """
    return chain(
        scale_by_adahessian(b1, b2, eps, hessian_power=hessian_power),
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )
