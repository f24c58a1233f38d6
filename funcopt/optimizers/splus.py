"""SPlus: steps of one size along every direction of a matrix, of which the directions are found once in a while.

    m_t = b1 * m_{t-1} + (1 - b1) * g_t
    matrices of a rows and b columns:
        L_t = b2 * L_{t-1} + (1 - b2) * g_t g_t^T,   R_t = b2 * R_{t-1} + (1 - b2) * g_t^T g_t
        u_t = 2 / (a + b) * Q_L sign(Q_L^T m_t Q_R) Q_R^T
        after the first step and every `every`-th: Q_L, Q_R the eigenvectors of L_t, R_t; identities before
    other leaves:  u_t = other_scale * sign(m_t)
    p = p_t - lr * u_t,   then   p_{t+1} = p * (1 - lr * scale * weight_decay),   scale that of u
    ema: the params to evaluate are the average of those gone through

Source: Frans, Levine and Abbeel, "A Stable Whitening Optimizer for Efficient Neural Network Training", 2025. Reference:
pytorch_optimizer's SPlus (4.1) with eigh_dtype=torch.float32. Where a matrix has nothing in some direction the sign of what rounding
leaves there is 0 here, noise there. Nobody differentiates through the eigenvectors; where L or R is not finite the last ones stay.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, due, moments, sharded, tree
from funcopt.core.dtypes import at_least_float32
from funcopt.core.unfit import in_one_piece
from funcopt.optimizers import renewal
from funcopt.optimizers.sized_decay import decay_sized
from funcopt.transforms.average_params import average_params
from funcopt.transforms.lr_scale import lr_scale

__all__ = ["SPlusState", "scale_by_splus", "splus"]


class SPlusState(NamedTuple):
    clock: Tensor  # steps taken; on the CPU
    m: TensorTree  # running mean of g; like params
    L: TensorTree  # running mean of g g^T; [rows, rows], of leaves without [1]
    R: TensorTree  # running mean of g^T g; [columns, columns], of leaves without [1]
    Q_L: TensorTree  # eigenvectors of an L, in columns
    Q_R: TensorTree  # eigenvectors of an R, in columns


def scale_of(shape: torch.Size, other_scale: Any, max_dim: int) -> Any:
    """What the direction of a leaf is multiplied by."""
    return 2 / (shape[0] + shape[1]) if len(shape) == 2 and max(shape) <= max_dim and 0 not in shape else other_scale


def signs(x: Tensor) -> Tensor:
    """The signs of the entries of a product; 0 for what is left of it by rounding."""
    if x.dim() != 2 or x.numel() == 0:
        return moments.sign(x)
    noise = torch.finfo(x.dtype).eps ** 0.75 * x.abs().amax()
    return torch.where(x.abs() <= noise, torch.zeros_like(x), moments.sign(x))


def scale_by_splus(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    every: int = 100,
    max_dim: int = 10000,
    other_scale: Scalar = 1e-3,
    *,
    eigh_dtype: torch.dtype | None = None,
) -> GradientTransformation[SPlusState]:
    """The signs of a running mean of the gradient, in the directions of its matrix; sized so that a rate fits any width.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the means of its products, in [0, 1).
        every: steps that directions serve, >= 1. Finding them takes an eigendecomposition of either side of each matrix.
        max_dim: longest side of which directions are found; longer ones are left as they are.
        other_scale: of what is no matrix, >= 0.
        eigh_dtype: dtype of the eigendecompositions; None: that of the leaf, at least float32.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds a tree like `params`, and twice the squares of
        both sides of each matrix.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> splus = fo.scale_by_splus(b1=0.0)
        >>> g = torch.tensor([[3.0, 0.0], [0.0, -0.5]])
        >>> splus.update(g, splus.init(g))[0]
        tensor([[ 0.5000,  0.0000],
                [ 0.0000, -0.5000]])
    """
    where = "scale_by_splus"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.integer(where, "every", every, 1)
    check.integer(where, "max_dim", max_dim, 1)
    check.nonnegative(where, "other_scale", other_scale)
    check.dtype(where, "eigh_dtype", eigh_dtype)

    def has(p: Tensor, axis: int) -> bool:
        return p.dim() == 2 and 0 not in p.shape and p.shape[axis] <= max_dim

    def square(axis: int) -> Callable[[Tensor], Tensor]:
        return lambda p: sharded.zeros([p.shape[axis]] * 2 if has(p, axis) else [1], p)

    def init(params: TensorTree) -> SPlusState:
        in_one_piece(where, params)
        L, R = (tree.map_plain(square(axis), params) for axis in (0, 1))
        Q_L, Q_R = (
            tree.map_plain(lambda S: S + torch.eye(len(S), device=S.device).to(S.dtype) if S.dim() == 2 else S.clone(), S) for S in (L, R)
        )
        return SPlusState(clock=due.begun(params, "auto"), m=tree.zeros_like(params), L=L, R=R, Q_L=Q_L, Q_R=Q_R)

    def eigenvectors(S: Tensor, Q: Tensor) -> Tensor:
        if S.dim() < 2:
            return Q.clone()
        wide = at_least_float32(S.detach()) if eigh_dtype is None else S.detach().to(eigh_dtype)
        fine = wide.isfinite().all()
        found = torch.linalg.eigh(torch.where(fine, wide, torch.eye(len(S), dtype=wide.dtype, device=wide.device)))[1]
        return torch.where(fine, found.to(Q.dtype), Q).clone(memory_format=torch.contiguous_format)

    def update(updates: TensorTree, state: SPlusState, params: TensorTree | None = None, *, plan: Any = None, **extra: Any):
        here = renewal.known(state.clock, every) if plan is None else plan
        m = moments.update_moment(updates, state.m, b1)

        def product(g: Tensor, S: Tensor, axis: int) -> Tensor:
            g = sharded.replicated(g)
            return (g @ g.mT if axis == 0 else g.mT @ g).to(S.dtype) if S.dim() == 2 else S

        L, R = (
            moments.update_moment(tree.map_plain(lambda g, S, axis=axis: product(g, S, axis), updates, S), S, b2)
            for axis, S in enumerate((state.L, state.R))
        )

        def direction(g: Tensor, m: Tensor, Q_L: Tensor, Q_R: Tensor) -> Tensor:
            x = sharded.replicated(m)
            x = Q_L.mT @ x if Q_L.dim() == 2 else x
            x = signs(x @ Q_R if Q_R.dim() == 2 else x)
            x = Q_L @ x if Q_L.dim() == 2 else x
            x = x @ Q_R.mT if Q_R.dim() == 2 else x
            return (scale_of(g.shape, other_scale, max_dim) * x).to(g.dtype)

        directions = tree.map(direction, updates, m, state.Q_L, state.Q_R)

        def fresh() -> TensorTree:
            return tuple(tree.map_plain(eigenvectors, S, Q) for S, Q in ((L, state.Q_L), (R, state.Q_R)))

        Q_L, Q_R = due.renewed(here, renewal.now(state.clock, every), fresh, (state.Q_L, state.Q_R))
        return directions, SPlusState(clock=moments.increment(state.clock), m=m, L=L, R=R, Q_L=Q_L, Q_R=Q_R)

    return GradientTransformation(
        init, update, name=where, per_leaf=True, turns=False, plan=renewal.planned(every), plans=renewal.kinds(every)
    )


def splus(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    every: int = 100,
    max_dim: int = 10000,
    other_scale: float = 1e-3,
    *,
    ema: Scalar | None = 0.999,
    eigh_dtype: torch.dtype | None = None,
    weight_decay: ScalarOrSchedule = 1e-2,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """SPlus: `scale_by_splus`, a step of size `lr` (None: the `base_lr` it hears) downhill, decay of where it leads, and an average.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; 0.1 to 0.2 to begin with, for any width.
        b1, b2, every, max_dim, eigh_dtype: as in `scale_by_splus`.
        other_scale: of what is no matrix, a number >= 0.
        ema: share of the past in the average of the params, which `averaged_params(state, params)` gives and which does not change the
            steps, in [0, 1); None: no average.
        weight_decay: decoupled, >= 0; multiplied by the rate and by the scale of the leaf.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one tree like `params`, twice the squares of both
        sides of each matrix, and a tree for the average.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        TypeError, ValueError: an argument is out of its range; at `update`, no params are given.

    Example:
        >>> tx = fo.splus(0.1, weight_decay=0.0)
        >>> params = torch.zeros(2, 2)
        >>> tx.update(torch.tensor([[3.0, 0.0], [0.0, -0.5]]), tx.init(params), params)[0].diag()
        tensor([-0.0500,  0.0500])
    """
    check.nonnegative("splus", "other_scale", other_scale)
    decay = decay_sized("splus", weight_decay, weight_decay_mask, after=True, share=lambda p: scale_of(p.shape, other_scale, max_dim))
    tx = chain(scale_by_splus(b1, b2, every, max_dim, other_scale, eigh_dtype=eigh_dtype), lr_scale(lr), decay)
    return tx if ema is None else average_params(tx, "ema", decay=ema)
