"""AdamP: Adam that does not push weights outwards where only their direction counts.

    mu_t, nu_t, m, v as in adam.py
    u = m / (sqrt(v) + eps),   Nesterov: b1 * mu_t + (1 - b1) * g_t in place of mu_t
    for the rows of a leaf (first axis against the rest), then for the leaf as one row:
        if the largest |cos(g_t, p_t)| of the rows is below delta / sqrt(length of a row):
            u = u - n <n, u>,   n = p_t / (||p_t|| + eps)        row by row;  the decay counts wd_ratio;  stop
    u_t = u + weight_decay * p_t        (times wd_ratio where u was turned)

Weights before a normalisation are such that a gradient is at right angles to them. Vectors and scalars are left to Adam.

Source: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights", 2021. Reference:
pytorch_optimizer's AdamP (4.1) with correct_eps=True.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math.lengths import length as length_of
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers.adam import ScaleByAdamState, corrected_ratio
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["adamp", "scale_by_adamp"]


def unit_rows(x: Tensor, eps: Scalar = 0.0) -> Tensor:
    """The rows of a matrix divided by their lengths and `eps`; zero where that is zero."""
    length = length_of(x, 1, keepdim=True) + eps
    return x / torch.where(length == 0, 1, length).to(x.dtype)


def scale_by_adamp(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    delta: Scalar = 0.1,
    wd_ratio: Scalar = 0.1,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    nesterov: bool = False,
    correct_eps: bool = False,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
) -> GradientTransformation[ScaleByAdamState]:
    """Adam's direction without the part that would only make scale-invariant weights longer.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the root and to the lengths of weights, >= 0.
        delta: how near to a right angle gradients and weights must be, >= 0; 0 leaves Adam.
        wd_ratio: what is left of the decay where the direction was turned, >= 0.
        weight_decay: share of the params that is added to the direction, >= 0; a schedule is called with the count of completed steps.
        nesterov: look one step ahead.
        correct_eps: `eps` is divided by sqrt(1 - b2^t) as the RMS is, so that it counts more in early steps.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given. Holds two trees like `params`.

    After a NaN:
        That entry of this step is NaN, its leaf of every later one is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> adamp = fo.scale_by_adamp(b1=0.0, b2=0.0)
        >>> params = torch.tensor([[3.0, 4.0]])
        >>> adamp.update(torch.tensor([[4.0, -3.0]]), adamp.init(params), params)[0]  # (1, -1) less its part along the weights
        tensor([[ 1.1200, -0.8400]])
    """
    where = "scale_by_adamp"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    for name, value in (("eps", eps), ("delta", delta), ("wd_ratio", wd_ratio)):
        check.nonnegative(where, name, value)
    check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
    decays = not (isinstance(weight_decay, (int, float)) and weight_decay == 0)

    def init(params: TensorTree) -> ScaleByAdamState:
        in_one_piece(where, params)
        return ScaleByAdamState(count=moments.zero_count(params), mu=tree.zeros_like(params), nu=tree.zeros_like(params))

    def turned(g: Tensor, p: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The direction, and what counts of the decay."""
        whole = torch.ones((), dtype=u.dtype, device=u.device)
        if p.dim() < 2 or p.numel() == 0:
            return u, whole
        result, done = u, torch.zeros((), dtype=torch.bool, device=u.device)
        for rows in ((p.shape[0], -1), (1, -1)):
            gradient, weights, direction = (x.reshape(rows) for x in (g, p, u))
            cosine = (unit_rows(gradient) * unit_rows(weights)).sum(1).abs().amax()
            here = ~done & (cosine < delta / weights.shape[1] ** 0.5)
            n = unit_rows(weights, eps)
            sideways = direction - n * (n * direction).sum(1, keepdim=True)
            result, done = torch.where(here, sideways.reshape(u.shape), result), done | here
        return result, torch.where(done, wd_ratio * whole, whole)

    def update(updates: TensorTree, state: ScaleByAdamState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        nu = moments.update_moment(updates, state.nu, b2, order=2)
        ahead = moments.update_moment(updates, mu, b1) if nesterov else mu
        ratio = corrected_ratio(updates, count, b1, b2, eps, correct_eps=correct_eps)
        adams = tree.map(ratio, updates, ahead, nu)
        found = [turned(*leaves) for leaves in zip(tree.leaves(updates), tree.leaves(params), tree.leaves(adams), strict=True)]
        direction = tree.unflatten(updates, [u for u, _ in found])
        if decays:
            decay = add_decayed_weights(check.value_at(where, "weight_decay", weight_decay, state.count), weight_decay_mask)
            pull, _ = decay.update(tree.zeros_like(updates), decay.init(updates), params)
            share = tree.unflatten(updates, [share for _, share in found])
            direction = tree.map(lambda u, pull, share: u + share * pull, direction, pull, share)
        return direction, ScaleByAdamState(count=count, mu=mu, nu=nu)

    return GradientTransformation(init, update, name=where, per_leaf=weight_decay_mask is None, turns=False)


def adamp(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    delta: Scalar = 0.1,
    wd_ratio: Scalar = 0.1,
    *,
    nesterov: bool = False,
    correct_eps: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdamP: `scale_by_adamp`, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        b1, b2, eps, delta, wd_ratio, nesterov, correct_eps: as in `scale_by_adamp`.
        weight_decay: decoupled, >= 0; a leaf that is turned decays by `wd_ratio` of it.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds two trees like `params`.

    After a NaN:
        That entry of this step is NaN, its leaf of every later one is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.adamp(0.1)
        >>> params = torch.zeros(2)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]
        tensor([-0.1000,  0.1000])
    """
    scaled = scale_by_adamp(
        b1, b2, eps, delta, wd_ratio, weight_decay, nesterov=nesterov, correct_eps=correct_eps, weight_decay_mask=weight_decay_mask
    )
    return chain(scaled, lr_scale(lr))
