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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, rates, tree
from funcopt.core.math import entrywise
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


def _told(loss: Any, mean: Tensor) -> Tensor:
    """The loss of this step; one that is NaN or infinite tells nothing and counts as the mean so far, which it would spoil for ever."""
    loss = tree.scalar(loss, mean)
    return torch.where(loss.isfinite(), loss, mean)


def _sized(
    rate: Tensor,
    shrinking: Tensor,
    c1: Scalar,
    barf: Tensor,
    gamma: Tensor,
    lb: Tensor,
    inner: Tensor,
    square: Tensor,
    lower_bound: Scalar,
    adapt: bool,
) -> tuple[Tensor, Tensor]:
    """tau and the new lower bound; `inner` is <m, p>, `square` is q."""
    lb = bound = lb if adapt else tree.scalar(lower_bound, lb).clone()
    if adapt:
        cap = shrinking * (barf - gamma) + inner
        bound = torch.where(cap < shrinking * c1 * lb, (cap / (2 * c1 * shrinking)).clamp(min=lower_bound), lb)
    none = square <= NEGLIGIBLE
    polyak = (shrinking * (barf - c1 * bound - gamma) + inner).clamp(min=0) / torch.where(none, 1.0, square)
    tau = torch.minimum(rate / c1, torch.where(none, 0.0, polyak))
    if adapt:
        found = ((barf + inner - gamma - 0.5 * tau * square) / c1).clamp(min=lower_bound)
        lb = torch.where(found.isfinite() | ~inner.isfinite(), found, lb)  # a square that overflows tells nothing of the bound
    return tau, lb


class _Steps:
    """What both methods do with `lr`, `loss` and the decay."""

    def __init__(self, where: str, lr: ScalarOrSchedule | None, lower_bound: Scalar, weight_decay: ScalarOrSchedule, mask: Any):
        if lr is not None:
            check.schedule_or(check.nonnegative, where, "lr", lr)
        check.finite(where, "lower_bound", lower_bound)
        check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
        self.where, self.lr, self.weight_decay = where, lr, weight_decay
        self.kept = None if mask is None else mask_function(where, mask)

    def now(self, count: Tensor, like: Tensor, signals: Any) -> tuple[Tensor, Tensor]:
        """The rate, and 1 + rate * weight_decay."""
        rate = rates.now(self.where, self.lr, count, like, signals)
        return rate, 1 + rate * check.value_at(self.where, "weight_decay", self.weight_decay, count)

    def step(self, updates: TensorTree, params: TensorTree, direction: TensorTree, tau: Tensor, shrinking: Tensor) -> TensorTree:
        (size, shrink) = entrywise.once(params, tau, 1 - 1 / shrinking)
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
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
) -> GradientTransformation[MomoState]:
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

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After 1e30 everything stays at 0; clip. A NaN loss passes.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`, the rate of the step
        just taken.

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
    steps = _Steps(where, lr, lower_bound, weight_decay, weight_decay_mask)

    def init(params: TensorTree) -> MomoState:
        return MomoState(
            exp_avg=tree.zeros_like(params),
            barf=tree.scalar(0.0, params),
            gamma=tree.scalar(0.0, params),
            lb=tree.scalar(lower_bound, params).clone(),
            count=moments.zero_count(params),
            lr=rates.first(where, lr, params),
        )

    def update(
        updates: TensorTree,
        state: MomoState,
        params: TensorTree | None = None,
        *,
        loss: Scalar | None = None,
        signals: Any = None,
        **extra: Any,
    ):
        check.params(where, params)
        loss = check.loss(where, loss)
        wide = state.lr.dtype  # float32 holds no product of 1e20
        past = torch.where(state.count == 0, 0.0, tree.scalar(beta, state.lr))
        m = moments.update_moment(updates, state.exp_avg, past)
        barf = past * state.barf + (1 - past) * _told(loss, state.barf)
        gamma = past * state.gamma + (1 - past) * tree.vdot(updates, params, wide)
        rate, shrinking = steps.now(state.count, state.lr, signals)
        tau, lb = _sized(
            rate,
            shrinking,
            1.0,
            barf,
            gamma,
            state.lb,
            tree.vdot(m, params, wide),
            tree.squared_norm(m, wide),
            lower_bound,
            adapt_lower_bound,
        )
        tau = tau.to(state.lr.dtype)
        dtype = state.lb.dtype
        new_state = MomoState(
            exp_avg=m, barf=barf.to(dtype), gamma=gamma.to(dtype), lb=lb.to(dtype), count=moments.increment(state.count), lr=tau
        )
        return steps.step(updates, params, m, tau, shrinking), new_state

    return GradientTransformation(
        init, update, name=where, hears=rates.heard(lr), flattenable=weight_decay_mask is None, turns=True, own_rate=True, needs=("loss",)
    )


def momo_adam(
    lr: ScalarOrSchedule | None = 1e-2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    lower_bound: Scalar = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    adapt_lower_bound: bool = False,
    *,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
) -> GradientTransformation[MomoAdamState]:
    """Adam with a Polyak-type rate, at most `lr`.

    Args:
        lr: the largest rate, >= 0; None: the `base_lr` it hears.
        b1: share of the past in the means of gradient and loss, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, > 0.
        lower_bound, weight_decay, adapt_lower_bound, weight_decay_mask: as in `momo`.

    Returns:
        A ready-made optimizer whose `update` needs `loss=`. Holds two trees like `params`.

    After a NaN:
        This and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip. A NaN loss passes.

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
    steps = _Steps(where, lr, lower_bound, weight_decay, weight_decay_mask)

    def init(params: TensorTree) -> MomoAdamState:
        return MomoAdamState(
            exp_avg=tree.zeros_like(params),
            exp_avg_sq=tree.zeros_like(params),
            barf=tree.scalar(0.0, params),
            gamma=tree.scalar(0.0, params),
            lb=tree.scalar(lower_bound, params).clone(),
            count=moments.zero_count(params),
            lr=rates.first(where, lr, params),
        )

    def update(
        updates: TensorTree,
        state: MomoAdamState,
        params: TensorTree | None = None,
        *,
        loss: Scalar | None = None,
        signals: Any = None,
        **extra: Any,
    ):
        check.params(where, params)
        loss = check.loss(where, loss)
        wide = state.lr.dtype  # float32 holds no product of 1e20
        count = moments.increment(state.count)
        correction = moments.bias_correction(count, b1, b2)
        c1, c2 = correction[0], correction[1]
        m = moments.update_moment(updates, state.exp_avg, b1)
        v = moments.update_moment(updates, state.exp_avg_sq, b2, order=2)
        (root,) = entrywise.stacked(c2.rsqrt())
        direction = tree.map(lambda m, v: entrywise.over_root(m, v, eps, scale=root).to(m.dtype), m, v)
        before = moments.bias_correction(state.count, b1)[0]
        first = before == 0
        barf = b1 * state.barf + (1 - b1) * _told(loss, torch.where(first, 0.0, state.barf / torch.where(first, 1.0, before)))
        gamma = b1 * state.gamma + (1 - b1) * tree.vdot(updates, params, wide)
        rate, shrinking = steps.now(state.count, state.lr, signals)
        tau, lb = _sized(
            rate,
            shrinking,
            c1,
            barf,
            gamma,
            state.lb,
            tree.vdot(m, params, wide),
            tree.vdot(m, direction, wide),
            lower_bound,
            adapt_lower_bound,
        )
        tau = tau.to(state.lr.dtype)
        dtype = state.lb.dtype
        new_state = MomoAdamState(exp_avg=m, exp_avg_sq=v, barf=barf.to(dtype), gamma=gamma.to(dtype), lb=lb.to(dtype), count=count, lr=tau)
        return steps.step(updates, params, direction, tau, shrinking), new_state

    return GradientTransformation(
        init, update, name=where, hears=rates.heard(lr), flattenable=weight_decay_mask is None, turns=True, own_rate=True, needs=("loss",)
    )
