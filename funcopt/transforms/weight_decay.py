"""add_decayed_weights: pull the params towards zero.

    u_t = g_t + weight_decay * p_t

Where it stands decides what it means: left of the method it is L2 regularisation (part
of the gradient), right of it and left of `lr_scale` it is decoupled decay (Loshchilov
and Hutter 2019) in torch's convention, multiplied by the rate.
Reference: optax.add_decayed_weights (0.2.8).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, ScalarOrSchedule, TensorTree, check, moments, tree
from funcopt.core.math import entrywise
from funcopt.core.signals import hear
from funcopt.transforms.mask import masked

__all__ = ["AddDecayedWeightsState", "add_decayed_weights"]


class AddDecayedWeightsState(NamedTuple):
    count: Tensor  # steps taken


def add_decayed_weights(
    weight_decay: ScalarOrSchedule = 0.0, mask: TensorTree | Callable[..., Any] | str | None = None
) -> GradientTransformation:
    """Adds `weight_decay * params` to what passes; behind `find_rate` by the share that it says.

    Args:
        weight_decay: >= 0; a number, a 0-dim tensor or a schedule, called with the count
            of completed steps. The number 0 makes this the identity.
        mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation that keeps shapes and dtypes; its state is a count of steps if `weight_decay` is a schedule, else
        empty.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        hears `decay_share`, a factor in [0, 1], where somebody to the left says it, as `find_rate` does.

    Raises:
        ValueError: `weight_decay` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.add_decayed_weights(0.1)
        >>> params = torch.tensor([10.0])
        >>> tx.update(torch.tensor([1.0]), tx.init(params), params)[0]
        tensor([2.])
    """
    scheduled = callable(weight_decay)
    check.schedule_or(check.nonnegative, "add_decayed_weights", "weight_decay", weight_decay)
    absent = isinstance(weight_decay, (int, float)) and weight_decay == 0

    def init(params: TensorTree) -> EmptyState | AddDecayedWeightsState:
        if scheduled:
            return AddDecayedWeightsState(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)))
        return EmptyState()

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        if absent:
            return updates, state
        check.params("add_decayed_weights", params)
        decay: Any = weight_decay
        if callable(weight_decay):
            decay = tree.scalar(check.value_at("add_decayed_weights", "weight_decay", weight_decay, state.count), state.count)
            state = AddDecayedWeightsState(count=moments.increment(state.count))
        share = hear(signals, "decay_share")
        (decay,) = entrywise.once(updates, decay if share is None else decay * share)
        return tree.map(lambda g, p: entrywise.add_scaled(g, decay, p), updates, params), state

    decay_weights = GradientTransformation(
        init, update, name="add_decayed_weights", hears=("decay_share",), flattenable=True, leaves="complex", per_leaf=True, turns=False
    )
    return decay_weights if mask is None else masked(decay_weights, mask)
