"""Ranger21: many published improvements of Adam in one.

    g_t clipped unit by unit to clipping * max(U(p_t), 1e-3),  centred (centralize.py),  divided by its standard deviation
    v_t  = b2 * v_{t-1} + (1 - b2) * g_t^2,                 x_t = max(x_{t-1}, v_t)
    sigma = sqrt((1 + sum v_t / (1 - b2^t)) / N)                                     (over all N entries of all leaves)
    p    = p_t (1 - lr weight_decay / sigma),   then   p = p (1 - 2 norm_loss lr (1 - 1 / (U(p) + eps)))
    g_t centred and divided by its standard deviation once more
    a_t  = b1^2 * a_{t-2} + (1 - b1^2) * g_t
    p_{t+1} = p - lr / (1 - b1^t) * ((1 + b0) a_t - b0 a_{t-1}) / sqrt((1 + b0)^2 + b0^2) / softplus(sqrt(x_t / (1 - b2^t)) + eps)
    every sync_period-th step halfway back to where the last such step led

U: length of a vector; of a leaf with two or three axes along the second; of one with more over all but the first.
softplus(y) = log(1 + e^(50 y)) / 50. With num_iterations = N the rate warms up over W = ceil(2 / (1 - b2)) steps (0.22 N where that is
more than 0.45 N) and from step s = 0.72 N on falls to min_lr:

    lr_t = lr min(1, t / W),    then lr - (lr - min_lr) min(1, (t + 1 - s) / (N - s + 1))

Source: Wright and Demeure, "Ranger21: a synergistic deep learning optimizer", 2021. Reference: pytorch_optimizer's Ranger21 (4.1); it
falls from the rate of the constructor, whatever the rate has become, and a rate below min_lr rises to it, where here it stays.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import length
from funcopt.transforms.centralize import centralize
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["Ranger21State", "ranger21"]

SHORTEST, NARROWEST = 1e-6, 1e-8  # of a gradient that is divided by, and of a standard deviation
SHARPNESS = 50.0  # of the softplus
WARM_UP, AT_MOST, FALLS_FROM = 0.22, 0.45, 0.72  # shares of the run


class Ranger21State(NamedTuple):
    count: Tensor  # steps taken
    a: TensorTree  # the last mean of the gradient; like params
    before: TensorTree  # the one before; like params
    v: TensorTree  # running mean of g^2; like params
    x: TensorTree  # the largest v so far; like params
    slow: TensorTree  # the slow weights; like params
    lr: Tensor  # rate of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def unit_length(x: Tensor) -> Tensor:
    """The length of each unit, in the dtype of `x`, with axes of length 1 in place of those it extends over."""
    axes = (1,) if x.dim() in (2, 3) else tuple(range(1, x.dim())) if x.dim() > 3 else None
    return length(x, axes, keepdim=axes is not None).to(x.dtype)


def standardized(g: Tensor) -> Tensor:
    """Divided by the standard deviation of the leaf, if it has more than two entries."""
    if g.numel() <= 2:
        return g
    return g / (length(g - g.mean()) / math.sqrt(g.numel() - 1) + NARROWEST).to(g.dtype)


def rates_of_a_run(count: Tensor, rate: Tensor, iterations: int, b2: Scalar, min_lr: Scalar) -> Tensor:
    """The rate of step `count`, in a run of so many."""
    t = count.to(rate.dtype)
    warm = 2 / (1 - tree.scalar(b2, rate))
    steps = torch.where(warm.ceil() > AT_MOST * iterations, float(int(WARM_UP * iterations)), warm.ceil()).clamp(min=1)
    start = int(FALLS_FROM * iterations)
    fallen = ((t + 1 - start).clamp(min=1) / (iterations - start + 1)).clamp(max=1)
    low = torch.minimum(tree.scalar(min_lr, rate), rate)
    return torch.where(t < start, rate * (t / steps).clamp(max=1), rate - (rate - low) * fallen)


def ranger21(
    lr: ScalarOrSchedule | None,
    num_iterations: int | None = None,
    b0: Scalar = 0.9,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    *,
    clipping: Scalar = 0.01,
    norm_loss: Scalar = 1e-4,
    sync_period: int = 5,
    slow_step_size: Scalar = 0.5,
    min_lr: Scalar = 3e-5,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation[Ranger21State]:
    """Ranger21, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        num_iterations: steps of the run, >= 2, over which the rate warms up and falls; None: the rate is as you give it.
        b0: how much of the last mean but one is taken away, in [0, 1).
        b1: its square is the share of the past in the means of the gradient, in [0, 1).
        b2: share of the past in the mean of the square, in [0, 1).
        eps: added to the root and to lengths of units, > 0.
        clipping: how long the gradient of a unit may be beside the unit, > 0.
        norm_loss: how strongly units are drawn to length 1, >= 0.
        sync_period: steps from one pull to the slow weights to the next, >= 1.
        slow_step_size: how far the slow weights move towards the params, in [0, 1].
        min_lr: where the rate falls to, >= 0.
        weight_decay: >= 0; a number, a 0-dim tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer. Holds five trees like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, after warm-up and fall.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params are given.

    Example:
        >>> tx = fo.ranger21(0.1, num_iterations=10, weight_decay=0.0, norm_loss=0.0)
        >>> params = torch.ones(2)
        >>> updates, state = tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)
        >>> state.lr  # half of it in the first of two steps of warm-up
        tensor(0.0500, dtype=torch.float64)
    """
    where = "ranger21"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    if num_iterations is not None:
        check.integer(where, "num_iterations", num_iterations, 2)
    for name, value in (("b0", b0), ("b1", b1), ("b2", b2)):
        check.half_open(where, name, value, 0, 1)
    check.positive(where, "eps", eps)
    check.positive(where, "clipping", clipping)
    check.nonnegative(where, "norm_loss", norm_loss)
    check.integer(where, "sync_period", sync_period, 1)
    check.within(where, "slow_step_size", slow_step_size, 0, 1)
    check.nonnegative(where, "min_lr", min_lr)
    check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
    centred = centralize()

    def init(params: TensorTree) -> Ranger21State:
        zeros = [tree.zeros_like(params) for _ in range(4)]
        return Ranger21State(moments.zero_count(params), *zeros, slow=tree.clone(params), lr=rates.first(where, lr, params))

    def clipped(g: Tensor, p: Tensor) -> Tensor:
        limit = clipping * unit_length(p).clamp(min=1e-3)
        size = unit_length(g).clamp(min=SHORTEST)
        return torch.where(size > limit, g * (limit / size), g).to(g.dtype)

    def normal(updates: TensorTree) -> TensorTree:
        return tree.map(standardized, centred.update(updates, centred.init(updates))[0])

    def update(updates: TensorTree, state: Ranger21State, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        rate = rates.now(where, lr, state.count, state.lr, signals)
        count = moments.increment(state.count)
        if num_iterations is not None:
            rate = rates_of_a_run(count, rate, num_iterations, b2, min_lr).to(rate.dtype)
        g = normal(tree.map(clipped, updates, params))
        v = moments.update_moment(g, state.v, b2, order=2)
        x = tree.map(torch.maximum, state.x, v)
        f1, f2 = moments.bias_factors(count, b1, b2)
        sigma = ((1 + tree.sum(v) * f2) / max(1, tree.size(v))).sqrt()
        size, shrunk, root, step_size = entrywise.once(updates, rate, (rate / sigma).to(rate.dtype), f2.sqrt(), (rate * f1).to(rate.dtype))
        decay = add_decayed_weights(check.value_at(where, "weight_decay", weight_decay, state.count), weight_decay_mask)
        pull, _ = decay.update(tree.zeros_like(updates), decay.init(updates), params)
        g = normal(g)
        a = moments.update_moment(g, state.before, b1 * b1)
        noise = ((1 + b0) ** 2 + b0 * b0) ** 0.5

        def moved(p: Tensor, pull: Tensor, a: Tensor, last: Tensor, x: Tensor) -> Tensor:
            decayed = -shrunk * pull
            p = p + decayed
            drawn = 2 * norm_loss * size * (1 - 1 / (unit_length(p) + eps)) * p
            denominator = torch.nn.functional.softplus(root * moments.safe_sqrt(x) + eps, beta=SHARPNESS)
            ahead = ((1 + b0) * a - b0 * last) / noise
            return (decayed - drawn - step_size * ahead / denominator).to(p.dtype)

        steps = tree.map(moved, params, pull, a, state.a, x)
        syncs = count % sync_period == 0
        landed = tree.map(lambda p, u, slow: p + u - slow, params, steps, state.slow)
        steps = tree.map(lambda g, u, d: torch.where(syncs, u - (1 - slow_step_size) * d, u).to(g.dtype), updates, steps, landed)
        slow = tree.map(lambda slow, d: torch.where(syncs, slow + slow_step_size * d, slow).to(slow.dtype), state.slow, landed)
        return steps, Ranger21State(count, a=a, before=state.a, v=v, x=x, slow=slow, lr=rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), turns=True)
