"""Prodigy: Adam that estimates its own rate from how far it has come.

    k = lr * d * sqrt(1 - b2^t) / (1 - b1^t)          (d_0 = estim_lr0; `lr` is a factor and stays near 1)
    m = b1 m + (1 - b1) d g,   v = b2 v + (1 - b2) d^2 g^2
    s = b3 s + (d / d0) k g            (safeguard_warmup: d in place of k)
    r = b3 r + (d / d0) k <g, p_0 - p>
    d' = max(d, estim_lr_coef * r / sum |s|)
    u = k (weight_decay * p + m / (sqrt(v) + d' eps))

Source: Mishchenko and Defazio 2023. Reference: optax.contrib.prodigy (0.2.8), which corrects the bias always;
the authors' code does not unless asked: bias_correction=False.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ProdigyState", "prodigy", "scale_by_prodigy"]


class ProdigyState(NamedTuple):
    exp_avg: TensorTree  # m; like params
    exp_avg_sq: TensorTree  # v; like params
    grad_sum: TensorTree  # s; like params
    params0: TensorTree  # where the run began; like params
    estim_lr: Tensor  # d
    numerator_weighted: Tensor  # r
    count: Tensor  # steps taken


def scale_by_prodigy(
    lr: ScalarOrSchedule | None = None,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
    bias_correction: bool = True,
) -> GradientTransformation[ProdigyState]:
    """Adam's direction times an estimate of the rate it should have.

    Args:
        lr: the factor by which what follows multiplies the direction (`lr_scale` with the
            same); the estimate depends on it. None: the `base_lr` it hears.
        betas: shares of the past in the mean of the gradient and of its square, in [0, 1).
        beta3: share of the past in the estimate's sums, in [0, 1); None: the root of the second beta.
        eps: added to the root, in units of the gradient, > 0.
        estim_lr0: first estimate, > 0; too small rather than too large.
        estim_lr_coef: factor of the estimate, > 0.
        weight_decay: decoupled, times the estimated rate, >= 0.
        safeguard_warmup: leave `lr` out of the denominator of the estimate, for long warm-ups.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        bias_correction: correct the means of Adam.

    Returns:
        A transform from gradients to directions in units of the params. Holds four trees
        like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> prodigy = fo.scale_by_prodigy(lr=1.0, estim_lr0=0.5)
        >>> params = torch.zeros(2)
        >>> prodigy.update(torch.tensor([3.0, -0.5]), prodigy.init(params), params)[0]
        tensor([ 0.5000, -0.5000])
    """
    where = "scale_by_prodigy"
    b1, b2 = betas
    check.half_open(where, "betas[0]", b1, 0, 1)
    check.half_open(where, "betas[1]", b2, 0, 1)
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    b3 = b2**0.5 if beta3 is None else beta3
    check.half_open(where, "beta3", b3, 0, 1)
    for name, value in (("eps", eps), ("estim_lr0", estim_lr0), ("estim_lr_coef", estim_lr_coef)):
        check.positive(where, name, value)
    check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
    decays = callable(weight_decay) or isinstance(weight_decay, Tensor) or weight_decay != 0

    def init(params: TensorTree) -> ProdigyState:
        return ProdigyState(
            exp_avg=tree.zeros_like(params),
            exp_avg_sq=tree.zeros_like(params),
            grad_sum=tree.zeros_like(params),
            params0=tree.clone(params),
            estim_lr=tree.scalar(estim_lr0, params).clone(),
            numerator_weighted=tree.scalar(0.0, params),
            count=moments.zero_count(params),
        )

    def update(updates: TensorTree, state: ProdigyState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        rate = rates.now(where, lr, state.count, state.estim_lr, signals)
        count = moments.increment(state.count)
        d = state.estim_lr
        correction = moments.bias_correction(count, b1, b2)
        size = d * correction[1].sqrt() / correction[0] if bias_correction else d
        share = rate * size * d / estim_lr0
        (summed, first, second) = entrywise.once(params, d * d / estim_lr0 if safeguard_warmup else share, d, d * d)

        m = tree.map(lambda g, m: (b1 * m + (1 - b1) * first * g).to(m.dtype), updates, state.exp_avg)
        v = tree.map(lambda g, v: (b2 * v + ((1 - b2) * second * g) * g).to(v.dtype), updates, state.exp_avg_sq)
        s = tree.map(lambda g, s: (b3 * s + summed * g).to(s.dtype), updates, state.grad_sum)
        gained = tree.vdot(updates, tree.sub(state.params0, params), state.estim_lr.dtype)
        r = b3 * state.numerator_weighted + share * gained
        length = tree.sum(tree.map(torch.abs, s))
        none = length == 0
        estimate = torch.maximum(d, torch.where(none, 0.0, estim_lr_coef * r / torch.where(none, 1.0, length)).to(d.dtype))

        (scaled, floor) = entrywise.once(params, size, estimate * eps)
        direction = tree.map(lambda g, m, v: (scaled * entrywise.over_root(m, v, floor)).to(g.dtype), updates, m, v)
        if decays:  # a link that holds nothing, for this step
            decay = add_decayed_weights(check.value_at(where, "weight_decay", weight_decay, state.count) * size, weight_decay_mask)
            direction, _ = decay.update(direction, decay.init(params), params)
        new_state = ProdigyState(
            exp_avg=m,
            exp_avg_sq=v,
            grad_sum=s,
            params0=state.params0,
            estim_lr=estimate,
            numerator_weighted=r.to(state.numerator_weighted.dtype),
            count=count,
        )
        return direction, new_state

    return GradientTransformation(
        init, update, name=where, hears=rates.heard(lr), flattenable=weight_decay_mask is None, turns=False, own_rate=True
    )


def prodigy(
    lr: ScalarOrSchedule | None = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Scalar | None = None,
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    estim_lr_coef: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    safeguard_warmup: bool = False,
    *,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
    bias_correction: bool = True,
) -> GradientTransformation:
    """Prodigy: `scale_by_prodigy`, then a step of size `lr` downhill.

    Args:
        lr: factor of the estimated rate, >= 0; leave it at 1, or give it the shape of a schedule; None: the `base_lr` it
            hears.
        betas: shares of the past in the mean of the gradient and of its square, in [0, 1).
        beta3: share of the past in the estimate's sums, in [0, 1); None: the root of the second beta.
        eps: added to the root, in units of the gradient, > 0.
        estim_lr0: first estimate, > 0; too small rather than too large.
        estim_lr_coef: factor of the estimate, > 0.
        weight_decay: decoupled, times the estimated rate, >= 0.
        safeguard_warmup: leave `lr` out of the denominator of the estimate, for long warm-ups.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        bias_correction: correct the means of Adam.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds four
        trees like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.prodigy(estim_lr0=0.5)
        >>> params = torch.zeros(2)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]
        tensor([-0.5000,  0.5000])
    """
    scaled = scale_by_prodigy(
        lr,
        betas,
        beta3,
        eps,
        estim_lr0,
        estim_lr_coef,
        weight_decay,
        safeguard_warmup,
        weight_decay_mask=weight_decay_mask,
        bias_correction=bias_correction,
    )
    return chain(scaled, lr_scale(lr))
