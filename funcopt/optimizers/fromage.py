"""Fromage: each leaf turns by the same angle, and does not grow by it.

    x_t = g_t * max(||p_t||, min_norm) / max(||g_t||, min_norm)        (per leaf)
    p_{t+1} = (p_t - lr * x_t) / sqrt(1 + lr^2)

Source: Bernstein et al. 2020, written from the formula. Reference: optax.fromage (0.2.8).
"""

from typing import Any

from torch import Tensor

from funcopt.core import (
    EmptyState,
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    TensorTree,
    chain,
    check,
    moments,
    signals as words,
    tree,
)
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.trust_ratio import scale_by_trust_ratio
from funcopt.transforms.weight_decay import AddDecayedWeightsState, add_decayed_weights

__all__ = ["fromage"]


def _shrink(scheduled: bool) -> GradientTransformation:
    """Divides what the params will be by sqrt(1 + lr^2), with the `lr` that was said to its left."""

    def init(params: TensorTree) -> EmptyState | AddDecayedWeightsState:
        # optax counts here again where the rate is a schedule; kept so that states correspond.
        return AddDecayedWeightsState(count=moments.zero_count(params)) if scheduled else EmptyState()

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        check.params("fromage", params)
        lr = words.need(signals, "fromage", "lr", "it stands behind lr_scale")
        factor = (1 + lr.square()).rsqrt()

        def shrunk(u: Tensor, p: Tensor) -> Tensor:
            return (factor * u + (factor - 1) * p).to(u.dtype)

        return tree.map(shrunk, updates, params), AddDecayedWeightsState(count=moments.increment(state.count)) if scheduled else state

    return GradientTransformation(init, update, name="fromage", hears={"lr": "needed"}, flattenable=True, per_leaf=True, turns=False)


def fromage(
    lr: ScalarOrSchedule | None,
    min_norm: Scalar = 1e-6,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Fromage: `scale_by_trust_ratio`, a step of size `lr` (None: the `base_lr` it hears) downhill, then back to where no leaf has grown.

    Args:
        lr: the angle of a step, in radians where it is small, >= 0; a number, a 0-dim tensor or a schedule.
        min_norm: floor of both norms, >= 0.
        weight_decay: decoupled, >= 0; the method itself keeps weights from growing.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds no
        tree.

    After a NaN:
        Its leaf of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.fromage(0.75)
        >>> params = torch.tensor([4.0, 0.0])
        >>> tx.update(torch.tensor([0.0, 2.0]), tx.init(params), params)[0]
        tensor([-0.8000, -2.4000])
    """
    return chain(scale_by_trust_ratio(min_norm), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr), _shrink(callable(lr)))
