"""AdGD: gradient descent whose rate is found from how much the gradient changes along the way.

    f_t  = min(f_{t-1} * sqrt(1 + amplifier * theta_{t-1}),  ||p_t - p_{t-1}|| / (damping * lr * ||g_t - g_{t-1}||)) + eps / lr
    theta_t = f_t / f_{t-1},     p_{t+1} = p_t - lr * f_t * g_t,     f_0 = theta_0 = 1

Norms are over all leaves; where nothing moved, or no gradient differed, only the first of the two counts, without eps.
In theory (no noise) amplifier = 1, damping = 2, eps = 0.

Source: Malitsky and Mishchenko, "Adaptive Gradient Descent without Descent", 2020. Reference: pytorch_optimizer's ASGD (4.1) with
norms="apart": it takes the difference of the norms where the paper takes the norm of the difference, in float32, and bounds the rate
only where both norms grew. (torch.optim.ASGD is another method: averaged SGD.)
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, rates, tree
from funcopt.core.math import entrywise
from funcopt.optimizers.sized_decay import decay_sized

__all__ = ["AdgdState", "adgd", "scale_by_adgd"]

Norms = Literal["of differences", "apart"]


class AdgdState(NamedTuple):
    count: Tensor  # steps taken
    p: TensorTree  # the last params, or their norm
    g: TensorTree  # the last gradient, or its norm
    f: Tensor  # what the rate is multiplied by
    theta: Tensor  # by how much it changed
    lr: Tensor  # size of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def scale_by_adgd(
    lr: ScalarOrSchedule | None, amplifier: Scalar = 0.02, damping: Scalar = 1.0, eps: Scalar = 1e-5, *, norms: Norms = "of differences"
) -> GradientTransformation[AdgdState]:
    """Steps along the gradient, as long as the gradient changes little, longer and longer.

    Args:
        lr: the rate of the first step, >= 0; a number, a 0-dim tensor or a schedule, which the factor found stretches; None: the
            `base_lr` it hears.
        amplifier: how fast the rate may grow, >= 0.
        damping: by what the inverse of the curvature along the way is divided, > 0.
        eps: added to a rate that was bounded, >= 0, so that it does not vanish.
        norms: "of differences" as in the paper; "apart" as in pytorch_optimizer: the difference of the norms, each rounded to float32.

    Returns:
        A transform from gradients to updates, downhill and in units of the params. Holds two trees like `params`,
        with norms="apart" none.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, the size of the step
        just taken.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_adgd(0.25, amplifier=0.0, eps=0.0)
        >>> params = torch.tensor([1.0])
        >>> updates, state = tx.update(8 * params, tx.init(params), params)  # curvature 8
        >>> params = fo.apply_updates(params, updates)
        >>> tx.update(8 * params, state, params)[1].lr
        tensor(0.1250, dtype=torch.float64)
    """
    where = "scale_by_adgd"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.nonnegative(where, "amplifier", amplifier)
    check.positive(where, "damping", damping)
    check.nonnegative(where, "eps", eps)
    check.choice(where, "norms", norms, get_args(Norms))
    apart = norms == "apart"

    def init(params: TensorTree) -> AdgdState:
        one = tree.scalar(1.0, params)
        held = [one.clone(), one.clone()] if apart else [tree.clone(params), tree.zeros_like(params)]
        return AdgdState(moments.zero_count(params), *held, f=one.clone(), theta=one.clone(), lr=rates.first(where, lr, params))

    def seen(updates: TensorTree, params: TensorTree, state: AdgdState) -> tuple[Tensor, Tensor, TensorTree, TensorTree]:
        """How far the params and the gradient have come, and what to keep of them."""
        if apart:
            p, g = (tree.scalar(numerics.wide_norm(x).to(torch.float32), state.f) for x in (params, updates))
            return p - state.p, g - state.g, p, g
        moved, changed = (
            numerics.wide_norm(tree.map_plain(lambda x, y: x - y, new, old)) for new, old in ((params, state.p), (updates, state.g))
        )
        return moved, changed, tree.cast_like(tree.clone(params), state.p), tree.cast_like(tree.clone(updates), state.g)

    def update(updates: TensorTree, state: AdgdState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        base = rates.now(where, lr, state.count, state.lr, signals)
        moved, changed, p, g = seen(updates, params, state)
        grown = state.f * (1 + amplifier * state.theta).sqrt()
        bounded = ~((moved <= 0) | (changed <= 0)) & (state.count > 0) & (base != 0)  # a NaN goes on
        base_or_one = torch.where(base == 0, 1, base)
        limit = torch.where(bounded, moved, 1) / (damping * base_or_one * torch.where(bounded, changed, 1))
        f = torch.where(bounded, torch.minimum(grown, limit) + eps / base_or_one, grown).to(state.f.dtype)
        theta = torch.where(state.f == 0, 1, f / torch.where(state.f == 0, 1, state.f))
        rate = base * f
        (size,) = entrywise.once(updates, -rate)
        return tree.map(lambda g: size * g, updates), AdgdState(moments.increment(state.count), p, g, f, theta, rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), flattenable=True, turns=True, own_rate=True)


def adgd(
    lr: ScalarOrSchedule | None,
    amplifier: Scalar = 0.02,
    damping: Scalar = 1.0,
    eps: Scalar = 1e-5,
    *,
    norms: Norms = "of differences",
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """AdGD: `scale_by_adgd`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill, and decoupled decay.

    Args:
        lr: the rate of the first step, >= 0; a number, a 0-dim tensor or a schedule, which the factor found stretches.
        amplifier, damping, eps, norms: as in `scale_by_adgd`.
        weight_decay: decoupled, >= 0; multiplied by the rate found.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds two trees like `params`, with norms="apart" none.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, the size of the step
        just taken.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.adgd(0.25, amplifier=0.0)
        >>> params = torch.tensor([1.0])
        >>> tx.update(8 * params, tx.init(params), params)[0]
        tensor([-2.])
    """
    return chain(scale_by_adgd(lr, amplifier, damping, eps, norms=norms), decay_sized("adgd", weight_decay, weight_decay_mask))
