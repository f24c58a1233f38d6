"""D-adaptation: AdamW that estimates how far the solution is, and takes that distance for its rate.

    k = lr * d * sqrt(1 - b2^t) / (1 - b1^t)                     (d_0 = estim_lr0; `lr` is a factor and stays near 1)
    r = sqrt(b2) r + (1 - sqrt(b2)) k <g, s / (sqrt(v) + eps)>   with s and v of the step before
    m = b1 m + (1 - b1) k g,   v = b2 v + (1 - b2) g^2
    s = sqrt(b2) s + (1 - sqrt(b2)) k g
    d' = max(d, r / ((1 - sqrt(b2)) sum |s|))
    u = m / (sqrt(v) + eps) + k weight_decay p

The rate is inside the mean m; so a step sizes itself, no `lr_scale` follows, and the state says `lr`, which is k.

Source: Defazio and Mishchenko, "Learning-rate-free learning by D-adaptation", 2023. Reference: optax.contrib.dadapt_adamw (0.2.8).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["DAdaptAdamWState", "dadapt_adamw"]


class DAdaptAdamWState(NamedTuple):
    exp_avg: TensorTree  # m; like params
    exp_avg_sq: TensorTree  # v; like params
    grad_sum: TensorTree  # s; like params
    estim_lr: Tensor  # d
    numerator_weighted: Tensor  # r
    count: Tensor  # steps taken
    lr: Tensor  # k of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def dadapt_adamw(
    lr: ScalarOrSchedule | None = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    estim_lr0: Scalar = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
) -> GradientTransformation:
    """AdamW at a rate of its own.

    Args:
        lr: a factor of the estimated rate, >= 0; leave it at 1, or give it the shape of a schedule.
            None: the `base_lr` it hears.
        betas: shares of the past in the mean of the gradient and of its square, in [0, 1).
        eps: added to the root, in units of the gradient, > 0.
        estim_lr0: first estimate, > 0; too small rather than too large.
        weight_decay: decoupled, times the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates. Holds three trees like `params`.

    After a NaN:
        That entry of this step is NaN, every later one is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.dadapt_adamw(estim_lr0=0.5)
        >>> params = torch.zeros(2)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]  # k = 0.5 sqrt(0.001) / 0.1, m / sqrt(v) = k 0.1 / sqrt(0.001)
        tensor([-0.5000,  0.5000])
    """
    where = "dadapt_adamw"
    b1, b2 = betas
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.half_open(where, "betas[0]", b1, 0, 1)
    check.half_open(where, "betas[1]", b2, 0, 1)
    check.positive(where, "eps", eps)
    check.positive(where, "estim_lr0", estim_lr0)
    check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
    root = b2**0.5
    decays = callable(weight_decay) or isinstance(weight_decay, Tensor) or weight_decay != 0

    def init(params: TensorTree) -> DAdaptAdamWState:
        return DAdaptAdamWState(
            exp_avg=tree.zeros_like(params),
            exp_avg_sq=tree.zeros_like(params),
            grad_sum=tree.zeros_like(params),
            estim_lr=tree.scalar(estim_lr0, params).clone(),
            numerator_weighted=tree.scalar(0.0, params),
            count=moments.zero_count(params),
            lr=tree.scalar(0.0, params),
        )

    def update(updates: TensorTree, state: DAdaptAdamWState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        factor = rates.now(where, lr, state.count, state.estim_lr, signals)
        count = moments.increment(state.count)
        correction = moments.bias_correction(count, b1, b2)
        k = (factor * state.estim_lr * correction[1].sqrt() / correction[0]).to(state.estim_lr.dtype)
        (first, summed) = entrywise.once(params, (1 - b1) * k, (1 - root) * k)

        weighted = tree.map(lambda s, v: s / (moments.safe_sqrt(v) + eps), state.grad_sum, state.exp_avg_sq)
        r = root * state.numerator_weighted + (1 - root) * k * tree.vdot(updates, weighted, state.estim_lr.dtype)
        m = tree.map(lambda g, m: (b1 * m + first * g).to(m.dtype), updates, state.exp_avg)
        v = tree.map(lambda g, v: (b2 * v + ((1 - b2) * g) * g).to(v.dtype), updates, state.exp_avg_sq)
        s = tree.map(lambda g, s: (root * s + summed * g).to(s.dtype), updates, state.grad_sum)
        length = (1 - root) * tree.sum(tree.map(torch.abs, s))
        none = length == 0
        estimate = torch.maximum(state.estim_lr, torch.where(none, 0.0, r / torch.where(none, 1.0, length)).to(state.estim_lr.dtype))

        moves = tree.map(lambda g, m, v: (-m / (moments.safe_sqrt(v) + eps)).to(g.dtype), updates, m, v)
        if decays:  # a link that holds nothing, for this step
            decay = add_decayed_weights(-check.value_at(where, "weight_decay", weight_decay, state.count) * k, weight_decay_mask)
            moves, _ = decay.update(moves, decay.init(params), params)
        new_state = DAdaptAdamWState(m, v, s, estimate, r.to(state.numerator_weighted.dtype), count, k)
        return moves, new_state

    return GradientTransformation(
        init, update, name=where, hears=rates.heard(lr), flattenable=weight_decay_mask is None, turns=True, own_rate=True
    )
