"""RAdam: Adam that knows how little its mean square weighs in the first steps.

    mu_t, nu_t, m, v as in adam.py
    r_inf = 2 / (1 - b2) - 1,   r_t = r_inf - 2 t b2^t / (1 - b2^t)
    R = sqrt((r_t - 4) (r_t - 2) r_inf / ((r_inf - 4) (r_inf - 2) r_t))
    u_t = R * m / (sqrt(v + eps_root) + eps)        where r_t >= threshold
    u_t = m                                         else; zero with degenerated_to_sgd=False
    correct_eps=True:  m * sqrt(1 - b2^t) / (sqrt(nu_t + eps_root) + eps) in place of m / (sqrt(v + eps_root) + eps)

Source: Liu et al. 2019. Reference: optax.radam (0.2.8); with correct_eps=True torch.optim.RAdam (whose
threshold is > 5, never met exactly), and with degenerated_to_sgd=False as well pytorch_optimizer's.
"""

import math
from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState, corrected
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["radam", "scale_by_radam"]


def rectified(count: Tensor, b2: Scalar, threshold: Scalar) -> tuple[Tensor, Tensor]:
    """Whether the threshold is reached, and R (1 where it is not)."""
    steps = count.to(tree.scalar_dtype(count.device))
    remaining = 1 - moments.bias_correction(count, b2)[0]
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * steps * remaining / (1 - remaining)
    trusted = length >= threshold
    # Chosen before dividing and rooting, so that nobody who differentiates meets a root of a negative number.
    above = torch.where(trusted, (length - 4) * (length - 2) * longest, 1.0)
    below = torch.where(trusted, (longest - 4) * (longest - 2) * length, 1.0)
    return trusted, moments.safe_sqrt(above / below)


def scale_by_radam(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    degenerated_to_sgd: bool = True,
    correct_eps: bool = False,
) -> GradientTransformation[ScaleByAdamState]:
    """Adam's direction, shortened by how uncertain its denominator still is.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1). For b2 <= 1 - 2 / (threshold + 1)
            the threshold is never reached.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        threshold: from which length of the average on the denominator is trusted, >= 4.
        nesterov: look one step ahead.
        degenerated_to_sgd: below the threshold the direction is the mean of the gradient; else nothing moves.
        correct_eps: `eps` is divided by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.

    Returns:
        A transform from gradients to directions: of order one where the threshold is
        reached, of the size of the gradient before. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> radam = fo.scale_by_radam()
        >>> radam.update(torch.tensor([3.0, -0.5]), radam.init(torch.zeros(2)))[0]
        tensor([ 3.0000, -0.5000])
    """
    check.half_open("scale_by_radam", "b1", b1, 0, 1)
    check.half_open("scale_by_radam", "b2", b2, 0, 1)
    check.nonnegative("scale_by_radam", "eps", eps)
    check.nonnegative("scale_by_radam", "eps_root", eps_root)
    check.half_open("scale_by_radam", "threshold", threshold, 4, math.inf)  # below 4 the root in R has no value

    def init(params: TensorTree) -> ScaleByAdamState:
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(tree.real(params)))

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        mean, f2 = corrected(count, b1, b2, nesterov)
        trusted, factor = rectified(count, b2, threshold)
        root, inverse = entrywise.stacked(f2.sqrt(), f2.rsqrt())

        def turn(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
            m = mean(g, mu)
            if correct_eps:
                adaptive = factor * inverse * entrywise.over_root(m, nu, eps, eps_root)
            else:
                adaptive = factor * entrywise.over_root(m, nu, eps, eps_root, root)
            return torch.where(trusted, adaptive, m if degenerated_to_sgd else torch.zeros_like(m)).to(g.dtype)

        return tree.map(turn, updates, mu, nu), ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_radam", flattenable=True, leaves="complex", per_leaf=True, turns=False)


def radam(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    threshold: Scalar = 5.0,
    *,
    nesterov: bool = False,
    degenerated_to_sgd: bool = True,
    correct_eps: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """RAdam: `scale_by_radam`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1). For b2 <= 1 - 2 / (threshold + 1) the threshold is
            never reached.
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        threshold: from which length of the average on the denominator is trusted, >= 4.
        nesterov: look one step ahead.
        degenerated_to_sgd: below the threshold the direction is the mean of the gradient; else nothing moves.
        correct_eps: `eps` is divided by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.
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
        >>> tx = fo.radam(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.3000,  0.0500])
    """
    scaled = scale_by_radam(
        b1, b2, eps, eps_root, threshold, nesterov=nesterov, degenerated_to_sgd=degenerated_to_sgd, correct_eps=correct_eps
    )
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
