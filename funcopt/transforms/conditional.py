"""conditionally_transform and conditionally_mask: a transformation that acts in some steps only.

    u_t, s_t = inner(g_t, s_{t-1})   if should(t-1), else
    u_t, s_t = g_t, s_{t-1}   (conditionally_transform)    or    0, s_{t-1}   (conditionally_mask)

Both sides are worked out and one is chosen, so that nothing is read on the host.
Reference: optax, same names (0.2.8).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, moments, read_signals, tree
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.guard import choose_state

__all__ = ["ConditionFn", "ConditionallyMaskState", "ConditionallyTransformState", "conditionally_mask", "conditionally_transform"]


ConditionFn = Callable[..., Tensor]  # from the count of calls, 0-dim int64 (and the extra arguments), to a 0-dim bool


class ConditionallyTransformState(NamedTuple):
    inner_state: Any  # of what it wraps
    step: Tensor  # calls so far

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


class ConditionallyMaskState(NamedTuple):
    step: Tensor  # calls so far
    inner_state: Any  # of what it wraps

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def conditionally_transform(
    inner: GradientTransformation, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Applies `inner` in the steps in which a function says so; in the others what passes is left as it is.

    Args:
        inner: any transformation that keeps what passes in its units, such as a clip.
        should_transform_fn: from the count of calls so far, 0-dim int64, to a 0-dim bool.
        forward_extra_args: whether that function is given the extra arguments too, by keyword.

    Returns:
        A transformation that gives what `inner` gives, or what it was given. Its state is a count of calls and that of
        `inner`.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `inner`, as they were when it last acted.

    Raises:
        TypeError: `inner` is no transformation, or `should_transform_fn` is not callable.

    Example:
        >>> tx = fo.conditionally_transform(fo.clip(1.0), lambda step: step < 1)
        >>> updates, state = tx.update(torch.tensor([3.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.update(torch.tensor([3.0]), state)[0]
        (tensor([1.]), tensor([3.]))
    """
    return _conditional(
        "conditionally_transform", ConditionallyTransformState, inner, should_transform_fn, forward_extra_args, _as_they_are
    )


def _as_they_are(updates: TensorTree) -> TensorTree:
    return updates


def conditionally_mask(
    inner: GradientTransformation, should_transform_fn: ConditionFn, forward_extra_args: bool = False
) -> GradientTransformation:
    """Applies `inner` in the steps in which a function says so; in the others the updates are zero.

    Args:
        inner: any transformation, for instance a whole optimizer.
        should_transform_fn: from the count of calls so far, 0-dim int64, to a 0-dim bool.
        forward_extra_args: whether that function is given the extra arguments too, by keyword.

    Returns:
        A transformation that gives what `inner` gives, or zeros. Its state is a count of calls and that of `inner`.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `inner`, as they were when it last acted.

    Raises:
        TypeError: `inner` is no transformation, or `should_transform_fn` is not callable.

    Example:
        >>> tx = fo.conditionally_mask(fo.sgd(0.5), lambda step: step % 2 == 0)
        >>> updates, state = tx.update(torch.tensor([2.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.update(torch.tensor([2.0]), state)[0]
        (tensor([-1.]), tensor([0.]))
    """
    return _conditional("conditionally_mask", ConditionallyMaskState, inner, should_transform_fn, forward_extra_args, tree.zeros_like)


def _conditional(
    where: str, kind: type, inner: GradientTransformation, should: Callable[..., Any], forward: bool, otherwise: Callable[..., Any]
) -> GradientTransformation:
    if not callable(should):
        raise TypeError(f"{where}: should_transform_fn must be a function of the count of calls, got {should!r}")

    def init(params: TensorTree):
        return kind(inner_state=inner.init(params), step=torch.zeros((), dtype=torch.int64, device=tree.device(params)))

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        acts = should(state.step, **extra) if forward else should(state.step)
        if isinstance(acts, bool):
            acts = torch.full((), acts, dtype=torch.bool, device=state.step.device)
        if not isinstance(acts, Tensor) or acts.dtype != torch.bool or acts.dim() != 0:
            raise ValueError(f"{where}: should_transform_fn must return a 0-dim bool, got {acts!r}")
        changed, inner_state = inner.update(updates, state.inner_state, params, signals=signals, **extra)
        chosen = tree.map(lambda x, y: torch.where(acts, x, y.to(x.dtype)), changed, otherwise(updates))
        return chosen, kind(inner_state=choose_state(acts, inner_state, state.inner_state), step=moments.increment(state.step))

    turns = None if inner.turns and otherwise is not tree.zeros_like else inner.turns  # not in the steps in which it does not act
    return wrapped(init, update, inner, field("inner_state"), name=f"{where} {inner.name}", turns=turns)
