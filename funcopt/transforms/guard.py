"""apply_if_finite: a step whose updates are not finite does not happen.

    finite_t = all entries of all leaves are finite
    n        = 0 if finite_t else n_{t-1} + 1
    the inner step is taken if finite_t or n > max_consecutive_errors, else u_t = 0 and the state stays
    n_t      = 0 if the step was taken else n

Nothing is read on the host: the whole state is chosen by one 0-dim flag.
Reference: optax.apply_if_finite (0.2.8), whose counter is not reset by giving up, so that
it never guards again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, moments, read_signals, tree
from funcopt.core.wrap import field, wrapped

__all__ = ["ApplyIfFiniteState", "apply_if_finite"]


class ApplyIfFiniteState(NamedTuple):
    notfinite_count: Tensor  # steps skipped in a row
    last_finite: Tensor  # bool; whether the last updates were finite
    total_notfinite: Tensor  # updates that were not, since `init`
    inner_state: Any  # of what it wraps

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def choose_state(flag: Tensor, new: Any, old: Any) -> Any:
    """`new` where a 0-dim flag holds, else `old`; on the CPU beside a flag on an accelerator always `new`, for to ask would be to wait."""

    def choose(x: Tensor, y: Tensor) -> Tensor:
        if x is y or (x.device != flag.device and not flag.is_cpu):
            return x
        return torch.where(flag.to(x.device), x, y)

    return tree.map_plain(choose, new, old)


def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: int) -> GradientTransformation:
    """Skips steps whose updates hold a NaN or an infinity.

    Args:
        inner: any transformation; usually a whole optimizer.
        max_consecutive_errors: how many steps in a row may be skipped, >= 0. The next one
            is taken as it is, and the count begins anew.

    Returns:
        A transformation that gives zeros and keeps the inner state while it skips.

    After a NaN:
        This step is finite, the next is clean.

    Signals:
        forwards those of `inner`.

    Raises:
        ValueError: `max_consecutive_errors` is negative.

    Example:
        >>> tx = fo.apply_if_finite(fo.sgd(0.5), max_consecutive_errors=3)
        >>> updates, state = tx.update(torch.tensor([1.0, torch.nan]), tx.init(torch.zeros(2)))
        >>> updates, state.notfinite_count
        (tensor([0., 0.]), tensor(1))
    """
    check.integer("apply_if_finite", "max_consecutive_errors", max_consecutive_errors, 0)

    def init(params: TensorTree) -> ApplyIfFiniteState:
        device = tree.device(params)
        return ApplyIfFiniteState(
            notfinite_count=torch.zeros((), dtype=torch.int64, device=device),
            last_finite=torch.ones((), dtype=torch.bool, device=device),
            total_notfinite=torch.zeros((), dtype=torch.int64, device=device),
            inner_state=inner.init(params),
        )

    def update(updates: TensorTree, state: ApplyIfFiniteState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        finite = tree.all_finite(updates)
        count = torch.where(finite, 0, moments.increment(state.notfinite_count))
        taken = finite | (count > max_consecutive_errors)
        # A skipped step is worked out on zeros, so that no NaN stands in its derivative.
        seen = tree.map(lambda g: torch.where(taken, g, torch.zeros_like(g)), updates)
        changed, inner_state = inner.update(seen, state.inner_state, params, signals=signals, **extra)
        return tree.where(taken, changed, tree.zeros_like(changed)), ApplyIfFiniteState(
            notfinite_count=torch.where(taken, 0, count),
            last_finite=finite,
            total_notfinite=torch.where(finite, state.total_notfinite, moments.increment(state.total_notfinite)),
            inner_state=choose_state(taken, inner_state, state.inner_state),
        )

    def again(other: GradientTransformation) -> GradientTransformation:
        return apply_if_finite(other, max_consecutive_errors)

    declared: dict[str, Any] = {"name": f"apply_if_finite {inner.name}", "per_leaf": False}  # one entry stops all
    return wrapped(init, update, inner, field("inner_state"), again=again, **declared)
