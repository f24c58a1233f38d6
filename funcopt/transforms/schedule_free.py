"""schedule_free: averaging in place of a schedule that falls.

    params are y;  k = 1, 2, ...
    max_lr = max(max_lr, lr_k),   w = max_lr^weight_lr_power,   W = W + w,   c = w / W
    x_{k-1} = (y - (1 - b1) z_{k-1}) / b1               with the b1 of the step before, by which y was made
    z_k = z_{k-1} + update of the base optimizer for the gradient at y
    x_k = (1 - c) x_{k-1} + c z_k
    u   = b1 x_k + (1 - b1) z_k - y

Gradients are taken at y, the result is x: `schedule_free_eval_params`.

Source: Defazio et al. 2024. Reference: optax.contrib.schedule_free (0.2.8), whose `lr` is asked at k (from 1)
while the base counts from 0. With lr=None the weight is the rate that the base says, of the same step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, check, moments, read_signals, tree
from funcopt.core.compression.held import decompress_state
from funcopt.core.masking import map_shown
from funcopt.core.math import entrywise
from funcopt.core.states.find import find
from funcopt.core.wrap import field, wrapped

__all__ = ["ScheduleFreeState", "schedule_free", "schedule_free_eval_params"]


class ScheduleFreeState(NamedTuple):
    b1: Tensor  # how far y is from z towards x, for the params as they are
    weight_sum: Tensor  # W
    step_count: Tensor  # steps taken, and 1
    max_lr: Tensor  # the largest rate so far
    base_optimizer_state: Any  # of what it wraps
    z: TensorTree  # where the base optimizer is; like params

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.base_optimizer_state)


def schedule_free(
    base_optimizer: GradientTransformation,
    lr: ScalarOrSchedule | None = None,
    b1: Scalar = 0.9,
    weight_lr_power: Scalar = 2.0,
    state_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """Lets an optimizer run at a constant rate and averages where it has been.

    Args:
        base_optimizer: a ready-made optimizer without momentum of its own (`b1=0`, `momentum=None`).
        lr: its rate, for the weights of the average: a number, a 0-dim tensor or a schedule
            that is called with 1, 2, ...; None: the `lr` that its state says.
        b1: where the gradient is taken, between the base's place (towards 0) and the
            average (1); in (0, 1].
        weight_lr_power: steps count in the average with this power of the rate, >= 0.
        state_dtype: dtype of z; None: that of the params.

    Returns:
        A transformation whose updates are those of y. Holds one tree like `params` beside
        what the base holds.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        those of the base.

    Raises:
        ValueError: a number is out of range; at `init`, `lr` is None and the base says no `lr`;
            at `update`, no params are given.

    Example:
        >>> tx = fo.schedule_free(fo.sgd(0.5), b1=0.5)
        >>> params = torch.tensor([1.0])
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(params), params)
        >>> fo.schedule_free_eval_params(state, fo.apply_updates(params, updates))
        tensor([0.5000])
    """
    where = "schedule_free"
    if lr is not None:
        check.schedule_or(check.nonnegative, where, "lr", lr)
    check.positive(where, "b1", b1)
    check.within(where, "b1", b1, 0, 1)
    check.nonnegative(where, "weight_lr_power", weight_lr_power)
    check.dtype(where, "state_dtype", state_dtype)

    def rate(step_count: Tensor, base_state: Any) -> Tensor:
        if lr is not None:
            return tree.scalar(check.value_at(where, "lr", lr, step_count), step_count)
        said = read_signals(base_state).get("lr")
        if said is None:
            raise ValueError(f"{where}: base_optimizer must say its 'lr', which {base_optimizer.name} does not; pass lr=")
        return said

    def init(params: TensorTree) -> ScheduleFreeState:
        base_state = base_optimizer.init(params)
        one = moments.increment(moments.zero_count(params))
        rate(one, base_state)  # so that what is missing is missed now
        return ScheduleFreeState(
            b1=tree.scalar(b1, params).clone(),
            weight_sum=tree.scalar(0.0, params),
            step_count=one,
            max_lr=tree.scalar(0.0, params),
            base_optimizer_state=base_state,
            z=tree.clone(tree.cast(params, state_dtype)),
        )

    def update(updates: TensorTree, state: ScheduleFreeState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        updates, base_state = base_optimizer.update(updates, state.base_optimizer_state, params, **extra)
        max_lr = torch.maximum(state.max_lr, rate(state.step_count, base_state).to(state.max_lr.dtype))
        weight = max_lr**weight_lr_power
        total = state.weight_sum + weight
        none = total == 0
        share = torch.where(none, 0.0, weight / torch.where(none, 1.0, total))
        b1_now = tree.scalar(b1, state.b1).clone()
        (share, before, near) = entrywise.once(params, share, state.b1, b1_now)
        z = tree.map_plain(lambda z, u: (z + u).to(z.dtype), state.z, updates)

        def moved(y: Tensor, z_before: Tensor, z: Tensor) -> Tensor:
            x = (1 - share) * (y - (1 - before) * z_before) / before + share * z
            return (near * x + (1 - near) * z - y).to(y.dtype)

        new_state = ScheduleFreeState(
            b1=b1_now,
            weight_sum=total.to(state.weight_sum.dtype),
            step_count=moments.increment(state.step_count),
            max_lr=max_lr,
            base_optimizer_state=base_state,
            z=z,
        )
        return tree.cast_like(tree.map(moved, params, state.z, z), updates), new_state

    return wrapped(init, update, base_optimizer, field("base_optimizer_state"), name=f"schedule_free {base_optimizer.name}", alike=True)


def schedule_free_eval_params(state: Any, params: TensorTree) -> TensorTree:
    """The average x, which is what to evaluate and to keep, from where the gradients are taken.

    Args:
        state: of `schedule_free`, or any state that holds one such.
        params: y.

    Returns:
        A tree like `params`; leaves that are hidden from `schedule_free`, as `masked` does it, as they are.

    Raises:
        KeyError: the state holds none, or several, as those of a `partition`'s labels are: `averaged_params` takes these.

    Example:
        >>> params = torch.tensor([1.0])
        >>> tx = fo.schedule_free_sgd(0.5)
        >>> state = tx.init(params)
        >>> updates, state = tx.update(torch.tensor([2.0]), state, params)
        >>> fo.schedule_free_eval_params(state, fo.apply_updates(params, updates))
        tensor([0.])
    """
    state = decompress_state(state)
    found = state if isinstance(state, ScheduleFreeState) else find(state, ScheduleFreeState)
    x = map_shown("schedule_free_eval_params", lambda z, y: (y - (1 - found.b1) * z) / found.b1, found.z, params)
    return tree.cast_like(x, params)
