"""MoMo and MoMo-Adam: momentum whose rate falls by itself where the loss nears its lower bound.

    m = beta m + (1 - beta) g,   f = beta f + (1 - beta) loss,   gamma = beta gamma + (1 - beta) <g, p>     (all new at t = 1)
    q = sum m^2,   a = 1 + lr * weight_decay
    tau = min(lr, max(a (f - lb - gamma) + <m, p>, 0) / q)          (0 where q is)
    u   = (1 - 1 / a) p + tau m

    Adam: no special first step; f and gamma are compared with c1 lb, q = sum m^2 / D, D = eps + sqrt(v / c2),
    tau = min(lr / c1, ...), u = (1 - 1 / a) p + tau m / D,   c = 1 - b^t

With adapt_lower_bound lb is lowered or raised towards what the model of the loss allows, and never below
`lower_bound`. Steps are sized inside: the state says tau as `lr`.

Source: Schaipp et al. 2023. Reference: optax.contrib.momo, momo_adam (0.2.8), whose `value` is our `loss`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, tree
from funcopt.core.signals import hear, need
from funcopt.transforms.groups import mask_function

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam"]

NEGLIGIBLE = torch.finfo(torch.float64).eps  # a squared norm that is taken for 0


class MomoState(NamedTuple):
    exp_avg: TensorTree  # m; like params
    barf: Tensor  # running mean of the loss
    gamma: Tensor  # running mean of <g, p>
    lb: Tensor  # lower bound of the loss
    count: Tensor  # steps taken
    lr: Tensor  # tau of the step just taken; before it the rate

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


class MomoAdamState(NamedTuple):
    exp_avg: TensorTree  # m; like params
    exp_avg_sq: TensorTree  # v; like params
    barf: Tensor  # running mean of the loss
    gamma: Tensor  # running mean of <g, p>
    lb: Tensor  # lower bound of the loss
    count: Tensor  # steps taken
    lr: Tensor  # tau of the step just taken; before it the rate

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def _sized(rate, shrinking, c1, barf, gamma, lb, inner, square, lower_bound, adapt) -> tuple[Tensor, Tensor]:
    """tau and the new lower bound; `inner` is <m, p>, `square` is q."""
    bound = lb
    if adapt:
        cap = shrinking * (barf - gamma) + inner
        bound = torch.where(cap < shrinking * c1 * lb, (cap / (2 * c1 * shrinking)).clamp(min=lower_bound), lb)
    none = square <= NEGLIGIBLE
    polyak = (shrinking * (barf - c1 * bound - gamma) + inner).clamp(min=0) / torch.where(none, 1.0, square)
    tau = torch.minimum(rate / c1, torch.where(none, 0.0, polyak))
    if adapt:
        lb = ((barf + inner - gamma - 0.5 * tau * square) / c1).clamp(min=lower_bound)
    return tau, lb


class _Rate:
    """What both methods do with `lr`, `loss` and the decay."""

    def __init__(self, where: str, lr: ScalarOrSchedule | None, lower_bound: Scalar, weight_decay: ScalarOrSchedule, mask):
        if lr is not None:
            check.schedule_or(check.nonnegative, where, "lr", lr)
        check.finite(where, "lower_bound", lower_bound)
        check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
        self.where, self.lr, self.weight_decay = where, lr, weight_decay
        self.scheduled, self.decay_scheduled = callable(lr), callable(weight_decay)
        self.kept = None if mask is None else mask_function(where, mask)
        self.hears = {"lr_multiplier": "if said"} | ({"base_lr": "needed"} if lr is None else {})

    def first(self, params: TensorTree) -> Tensor:
        value = 0.0 if self.lr is None else self.lr(moments.zero_count(params)) if self.scheduled else self.lr
        return tree.scalar(value, params).clone()

    def now(self, count: Tensor, like: Tensor, signals) -> tuple[Tensor, Tensor]:
        """The rate, and 1 + rate * weight_decay."""
        if self.lr is None:
            rate = need(signals, self.where, "base_lr", "pass lr=, or hand it over: update(..., signals={'base_lr': lr})")
        else:
            rate = self.lr(count) if self.scheduled else self.lr
        rate = (tree.scalar(rate, like) * hear(signals, "lr_multiplier", 1.0)).to(like.dtype)
        return rate, 1 + rate * (self.weight_decay(count) if self.decay_scheduled else self.weight_decay)

    def step(self, updates: TensorTree, params: TensorTree, direction: TensorTree, tau: Tensor, shrinking: Tensor) -> TensorTree:
        (size, shrink) = moments.once(params, tau, 1 - 1 / shrinking)
        kept = [True] * len(tree.leaves(params)) if self.kept is None else self.kept(updates)
        leaves = zip(tree.leaves(updates), tree.leaves(params), tree.leaves(direction), kept, strict=True)
        return tree.unflatten(updates, [(-size * m - (shrink * p if keep else 0)).to(g.dtype) for g, p, m, keep in leaves])


def momo(
    lr: ScalarOrSchedule | None = 1.0,
    beta: Scalar = 0.9,
    lower_bound: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    weight_decay_mask: TensorTree | Callable | None = None,
) -> GradientTransformation:
    """SGD with momentum and a Polyak-type rate, at most `lr`.

    Args:
        lr: the largest rate, >= 0, rather too large than too small; None: the `base_lr` it hears.
        beta: share of the past in all running means, in [0, 1).
        lower_bound: of the loss; 0 is good for most.
        weight_decay: decoupled, implicit: a step divides the params by 1 + lr * weight_decay; >= 0.
        adapt_lower_bound: estimate the bound on the way.
        weight_decay_mask: which leaves are divided, as `masked` takes it; None: all. The rate is
            found as if all were.

    Returns:
        A ready-made optimizer whose `update` needs `loss=`. Holds one tree like `params`.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says it, `lr_multiplier`; says `lr`, the rate of the step just taken.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no loss is given.

    Example:
        >>> tx = fo.momo()
        >>> params = torch.tensor([2.0])  # of p^2, whose minimum a Polyak step halves the way to
        >>> tx.update(torch.tensor([4.0]), tx.init(params), params, loss=torch.tensor(4.0))[0]
        tensor([-1.])
    """
    where = "momo"
    check.half_open(where, "beta", beta, 0, 1)
    rates = _Rate(where, lr, lower_bound, weight_decay, weight_decay_mask)

    def init(params: TensorTree) -> MomoState:
        return MomoState(
            exp_avg=tree.zeros_like(params),
            barf=tree.scalar(0.0, params),
            gamma=tree.scalar(0.0, params),
            lb=tree.scalar(lower_bound, params).clone(),
            count=moments.zero_count(params),
            lr=rates.first(params),
        )

    def update(updates: TensorTree, state: MomoState, params=None, *, loss=None, signals=None, **extra):
        check.params(where, params)
        check.loss(where, loss)
        past = torch.where(state.count == 0, 0.0, tree.scalar(beta, state.lr))
        m = moments.update_moment(updates, state.exp_avg, past)
        barf = past * state.barf + (1 - past) * tree.scalar(loss, state.lr)
        gamma = past * state.gamma + (1 - past) * tree.vdot(updates, params)
        rate, shrinking = rates.now(state.count, state.lr, signals)
        tau, lb = _sized(rate, shrinking, 1.0, barf, gamma, state.lb, tree.vdot(m, params), tree.squared_norm(m), lower_bound, adapt_lower_bound)
        tau = tau.to(state.lr.dtype)
        dtype = state.lb.dtype
        new_state = MomoState(exp_avg=m, barf=barf.to(dtype), gamma=gamma.to(dtype), lb=lb.to(dtype), count=moments.increment(state.count), lr=tau)
        return rates.step(updates, params, m, tau, shrinking), new_state

    return GradientTransformation(init, update, name=where, hears=rates.hears, leafwise=weight_decay_mask is None)


def momo_adam(
    lr: ScalarOrSchedule | None = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    weight_decay_mask: TensorTree | Callable | None = None,
) -> GradientTransformation:
    """Adam with a Polyak-type rate, at most `lr`.

    Args:
        lr: the largest rate, >= 0; None: the `base_lr` it hears.
        b1: share of the past in the means of gradient and loss, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, > 0.
        lower_bound, weight_decay, adapt_lower_bound, weight_decay_mask: as in `momo`.

    Returns:
        A ready-made optimizer whose `update` needs `loss=`. Holds two trees like `params`.

    Signals:
        as `momo`.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no loss is given.

    Example:
        >>> tx = fo.momo_adam(0.1)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([4.0]), tx.init(params), params, loss=torch.tensor(4.0))[0]
        tensor([-0.1000])
    """
    where = "momo_adam"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.positive(where, "eps", eps)
    rates = _Rate(where, lr, lower_bound, weight_decay, weight_decay_mask)

    def init(params: TensorTree) -> MomoAdamState:
        return MomoAdamState(
            exp_avg=tree.zeros_like(params),
            exp_avg_sq=tree.zeros_like(params),
            barf=tree.scalar(0.0, params),
            gamma=tree.scalar(0.0, params),
            lb=tree.scalar(lower_bound, params).clone(),
            count=moments.zero_count(params),
            lr=rates.first(params),
        )

    def update(updates: TensorTree, state: MomoAdamState, params=None, *, loss=None, signals=None, **extra):
        check.params(where, params)
        check.loss(where, loss)
        count = moments.increment(state.count)
        correction = moments.bias_correction(count, b1, b2)
        c1, c2 = correction[0], correction[1]
        m = moments.update_moment(updates, state.exp_avg, b1)
        v = moments.update_moment(updates, state.exp_avg_sq, b2, order=2)
        direction = tree.map(lambda m, v: moments.over_root(m, v / c2, eps).to(m.dtype), m, v)
        barf = b1 * state.barf + (1 - b1) * tree.scalar(loss, state.lr)
        gamma = b1 * state.gamma + (1 - b1) * tree.vdot(updates, params)
        rate, shrinking = rates.now(state.count, state.lr, signals)
        tau, lb = _sized(rate, shrinking, c1, barf, gamma, state.lb, tree.vdot(m, params), tree.vdot(m, direction), lower_bound, adapt_lower_bound)
        tau = tau.to(state.lr.dtype)
        dtype = state.lb.dtype
        new_state = MomoAdamState(exp_avg=m, exp_avg_sq=v, barf=barf.to(dtype), gamma=gamma.to(dtype), lb=lb.to(dtype), count=count, lr=tau)
        return rates.step(updates, params, direction, tau, shrinking), new_state

    return GradientTransformation(init, update, name=where, hears=rates.hears, leafwise=weight_decay_mask is None)
