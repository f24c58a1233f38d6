"""L-BFGS: the gradient times an inverse Hessian that is known from the last few steps alone, and a line search along it.

    s_i = p_i - p_{i-1},   y_i = g_i - g_{i-1},   rho_i = 1 / <y_i, s_i>       (0, and so void, where that is 0 or no number)
    q = g;   from the newest to the oldest pair   a_i = rho_i <s_i, q>,   q = q - a_i y_i
    q = <y, s> / <y, y> q of the newest pair      (the first step, and a void pair: min(1, 1 / ||g||) q; where y is 0: q)
    from the oldest to the newest   q = q + (a_i - rho_i <y_i, q>) s_i

optax's void pairs give <y, s> / <y, y> = 0, and nothing moves any more. A pair along which the
curvature is negative is used as it is; a search with the Wolfe conditions makes none.

Source: Nocedal 1980; Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
Reference: optax.lbfgs and optax.scale_by_lbfgs (0.2.8).
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, ScalarOrSchedule, TensorTree, chain, check, moments, tree
from funcopt.core.unfit import in_one_piece
from funcopt.transforms.line_search import slope
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.zoom import scale_by_zoom_linesearch

__all__ = ["ScaleByLBFGSState", "lbfgs", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    count: Tensor  # steps taken
    params: TensorTree  # of the step before
    updates: TensorTree  # its gradient
    diff_params_memory: TensorTree  # s; like params, with an axis of length memory_size in front
    diff_updates_memory: TensorTree  # y, likewise
    weights_memory: Tensor  # rho; [memory_size]


def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> GradientTransformation[ScaleByLBFGSState]:
    """Multiplies the gradient by an estimate of the inverse Hessian.

    Args:
        memory_size: pairs that are kept, >= 1; the oldest gives way.
        scale_init_precond: begin with the curvature of the newest pair, and at the first step at a length of at most 1;
            else with the identity.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds
        2 memory_size + 2 trees like `params`, and reads the memory twice a step. The gradients must be of one loss, without noise.

    After a NaN:
        This step is NaN, the next is clean.

    Raises:
        ValueError: `memory_size` is less than 1; at `update`, no params are given.

    Example:
        >>> tx = fo.scale_by_lbfgs()
        >>> params, curvature = torch.tensor([2.0]), 4.0
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     direction, state = tx.update(curvature * params, state, params)
        ...     params = params - direction
        ...     print(direction)  # of length 1 at first; then Newton's step
        tensor([1.])
        tensor([1.])
    """
    where = "scale_by_lbfgs"
    check.integer(where, "memory_size", memory_size, 1)

    def init(params: TensorTree) -> ScaleByLBFGSState:
        in_one_piece(where, params)

        def memory() -> TensorTree:
            return tree.map_plain(lambda p: torch.zeros_like(p).expand(memory_size, *p.shape).clone(), params)

        like = tree.scalar(0.0, params)
        return ScaleByLBFGSState(
            moments.zero_count(params),
            tree.zeros_like(params),
            tree.zeros_like(params),
            memory(),
            memory(),
            like.expand(memory_size).clone(),
        )

    def update(updates: TensorTree, state: ScaleByLBFGSState, params: TensorTree | None = None, **extra: Any):
        check.params(where, params)
        wide = state.weights_memory.dtype
        later = state.count > 0
        s = tree.map(lambda p, old: torch.where(later, p - old, torch.zeros_like(old)).to(old.dtype), params, state.params)
        y = tree.map(lambda g, old: torch.where(later, g - old, torch.zeros_like(old)).to(old.dtype), updates, state.updates)
        ys = slope(y, s, wide)
        sound = ys.isfinite() & tree.all_finite((s, y))
        s, y = tree.where(sound, (s, y), tree.zeros_like((s, y)))
        curved = sound & (ys != 0)
        rho = torch.where(curved, 1 / torch.where(curved, ys, 1.0), 0.0)

        slots = torch.arange(memory_size, device=rho.device)
        newest = slots == (state.count - 1) % memory_size
        S, Y = (
            tree.map(lambda x, new: _put(newest, new, x), held, new)
            for held, new in ((state.diff_params_memory, s), (state.diff_updates_memory, y))
        )
        rhos = torch.where(newest, rho, state.weights_memory)

        if scale_init_precond:
            length = tree.norm(y, dtype=wide)
            divisor = torch.where(length == 0, 1.0, length)
            norm = tree.norm(updates, dtype=wide)
            capped = torch.minimum(torch.ones_like(norm), 1 / torch.where(norm == 0, 1.0, norm))
            known = torch.where(curved, ys / divisor / divisor, torch.where(length == 0, 1.0, capped))
            gamma = torch.where(later & sound, known, capped)
        else:
            gamma = torch.ones_like(rho)
        direction = _two_loops(updates, S, Y, rhos, gamma, [(state.count + i) % memory_size for i in range(memory_size)], wide)
        new_state = ScaleByLBFGSState(
            count=moments.increment(state.count),
            params=tree.cast_like(tree.clone(params), state.params),
            updates=tree.cast_like(tree.clone(updates), state.updates),
            diff_params_memory=S,
            diff_updates_memory=Y,
            weights_memory=rhos,
        )
        return tree.cast_like(direction, updates), new_state

    return GradientTransformation(init, update, name=where, leaves="complex", turns=False)


def _put(slot: Tensor, new: Tensor, memory: Tensor) -> Tensor:
    """The memory with a new row where `slot` holds."""
    return torch.where(slot.reshape(-1, *[1] * new.dim()), new, memory)


def _row(memory: TensorTree, index: Tensor) -> TensorTree:
    return tree.map_plain(lambda x: x.index_select(0, index.reshape(1)).squeeze(0), memory)


def _two_loops(
    q: TensorTree, S: TensorTree, Y: TensorTree, rhos: Tensor, gamma: Tensor, oldest_first: list[Tensor], wide: torch.dtype
) -> TensorTree:
    """The two loops of the head; a void pair changes nothing, whatever it holds."""

    def along(weight: Tensor, x: TensorTree, q: TensorTree) -> Tensor:
        product = slope(x, q, wide)
        return torch.where(weight == 0, 0.0, weight * torch.where(weight == 0, 0.0, product))

    shares: list[Tensor] = []
    for index in reversed(oldest_first):
        a = along(_row(rhos, index), _row(S, index), q)
        q = tree.add_scale(q, -a, _row(Y, index))
        shares.append(a)
    q = tree.scale(gamma, q)
    for index, a in zip(oldest_first, reversed(shares), strict=True):
        q = tree.add_scale(q, a - along(_row(rhos, index), _row(Y, index), q), _row(S, index))
    return q


def lbfgs(
    lr: ScalarOrSchedule | None = 1.0,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None | Literal["zoom"] = "zoom",
) -> GradientTransformation:
    """L-BFGS: `scale_by_lbfgs`, a step of size `lr` downhill, then a line search along it.

    Args:
        lr: the step that the search begins with, >= 0, or a schedule; None: the `base_lr` it hears.
        memory_size, scale_init_precond: as in `scale_by_lbfgs`.
        linesearch: what finds the rate: "zoom" for `scale_by_zoom_linesearch(20, initial_guess_strategy="one")`; any
            transformation of steps; None: the step is taken as it is.

    Returns:
        A ready-made optimizer for losses without noise. With a search it is told `value_fn`, the loss as a function of
        the params (`make_step` tells it by itself). Holds 2 memory_size + 3 trees like `params`.

    After a NaN:
        This step is finite, the next is clean.

    Signals:
        as `lr_scale`; those of the search.

    Raises:
        ValueError: a number is out of range; at `update`, no params, or no `value_fn` for the search.

    Example:
        >>> loss_fn = lambda p: ((p - torch.tensor([1.0, 2.0])) ** 2 * torch.tensor([1.0, 10.0])).sum()
        >>> step = fo.make_step(loss_fn, fo.lbfgs())
        >>> params, state = step.init(torch.zeros(2))
        >>> for _ in range(6):
        ...     params, state, loss = step(params, state)
        >>> params
        tensor([1.0000, 2.0000])
    """
    if linesearch == "zoom":
        linesearch = scale_by_zoom_linesearch(20, initial_guess_strategy="one")
    elif isinstance(linesearch, str):
        raise ValueError(f"lbfgs: linesearch must be 'zoom', None or a transformation, got {linesearch!r}")
    direction = (scale_by_lbfgs(memory_size, scale_init_precond), lr_scale(lr))
    return chain(*direction) if linesearch is None else chain(*direction, linesearch)
