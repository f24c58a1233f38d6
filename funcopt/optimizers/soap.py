"""SOAP: Adam in the eigenbasis of Shampoo's factors.

    L_i <- b L_i + (1 - b) gram_i(G_t)           for every axis i of a leaf, b = shampoo_beta
    M_t  = b1 M_{t-1} + (1 - b1) G_t
    G'   = Q_1^T x ... Q_n^T G_t,   M' likewise of M_t                     (rotated)
    V_t  = b2 V_{t-1} + (1 - b2) G'^2
    N'   = M' / (sqrt(V_t) + eps),   u_t = sqrt(1 - b2^t) / (1 - b1^t) Q_1 x ... Q_n N'          (and back)
    every k steps, after this:   S = L_i Q_i, its columns by falling diagonal of Q_i^T S (and V with them),   Q_i <- QR(S)

The first step moves nothing: its gradient makes the first factors, whose eigenvectors are the first Q. A refresh is one
step of power iteration and a QR decomposition, about 2 n^3 and 4/3 n^3 multiplications for an axis of length n; each
other step costs 3 m n (m + n) in products for a leaf of m x n. Axes longer than `max_dim`, vectors and leaves without
dimensions keep the basis they have, where SOAP is Adam.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024. Reference: pytorch_optimizer.SOAP (4.1),
the authors' code, whose decompositions are float32; here weights decay in the first step too.
"""

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.core.due import Dispatch, looked
from funcopt.core.math import entrywise
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers.factors import along, bounded, eigenbasis, gram, none, orthonormal, undifferentiated, wide
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleBySoapState", "scale_by_soap", "soap"]


class ScaleBySoapState(NamedTuple):
    count: Tensor  # steps of Adam taken, one less than steps
    step: Tensor  # steps taken; on the CPU unless the refreshes are selected
    m: TensorTree  # running mean of g; like params
    v: TensorTree  # running mean of the square of the rotated g; like params
    L: TensorTree  # for every leaf a list of the factors of its axes, [n, n]; of an axis without one zeros(0)
    Q: TensorTree  # their bases, likewise


def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    shampoo_beta: float = 0.95,
    every: int = 10,
    max_dim: int = 10000,
    precondition_1d: bool = False,
    dispatch: Dispatch = "auto",
) -> GradientTransformation[ScaleBySoapState]:
    """Takes Adam's direction in a basis in which the gradient's entries are hardly correlated.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        shampoo_beta: share of the past in the factors, in [0, 1).
        every: how many steps a basis is kept, >= 1.
        max_dim: longest axis that has a factor.
        precondition_1d: whether vectors have one.
        dispatch: "auto": between refreshes nothing is decomposed, as `factors.py` says; "select": the new basis is worked
            out in every step and chosen, with the count of steps on the device.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes it is given; the first is zero.
        Holds two trees like `params` and for a matrix m x n 2 (m^2 + n^2) numbers, at least float32.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range; at `update`, a derivative reaches the factors.

    Example:
        >>> soap = fo.scale_by_soap()
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, -0.5]])
        >>> _, state = soap.update(gradient, soap.init(gradient))
        >>> soap.update(gradient, state)[0]
        tensor([[ 1.0000,  0.0000],
                [ 0.0000, -1.0000]])
    """
    where = "scale_by_soap"
    for name, value in (("b1", b1), ("b2", b2), ("shampoo_beta", shampoo_beta)):
        check.half_open(where, name, value, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.integer(where, "every", every, 1)
    check.integer(where, "max_dim", max_dim, 1)
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))
    selects = dispatch == "select"

    def has_factor(p: Tensor, axis: int) -> bool:
        return p.numel() > 0 and p.dim() > (0 if precondition_1d else 1) and p.shape[axis] <= max_dim

    def matrices(params: TensorTree, make: Any) -> TensorTree:
        def of_leaf(p: Tensor) -> list[Tensor]:
            return [make(p.shape[axis], wide(none(p))) if has_factor(p, axis) else none(p) for axis in range(p.dim())] or [none(p)]

        return tree.map_plain(of_leaf, params)

    def init(params: TensorTree) -> ScaleBySoapState:
        in_one_piece(where, params)
        device = tree.device(params)
        return ScaleBySoapState(
            count=moments.zero_count(params),
            step=torch.zeros((), dtype=torch.int64, device=device if selects else "cpu"),
            m=tree.zeros_like(params),
            v=tree.zeros_like(params),
            L=matrices(params, lambda n, like: torch.zeros(n, n, dtype=like.dtype, device=like.device)),
            Q=matrices(params, lambda n, like: torch.eye(n, dtype=like.dtype, device=like.device)),
        )

    def phase(state: ScaleBySoapState, **extra: Any) -> str | None:
        """What this call does with the bases, where Python may look."""
        taken = looked(where, state.step, dispatch)
        return None if taken is None else "first" if taken == 0 else "refresh" if taken % every == 0 else "keep"

    def rotated(x: Tensor, Q: list[Tensor], back: bool = False) -> Tensor:
        y = wide(x)
        for axis, q in enumerate(Q):
            if q.dim() == 2:
                y = along(q if back else q.mT, y, axis)
        return y

    def moved(step: str | None, g: TensorTree, state: ScaleBySoapState) -> tuple[TensorTree, Tensor, TensorTree, TensorTree]:
        """Adam in the bases of the step before."""
        count = moments.increment(state.count)
        m = moments.update_moment(g, state.m, b1)
        v = moments.update_moment(tree.map_plain(rotated, g, state.Q), state.v, b2, order=2)
        f1, f2 = moments.bias_factors(count, b1, b2)
        (correction,) = entrywise.stacked(f1 / f2.sqrt())
        divided = tree.map(lambda m, v: correction * entrywise.over_root(m, v, eps), tree.map_plain(rotated, m, state.Q), v)
        u = tree.map_plain(lambda n, Q: rotated(n, Q, back=True), divided, state.Q)
        if step is not None:
            return u, count, m, v
        first = state.step == 0
        here = first.to(count.device)
        return (
            tree.where(here, tree.zeros_like(u), u),
            torch.where(here, state.count, count),
            tree.where(here, state.m, m),
            tree.where(here, state.v, v),
        )

    def order(L: list[Tensor], Q: list[Tensor]) -> list[Tensor]:
        """For every axis its directions by falling variance."""
        return [(q * (m @ q)).sum(0).argsort(descending=True) if q.dim() == 2 else q for m, q in zip(L, Q, strict=True)]

    def reordered(v: Tensor, order: list[Tensor]) -> Tensor:
        for axis, index in enumerate(order):
            if index.numel():
                v = v.index_select(axis, index)
        return v

    def refreshed(L: list[Tensor], Q: list[Tensor], order: list[Tensor]) -> list[Tensor]:
        return [orthonormal((m @ q).index_select(1, index)) if q.dim() == 2 else q for m, q, index in zip(L, Q, order, strict=True)]

    def decomposed(g: Tensor, L: list[Tensor]) -> list[Tensor]:
        return [eigenbasis(m) if m.dim() == 2 else m for m in L]

    def update(updates: TensorTree, state: ScaleBySoapState, params: TensorTree | None = None, *, plan: str | None = None, **extra: Any):
        step = plan if plan is not None else phase(state)
        g = tree.map_plain(lambda g, m: bounded(sharded.replicated(g), m), updates, state.m)

        def factors(g: Tensor, L: list[Tensor]) -> list[Tensor]:
            return [shampoo_beta * m + (1 - shampoo_beta) * gram(g, axis) if m.dim() == 2 else m for axis, m in enumerate(L)]

        L = tree.map_plain(factors, g, state.L)
        undifferentiated(where, tree.leaves(L))
        if step == "first":
            kept = {"count": state.count, "m": state.m, "v": state.v}
            return tree.zeros_like(updates), ScaleBySoapState(
                **kept, step=moments.increment(state.step), L=L, Q=tree.map_plain(decomposed, g, L)
            )
        u, count, m, v = moved(step, g, state)
        Q = state.Q
        if step != "keep":
            orders = tree.map_plain(lambda g, L, Q: order(L, Q), g, L, Q)
            v_new, Q_new = tree.map_plain(reordered, v, orders), tree.map_plain(lambda g, L, Q, o: refreshed(L, Q, o), g, L, Q, orders)
            if step == "refresh":
                v, Q = v_new, Q_new
            else:
                first, due = state.step == 0, (state.step > 0) & (state.step % every == 0)
                begun = tree.map_plain(decomposed, g, L)
                here = due.to(count.device)
                v = tree.where(here, v_new, v)
                Q = tree.where(here, Q_new, tree.where(first.to(count.device), begun, Q))
        u = tree.map(lambda u, g: u.to(g.dtype), u, updates)
        return u, ScaleBySoapState(count=count, step=moments.increment(state.step), m=m, v=v, L=L, Q=Q)

    phases = ("first", "refresh") + ("keep",) * (every > 1)
    plan = None if selects else phase
    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False, plan=plan, plans=lambda state: phases)


def soap(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
    *,
    shampoo_beta: float = 0.95,
    every: int = 10,
    max_dim: int = 10000,
    precondition_1d: bool = False,
    dispatch: Dispatch = "auto",
) -> GradientTransformation:
    """SOAP: `scale_by_soap`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as Adam's: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        shampoo_beta: share of the past in the factors, in [0, 1).
        every: how many steps a basis is kept, >= 1.
        max_dim: longest axis that has a factor.
        precondition_1d: whether vectors have one.
        dispatch: "auto" or "select", as in `scale_by_soap`.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params; the first moves nothing but by the decay.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range; at `update`, a derivative reaches the factors, or no params are given where they decay.

    Example:
        >>> tx = fo.soap(0.1)
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, -0.5]])
        >>> _, state = tx.update(gradient, tx.init(gradient))
        >>> tx.update(gradient, state)[0]
        tensor([[-0.1000, -0.0000],
                [-0.0000,  0.1000]])
    """
    direction = scale_by_soap(
        b1, b2, eps, shampoo_beta=shampoo_beta, every=every, max_dim=max_dim, precondition_1d=precondition_1d, dispatch=dispatch
    )
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
