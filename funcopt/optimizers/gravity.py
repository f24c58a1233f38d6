"""Gravity: a velocity that follows gradients of a middle size, and forgets those that are large in their leaf.

    z_t  = g_t / (1 + (g_t * max|g_t|)^2)            (the maximum over the leaf)
    b_t  = (beta * t + 1) / (t + 2)
    V_t  = b_t * V_{t-1} + (1 - b_t) * z_t,          V_0 normal with standard deviation alpha / lr
    p_t+1 = p_t - lr * V_t

V_0 is sized by the rate of the first step, so that the first steps are of the size of alpha whatever the rate.

Source: Bahrami and Pourshams Zadeh, "Gravity Optimizer: a Kinematic Approach on Optimization in Deep Learning", 2021. Reference:
pytorch_optimizer's Gravity (4.1), whose generator is another.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, random, rates, tree
from funcopt.core.math import entrywise
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers.sized_decay import decay_sized

__all__ = ["GravityState", "gravity", "scale_by_gravity"]


class GravityState(NamedTuple):
    count: Tensor  # steps taken
    V: TensorTree  # the velocity, before the first step standard normal; like params
    lr: Tensor  # size of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def scale_by_gravity(
    lr: ScalarOrSchedule | None, alpha: Scalar = 0.01, beta: Scalar = 0.9, key: int | Tensor | None = None
) -> GradientTransformation[GravityState]:
    """Steps along a velocity that begins at random.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        alpha: size of the first steps, in units of params, >= 0.
        beta: share of the past in the velocity, after many steps, in [0, 1].
        key: where the first velocity comes from: an int, a 0-dim integer tensor or a key; None draws
            one from torch's generator, now.

    Returns:
        A transform from gradients to updates, downhill and in units of the params. Holds one tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> gravity = fo.scale_by_gravity(1.0, alpha=0.0)
        >>> gravity.update(torch.tensor([1.0, 0.5]), gravity.init(torch.zeros(2)))[0]  # z = 1/2 and 0.4; b = 1.9 / 3
        tensor([-0.1833, -0.1467])
    """
    where = "scale_by_gravity"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.nonnegative(where, "alpha", alpha)
    check.within(where, "beta", beta, 0, 1)
    key = random.as_key(key, where)

    def init(params: TensorTree) -> GravityState:
        in_one_piece(where, params)
        return GravityState(count=moments.zero_count(params), V=tree.random_like(key, params), lr=rates.first(where, lr, params))

    def update(updates: TensorTree, state: GravityState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        rate = rates.now(where, lr, state.count, state.lr, signals)
        count = moments.increment(state.count)
        t = count.to(rate.dtype)
        still = rate == 0
        started = torch.where(state.count == 0, alpha * torch.where(still, 0, 1 / torch.where(still, 1, rate)), 1.0)
        kept = (beta * t + 1) / (t + 2)
        begun, old, new, size = entrywise.once(updates, started.to(rate.dtype), kept, 1 - kept, -rate)

        def velocity(g: Tensor, V: Tensor) -> Tensor:
            z = g / (1 + (g * tree.norm(g, torch.inf)).square())
            return (old * (begun * V) + new * z).to(V.dtype)

        V = tree.map(velocity, updates, state.V)
        return tree.map(lambda g, V: (size * V).to(g.dtype), updates, V), GravityState(count=count, V=V, lr=rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), per_leaf=False, turns=True)


def gravity(
    lr: ScalarOrSchedule | None,
    alpha: Scalar = 0.01,
    beta: Scalar = 0.9,
    key: int | Tensor | None = None,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Gravity: `scale_by_gravity`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill, and decoupled decay.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        alpha, beta, key: as in `scale_by_gravity`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.gravity(1.0, alpha=0.0)
        >>> tx.update(torch.tensor([1.0, 0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1833, -0.1467])
    """
    return chain(scale_by_gravity(lr, alpha, beta, key), decay_sized("gravity", weight_decay, weight_decay_mask))
