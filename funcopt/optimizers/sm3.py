"""SM3: Adagrad with one number per row and per column in place of one per entry.

    a = g_t^2 + min over the axes i of mu_i,t-1         (b2 = 1)
    a = (1 - b2) * g_t^2 + b2 * min over i of mu_i,t-1   (else)
    x = g_t / sqrt(a + eps),   0 where a = 0
    mu_i,t = max of a over all axes but i
    u_t = nu_t = b1 * nu_{t-1} + (1 - b1) * x

Source: Anil, Gupta, Koren and Singer 2019. Reference: optax.sm3 (0.2.8), which has no 0-dim leaves; here they
are vectors of one entry.
"""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleBySM3State", "scale_by_sm3", "sm3"]


class ScaleBySM3State(NamedTuple):
    mu: TensorTree  # for every leaf a list of one vector per axis
    nu: TensorTree  # running mean of the direction; like params


def scale_by_sm3(b1: Scalar = 0.9, b2: Scalar = 1.0, eps: Scalar = 1e-8) -> GradientTransformation[ScaleBySM3State]:
    """Divides by the root of sums of squares that are kept per slice of every axis.

    Args:
        b1: share of the past in the running mean of the result, in [0, 1).
        b2: share of the past in the sums, in [0, 1]; 1 forgets nothing.
        eps: added under the root, >= 0.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes
        it is given; entries are at most those of Adagrad. Holds one tree like `params`
        and one vector per axis.

    After a NaN:
        That entry of this step is NaN, its leaf of every later one is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> sm3 = fo.scale_by_sm3(b1=0.0, eps=0.0)
        >>> _, state = sm3.update(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), sm3.init(torch.zeros(2, 2)))
        >>> sm3.update(torch.tensor([[4.0, 4.0], [4.0, 4.0]]), state)[0]
        tensor([[0.8000, 1.0000],
                [1.0000, 1.0000]])
    """
    check.half_open("scale_by_sm3", "b1", b1, 0, 1)
    check.within("scale_by_sm3", "b2", b2, 0, 1)
    check.nonnegative("scale_by_sm3", "eps", eps)
    sums = isinstance(b2, (int, float)) and b2 == 1

    def init(params: TensorTree) -> ScaleBySM3State:
        mu = tree.map_plain(lambda p: [sharded.zeros([n], p) for n in p.shape or (1,)], params)
        return ScaleBySM3State(mu=mu, nu=tree.zeros_like(params))

    def spread(mu: list[Tensor], rank: int) -> list[Tensor]:
        if rank == 0:
            return [mu[0].squeeze(0)]
        return [m.reshape([-1 if axis == i else 1 for axis in range(rank)]) for i, m in enumerate(mu)]

    def update(updates: TensorTree, state: ScaleBySM3State, params: TensorTree | None = None, **extra: Any):
        def accumulated(g: Tensor, mu: list[Tensor]) -> Tensor:
            past = reduce(torch.minimum, spread(mu, g.dim()))
            g = entrywise.at_least(g, past)
            return ((g if sums else (1 - b2) * g) * g + (past if sums else b2 * past)).to(past.dtype)

        def divided(g: Tensor, a: Tensor) -> Tensor:
            none = a == 0
            return torch.where(none, 0, g / (torch.where(none, 1, a) + eps).sqrt()).to(g.dtype)

        # map_plain hands over the whole list that stands in the place of a leaf.
        total = tree.map_plain(accumulated, updates, state.mu)
        nu = moments.update_moment(tree.map(divided, updates, total), state.nu, b1)
        mu = tree.map_plain(lambda a, mu: [_largest(a, axis, m) for axis, m in enumerate(mu)], total, state.mu)
        return tree.cast_like(tree.clone(nu), updates), ScaleBySM3State(mu=mu, nu=nu)

    return GradientTransformation(init, update, name="scale_by_sm3", per_leaf=True, turns=False)


def _largest(a: Tensor, axis: int, before: Tensor) -> Tensor:
    if a.dim() <= 1:
        return a.reshape(before.shape)
    if a.numel() == 0:
        return before
    return a.amax([other for other in range(a.dim()) if other != axis])


def sm3(
    lr: ScalarOrSchedule | None,
    momentum: Scalar = 0.9,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """SM3: `scale_by_sm3(momentum)`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: size of a step in units of params per unit of direction, >= 0: a number, a 0-dim tensor or a schedule of the
            count of steps; None: the `base_lr` it hears.
        momentum: share of the past in a running mean of the directions, in [0, 1).
        weight_decay: decoupled: each step also takes away `lr * weight_decay` of the params, >= 0; a number, a 0-dim
            tensor or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds one
        tree like `params` and, for each axis of a leaf, a vector.

    After a NaN:
        That entry of this step is NaN, its leaf of every later one is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.sm3(0.1, momentum=0.0)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    return chain(scale_by_sm3(momentum), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
