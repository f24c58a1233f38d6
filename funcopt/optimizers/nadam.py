"""NAdam and NAdamW: Adam that looks one step ahead.

    scale_by_adam(nesterov=True) of adam.py; with a momentum that warms up (momentum_decay, torch's form)
    b_t  = b1 * (1 - 0.96^(t * momentum_decay) / 2),   P_t = b_1 * ... * b_t
    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t,   nu_t = b2 * nu_{t-1} + (1 - b2) * g_t^2
    m    = b_{t+1} * mu_t / (1 - P_t * b_{t+1}) + (1 - b_t) * g_t / (1 - P_t)
    u_t  = m / (sqrt(nu_t / (1 - b2^t)) + eps)

Source: Dozat 2016. Reference: optax.nadam, optax.nadamw (0.2.8); with momentum_decay=0.004 torch.optim.NAdam.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import scale_by_adam
from funcopt.optimizers.sure_adam import scale_by_sure_adam
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByNadamState", "nadam", "nadamw", "scale_by_nadam"]


class ScaleByNadamState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params
    mu_product: Tensor  # product of the momenta so far


def scale_by_nadam(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, momentum_decay: Scalar = 4e-3
) -> GradientTransformation[ScaleByNadamState]:
    """Adam's direction one step ahead, with a momentum that grows from half of `b1` to all of it.

    Args:
        b1: the momentum in the end, and share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        momentum_decay: how fast the momentum grows, >= 0; it is halfway after 17 / momentum_decay steps.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`. `scale_by_adam(nesterov=True)` is the
        same with the momentum `b1` from the start.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> nadam = fo.scale_by_nadam()
        >>> nadam.update(torch.tensor([3.0, -0.5]), nadam.init(torch.zeros(2)))[0]
        tensor([ 1.0565, -1.0565])
    """
    check.half_open("scale_by_nadam", "b1", b1, 0, 1)
    check.half_open("scale_by_nadam", "b2", b2, 0, 1)
    check.nonnegative("scale_by_nadam", "eps", eps)
    check.nonnegative("scale_by_nadam", "momentum_decay", momentum_decay)

    def init(params: TensorTree) -> ScaleByNadamState:
        return ScaleByNadamState(
            count=moments.zero_count(params),
            mu=tree.zeros_like(params),
            nu=tree.zeros_like(params),
            mu_product=tree.scalar(1.0, params).clone(),
        )

    def update(updates: TensorTree, state: ScaleByNadamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        t = count.to(state.mu_product.dtype)
        # Both momenta in one vector: loose scalars would be worked out again for every entry once compiled.
        momenta = b1 * (1 - 0.5 * torch.exp(math.log(0.96) * momentum_decay * torch.stack([t, t + 1])))
        product = state.mu_product * momenta[0]
        shares = torch.stack([(1 - momenta[0]) / (1 - product), momenta[1] / (1 - product * momenta[1])])
        (f2,) = moments.bias_factors(count, b2)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        direction = tree.map(
            lambda g, mu, nu: entrywise.over_root(shares[0] * g + shares[1] * mu, nu * f2, eps).to(g.dtype), updates, mu, nu
        )
        return direction, ScaleByNadamState(count=count, mu=mu, nu=nu, mu_product=product.to(state.mu_product.dtype))

    return GradientTransformation(init, update, name="scale_by_nadam", flattenable=True, per_leaf=True, turns=False)


def nadam(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    momentum_decay: Scalar | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """NAdam: Adam's direction one step ahead, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        momentum_decay: None for a constant momentum; a number for `scale_by_nadam` (torch: 0.004), which
            has neither `eps_root` nor `mu_dtype`.
        weight_decay: decoupled, >= 0, as in `nadamw`, and 0 unless given.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; `momentum_decay` comes with `eps_root` or `mu_dtype`.

    Example:
        >>> tx = fo.nadam(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1474,  0.1474])
    """
    return _nadam("nadam", lr, b1, b2, eps, eps_root, mu_dtype, momentum_decay, weight_decay, weight_decay_mask)


def nadamw(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
    *,
    momentum_decay: Scalar | None = None,
    b2_sure: Scalar | None = None,
) -> GradientTransformation:
    """NAdamW: `nadam` with decay of the weights outside of its moments, 1e-4 unless given.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0; > 0 where somebody differentiates through it.
        mu_dtype: dtype of the stored mean; None: that of the params.
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        momentum_decay: None for a constant momentum; a number for `scale_by_nadam` (torch: 0.004), which has neither
            `eps_root` nor `mu_dtype`.
        b2_sure: behind `find_rate`, the `b2` where gradients are sure, in [0, 1) (`scale_by_sure_adam`), so that `b2` is that of
            noise; None: the same everywhere.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; `momentum_decay` comes with `eps_root`, `mu_dtype` or `b2_sure`; at `init`, `b2_sure`
            is given and no `find_rate` stands to the left; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.nadamw(0.1, weight_decay=0.5)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([3.0]), tx.init(params), params)[0]
        tensor([-0.2474])
    """
    return _nadam("nadamw", lr, b1, b2, eps, eps_root, mu_dtype, momentum_decay, weight_decay, weight_decay_mask, b2_sure)


def _nadam(
    where: str,
    lr: ScalarOrSchedule | None,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar,
    mu_dtype: torch.dtype | None,
    momentum_decay: Scalar | None,
    weight_decay: ScalarOrSchedule,
    weight_decay_mask: Any,
    b2_sure: Scalar | None = None,
) -> GradientTransformation:
    if momentum_decay is not None and b2_sure is not None:
        raise ValueError(f"{where}: takes momentum_decay or b2_sure, got {momentum_decay} and {b2_sure}; leave one of them out")
    if b2_sure is not None:
        ahead = scale_by_sure_adam(b1, b2, b2_sure, eps, eps_root, mu_dtype, nesterov=True)
    elif momentum_decay is None:
        ahead = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=True)
    else:
        if mu_dtype is not None or not isinstance(eps_root, (int, float)) or eps_root != 0:
            raise ValueError(
                f"{where}: eps_root and mu_dtype belong to the form without momentum_decay, got momentum_decay={momentum_decay} with them"
            )
        ahead = scale_by_nadam(b1, b2, eps, momentum_decay)
    return chain(ahead, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
