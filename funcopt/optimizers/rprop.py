"""Rprop: a step size per entry, which grows while the sign of the gradient stays and shrinks when it flips.

    a_t = clip(a_{t-1} * (eta_plus if g_t u_{t-1} > 0, eta_minus if < 0)), else a_{t-1},   a_0 = lr
    u_t = 0 where g_t u_{t-1} < 0, else a_t * sign(g_t)

Only signs are used: it is a method for full batches.

Source: Riedmiller and Braun 1993, the form without backtracking. Reference: torch.optim.Rprop, and
optax.rprop (0.2.8) but for a bug there: it returns the step of one call before. With lr=None the first step
size is clipped, too, as torch has it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, signals as words, tree
from funcopt.core.math import entrywise
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByRpropState", "rprop", "scale_by_rprop"]

BOUNDS = (1e-6, 50.0)  # of the step sizes, in units of params


class ScaleByRpropState(NamedTuple):
    step_sizes: TensorTree  # a; like params. 0: the first step is still to come (with lr=None)
    prev_updates: TensorTree  # u of the last step; like params


def scale_by_rprop(
    lr: Scalar | None, eta_minus: Scalar = 0.5, eta_plus: Scalar = 1.2, min_step_size: Scalar = BOUNDS[0], max_step_size: Scalar = BOUNDS[1]
) -> GradientTransformation[ScaleByRpropState]:
    """Gives each entry a step size of its own by the signs of its gradients.

    Args:
        lr: the first step size of every entry, > 0; None: the `base_lr` heard at the first
            step, brought within the bounds: a warm-up that begins at 0 begins with
            `min_step_size`. Later rates are not looked at.
        eta_minus: factor of the step size where the sign flips, in (0, 1).
        eta_plus: factor where it stays, > 1.
        min_step_size, max_step_size: bounds of the step sizes, > 0.

    Returns:
        A transform from gradients to directions that have their size already: what
        follows is `lr_scale(1.0)`. Holds two trees like `params`.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        hears `base_lr` (only with `lr=None`).

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> rprop = fo.scale_by_rprop(1.0)
        >>> _, state = rprop.update(torch.tensor([3.0, 3.0]), rprop.init(torch.zeros(2)))
        >>> rprop.update(torch.tensor([7.0, -7.0]), state)[0]
        tensor([1.2000, 0.0000])
    """
    where = "scale_by_rprop"
    if callable(lr):
        raise TypeError(
            f"{where}: lr is the first step size and must be a number, a 0-dim tensor or None, got a schedule; "
            "put lr_scale(schedule) to its right"
        )
    if lr is not None:
        check.positive(where, "lr", lr)
    for name, value in (
        ("eta_minus", eta_minus),
        ("eta_plus", eta_plus),
        ("min_step_size", min_step_size),
        ("max_step_size", max_step_size),
    ):
        check.positive(where, name, value)
    if isinstance(eta_minus, (int, float)) and eta_minus >= 1:
        raise ValueError(f"{where}: eta_minus must be in (0, 1), got {eta_minus}")
    if isinstance(eta_plus, (int, float)) and eta_plus <= 1:
        raise ValueError(f"{where}: eta_plus must be > 1, got {eta_plus}")
    if isinstance(min_step_size, (int, float)) and isinstance(max_step_size, (int, float)) and min_step_size > max_step_size:
        raise ValueError(f"{where}: min_step_size must be at most max_step_size, got {min_step_size} and {max_step_size}")

    def init(params: TensorTree) -> ScaleByRpropState:
        if lr is None:
            sizes = tree.zeros_like(params)
        else:
            sizes = tree.map_plain(
                lambda p: torch.zeros_like(p, requires_grad=False) + torch.as_tensor(lr, dtype=p.dtype, device=p.device), params
            )
        return ScaleByRpropState(step_sizes=sizes, prev_updates=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByRpropState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        if lr is None:
            base = words.need(signals, where, "base_lr", "pass lr=, or hand it over: update(..., signals={'base_lr': lr})")
            sizes = tree.map(lambda a: torch.where(a == 0, base, a).to(a.dtype), state.step_sizes)
        else:
            sizes = state.step_sizes

        def resized(g: Tensor, a: Tensor, before: Tensor) -> Tensor:
            agreement = g * before
            grown = torch.where(agreement > 0, a * eta_plus, torch.where(agreement < 0, a * eta_minus, a))
            clipped = torch.minimum(torch.maximum(grown, _as(min_step_size, a)), _as(max_step_size, a))
            # a rate of 0, too, begins within the bounds
            return (clipped if lr is None else torch.where(agreement == 0, a, clipped)).to(a.dtype)

        new = tree.map(resized, updates, sizes, state.prev_updates)
        direction = tree.map(
            lambda g, a, before: torch.where(g * before < 0, 0, a * moments.sign(g)).to(g.dtype), updates, new, state.prev_updates
        )
        return direction, ScaleByRpropState(step_sizes=new, prev_updates=tree.cast_like(direction, state.prev_updates))

    return GradientTransformation(
        init,
        update,
        name=where,
        hears={"base_lr": "needed"} if lr is None else (),
        flattenable=True,
        per_leaf=True,
        turns=False,
        own_rate=True,
    )


def _as(value: Scalar, like: Tensor) -> Tensor:
    return entrywise.scalar_of(value, like)


def rprop(
    lr: Scalar | None,
    eta_minus: Scalar = 0.5,
    eta_plus: Scalar = 1.2,
    min_step_size: Scalar = BOUNDS[0],
    max_step_size: Scalar = BOUNDS[1],
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Rprop: `scale_by_rprop`, then downhill by the step sizes it keeps.

    Args:
        lr: the first step size of every entry (None: the `base_lr` it hears at the first step). What this
            says as `lr` is 1, times the `lr_multiplier` if anyone says that.
        eta_minus, eta_plus, min_step_size, max_step_size: as in `scale_by_rprop`.
        weight_decay: share of the params that each step takes away, >= 0; it has no rate but itself.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds two
        trees like `params`.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.rprop(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.1000])
    """
    sized = scale_by_rprop(lr, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(sized, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(1.0))
