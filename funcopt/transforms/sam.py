"""SAM: the gradient where the loss is worst nearby, so that the minimum that is found is flat.

    w   = p + rho g / ||g||                     one or more ascents by `adv_optimizer`, whose steps are turned round
    p'  = p + optimizer(gradient at w)          the step is taken from p

ASAM (`adaptive`) measures "nearby" by what a parameter is:   w = p + rho T^2 g / ||T g||,   T = |p| + eta.

Transparent, an ascent is a call of its own: params are at w in between, and sync_period calls make one
step. Opaque, all is one call, which is told `grad_fn`.

Source: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", 2021; Kwon et al., "ASAM", 2021.
Reference: optax.contrib.sam (0.2.8), which with sync_period=1 steps from the params of the call before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import (
    EmptyState,
    GradientTransformation,
    Scalar,
    TensorTree,
    apply_updates,
    chain,
    check,
    due,
    numerics,
    plans,
    read_signals,
    tree,
)
from funcopt.core.sent import sent
from funcopt.core.wrap import field, joined_words, wrapped
from funcopt.transforms.guard import choose_state
from funcopt.transforms.normalize import normalize
from funcopt.transforms.scale import scale

__all__ = ["SAMState", "normalize_adaptively", "sam"]


class SAMState(NamedTuple):
    steps_since_sync: Tensor  # ascents since the last step
    opt_state: Any  # of the optimizer that steps
    adv_state: Any  # of the one that ascends
    cache: TensorTree  # where the ascents began; like params (opaque: nothing)

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.opt_state)


def normalize_adaptively(eta: Scalar = 0.01) -> GradientTransformation[EmptyState]:
    """ASAM's direction, T^2 g / ||T g|| with T = |p| + eta: far where params are large. Zero stays zero.

    Args:
        eta: what a parameter of 0 counts as, >= 0.

    Returns:
        A transform from gradients to directions whose length, measured by T, is 1. Holds no tree.

    After a NaN:
        This step is NaN, the next is clean.

    Raises:
        ValueError: `eta` is negative; at `update`, no params are given.

    Example:
        >>> tx = fo.normalize_adaptively(eta=0.0)
        >>> params = torch.tensor([3.0, -2.0])
        >>> tx.update(torch.tensor([1.0, 2.0]), tx.init(params), params)[0]  # T g = (3, 4)
        tensor([1.8000, 1.6000])
    """
    where = "normalize_adaptively"
    check.nonnegative(where, "eta", eta)

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        weighted = tree.map(lambda g, p: (p.abs() + eta) * g, updates, params)
        length = numerics.wide_norm(weighted)
        unit = numerics.divide(weighted, torch.where(length == 0, 1, length))
        return tree.map(lambda x, g, p: ((p.abs() + eta) * x).to(g.dtype), unit, updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name=where, flattenable=True, turns=False)


def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation | None = None,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    *,
    rho: Scalar = 0.05,
    adaptive: bool = False,
    eta: Scalar = 0.01,
    dispatch: due.Dispatch = "auto",
) -> GradientTransformation[SAMState]:
    """Steps by the gradient at the worst point nearby.

    Args:
        optimizer: a ready-made optimizer, for the steps.
        adv_optimizer: a ready-made optimizer, whose steps are taken uphill; None: the gradient
            at the length `rho`, or ASAM's with `adaptive`.
        sync_period: calls (opaque: gradients) for one step, >= 1: an ascent less than that.
        reset_state: begin the state of `adv_optimizer` anew after each step.
        opaque_mode: make the ascents inside one call, which needs `grad_fn`: from params and the number of
            the ascent, 0-based, to the gradient. `make_step` tells it by itself.
        rho: how far the ascent goes, >= 0; for ASAM about ten times as far.
        adaptive: ASAM in place of SAM.
        eta: as in `normalize_adaptively`.
        dispatch: "auto" runs in each call the one optimizer that is due and, compiled, keeps one graph for
            either kind; under vmap, and always with "select", both are run and one is chosen.

    Returns:
        A transformation. Transparent it holds one tree like params, and the params between two steps
        are not those to evaluate: `find(state, "cache")` has them. Opaque it holds none, and a call takes
        `sync_period - 1` more gradients.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        forwards those of `optimizer`.

    Raises:
        ValueError: `sync_period` is less than 1; at `update`, no params are given, or (opaque) no `grad_fn`.

    Example:
        >>> tx = fo.sam(fo.sgd(0.5), rho=0.25)
        >>> params = torch.tensor([2.0])  # of p^2 / 2
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     updates, state = tx.update(params, state, params)
        ...     params = fo.apply_updates(params, updates)
        ...     print(params)
        tensor([2.2500])
        tensor([0.8750])
    """
    where = "sam"
    check.integer(where, "sync_period", sync_period, 1)
    check.nonnegative(where, "rho", rho)
    check.choice(where, "dispatch", dispatch, get_args(due.Dispatch))
    if adv_optimizer is None:
        adv_optimizer = chain(normalize_adaptively(eta) if adaptive else normalize(), scale(-rho))
    ascent = adv_optimizer
    name = f"{where} {optimizer.name}"

    def init(params: TensorTree) -> SAMState:
        return SAMState(
            steps_since_sync=due.begun(params, dispatch),
            opt_state=optimizer.init(params),
            adv_state=ascent.init(params),
            cache=EmptyState() if opaque_mode else tree.clone(params),
        )

    def uphill(updates: TensorTree, state: Any, params: TensorTree, signals: Any, extra: dict[str, Any]) -> tuple[TensorTree, Any]:
        moves, state = ascent.update(updates, state, params, signals=signals, **extra)
        return tree.map(torch.neg, moves), state

    def transparent(
        updates: TensorTree, state: SAMState, params: TensorTree | None = None, *, signals: Any = None, plan: Any = None, **extra: Any
    ):
        check.params(where, params)
        steps, inner_plan = (due.known(where, state.steps_since_sync, sync_period - 1, dispatch), None) if plan is None else plan
        planned = extra if inner_plan is None else {**extra, "plan": inner_plan}
        first = sent(state.steps_since_sync == 0, tree.device(params))
        cache = tree.where(first, params, state.cache)
        turn = due.turned(state.steps_since_sync, sync_period)

        def step() -> tuple[TensorTree, Any, Any]:
            moves, opt_state = optimizer.update(updates, state.opt_state, cache, signals=signals, **planned)
            back = tree.map(lambda c, p, u: (c - p + u).to(u.dtype), cache, params, moves)
            return back, opt_state, ascent.init(params) if reset_state else state.adv_state

        if steps is True:
            moves, opt_state, adv_state = step()
        elif steps is False:
            (moves, adv_state), opt_state = uphill(updates, state.adv_state, params, signals, extra), state.opt_state
        else:
            moves, opt_state, adv_state = step()
            other, other_state = uphill(updates, state.adv_state, params, signals, extra)
            last = sent(state.steps_since_sync == sync_period - 1, tree.device(params))
            moves = tree.where(last, moves, other)
            opt_state, adv_state = choose_state(last, opt_state, state.opt_state), choose_state(last, adv_state, other_state)
        return moves, SAMState(turn, opt_state, adv_state, cache)

    def opaque(
        updates: TensorTree,
        state: SAMState,
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        grad_fn: Callable[[TensorTree, int], TensorTree] | None = None,
        **extra: Any,
    ):
        check.params(where, params)
        if grad_fn is None:
            raise check.Missing(f"{where}: needs the gradient as a function of the params and of the number of the ascent", "grad_fn")
        worst, gradient, adv_state = params, updates, state.adv_state
        for number in range(sync_period - 1):
            moves, adv_state = uphill(gradient, adv_state, worst, signals, extra)
            worst = apply_updates(worst, moves)
            gradient = tree.cast_like(grad_fn(worst, number), updates)
        moves, opt_state = optimizer.update(gradient, state.opt_state, params, signals=signals, **extra)
        return moves, SAMState(state.steps_since_sync, opt_state, ascent.init(params) if reset_state else adv_state, state.cache)

    def plan(state: SAMState, **extra: Any) -> Any:
        steps = due.known(where, state.steps_since_sync, sync_period - 1, dispatch)
        inner = optimizer.plan(state.opt_state, **extra) if steps and optimizer.plan else None
        return None if steps is None else (steps, inner)

    changed: dict[str, Any] = {
        "hears": joined_words("hears", [optimizer.hears, ascent.hears]),
        "needs": {**joined_words("needs", [optimizer.needs, ascent.needs]), **({"grad_fn": "always"} if opaque_mode else {})},
        "flattenable": optimizer.flattenable and ascent.flattenable and not opaque_mode,  # a function of params is one of leaves
        "per_leaf": optimizer.per_leaf and ascent.per_leaf and not opaque_mode,
        "turns": True,
        "house": optimizer.house and ascent.house,
    }
    if not opaque_mode:
        changed["plan"] = None if dispatch == "select" else plan
        changed["plans"] = lambda state: plans.with_steps(optimizer, state.opt_state)
    return wrapped(init, opaque if opaque_mode else transparent, optimizer, field("opt_state"), name=name, **changed)
