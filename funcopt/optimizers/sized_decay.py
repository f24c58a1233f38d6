"""Weight decay for methods that size their steps themselves: it stands behind them, and takes their rate from what they say.

u_t = step_t - lr_t * weight_decay * p_t                       (decoupled, as in front of lr_scale)
u_t = step_t - lr_t * weight_decay * (p_t + step_t)            (after the step)
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, ScalarOrSchedule, TensorTree, check, moments, signals as words, tree
from funcopt.core.math import entrywise
from funcopt.transforms.mask import masked
from funcopt.transforms.weight_decay import AddDecayedWeightsState


def decay_sized(
    where: str,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: TensorTree | Callable[..., Any] | None = None,
    *,
    after: bool = False,
    factor: Callable[[Tensor], Tensor] | None = None,
    share: Callable[[Tensor], float] | None = None,
) -> GradientTransformation[Any]:
    """Takes off the params their decay.

    Args:
        where: who decays, in errors.
        weight_decay: >= 0; a number, a 0-dim tensor or a schedule, called with the count of completed steps.
        mask: which leaves decay, as `masked` takes it; None: all.
        after: whether the params decay that the step leads to; else those it began at.
        factor: what the rate is multiplied by, from the count of steps, this one included.
        share: what the rate of a leaf is multiplied by, from the leaf.

    Returns:
        A link from steps to steps, which hears `lr`.
    """
    check.schedule_or(check.nonnegative, where, "weight_decay", weight_decay)
    absent = isinstance(weight_decay, (int, float)) and weight_decay == 0
    counts = callable(weight_decay) or (factor is not None and not absent)

    def init(params: TensorTree) -> Any:
        return AddDecayedWeightsState(count=moments.zero_count(params)) if counts else EmptyState()

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        if absent:
            return updates, state
        check.params(where, params)
        lr = words.need(signals, where, "lr", "it stands behind what sizes the step")
        decay = check.value_at(where, "weight_decay", weight_decay, state.count) if callable(weight_decay) else weight_decay
        size = lr * decay
        if counts:
            count = moments.increment(state.count)
            size, state = size if factor is None else size * factor(count), AddDecayedWeightsState(count=count)
        (lost,) = entrywise.once(updates, size)

        def decayed(u: Tensor, p: Tensor) -> Tensor:
            of_leaf = lost if share is None else lost * share(p)
            return (u - of_leaf * (p + u if after else p)).to(u.dtype)

        return tree.map(decayed, updates, params), state

    hears = {} if absent else {"lr": "needed"}
    link = GradientTransformation(init, update, name=where, hears=hears, flattenable=share is None, per_leaf=True, turns=False)
    return link if mask is None else masked(link, mask)
