"""Sophia: a running mean of the gradient over a running mean of the curvature, entry by entry, and no entry longer than a bound.

    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t
    u_t  = clip(mu_t / (1 - b1^t) / max(gamma * h_{t-1}, eps), +- clip_threshold)
    h_t  = b2 * h_{t-1} + (1 - b2) * (an estimate of the Hessian's diagonal at p_t)      in every update_interval-th step, else h_{t-1}

h begins at zero and is looked at before it is renewed; so the first step is of the length of the bound in
every entry. Where the curvature is negative eps stands for it, and the bound for the step.

Source: Liu et al., "Sophia: a scalable stochastic second-order optimizer for language model pre-training", 2023.
Reference: optax.contrib.sophia (0.2.8), whose signs come from another generator.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, due, moments, tree
from funcopt.core.math import entrywise
from funcopt.transforms.guard import choose_state
from funcopt.transforms.hutchinson import hutchinson_estimator_diag_hessian
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["SophiaState", "scale_by_sophia", "sophia"]

Diagonal = Literal["hutchinson", "told"]


class SophiaState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # h, running mean of the estimates; like params
    hessian_fn_state: Any  # of what estimates the curvature
    turn: Tensor  # steps since the curvature was estimated; at 0 it is due
    win_rate: Tensor  # share of the entries of the last step that were not cut

    def signals(self) -> dict[str, Tensor]:
        return {"win_rate": self.win_rate}


def told_hessian() -> GradientTransformation[EmptyState]:
    """Gives what it is told as `hessian`."""

    def update(
        updates: TensorTree, state: EmptyState, params: TensorTree | None = None, *, hessian: TensorTree | None = None, **extra: Any
    ):
        if hessian is None:
            raise check.Missing("scale_by_sophia: needs the diagonal of the Hessian", "hessian")
        return hessian, state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="told_hessian", flattenable=True, per_leaf=True, needs={"hessian": "always"}
    )


def scale_by_sophia(
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation | Diagonal = "hutchinson",
    mu_dtype: torch.dtype | None = None,
    *,
    key: int | Tensor | None = None,
    dispatch: due.Dispatch = "auto",
) -> GradientTransformation[SophiaState]:
    """Divides a running mean of the gradient by a running mean of the curvature, and cuts every entry.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of the estimates, in [0, 1).
        eps: the least curvature that is divided by, > 0.
        gamma: how much of the curvature counts, > 0. The source keeps `win_rate` between 0.1 and 0.5 by it.
        clip_threshold: bound of every entry, > 0; None: none.
        update_interval: steps from one estimate to the next, >= 1.
        hessian_diagonal_fn: what estimates the diagonal, from the extra arguments of `update`:
            a transformation; "hutchinson" for `hutchinson_estimator_diag_hessian`, which is told `obj_fn`; "told" for
            what is handed over as `hessian`, a tree like `params`.
        mu_dtype: dtype of the stored mean of the gradient; None: that of the params.
        key: of Hutchinson's signs: an int or a key; None draws one now.
        dispatch: "auto" estimates in the calls in which that is due and, compiled, keeps one graph for
            either kind; under vmap, and always with "select", it estimates in every call and takes what is due.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds two trees like
        `params`. An estimate by Hutchinson costs two passes backward.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        says `win_rate`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given, or not what the estimate is made from.

    Example:
        >>> tx = fo.scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0, hessian_diagonal_fn="told", update_interval=1)
        >>> params, curvature = torch.zeros(2), torch.tensor([8.0, 1.0])
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     direction, state = tx.update(torch.tensor([2.0, 2.0]), state, params, hessian=curvature)
        >>> direction, state.win_rate
        (tensor([0.2500, 1.0000]), tensor(0.5000, dtype=torch.float64))
    """
    where = "scale_by_sophia"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.positive(where, "eps", eps)
    check.positive(where, "gamma", gamma)
    if clip_threshold is not None:
        check.positive(where, "clip_threshold", clip_threshold)
    check.integer(where, "update_interval", update_interval, 1)
    check.dtype(where, "mu_dtype", mu_dtype)
    check.choice(where, "dispatch", dispatch, get_args(due.Dispatch))
    if isinstance(hessian_diagonal_fn, str):
        check.choice(where, "hessian_diagonal_fn", hessian_diagonal_fn, get_args(Diagonal))
        estimator = hutchinson_estimator_diag_hessian(key) if hessian_diagonal_fn == "hutchinson" else told_hessian()
    else:
        estimator = hessian_diagonal_fn

    def init(params: TensorTree) -> SophiaState:
        turn = due.begun(params, dispatch)
        begun = estimator.init(params)
        return SophiaState(
            count=moments.zero_count(params),
            mu=tree.zeros_like(params, mu_dtype),
            nu=tree.zeros_like(params),
            # a key on the CPU could not be held still by a turn that lies on the device
            hessian_fn_state=tree.map_plain(lambda x: x.to(turn.device), begun) if dispatch == "select" else begun,
            turn=turn,
            win_rate=tree.scalar(0.0, params).clone(),
        )

    def cut(u: Tensor) -> Tensor:
        if isinstance(clip_threshold, Tensor):
            bound = clip_threshold.to(u.dtype)
            return torch.maximum(torch.minimum(u, bound), -bound)
        return u if clip_threshold is None else u.clamp(-clip_threshold, clip_threshold)

    def renewed(updates: TensorTree, state: SophiaState, params: TensorTree | None, extra: dict[str, Any]) -> tuple[TensorTree, Any]:
        diagonal, estimator_state = estimator.update(updates, state.hessian_fn_state, params, **extra)
        return moments.update_moment(diagonal, state.nu, b2), estimator_state

    def update(
        updates: TensorTree,
        state: SophiaState,
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        plan: bool | None = None,
        **extra: Any,
    ):
        check.params(where, params)
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, b1)
        (f1,) = moments.bias_factors(count, b1)

        def direct(g: Tensor, mu: Tensor, h: Tensor) -> Tensor:
            curvature = torch.maximum(gamma * h, eps.to(h.dtype)) if isinstance(eps, Tensor) else (gamma * h).clamp(min=eps)
            return (f1 * entrywise.at_least(mu, g) / curvature).to(g.dtype)

        whole = tree.map(direct, updates, mu, state.nu)
        if clip_threshold is None:
            won = tree.scalar(1.0, state.win_rate).clone()
        else:
            uncut = tree.sum(tree.map_plain(lambda u: (u.abs() < clip_threshold).to(state.win_rate.dtype), whole))
            won = (uncut / max(1, tree.size(whole))).to(state.win_rate)
        is_due = due.known(where, state.turn, 0, dispatch) if plan is None else plan
        nu, estimator_state = (state.nu, state.hessian_fn_state) if is_due is False else renewed(updates, state, params, extra)
        if is_due is None:
            chosen = state.turn == 0
            nu = tree.where(chosen.to(won.device), nu, state.nu)
            estimator_state = choose_state(chosen, estimator_state, state.hessian_fn_state)
        new_state = SophiaState(count, mu, nu, estimator_state, due.turned(state.turn, update_interval), won)
        return tree.map(cut, whole), new_state

    def plan(state: SophiaState, **extra: Any) -> bool | None:
        return due.known(where, state.turn, 0, dispatch)

    one_by_one = estimator.flattenable and estimator.per_leaf
    return GradientTransformation(
        init,
        update,
        name=where,
        flattenable=one_by_one,
        turns=False,
        needs=estimator.needs,
        plan=None if dispatch == "select" else plan,
        plans=lambda state: (True, False),
        house=estimator.house,
    )


def sophia(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.965,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: TensorTree | None = None,
    gamma: Scalar = 0.01,
    clip_threshold: Scalar | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation | Diagonal = "hutchinson",
    mu_dtype: torch.dtype | None = None,
    *,
    key: int | Tensor | None = None,
    dispatch: due.Dispatch = "auto",
) -> GradientTransformation:
    """Sophia: `scale_by_sophia`, decoupled decay, then a step of size `lr` downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        weight_decay: decoupled, multiplied by the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        b1, b2, eps, gamma, clip_threshold, update_interval, hessian_diagonal_fn, mu_dtype, key, dispatch: as in `scale_by_sophia`.

    Returns:
        A ready-made optimizer that is told `obj_fn` (`make_step` tells it by itself), or what its own
        `hessian_diagonal_fn` needs. Holds two trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        as `lr_scale`; says `win_rate`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given, or not what the estimate is made from.

    Example:
        >>> tx = fo.sophia(0.1, weight_decay=0.0, key=0)
        >>> params = torch.tensor([2.0])
        >>> tx.update(torch.tensor([4.0]), tx.init(params), params, obj_fn=lambda p: (p * p).sum())[0]
        tensor([-0.1000])
    """
    direction = scale_by_sophia(
        b1, b2, eps, gamma, clip_threshold, update_interval, hessian_diagonal_fn, mu_dtype, key=key, dispatch=dispatch
    )
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
