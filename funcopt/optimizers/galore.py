"""GaLore: the state of any method on matrices of low rank, made of the gradient by its own leading singular vectors.

    P_t = the r leading left singular vectors of the matrix G_t      in every update_proj_gap-th step, else P_{t-1}
    u_t = scale * P_t base(P_t^T G_t)

for a matrix that is at least as high as wide; else with the right ones, and P from the right. Inputs
count as height (`MuonDimensionNumbers`). What is no matrix passes `base` whole. To derivatives P is a constant.

Source: Zhao et al., "GaLore: memory-efficient LLM training by gradient low-rank projection", 2024. Reference:
optax.contrib.galore (0.2.8), whose decompositions are in float32, and whose matrices are (in, out) where ours are torch's (out, in).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, due, moments, plans, read_signals, tree
from funcopt.core.dtypes import at_least_float32
from funcopt.core.unfit import in_one_piece
from funcopt.core.wrap import field, wrapped
from funcopt.optimizers.adam import scale_by_adam
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers, as_matrices, dimensions_of, the_same
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["GaLoreState", "galore", "scale_by_galore"]

Numbers = TensorTree | Callable[..., Any] | MuonDimensionNumbers


class GaLoreState(NamedTuple):
    count: Tensor  # steps taken
    base_optimizer_state: Any  # of a tree in which a matrix is P^T G
    projector: TensorTree  # P of every matrix, [..., longer side, rank]; of another leaf an empty one
    turn: Tensor  # steps since P was renewed; at 0 it is due

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.base_optimizer_state)


def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: Numbers | None = None,
    *,
    dispatch: due.Dispatch = "auto",
) -> GradientTransformation[GaLoreState]:
    """Runs a method on gradients of low rank.

    Args:
        rank: r, >= 1; of a matrix with a side shorter than that, the side.
        update_proj_gap: steps from one decomposition to the next, >= 1.
        scale: multiplies what comes back from the low rank, and not what passes whole; any number.
        base_optimizer: what works on the low rank; it is given no params, whose shape is another.
            None: `scale_by_adam()`.
        weight_dimension_numbers: `MuonDimensionNumbers` for all leaves, or a tree of them with None for what
            passes whole, or a prefix or a function of the tree that gives one, such as `by_path(...)`;
            None: leaves of rank 2 as torch lays them out.
        dispatch: "auto" decomposes in the calls in which that is due and, compiled, keeps one graph for either
            kind; under vmap, and always with "select", it decomposes in every call and takes what is due.

    Returns:
        A transform from gradients to directions. For a matrix of m by n, m >= n, it holds m r numbers and what
        the method holds for r n, such as 2 r n of Adam in place of 2 m n. A decomposition costs about 10 m n^2 operations.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Signals:
        forwards those of `base_optimizer`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> tx = fo.scale_by_galore(rank=1, base_optimizer=fo.identity())
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, 2.0]])  # of which the larger singular value stays
        >>> tx.update(gradient, tx.init(gradient))[0].abs()
        tensor([[3., 0.],
                [0., 0.]])
    """
    where = "scale_by_galore"
    check.integer(where, "rank", rank, 1)
    check.integer(where, "update_proj_gap", update_proj_gap, 1)
    check.finite(where, "scale", scale)
    check.choice(where, "dispatch", dispatch, get_args(due.Dispatch))
    base = scale_by_adam() if base_optimizer is None else base_optimizer
    dimensions = dimensions_of(where, "weight_dimension_numbers", weight_dimension_numbers)

    def init(params: TensorTree) -> GaLoreState:
        in_one_piece("scale_by_galore", params)
        low, projector = [], []
        for p, numbers in zip(tree.leaves(params), dimensions(params), strict=True):
            if numbers is None:
                low.append(p)
                projector.append(p.new_zeros((0, 0)))
                continue
            G, _ = as_matrices(p, numbers)
            P = G.new_zeros((*G.shape[:-2], max(G.shape[-2:]), min(rank, *G.shape[-2:])))
            low.append(onto(P, G))
            projector.append(P)
        return GaLoreState(
            count=moments.zero_count(params),
            base_optimizer_state=base.init(tree.unflatten(params, low)),
            projector=tree.unflatten(params, projector),
            turn=due.begun(params, dispatch),
        )

    def update(updates: TensorTree, state: GaLoreState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        is_due, inner_plan = (due.known(where, state.turn, 0, dispatch), None) if plan is None else plan
        if inner_plan is not None:
            extra = {**extra, "plan": inner_plan}
        low, projector, backs = [], [], []
        for g, P, numbers in zip(tree.leaves(updates), tree.leaves(state.projector), dimensions(updates), strict=True):
            if numbers is None:
                low.append(g)
                projector.append(P)
                backs.append(None)
                continue
            G, back = as_matrices(g, numbers)

            def fresh(G: Tensor = G, P: Tensor = P) -> Tensor:
                return leading(G, P.shape[-1]).to(P.dtype).clone(memory_format=torch.contiguous_format)  # strides as from `init`

            P = due.renewed(is_due, state.turn == 0, fresh, P)
            low.append(onto(P.to(G.dtype), G))
            projector.append(P)
            backs.append((back, G.shape))

        direction, inner = base.update(tree.unflatten(updates, low), state.base_optimizer_state, None, **extra)
        results = []
        for d, P, way in zip(tree.leaves(direction), projector, backs, strict=True):
            if way is None:
                results.append(d)
                continue
            back, shape = way
            whole = P.to(d.dtype) @ d if shape[-2] >= shape[-1] else d @ P.to(d.dtype).mT
            results.append((scale * back(whole)).to(d.dtype))
        new_state = GaLoreState(
            moments.increment(state.count), inner, tree.unflatten(updates, projector), due.turned(state.turn, update_proj_gap)
        )
        return tree.cast_like(tree.unflatten(updates, results), updates), new_state

    def plan(state: GaLoreState, **extra: Any) -> Any:
        is_due = due.known(where, state.turn, 0, dispatch)
        inner = base.plan(state.base_optimizer_state, **extra) if base.plan else None
        return None if is_due is None and inner is None else (is_due, inner)

    every_leaf = base.per_leaf and the_same(weight_dimension_numbers)
    return wrapped(
        init,
        update,
        base,
        field("base_optimizer_state"),
        name=f"{where} {base.name}",
        leaves="real",
        plan=plan,
        plans=lambda state: plans.with_turns(base, state.base_optimizer_state, (None,) if dispatch == "select" else (True, False)),
        per_leaf=every_leaf,
        flattenable=False,
    )


def onto(P: Tensor, G: Tensor) -> Tensor:
    """A matrix of low rank in place of G: [r, n] of one that is at least as high as wide, else [m, r]."""
    return P.mT @ G if G.shape[-2] >= G.shape[-1] else G @ P


def leading(G: Tensor, rank: int) -> Tensor:
    """The leading singular vectors of the longer side, [..., side, rank]; what is not finite, which LAPACK would refuse, counts as 0."""
    X = at_least_float32(G.detach())
    if X.numel() == 0:
        return X.new_zeros((*X.shape[:-2], max(X.shape[-2:]), rank))
    X = torch.where(X.isfinite(), X, 0)
    largest = X.abs().amax((-2, -1), keepdim=True)
    X = X / torch.where(largest == 0, 1, largest)  # singular vectors do not depend on the scale, which may overflow
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    P = U[..., :rank] if X.shape[-2] >= X.shape[-1] else Vh[..., :rank, :].mT
    # Either sign will do, and LAPACK gives either: the largest entry of each is made positive, in every form of a step.
    largest = P.gather(-2, P.abs().argmax(-2, keepdim=True))
    return torch.where(largest < 0, -P, P)


def galore(
    lr: ScalarOrSchedule | None,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Scalar = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
    weight_dimension_numbers: Numbers | None = None,
    *,
    dispatch: due.Dispatch = "auto",
) -> GradientTransformation:
    """GaLore: `scale_by_galore`, decoupled decay, then a step of size `lr` downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, dispatch: as in `scale_by_galore`.
        weight_decay: decoupled, multiplied by the rate, >= 0, or a schedule.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Signals:
        as `lr_scale`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> tx = fo.galore(0.1, rank=1)
        >>> params = {"w": torch.ones(3, 2), "b": torch.ones(3)}
        >>> [tuple(x.shape) for x in fo.tree.leaves(fo.find(tx.init(params), "mu"))]
        [(3,), (2, 1)]
    """
    direction = scale_by_galore(rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, dispatch=dispatch)
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
