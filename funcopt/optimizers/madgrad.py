"""MADGRAD: dual averaging with momentum, adaptive by the cube root of the summed squares.

    k = (lr_t + eps) * sqrt(t)
    G = G + k g^2,   s = s + k g
    z = x_0 - s / (cbrt(G) + eps)
    p' = (1 - momentum) z + momentum p

Steps are sized inside, since the rate weighs the sums: no `lr_scale` follows, and the state says `lr` itself.
Weight decay is coupled, as in the reference: it stands before the method.

Source: Defazio and Jelassi 2021. Reference: optax.contrib.madgrad (0.2.8), which takes the root of t in float32.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, rates, tree
from funcopt.core.math import entrywise
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["MadgradState", "madgrad", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    count: Tensor  # steps taken
    grad_sum_sq: TensorTree  # G; like params
    s: TensorTree  # weighted sum of gradients; like params
    x0: TensorTree  # where the run began; like params
    lr: Tensor  # rate of the step just taken

    def signals(self) -> dict[str, Tensor]:
        return {"lr": self.lr}


def _cube_root(x: Tensor) -> Tensor:
    """Of x >= 0, with slope 0 in place of infinity at 0."""
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x) ** (1 / 3))


def scale_by_madgrad(lr: ScalarOrSchedule | None, momentum: Scalar = 0.9, eps: Scalar = 1e-6) -> GradientTransformation[MadgradState]:
    """Moves towards a weighted average of past gradients, away from where the run began.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule, which is called with the
            count of completed steps; None: the `base_lr` it hears.
        momentum: share of the present place in the next, in [0, 1).
        eps: added to the rate and to the cube root, > 0.

    Returns:
        A transform from gradients to updates, downhill and in units of the params. Holds
        three trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        hears `base_lr` (with `lr=None`) and, if anyone says them, `lr_multiplier` and `rate_multiplier`; says `lr`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> madgrad = fo.scale_by_madgrad(1.0, momentum=0.0)
        >>> params = torch.zeros(1)
        >>> madgrad.update(torch.tensor([8.0]), madgrad.init(params), params)[0]
        tensor([-2.0000])
    """
    where = "scale_by_madgrad"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.half_open(where, "momentum", momentum, 0, 1)
    check.positive(where, "eps", eps)

    def init(params: TensorTree) -> MadgradState:
        return MadgradState(
            count=moments.zero_count(params),
            grad_sum_sq=tree.zeros_like(params),
            s=tree.zeros_like(params),
            x0=tree.clone(params),
            lr=rates.first(where, lr, params),
        )

    def update(updates: TensorTree, state: MadgradState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params(where, params)
        rate = rates.now(where, lr, state.count, state.lr, signals)
        count = moments.increment(state.count)
        (weight,) = entrywise.once(params, (rate + eps) * count.to(rate.dtype).sqrt())
        squares = tree.map(lambda g, G: (G + (weight * g) * g).to(G.dtype), updates, state.grad_sum_sq)
        s = tree.map(lambda g, s: (s + weight * g).to(s.dtype), updates, state.s)

        def moved(p: Tensor, x0: Tensor, s: Tensor, G: Tensor) -> Tensor:
            z = x0 - s / (_cube_root(G) + eps)
            return (1 - momentum) * (z - p)

        moves = tree.cast_like(tree.map(moved, params, state.x0, s, squares), updates)
        return moves, MadgradState(count=count, grad_sum_sq=squares, s=s, x0=state.x0, lr=rate)

    return GradientTransformation(init, update, name=where, hears=rates.heard(lr), flattenable=True, per_leaf=True, turns=True)


def madgrad(
    lr: ScalarOrSchedule | None,
    momentum: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-6,
    *,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """MADGRAD: coupled decay, then `scale_by_madgrad`, whose steps are sized (`lr` None: by the `base_lr` it hears) and downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule, which is called with the count of completed steps;
            None: the `base_lr` it hears.
        momentum: share of the present place in the next, in [0, 1).
        weight_decay: coupled: this share of the params is added to the gradient, >= 0; a number, a 0-dim tensor or a
            schedule.
        eps: added to the rate and to the cube root, > 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds three
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.madgrad(1.0, momentum=0.0)
        >>> params = torch.zeros(1)
        >>> tx.update(torch.tensor([8.0]), tx.init(params), params)[0]
        tensor([-2.0000])
    """
    return chain(add_decayed_weights(weight_decay, weight_decay_mask), scale_by_madgrad(lr, momentum, eps))
