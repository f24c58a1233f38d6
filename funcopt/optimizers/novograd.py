"""NovoGrad: momentum over gradients that each leaf divides by the running norm of its whole.

    nu_t = ||g_t||^2 at the first step, then b2 * nu_{t-1} + (1 - b2) * ||g_t||^2     (one number per leaf)
    mu_t = b1 * mu_{t-1} + g_t / (sqrt(nu_t + eps_root) + eps) + weight_decay * p_t
    u_t  = mu_t

Decay is part of the momentum, as in the references.

Source: Ginsburg et al. 2019. Reference: optax.novograd (0.2.8); with b1=0.95, b2=0.98, eps=1e-8 pytorch_optimizer's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.adam import ScaleByAdamState
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["novograd", "scale_by_novograd"]


def scale_by_novograd(
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: torch.dtype | None = None,
    *,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
) -> GradientTransformation[ScaleByAdamState]:
    """Sums gradients that are divided by the running norm of their leaf.

    Args:
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the squared norm, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: share of the params that enters the sum, >= 0; a schedule is called with the count of completed steps.
        mu_dtype: dtype of the stored sum; None: that of the params.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transform from gradients to directions whose leaves are of norm 1 / (1 - b1) or
        less, in the shapes and dtypes it is given. Holds one tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> novograd = fo.scale_by_novograd()
        >>> novograd.update(torch.tensor([3.0, -4.0]), novograd.init(torch.zeros(2)))[0]
        tensor([ 0.6000, -0.8000])
    """
    check.half_open("scale_by_novograd", "b1", b1, 0, 1)
    check.half_open("scale_by_novograd", "b2", b2, 0, 1)
    check.nonnegative("scale_by_novograd", "eps", eps)
    check.nonnegative("scale_by_novograd", "eps_root", eps_root)
    check.schedule_or(check.nonnegative, "scale_by_novograd", "weight_decay", weight_decay)
    check.dtype("scale_by_novograd", "mu_dtype", mu_dtype)

    def init(params: TensorTree) -> ScaleByAdamState:
        nu = tree.map_plain(lambda p: tree.scalar(0.0, p), params)  # the square of a norm of 1e20 is no float32
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), nu=nu)

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        first = state.count == 0

        def mean_square(g: Tensor, nu: Tensor) -> Tensor:
            square = tree.squared_norm(g, nu.dtype)
            return torch.where(first, square, (1 - b2) * square + b2 * nu).to(nu.dtype)

        nu = tree.map(mean_square, updates, state.nu)
        normal = tree.map(lambda g, nu: entrywise.over_root(g, nu, eps, eps_root).to(g.dtype), updates, nu)
        # The decay of this step holds nothing: its schedule runs on the count that is here already.
        decay = add_decayed_weights(check.value_at("scale_by_novograd", "weight_decay", weight_decay, state.count), weight_decay_mask)
        normal, _ = decay.update(normal, decay.init(updates), params)
        mu = tree.map_plain(lambda x, mu: (b1 * mu + x).to(mu.dtype), normal, state.mu)
        return tree.cast_like(mu, updates), ScaleByAdamState(count=moments.increment(state.count), mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_novograd", per_leaf=weight_decay_mask is None, turns=False)


def novograd(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.25,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """NovoGrad: `scale_by_novograd`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        b1: what is left of the sum after a step, in [0, 1).
        b2: share of the past in the mean of the squared norm, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        weight_decay: share of the params that enters the sum, >= 0; a schedule is called with the count of completed
            steps.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params` and a number for each leaf.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.novograd(0.1)
        >>> tx.update(torch.tensor([3.0, -4.0]), tx.init(torch.zeros(2)))[0]
        tensor([-0.0600,  0.0800])
    """
    return chain(scale_by_novograd(b1, b2, eps, eps_root, weight_decay, weight_decay_mask=weight_decay_mask), lr_scale(lr))
