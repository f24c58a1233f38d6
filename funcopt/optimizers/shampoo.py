"""Shampoo: the gradient's matrices, divided on either side by the root of how they have been spread.

    L_t = b2 L_{t-1} + (1 - b2) G_t G_t^T,   R_t = b2 R_{t-1} + (1 - b2) G_t^T G_t             (b2 = 1: sums)
    M^  = the mean of G, corrected for its start
    U   = (L^ + e)^(-1/4) M^ (R^ + e)^(-1/4);   of a vector (L^ + e)^(-1/2) m^;   e = eps + ridge tr(L^), x^ divided by 1 - b2^t
    P   = the step of the method that is grafted:   "adam" M^ / (sqrt(V^) + graft_eps),   "sgd" M^
    u_t = U ||P|| / ||U||   for every leaf;   before the roots are there, P

The roots are worked out anew every k steps (`every`). Matrices longer than `block_size` in an axis are cut into blocks,
each with factors of its own; kernels are matrices (out, the rest); a leaf without dimensions is a vector of one entry.

A root by eigenvalues takes about 9 n^3 multiplications for an axis of length n, and on a GPU torch waits for it;
root="newton" takes 4 products of n x n (3 for vectors) in each of 26 iterations at the default ridge, and waits for
nothing. Each other step costs 2 m n (m + n) multiplications for a leaf of m x n.

Source: Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018; grafting, blocks and
means as in Shi et al., "A Distributed Data-Parallel PyTorch Implementation of the Distributed Shampoo Optimizer", 2023.
Reference: pytorch_optimizer.Shampoo (4.1) with b1=0, b2=1, eps=1e-6, ridge=0, every=1, graft=None.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, sharded, tree
from funcopt.core.due import Dispatch, looked
from funcopt.core.math import entrywise
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers.factors import bounded, gram, inverse_root, none, undifferentiated, wide
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByShampooState", "scale_by_shampoo", "shampoo"]
Graft = Literal["adam", "sgd"]
Root = Literal["eigh", "newton"]


class ScaleByShampooState(NamedTuple):
    count: Tensor  # steps taken
    step: Tensor  # steps taken; on the CPU unless the roots are selected
    m: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2, of what is grafted; like params, zeros(1) where nothing is divided
    L: TensorTree  # for every leaf a list of the factors, [n, n], of each axis of each block
    root: TensorTree  # their inverse roots, likewise


def _matrix(x: Tensor) -> Tensor:
    """A leaf as what its factors are of: a matrix or a vector."""
    return x.reshape(x.shape[0], -1) if x.dim() > 1 else x.reshape(-1)


def _cut(x: Tensor, size: int) -> list[list[Tensor]]:
    """Its blocks, row by row."""
    rows = x.split(size, 0)
    return [list(row.split(size, 1)) if x.dim() == 2 else [row] for row in rows]


def _joined(blocks: list[list[Tensor]]) -> Tensor:
    rows = [torch.cat(row, 1) if len(row) > 1 else row[0] for row in blocks]
    return torch.cat(rows, 0) if len(rows) > 1 else rows[0]


def scale_by_shampoo(
    b1: Scalar = 0.9,
    b2: float = 0.999,
    eps: Scalar = 1e-12,
    *,
    ridge: float = 1e-6,
    every: int = 10,
    start: int | None = None,
    block_size: int = 1024,
    graft: Graft | None = "adam",
    graft_eps: Scalar = 1e-8,
    root: Root = "eigh",
    dispatch: Dispatch = "auto",
) -> GradientTransformation[ScaleByShampooState]:
    """Multiplies a mean of the gradient by inverse roots of its factors, and gives it the length of another method's step.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the factors and in the mean square, in [0, 1]; 1: they are sums.
        eps: added to the eigenvalues, >= 0.
        ridge: added besides, as a share of their sum, >= 0: below 1e-7 or so float32 does not tell eigenvalues from zero.
        every: how many steps roots are kept, >= 1.
        start: the step from which on they are used, >= 1; None: `every`, and the first where nothing is grafted.
        block_size: longest side of a block, >= 1. An embedding of 50,000 x 768 in blocks of 1024 holds 49 pairs of factors.
        graft: whose length a leaf's step has; None: its own.
        graft_eps: added to the root of "adam", >= 0.
        root: "eigh" or "newton", as the head of this file tells; the latter needs a ridge, from which the number of its
            iterations follows.
        dispatch: "auto": between refreshes nothing is decomposed, as `factors.py` says; "select": roots are worked out in
            every step and chosen, with the count of steps on the device.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds one tree like `params`, another
        for "adam", and 2 (m^2 + n^2) numbers for a block m x n, at least float32. Finite entries count as at most 4.5e15
        (float32) in magnitude.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range, or a start later than the first step without a graft; at `update`, a derivative
            reaches the factors.

    Example:
        >>> shampoo = fo.scale_by_shampoo(b1=0.0, b2=1.0, ridge=0.0, every=1, graft=None)
        >>> gradient = torch.tensor([[4.0, 0.0], [0.0, -9.0]])
        >>> direction, state = shampoo.update(gradient, shampoo.init(gradient))
        >>> direction  # 16^(-1/4) 4 16^(-1/4) and 81^(-1/4) 9 81^(-1/4)
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """
    where = "scale_by_shampoo"
    check.half_open(where, "b1", b1, 0, 1)
    check.within(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.nonnegative(where, "ridge", ridge)
    check.integer(where, "every", every, 1)
    check.integer(where, "block_size", block_size, 1)
    check.nonnegative(where, "graft_eps", graft_eps)
    check.choice(where, "root", root, get_args(Root))
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))
    if root == "newton":
        check.positive(where, "ridge", ridge)
    if graft is not None:
        check.choice(where, "graft", graft, get_args(Graft))
    begin = (every if graft is not None else 1) if start is None else start
    check.integer(where, "start", begin, 1)
    if graft is None and begin > 1:
        raise ValueError(f"{where}: start must be 1 where nothing is grafted that could be used before, got {begin}; give graft='adam'")
    sums, selects = b2 == 1, dispatch == "select"

    def matrices(params: TensorTree, make: Any) -> TensorTree:
        def of_leaf(p: Tensor) -> list[Tensor]:
            if p.numel() == 0:
                return [none(p)]
            return [make(n, none(p)) for row in _cut(_matrix(p), block_size) for block in row for n in block.shape]

        return tree.map_plain(of_leaf, params)

    def init(params: TensorTree) -> ScaleByShampooState:
        in_one_piece(where, params)
        nu = tree.map_plain(lambda p: torch.zeros_like(p, requires_grad=False) if graft == "adam" else none(p), params)
        return ScaleByShampooState(
            count=moments.zero_count(params),
            step=torch.zeros((), dtype=torch.int64, device=tree.device(params) if selects else "cpu"),
            m=tree.zeros_like(params),
            nu=nu,
            L=matrices(params, lambda n, like: torch.zeros(n, n, dtype=like.dtype, device=like.device)),
            root=matrices(params, lambda n, like: torch.eye(n, dtype=like.dtype, device=like.device)),
        )

    def phase(state: ScaleByShampooState, **extra: Any) -> str | None:
        """What this call does with the roots, where Python may look."""
        taken = looked(where, state.step, dispatch)
        if taken is None:
            return None
        if taken + 1 < begin:
            return "graft"
        return "refresh" if taken + 1 == begin or (taken + 1) % every == 0 else "keep"

    def factors(g: Tensor, L: list[Tensor]) -> list[Tensor]:
        if g.numel() == 0:
            return L
        products = [gram(block, axis) for row in _cut(_matrix(g), block_size) for block in row for axis in range(block.dim())]
        return [m + p if sums else b2 * m + (1 - b2) * p for m, p in zip(L, products, strict=True)]

    def rooted(g: Tensor, L: list[Tensor], f2: Tensor | None) -> list[Tensor]:
        if g.numel() == 0:
            return L
        order = 4 if g.dim() > 1 else 2
        return [inverse_root(m if f2 is None else (f2 * m).to(m.dtype), order, eps, ridge, root == "newton") for m in L]

    def preconditioned(m: Tensor, roots: list[Tensor]) -> Tensor:
        if m.numel() == 0:
            return m
        left = iter(roots)

        def of_block(x: Tensor) -> Tensor:
            x = next(left) @ x
            return x @ next(left) if x.dim() == 2 else x

        return _joined([[of_block(block) for block in row] for row in _cut(_matrix(wide(m)), block_size)]).reshape(m.shape).to(m.dtype)

    def with_length(u: Tensor, p: Tensor) -> Tensor:
        length = numerics.wide_norm(u)
        return numerics.divide(u, torch.where(length == 0, 1, length), numerics.wide_norm(p)) if u.numel() else u

    def update(updates: TensorTree, state: ScaleByShampooState, params: TensorTree | None = None, *, plan: str | None = None, **extra: Any):
        step = plan if plan is not None else phase(state)
        count = moments.increment(state.count)
        g = tree.map_plain(lambda g, m: bounded(sharded.replicated(g), m), updates, state.m)
        L = tree.map_plain(factors, g, state.L)
        undifferentiated(where, tree.leaves(L))
        m = moments.update_moment(g, state.m, b1)
        (f1,) = moments.bias_factors(count, b1)
        (f2,) = (None,) if sums else moments.bias_factors(count, b2)
        mean = tree.map(lambda g, m: (f1 * m).to(g.dtype), g, m)
        nu, grafted = state.nu, mean
        if graft == "adam":
            nu = tree.map_plain(lambda g, nu: (nu + g * g).to(nu.dtype), g, nu) if sums else moments.update_moment(g, nu, b2, order=2)
            root_of_f2 = None if f2 is None else entrywise.stacked(f2.sqrt())[0]
            grafted = tree.map(lambda m, nu: entrywise.over_root(m, nu, graft_eps, 0.0, root_of_f2), mean, nu)
        roots = state.root
        if step in ("refresh", None):
            fresh = tree.map_plain(lambda g, L: rooted(g, L, f2), g, L)
            if step is None:
                due = (state.step + 1 == begin) | ((state.step + 1 > begin) & ((state.step + 1) % every == 0))
                fresh = tree.where(due.to(count.device), fresh, roots)
            roots = fresh
        if step == "graft":
            u = grafted
        else:
            u = tree.map_plain(preconditioned, mean, roots)
            u = u if graft is None else tree.map(with_length, u, grafted)
            if step is None:
                u = tree.where((state.step + 1 < begin).to(count.device), grafted, u)
        state = ScaleByShampooState(count=count, step=moments.increment(state.step), m=m, nu=nu, L=L, root=roots)
        return tree.map(lambda u, g: u.to(g.dtype), u, updates), state

    phases = ("graft",) * (begin > 1) + ("refresh",) + ("keep",) * (every > 1)
    plan = None if selects else phase
    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False, plan=plan, plans=lambda state: phases)


def shampoo(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: float = 0.999,
    eps: Scalar = 1e-12,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
    *,
    ridge: float = 1e-6,
    every: int = 10,
    start: int | None = None,
    block_size: int = 1024,
    graft: Graft | None = "adam",
    graft_eps: Scalar = 1e-8,
    root: Root = "eigh",
    dispatch: Dispatch = "auto",
) -> GradientTransformation:
    """Shampoo: `scale_by_shampoo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, of the method that is grafted: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the factors and in the mean square, in [0, 1]; 1: they are sums.
        eps: added to the eigenvalues, >= 0.
        ridge: added besides, as a share of their sum, >= 0: below 1e-7 or so float32 does not tell eigenvalues from zero.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        every: how many steps roots are kept, >= 1.
        start: the step from which on they are used, >= 1; None: `every`, and the first where nothing is grafted.
        block_size: longest side of a block, >= 1.
        graft: whose length a leaf's step has, "adam" or "sgd"; None: its own.
        graft_eps: added to the root of "adam", >= 0.
        root: "eigh" or "newton", as in `scale_by_shampoo`.
        dispatch: "auto" or "select", as in `scale_by_shampoo`.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Cannot:
        hypergradient: a derivative that reaches the factors is refused.

    Raises:
        ValueError: a number is out of range; at `update`, a derivative reaches the factors, or no params are given where they decay.

    Example:
        >>> tx = fo.shampoo(0.1, b1=0.0, b2=1.0, ridge=0.0, every=1, graft=None)
        >>> gradient = torch.tensor([[4.0, 0.0], [0.0, -9.0]])
        >>> tx.update(gradient, tx.init(gradient))[0]
        tensor([[-0.1000, -0.0000],
                [-0.0000,  0.1000]])
    """
    numbers: dict[str, Any] = {
        "ridge": ridge,
        "every": every,
        "start": start,
        "block_size": block_size,
        "graft": graft,
        "graft_eps": graft_eps,
    }
    direction = scale_by_shampoo(b1, b2, eps, **numbers, root=root, dispatch=dispatch)
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
