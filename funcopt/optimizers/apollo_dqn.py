"""Apollo, the quasi-Newton method: momentum divided by a diagonal of the Hessian that is learned from how gradients change.

    a  = (1 - beta) / (1 - beta^t),   D = g_t - m_{t-1},   m_t = m_{t-1} + a * D
    n  = (sum d_{t-1}^4)^(1/4) + eps,   d = d_{t-1} / n                                  (over the leaf)
    B_t = B_{t-1} - (a * sum(D / n * d) + sum(B_{t-1} * d^2)) * d^2                       (sums over the leaf)
    d_t = u_t = m_t / max(|B_t|, rebound)

The rate is to rise from near zero over some hundred steps, since B_t begins at zero and the first directions are m / rebound:
`fo.schedules.warmup_constant_schedule(0.0, lr, 500)`, for instance.

Source: Ma, "Apollo: An Adaptive Parameter-wise Diagonal Quasi-Newton Method for Nonconvex Stochastic Optimization", 2020, whose eps is
1e-4 / rebound here. Reference: pytorch_optimizer's ApolloDQN (4.1) with eps divided by 0.01, coupled decay and its warm-up as a schedule.
(`apollo` is another method of that name.)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ApolloDqnState", "apollo_dqn", "scale_by_apollo_dqn"]


class ApolloDqnState(NamedTuple):
    count: Tensor  # steps taken
    m: TensorTree  # running mean of g; like params
    B: TensorTree  # the diagonal; like params
    d: TensorTree  # the last direction; like params


def four_norm(x: Tensor) -> Tensor:
    """(sum x^4)^(1/4) of a leaf, 0-dim, with slope 0 at 0; of what is too large for a fourth power, too."""
    largest = tree.norm(x, torch.inf).detach()
    largest = torch.where(largest == 0, 1, largest)
    total = tree.sum((x / largest).square().square())
    zero = total == 0
    return largest * torch.where(zero, 0, torch.where(zero, 1, total) ** 0.25)


def scale_by_apollo_dqn(beta: Scalar = 0.9, eps: Scalar = 1e-2, rebound: Scalar = 1e-2) -> GradientTransformation[ApolloDqnState]:
    """Divides a running mean of the gradient by a diagonal that is learned from its changes.

    Args:
        beta: share of the past in the mean of the gradient, in [0, 1).
        eps: added to the norm of the last direction, > 0.
        rebound: the floor of the diagonal, > 0: directions are at most the gradient divided by it.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds three trees like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> apollo = fo.scale_by_apollo_dqn(beta=0.0, eps=1e-9, rebound=0.5)
        >>> first, state = apollo.update(torch.tensor([1.0]), apollo.init(torch.zeros(1)))
        >>> first, apollo.update(torch.tensor([-1.0]), state)[0]  # 1 / 0.5; the gradient fell by 2 over a step of 2: B = 1
        (tensor([2.]), tensor([-1.]))
    """
    where = "scale_by_apollo_dqn"
    check.half_open(where, "beta", beta, 0, 1)
    check.positive(where, "eps", eps)
    check.positive(where, "rebound", rebound)

    def init(params: TensorTree) -> ApolloDqnState:
        return ApolloDqnState(moments.zero_count(params), m=tree.zeros_like(params), B=tree.zeros_like(params), d=tree.zeros_like(params))

    def update(updates: TensorTree, state: ApolloDqnState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        (f,) = moments.bias_factors(count, beta)
        (a,) = entrywise.once(updates, (1 - beta) * f)
        D = tree.map(lambda g, m: g - m, updates, state.m)
        m = tree.map(lambda D, m: (m + a * D).to(m.dtype), D, state.m)

        def diagonal(D: Tensor, B: Tensor, d: Tensor) -> Tensor:
            n = four_norm(d) + eps
            d = d / n.to(d.dtype)
            change = a * tree.sum(D / n.to(D.dtype) * d) + tree.sum(B * d.square())
            return (B - change.to(B.dtype) * d.square()).to(B.dtype)

        B = tree.map(diagonal, D, state.B, state.d)

        def divided(m: Tensor, B: Tensor) -> Tensor:
            return m / torch.maximum(B.abs(), entrywise.scalar_of(rebound, B))

        d = tree.map(divided, m, B)
        return tree.cast_like(tree.clone(d), updates), ApolloDqnState(count=count, m=m, B=B, d=tree.cast_like(d, state.d))

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False)


def apollo_dqn(
    lr: ScalarOrSchedule | None,
    beta: Scalar = 0.9,
    eps: Scalar = 1e-2,
    rebound: Scalar = 1e-2,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """The quasi-Newton Apollo: `scale_by_apollo_dqn`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule, which is to rise from near zero.
        beta, eps, rebound: as in `scale_by_apollo_dqn`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds three trees like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.apollo_dqn(0.01)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-3.0000,  0.5000])
    """
    return chain(scale_by_apollo_dqn(beta, eps, rebound), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
