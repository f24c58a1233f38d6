"""PSGD with Kronecker factors: a preconditioner that is fitted so that gradients come out white.

    M^  = the mean of G, corrected for its start;   V normal noise of its shape
    A   = Q_1 x ... Q_n M^,   B = Q_1^-T x ... Q_n^-T V                  (each Q_i along axis i)
    s_i = gram_i(A),   t_i = gram_i(B)
    Q_i <- Q_i - lr_q triu(s_i - t_i) Q_i / |s_i + t_i|                  (upper triangular Q)
    q_i <- q_i - lr_q (s_i - t_i) q_i / max |s_i + t_i|                  (a diagonal, its entries alone)
    u_t = Q_1^T Q_1 x ... Q_n^T Q_n M^,   shortened to an RMS of 1.1

|.| is a lower bound of the spectral norm: two products with one row. The factors of a leaf, of which only the product
counts, are brought to one size at every fit. Axes longer than `max_dim`, of length 1, and vectors have diagonals; a
leaf without dimensions has one number.

With every=None the factors are fitted in every of the first 500 steps and then ever more rarely, down to every 34th.
A fit of a leaf m x n costs 2 m n (m + n) multiplications, a triangular solve for each axis and m^3 + n^3; each step
2 m n (m + n) besides. Nothing is decomposed.

Source: Li, "Preconditioned Stochastic Gradient Descent", 2018, and the Kronecker form of "Curvature-Informed SGD via
General Purpose Lie-Group Preconditioners", 2024. Reference: pytorch_optimizer.Kron (4.1), which balances factors now and
then by chance, and solves in float32.
"""

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import (
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    TensorTree,
    chain,
    check,
    moments,
    numerics,
    random,
    sharded,
    tree,
)
from funcopt.core.due import Dispatch
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers.factors import along, bounded, gram, wide
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.noise import normal_like
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByPsgdState", "psgd", "scale_by_psgd"]

FLAT_START, FADING, RAREST = 500, 0.001, 0.03  # how often factors are fitted: exp(-FADING (t - FLAT_START)), in [RAREST, 1]
TINY = torch.finfo(torch.bfloat16).tiny
LONGEST, SLACK = 1.1, 1e-6  # the RMS of a leaf's step, and what is added to it before it divides


class ScaleByPsgdState(NamedTuple):
    count: Tensor  # steps taken
    step: Tensor  # steps taken; on the CPU unless fits are selected
    since: Tensor  # steps since the last fit; where `step` is
    key: Tensor  # where the noise comes from; int64 [2]
    m: TensorTree  # running mean of g; like params
    Q: TensorTree  # for every leaf a list of the factors of its axes: [n, n], a diagonal [n], or one number


def _applied(q: Tensor, x: Tensor, axis: int) -> Tensor:
    if q.dim() == 2:
        return along(q, x, axis)
    return x * (q if x.dim() == 0 else q.reshape([-1 if i == axis else 1 for i in range(x.dim())]))


def _solved(q: Tensor, x: Tensor, axis: int) -> Tensor:
    """`Q^-T` along an axis."""
    if q.dim() < 2:
        return _applied(q.reciprocal(), x, axis)
    moved = x.movedim(axis, 0)
    return torch.linalg.solve_triangular(q.mT, moved.reshape(moved.shape[0], -1), upper=False).reshape(moved.shape).movedim(0, axis)


def _moment(x: Tensor, axis: int, q: Tensor) -> Tensor:
    """The gram of an axis, or its diagonal."""
    if q.dim() == 2:
        return gram(x, axis)
    return x.square().sum([i for i in range(x.dim()) if i != axis]) if x.dim() > 1 else x.square()


def _norm_below(a: Tensor) -> Tensor:
    """A lower bound of the spectral norm of a symmetric matrix: one more product than its longest row."""
    largest = a.abs().amax()
    a = a / torch.where(largest > 0, largest, 1)
    longest = a.square().sum(1).argmax()
    row = torch.take_along_dim(a, longest.reshape(1, 1).expand(1, a.shape[1]), 0).squeeze(0)
    x = a @ row
    return largest * (a @ (x / x.norm().clamp(min=torch.finfo(a.dtype).tiny))).norm()


def scale_by_psgd(
    b1: Scalar = 0.9,
    *,
    every: int | None = None,
    lr_q: Scalar = 0.1,
    max_dim: int = 8192,
    scale: Scalar = 1.0,
    key: int | Tensor | None = 0,
    dispatch: Dispatch = "auto",
) -> GradientTransformation[ScaleByPsgdState]:
    """Whitens a mean of the gradient with one triangular factor for each axis.

    Args:
        b1: share of the past in the mean, in [0, 1).
        every: how many steps factors are kept, >= 1; None: first one, then more and more, as the head of this file tells.
        lr_q: share of its relative error that a fit takes out of a factor, in (0, 1].
        max_dim: longest axis that has a matrix, and not a diagonal.
        scale: of the first preconditioner, > 0.
        key: an int, a 0-dim integer tensor or a key; None draws one from torch's generator when this is called. The noise only probes.
        dispatch: "auto": between fits nothing is fitted, as `factors.py` says; "select": a fit is worked out in every step
            and chosen, with the counts of steps on the device.

    Returns:
        A transform from gradients to directions whose RMS is at most 1.1 in each leaf, in the shapes and dtypes it is
        given. Holds one tree like `params` and m^2 + n^2 numbers for a matrix m x n, at least float32.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> psgd = fo.scale_by_psgd(b1=0.0)
        >>> state = psgd.init(torch.zeros(2))
        >>> for step in range(300):  # entries a hundred times apart
        ...     sign = (-1.0) ** step
        ...     direction, state = psgd.update(torch.tensor([10.0 * sign, 0.1 * sign]), state)
        >>> direction[0] / direction[1] < 3
        tensor(True)
    """
    where = "scale_by_psgd"
    check.half_open(where, "b1", b1, 0, 1)
    if every is not None:
        check.integer(where, "every", every, 1)
    check.positive(where, "lr_q", lr_q)
    check.within(where, "lr_q", lr_q, 0, 1)
    check.integer(where, "max_dim", max_dim, 1)
    check.positive(where, "scale", scale)
    check.choice(where, "dispatch", dispatch, get_args(Dispatch))
    selects = dispatch == "select"
    root = random.as_key(key, where)

    def first(p: Tensor) -> list[Tensor]:
        like = wide(p.detach().new_ones(()))
        sizes = p.shape or (1,)
        each = scale ** (1 / len(sizes))
        whole = [p.dim() > 1 and p.numel() > 0 and 1 < n <= max_dim for n in sizes]
        made = [
            torch.eye(n, dtype=like.dtype, device=p.device) if full else like.new_ones(n if p.dim() else ())
            for n, full in zip(sizes, whole, strict=True)
        ]
        return [(each * q).to(q.dtype) for q in made]

    def init(params: TensorTree) -> ScaleByPsgdState:
        in_one_piece(where, params)
        device = tree.device(params) if selects else torch.device("cpu")
        zero = torch.zeros((), dtype=torch.int64, device=device)
        return ScaleByPsgdState(
            count=moments.zero_count(params),
            step=zero,
            since=zero.clone(),
            key=root.to(device, copy=True),
            m=tree.zeros_like(params),
            Q=tree.map_plain(first, params),
        )

    def due(state: ScaleByPsgdState) -> Tensor:
        since = state.since + 1
        if every is not None:
            return (since >= every) | (state.step == 0)
        often = (-FADING * (state.step.to(tree.scalar_dtype(state.step.device)) - FLAT_START)).exp().clamp(RAREST, 1)
        return since * often >= 1

    def phase(state: ScaleByPsgdState, **extra: Any) -> str | None:
        """Whether this call fits the factors, where Python may look."""
        if selects or not random.readable(state.step):
            return None
        return "fit" if random.host_int(due(state), where) else "keep"

    def fitted(m: Tensor, V: Tensor, Q: list[Tensor]) -> list[Tensor]:
        if m.numel() == 0:
            return Q
        largest = torch.stack([q.abs().amax() for q in Q])
        Q = [q * (largest.log().mean().exp() / size) for q, size in zip(Q, largest.unbind(), strict=True)]
        A, B = wide(m), V
        for axis, q in enumerate(Q):
            A, B = _applied(q, A, axis), _solved(q, B, axis)
        made: list[Tensor] = []
        for axis, q in enumerate(Q):
            s, t = _moment(A, axis, q), _moment(B, axis, q)
            if q.dim() == 2:
                made.append(q - (lr_q / (_norm_below(s + t) + TINY)) * (s - t).triu() @ q)
            else:
                made.append(q - lr_q * (s - t) * q / ((s + t).amax() + TINY))
        return [new.to(q.dtype) for new, q in zip(made, Q, strict=True)]

    def whitened(m: Tensor, Q: list[Tensor]) -> Tensor:
        x = wide(m)
        for axis, q in enumerate(Q):
            x = _applied(q.mT if q.dim() == 2 else q, _applied(q, x, axis), axis)
        rms = numerics.safe_root_mean_squares(x)
        return (x * (LONGEST / (rms + SLACK)).clamp(max=1)).to(m.dtype)

    def update(updates: TensorTree, state: ScaleByPsgdState, params: TensorTree | None = None, *, plan: str | None = None, **extra: Any):
        step = plan if plan is not None else phase(state)
        count = moments.increment(state.count)
        g = tree.map_plain(lambda g, m: bounded(sharded.replicated(g), m), updates, state.m)
        m = moments.update_moment(g, state.m, b1)
        (f1,) = moments.bias_factors(count, b1)
        mean = tree.map(lambda g, m: (f1 * m).to(g.dtype), g, m)
        Q, since = state.Q, state.since + 1
        if step != "keep":
            noise = normal_like(random.fold_in(state.key, state.step.to(state.key.device)), mean)
            fresh = tree.map_plain(lambda m, V, Q: fitted(m, wide(V), Q), mean, noise, Q)
            if step == "fit":
                Q, since = fresh, torch.zeros_like(since)
            else:
                now = due(state)
                Q, since = tree.where(now.to(count.device), fresh, Q), torch.where(now, 0, since)
        u = tree.map_plain(whitened, mean, Q)
        state = ScaleByPsgdState(count=count, step=moments.increment(state.step), since=since, key=state.key, m=m, Q=Q)
        return tree.map(lambda u, g: u.to(g.dtype), u, updates), state

    return GradientTransformation(
        init, update, name=where, turns=False, plan=None if selects else phase, plans=lambda state: ("fit", "keep")
    )


def psgd(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
    *,
    every: int | None = None,
    lr_q: Scalar = 0.1,
    max_dim: int = 8192,
    scale: Scalar = 1.0,
    key: int | Tensor | None = 0,
    dispatch: Dispatch = "auto",
) -> GradientTransformation:
    """PSGD (Kron): `scale_by_psgd`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, a third of Adam's or so: a number, a 0-dim tensor or a schedule.
        b1: share of the past in the mean, in [0, 1).
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        every: how many steps factors are kept, >= 1; None: first one, then more and more.
        lr_q: share of its relative error that a fit takes out of a factor, in (0, 1].
        max_dim: longest axis that has a matrix, and not a diagonal.
        scale: of the first preconditioner, > 0.
        key: an int, a 0-dim integer tensor or a key; None draws one from torch's generator when this is called. The noise only probes.
        dispatch: "auto" or "select", as in `scale_by_psgd`.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.psgd(0.1)
        >>> updates, state = tx.update(torch.tensor([100.0, -100.0]), tx.init(torch.zeros(2)))
        >>> updates  # the RMS of a direction is at most 1.1
        tensor([-0.1100,  0.1100])
    """
    numbers: dict[str, Any] = {"every": every, "lr_q": lr_q, "max_dim": max_dim, "scale": scale, "key": key, "dispatch": dispatch}
    return chain(scale_by_psgd(b1, **numbers), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
