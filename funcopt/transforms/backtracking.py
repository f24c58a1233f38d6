"""Backtracking line search: shorten the step until the loss falls by a share of what its slope promises.

    e = min(increase_factor * the last rate, max_lr)
    until   f(p + e u) - (1 + rtol) f(p) - slope_rtol e <u, g>  <=  atol:    e = decrease_factor * e
    u' = e u

with g the gradient at p. Where even the last trial gives no number the step is 0, and the next search
begins at max_lr (optax's never moves again).

Source: Armijo 1966; Nocedal and Wright, "Numerical optimization", 1999; Vaswani et al., "Painless stochastic gradient", 2019.
Reference: optax.scale_by_backtracking_linesearch (0.2.8), whose `value` is our `loss`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, moments, tree
from funcopt.core.functional.derivatives import value_and_gradient_of
from funcopt.transforms.line_search import Dispatch, line, stepped, tried

__all__ = ["BacktrackingLinesearchInfo", "ScaleByBacktrackingLinesearchState", "scale_by_backtracking_linesearch"]


class BacktrackingLinesearchInfo(NamedTuple):
    num_linesearch_steps: Tensor  # trials
    decrease_error: Tensor  # by how much the last missed what was promised; 0 where it did not


class ScaleByBacktrackingLinesearchState(NamedTuple):
    learning_rate: Tensor  # e
    value: Tensor  # the loss at p + e u
    grad: TensorTree  # its gradient there, if kept
    info: BacktrackingLinesearchInfo  # of the last search

    def signals(self) -> dict[str, Tensor]:
        return {
            "linesearch_rate": self.learning_rate,
            "linesearch_steps": self.info.num_linesearch_steps,
            "decrease_error": self.info.decrease_error,
        }


class _Trial(NamedTuple):
    rate: Tensor
    value: Tensor
    error: Tensor
    count: Tensor


def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: Scalar = 1e-4,
    decrease_factor: Scalar = 0.8,
    increase_factor: Scalar = 1.5,
    max_lr: Scalar = 1.0,
    atol: Scalar = 0.0,
    rtol: Scalar = 0.0,
    store_grad: bool = False,
    *,
    dispatch: Dispatch = "auto",
) -> GradientTransformation[ScaleByBacktrackingLinesearchState]:
    """Multiplies a downhill step by the first of a falling row of rates at which the loss falls enough.

    Args:
        max_backtracking_steps: how often the rate may be cut, >= 0; there is one trial more.
        slope_rtol: share of the promised decrease that is asked for, in [0, 1).
        decrease_factor: by which a rate is cut, in (0, 1).
        increase_factor: by which the last rate is stretched to begin with, >= 1.
        max_lr: the largest rate, > 0.
        atol, rtol: by how much the loss may miss what is asked for, >= 0: absolute, and as a share of the loss.
        store_grad: keep the gradient where the search ends (one evaluation more), for `value_and_grad_from_state`.
        dispatch: "auto" stops at the first rate that does, for which it looks at one flag a trial; under
            vmap and in a graph, and always with "select", all trials are made and those after the end change nothing.

    Returns:
        A transformation of steps that point downhill, as those of `sgd` do: put it last. It is told
        `value_fn`, the loss as a function of the params and of any extra arguments that it names (`make_step`
        tells it by itself), and, to save an evaluation, `loss` and `grad` at the params.

    After a NaN:
        This step is finite, the next is clean.

    Signals:
        says `linesearch_rate`, `linesearch_steps` and `decrease_error`: what was found, in how many trials, and how far it missed.

    Raises:
        ValueError: a number is out of range; at `update`, no params or no `value_fn` is given.

    Example:
        >>> tx = fo.chain(fo.sgd(1.0), fo.scale_by_backtracking_linesearch(10, decrease_factor=0.5))
        >>> params = torch.tensor([2.0])
        >>> updates, state = tx.update(2 * params, tx.init(params), params, value_fn=lambda p: (p**2).sum())
        >>> updates, fo.read_signals(state)["linesearch_steps"]  # 1 leads to -2, where the loss is the same
        (tensor([-2.]), tensor(2))
    """
    where = "scale_by_backtracking_linesearch"
    check.integer(where, "max_backtracking_steps", max_backtracking_steps, 0)
    check.half_open(where, "slope_rtol", slope_rtol, 0, 1)
    check.positive(where, "decrease_factor", decrease_factor)
    check.half_open(where, "decrease_factor", decrease_factor, 0, 1)
    if check.number(where, "increase_factor", increase_factor) and not increase_factor >= 1:
        raise ValueError(f"{where}: increase_factor must be >= 1, got {increase_factor}")
    check.positive(where, "max_lr", max_lr)
    check.nonnegative(where, "atol", atol)
    check.nonnegative(where, "rtol", rtol)
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))

    def init(params: TensorTree) -> ScaleByBacktrackingLinesearchState:
        def number(value: float) -> Tensor:
            return tree.scalar(value, params).clone()

        info = BacktrackingLinesearchInfo(moments.zero_count(params), number(torch.inf))
        return ScaleByBacktrackingLinesearchState(
            number(1.0), number(torch.inf), tree.zeros_like(params) if store_grad else EmptyState(), info
        )

    def update(
        updates: TensorTree,
        state: ScaleByBacktrackingLinesearchState,
        params: TensorTree | None = None,
        *,
        loss: Scalar | None = None,
        grad: TensorTree | None = None,
        value_fn: Callable[..., Tensor] | None = None,
        signals: Any = None,
        **extra: Any,
    ):
        on = line(where, state.value, updates, params, loss, grad, value_fn, extra)
        longest = tree.scalar(max_lr, state.learning_rate)
        last = state.learning_rate.detach()
        begin = torch.where(last > 0, torch.minimum(increase_factor * last, longest), longest)

        def advance(trial: _Trial) -> _Trial:
            rate = torch.where(trial.count > 0, decrease_factor * trial.rate, trial.rate)
            value = on.value(rate)
            missed = value - (1 + rtol) * on.loss - slope_rtol * rate * on.slope
            error = torch.where(missed.isnan(), torch.inf, missed.clamp(min=0))
            return _Trial(rate, value, error, trial.count + 1)

        start = _Trial(begin, on.loss, torch.full_like(begin, torch.inf), torch.zeros_like(state.info.num_linesearch_steps))
        end = tried(advance, lambda trial: ~(trial.error <= atol), start, max_backtracking_steps + 1, dispatch)

        none = end.error.isinf()
        rate, value = torch.where(none, 0.0, end.rate), torch.where(none, on.loss, end.value)
        kept = EmptyState()
        if store_grad:
            _, slopes = value_and_gradient_of(where, "value_fn", on.value_fn)(on.at(rate))
            kept = tree.cast_like(slopes, state.grad)
        rate, value, error = (x.detach().to(state.value.dtype) for x in (rate, value, end.error))
        new_state = ScaleByBacktrackingLinesearchState(rate, value, kept, BacktrackingLinesearchInfo(end.count, error))
        return stepped(rate, updates), new_state

    return GradientTransformation(init, update, name=where, leaves="complex", needs={"value_fn": "always"})
