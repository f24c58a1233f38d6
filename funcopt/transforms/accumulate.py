"""multi_steps and apply_every: one step from the gradients of several calls.

    a_j = a_{j-1} + (g_j - a_{j-1}) / (j + 1)     (mean),   a_j = a_{j-1} + g_j     (sum),      j = 0, 1, ..., k - 1
    u   = inner(a_{k-1}) in the k-th call, 0 in the others

A skip rule leaves single gradients out. A controller inside hears, as `loss`, the mean of
the losses of the calls that were not skipped. Where a Python branch may look at the
counter (it then lives on the CPU), the inner transformation runs in every k-th call only;
inside functorch transforms and graphs, and with a skip rule, it always runs and the
result is chosen.

Reference: optax.MultiSteps and optax.apply_every (0.2.8).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, check, moments, plans, random, read_signals, tree
from funcopt.core.dtypes import summing
from funcopt.core.sent import sent
from funcopt.core.versions import compiling, transforming
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.guard import choose_state

__all__ = [
    "ApplyEvery",
    "MultiSteps",
    "MultiStepsState",
    "ShouldSkipUpdateFunction",
    "apply_every",
    "multi_steps",
    "skip_large_updates",
    "skip_not_finite",
]

Dispatch = Literal["auto", "select"]
ShouldSkipUpdateFunction = Callable[[TensorTree, Tensor, TensorTree | None], tuple[Tensor, Any]]


class MultiStepsState(NamedTuple):
    mini_step: Tensor  # gradients accumulated so far; with the counter below on the CPU unless they are selected by
    gradient_step: Tensor  # steps of the inner transformation
    inner_opt_state: Any  # of what it wraps
    acc_grads: TensorTree  # mean or sum so far
    skip_state: Any  # what the skip rule told last
    loss: Tensor  # mean of the losses so far; 0-dim

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_opt_state)


class MultiSteps(GradientTransformation):
    """A `multi_steps`: a transformation, and the question whether it has made a step."""

    @staticmethod
    def has_updated(state: MultiStepsState) -> Tensor:
        """Whether the last call made a step; 0-dim bool."""
        return (state.mini_step == 0) & (state.gradient_step > 0)


def multi_steps(
    inner: GradientTransformation,
    every_k_schedule: int | Callable[[Tensor], Tensor | int],
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
    accumulator_dtype: torch.dtype | None = None,
    *,
    dispatch: Dispatch = "auto",
) -> MultiSteps:
    """Collects the gradients of several calls and makes one step of them.

    Args:
        inner: any transformation; its counters and schedules count its own steps.
        every_k_schedule: how many gradients make a step, >= 1: an int, or a function from
            the count of steps made so far, 0-dim int64.
        use_grad_mean: their mean; else their sum.
        should_skip_update_fn: `(updates, gradient_step, params) -> (skip, info)` with a
            0-dim bool, for instance `skip_not_finite`; a skipped gradient is not counted.
            What it tells is kept in `skip_state`.
        accumulator_dtype: of the accumulated gradients; None: float32 for narrower
            params, else that of the params.
        dispatch: "auto" as the head of this file says; "select" always chooses, with the
            counters on the device of params.

    Returns:
        A transformation that gives zeros until a step is made; `has_updated(state)` tells,
        0-dim bool. Holds one tree like params.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `inner`.

    Raises:
        ValueError: `every_k_schedule` is less than 1; at `update`, the rule gives no 0-dim bool.

    Example:
        >>> tx = fo.multi_steps(fo.sgd(1.0), 2)
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.has_updated(state)
        (tensor([0.]), tensor(False))
        >>> updates, state = tx.update(torch.tensor([3.0]), state)
        >>> updates, tx.has_updated(state)
        (tensor([-2.]), tensor(True))
    """
    if not callable(every_k_schedule):
        check.integer("multi_steps", "every_k_schedule", every_k_schedule, 1)
    elif not (compiling() or transforming()):
        first = every_k_schedule(check.takes_the_count("multi_steps", "every_k_schedule", every_k_schedule))
        if not isinstance(first, Tensor) or random.readable(first):
            _whole(first)
    check.choice("multi_steps", "dispatch", dispatch, get_args(Dispatch))
    check.dtype("multi_steps", "accumulator_dtype", accumulator_dtype)
    rule = should_skip_update_fn
    selects = dispatch == "select" or rule is not None

    def wide(p: Tensor) -> torch.dtype:
        return summing(p.dtype) if accumulator_dtype is None else tree.width(p, accumulator_dtype)

    def init(params: TensorTree) -> MultiStepsState:
        device = tree.device(params)
        here = device if selects else torch.device("cpu")
        step = torch.zeros((), dtype=torch.int64, device=here)
        return MultiStepsState(
            mini_step=step.clone(),
            gradient_step=step,
            inner_opt_state=inner.init(params),
            acc_grads=tree.map_plain(lambda p: torch.zeros_like(p, dtype=wide(p), requires_grad=False), params),
            skip_state=EmptyState() if rule is None else tree.clone(rule(tree.zeros_like(params), step, params)[1]),
            loss=tree.scalar(0.0, params),
        )

    def length(state: MultiStepsState) -> int | Tensor:
        return every_k_schedule(state.gradient_step) if callable(every_k_schedule) else every_k_schedule

    def known(state: MultiStepsState) -> bool | None:
        """Whether this call makes the step, where Python may look."""
        if selects or not random.readable(state.mini_step):
            return None
        return random.host_int(state.mini_step, "multi_steps") >= _whole(length(state)) - 1

    def accumulated(updates: TensorTree, state: MultiStepsState, skip: Tensor | None, loss: Any) -> tuple[TensorTree, Tensor]:
        parts = state.mini_step + 1

        def add(acc: Tensor, g: Tensor) -> Tensor:
            new = acc + (g.to(acc.dtype) - acc) / parts if use_grad_mean else acc + g.to(acc.dtype)
            return (new if skip is None else torch.where(skip, acc, new)).to(acc.dtype)

        if loss is None:
            mean = state.loss.clone()
        else:
            told = sent(tree.scalar(loss, state.loss), state.loss.device, state.loss.dtype)
            mean = state.loss + (told - state.loss) / parts
            mean = mean if skip is None else torch.where(skip, state.loss, mean)
        return tree.map_plain(add, state.acc_grads, updates), mean

    def stepped(
        updates: TensorTree, state: Any, params: TensorTree, signals: Any, acc: TensorTree, mean: Tensor, plan: Any, extra: dict[str, Any]
    ):
        if extra.get("loss") is not None:
            extra = {**extra, "loss": mean}
        if plan is not None:
            extra = {**extra, "plan": plan}
        given = tree.map_plain(lambda a, g: a.to(g.dtype), acc, updates)
        return inner.update(given, state.inner_opt_state, params, signals=signals, **extra)

    def update(
        updates: TensorTree,
        state: MultiStepsState,
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        plan: Any = None,
        **extra: Any,
    ):
        skip = info = None
        if rule is not None:
            skip, info = rule(updates, state.gradient_step, params)
            if not isinstance(skip, Tensor) or skip.dtype != torch.bool or skip.dim() != 0:
                raise ValueError(f"multi_steps: should_skip_update_fn must return a 0-dim bool and what it has to tell, got {skip!r}")
        acc, mean = accumulated(updates, state, skip, extra.get("loss"))
        steps, inner_plan = plan if plan is not None else (known(state), None)
        kept = {"skip_state": state.skip_state if rule is None else tree.clone(info)}
        if steps is False:
            waiting = MultiStepsState(
                moments.increment(state.mini_step), state.gradient_step.clone(), state.inner_opt_state, acc, loss=mean, **kept
            )
            return tree.zeros_like(updates), waiting
        changed, inner_state = stepped(updates, state, params, signals, acc, mean, inner_plan, extra)
        if steps is True:
            begun = tree.zeros_like(state.acc_grads)
            zero = torch.zeros_like(state.mini_step)
            return changed, MultiStepsState(
                zero, moments.increment(state.gradient_step), inner_state, begun, loss=torch.zeros_like(mean), **kept
            )
        last = state.mini_step >= length(state) - 1
        emits = last if skip is None else last & ~skip
        counted = (
            moments.increment(state.mini_step) if skip is None else torch.where(skip, state.mini_step, moments.increment(state.mini_step))
        )
        here = emits.to(mean.device)
        return tree.where(here, changed, tree.zeros_like(changed)), MultiStepsState(
            mini_step=torch.where(emits, 0, counted),
            gradient_step=state.gradient_step + emits,
            inner_opt_state=choose_state(here, inner_state, state.inner_opt_state),
            acc_grads=tree.where(here, tree.zeros_like(acc), acc),
            loss=torch.where(here, 0, mean),
            **kept,
        )

    def plan(state: MultiStepsState, **extra: Any):
        steps = known(state) if not state.mini_step.dim() else None
        if steps is None:
            return None
        return steps, inner.plan(state.inner_opt_state, **extra) if steps and inner.plan else None

    changed: dict[str, Any] = {
        "leaves": inner.leaves,
        "plan": None if selects else plan,
        "per_leaf": inner.per_leaf and rule is None,
    }  # a rule sees all
    changed["plans"] = lambda state: plans.with_steps(inner, state.inner_opt_state)
    return wrapped(init, update, inner, field("inner_opt_state"), kind=MultiSteps, name=f"multi_steps {inner.name}", **changed)


def _whole(k: Any) -> int:
    """How many gradients a schedule asks for."""
    if isinstance(k, Tensor):
        if k.dim() != 0 or k.is_floating_point():
            raise ValueError(
                "multi_steps: every_k_schedule must give an int or a 0-dim integer tensor, "
                f"got a tensor of {k.dtype} and shape {tuple(k.shape)}"
            )
        k = random.host_int(k, "multi_steps")
    check.integer("multi_steps", "what every_k_schedule gives", k, 1)
    return k


def skip_not_finite(updates: TensorTree, gradient_step: Tensor, params: TensorTree | None) -> tuple[Tensor, dict[str, Tensor]]:
    """A rule for `multi_steps`: skips gradients that hold a NaN or an infinity, and tells how many entries are.

    Args:
        updates: the gradients of one call of `multi_steps`.
        gradient_step: how many updates `multi_steps` has made; not looked at.
        params: not looked at.

    Returns:
        A 0-dim bool, True to skip, and a dict of 0-dim tensors that the state of `multi_steps` keeps.

    Example:
        >>> fo.skip_not_finite(torch.tensor([1.0, torch.nan]), torch.tensor(0), None)
        (tensor(True), {'should_skip': tensor(True), 'num_not_finite': tensor(1)})
    """
    count = tree.sum(tree.map_plain(lambda g: (~g.isfinite()).sum(), updates)).to(torch.int64)
    return count > 0, {"should_skip": count > 0, "num_not_finite": count}


def skip_large_updates(
    updates: TensorTree, gradient_step: Tensor, params: TensorTree | None, max_squared_norm: Scalar
) -> tuple[Tensor, dict[str, Tensor]]:
    """A rule for `multi_steps`: skips gradients whose squared norm is not below a bound (NaN is not), and tells the squared norm.

    Args:
        updates: the gradients of one call of `multi_steps`.
        gradient_step: how many updates `multi_steps` has made; not looked at.
        params: not looked at.
        max_squared_norm: bound of the squared norm of all leaves together; give it with `functools.partial`.

    Returns:
        A 0-dim bool, True to skip, and a dict of 0-dim tensors that the state of `multi_steps` keeps.

    Example:
        >>> fo.skip_large_updates(torch.tensor([3.0, 4.0]), torch.tensor(0), None, max_squared_norm=20.0)
        (tensor(True), {'should_skip': tensor(True), 'norm_squared': tensor(25.)})
    """
    squared, wide = tree.squared_norm(updates), tree.squared_norm(updates, tree.scalar_dtype(tree.device(updates)))
    skip = ~(wide < max_squared_norm)  # float32 holds no square of 2e19, nor the difference between a bound and what is just below
    return skip, {"should_skip": skip, "norm_squared": squared}


class ApplyEvery(NamedTuple):
    count: Tensor  # of the next call within its round of k
    grad_acc: TensorTree  # sum so far; like params


def apply_every(k: int = 1) -> GradientTransformation[ApplyEvery]:
    """Adds up what passes and lets the sum through in every k-th call; zeros in the others.

    What stands to the right goes on counting the zero updates, which is rarely wanted:
    see `multi_steps`.

    Args:
        k: calls, >= 1.

    Returns:
        A transformation that keeps shapes and dtypes. Holds one tree like `params`.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `k` is no integer >= 1.

    Example:
        >>> tx = fo.apply_every(2)
        >>> updates, state = tx.update(torch.tensor([1.0]), tx.init(torch.zeros(1)))
        >>> updates, tx.update(torch.tensor([3.0]), state)[0]
        (tensor([0.]), tensor([4.]))
    """
    check.integer("apply_every", "k", k, 1)

    def init(params: TensorTree) -> ApplyEvery:
        return ApplyEvery(count=torch.zeros((), dtype=torch.int64, device=tree.device(params)), grad_acc=tree.zeros_like(params))

    def update(updates: TensorTree, state: ApplyEvery, params: TensorTree | None = None, **extra: Any):
        first, last = state.count == 0, state.count == k - 1
        total = tree.map(lambda acc, g: torch.where(first, g, acc + g).to(acc.dtype), state.grad_acc, updates)
        released = tree.map(lambda acc, g: torch.where(last, acc, torch.zeros_like(acc)).to(g.dtype), total, updates)
        return released, ApplyEvery(count=(state.count + 1) % k, grad_acc=total)

    return GradientTransformation(init, update, name="apply_every", flattenable=True, leaves="complex", per_leaf=True, turns=False)
