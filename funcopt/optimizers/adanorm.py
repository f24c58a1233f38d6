"""AdaNorm: Adam whose mean is taken of gradients that are never shorter than gradients have been of late.

    e_t  = r * e_{t-1} + (1 - r) * ||g_t||                    (one number per leaf)
    s_t  = g_t e_t / ||g_t|| where ||g_t|| < e_t, else g_t
    mu_t = b1 * mu_{t-1} + (1 - b1) * s_t
    nu_t = b2 * nu_{t-1} + (1 - b2) * g_t^2
    u_t  = mu_t / (1 - b1^t) / (sqrt(nu_t / (1 - b2^t) + eps_root) + eps)

Source: Dubey et al., "AdaNorm: Adaptive Gradient Norm Correction based Optimizer for CNNs", 2023. Reference: pytorch_optimizer's AdaNorm
(4.1) with correct_eps=True and eps_root=1e-15.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.optimizers.adam import corrected_ratio
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["AdaNormState", "adanorm", "scale_by_adanorm"]

LARGE = 2.0**100  # a factor that every dtype of gradients holds but float16, which comes as float32


class AdaNormState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of s; like params
    nu: TensorTree  # running mean of g^2; like params
    e: TensorTree  # running mean of the norm of each leaf; 0-dim


def scale_by_adanorm(
    b1: Scalar = 0.9, b2: Scalar = 0.99, eps: Scalar = 1e-8, eps_root: Scalar = 0.0, r: Scalar = 0.95, *, correct_eps: bool = False
) -> GradientTransformation[AdaNormState]:
    """Adam's direction, of gradients that are stretched to the running mean of their norm where they are shorter.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root, >= 0.
        eps_root: added under the root, >= 0.
        r: share of the past in the mean of the norm, in [0, 1).
        correct_eps: `eps` is divided by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.

    Returns:
        A transform from gradients to directions of order one, larger where gradients are shorter than of late, in the
        shapes and dtypes it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> adanorm = fo.scale_by_adanorm(b1=0.0, b2=0.0, r=0.5)
        >>> _, state = adanorm.update(torch.tensor([6.0, 8.0]), adanorm.init(torch.zeros(2)))  # e = 5
        >>> adanorm.update(torch.tensor([0.0, 1.0]), state)[0]  # e = 3, thrice the norm
        tensor([0., 3.])
    """
    where = "scale_by_adanorm"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "eps_root", eps_root)
    check.half_open(where, "r", r, 0, 1)

    def init(params: TensorTree) -> AdaNormState:
        e = tree.map_plain(lambda p: tree.scalar(0.0, p), params)
        return AdaNormState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(params), e=e)

    def stretched(g: Tensor, norm: Tensor, e: Tensor) -> Tensor:
        short = (norm > 0) & (norm < e)
        factor = torch.where(short, e, 1.0) / torch.where(short, norm, 1.0)
        # In two parts: the whole factor may be too large for the dtype of g, though what it makes of g is not.
        most = factor.clamp(max=LARGE)
        return (g * most * (factor / most)).to(g.dtype)

    def update(updates: TensorTree, state: AdaNormState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        norms = tree.map_plain(lambda g, e: tree.norm(g, dtype=e.dtype), updates, state.e)
        # A norm that is not finite is left out: it would be the mean for ever, and nothing be stretched any more.
        e = tree.map_plain(lambda norm, e: torch.where(norm.isfinite(), r * e + (1 - r) * norm, e).to(e.dtype), norms, state.e)
        s = tree.map(stretched, updates, norms, e)
        mu = moments.update_moment(s, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        ratio = corrected_ratio(updates, count, b1, b2, eps, eps_root, correct_eps=correct_eps)
        return tree.map(ratio, updates, mu, nu), AdaNormState(count=count, mu=mu, nu=nu, e=e)

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False)


def adanorm(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    eps_root: Scalar = 0.0,
    r: Scalar = 0.95,
    *,
    correct_eps: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdaNorm: `scale_by_adanorm`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps, eps_root, r, correct_eps: as in `scale_by_adanorm`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.adanorm(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    scaled = scale_by_adanorm(b1, b2, eps, eps_root, r, correct_eps=correct_eps)
    return chain(scaled, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
