"""CAME: Adafactor with momentum, whose steps are divided once more by how far the momentum was from each of them.

    s = g_t^2 + eps1,   r_t = b2 r_{t-1} + (1 - b2) mean of s over columns,   c_t likewise over rows
    v = r_t c_t^T / mean of r_t,   x = g_t / sqrt(v),   x <- x / max(1, rms(x) / d)
    m_t = b1 m_{t-1} + (1 - b1) x
    U = (x - m_t)^2 + eps2,   R_t = b3 R_{t-1} + (1 - b3) mean of U over columns,   C_t likewise over rows
    u_t = m_t / sqrt(R_t C_t^T / mean of R_t)        (matrices)
    v = b2 v + (1 - b2) s,   u_t = m_t               (vectors and leaves without dimensions)

Rows and columns are the last two axes; the axes before them are batches of matrices.

Source: Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", 2023. Reference:
pytorch_optimizer.CAME (4.1), the authors' code.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, numerics, sharded, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import squarable
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByCameState", "came", "scale_by_came"]


class ScaleByCameState(NamedTuple):
    r: TensorTree  # running mean of g^2 over columns; zeros(1) where not factored
    c: TensorTree  # running mean of g^2 over rows; zeros(1) where not factored
    v: TensorTree  # running mean of g^2; zeros(1) where factored
    m: TensorTree  # running mean of what is divided; like params
    R: TensorTree  # running mean of the instability over columns; zeros(1) where not factored
    C: TensorTree  # running mean of the instability over rows; zeros(1) where not factored


def _factored(x: Tensor) -> bool:
    return x.dim() > 1 and x.numel() > 0


def _root(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """What a matrix is multiplied by, row by row and column by column, to be divided by the root of the mean square."""
    share = row / row.mean(-1, keepdim=True)
    tiny = torch.finfo(share.dtype).tiny  # beside large rows one of zeros has no share at all
    return share.clamp(min=tiny).rsqrt().unsqueeze(-1), column.rsqrt().unsqueeze(-2)


def scale_by_came(
    b1: Scalar = 0.9, b2: Scalar = 0.999, b3: Scalar = 0.9999, eps1: Scalar = 1e-30, eps2: Scalar = 1e-16, clipping_threshold: Scalar = 1.0
) -> GradientTransformation[ScaleByCameState]:
    """Divides gradients by a factored RMS, averages them, and divides by the factored RMS of what the average left out.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        b3: share of the past in the instability, in [0, 1).
        eps1: added to the squared gradient, > 0.
        eps2: added to the squared distance from the mean, > 0.
        clipping_threshold: d, the largest RMS of a leaf before it is averaged, > 0.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. The mean square is not corrected
        for its start at zero, the clipping bounds the first steps. Holds one tree like `params`, and two rows and two
        columns a matrix. Finite entries count as at most 4.5e15 (float32) in magnitude.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> came = fo.scale_by_came(b1=0.5)
        >>> came.update(torch.tensor([3.0, -3.0]), came.init(torch.zeros(2)))[0]  # 31.6 before the clipping, 1 after it
        tensor([ 0.5000, -0.5000])
    """
    where = "scale_by_came"
    for name, value in (("b1", b1), ("b2", b2), ("b3", b3)):
        check.half_open(where, name, value, 0, 1)
    for name, value in (("eps1", eps1), ("eps2", eps2), ("clipping_threshold", clipping_threshold)):
        check.positive(where, name, value)

    def init(params: TensorTree) -> ScaleByCameState:
        def without(axis: int) -> TensorTree:
            return tree.map_plain(
                lambda p: sharded.zeros([n for i, n in enumerate(p.shape) if i != p.dim() + axis] if _factored(p) else [1], p), params
            )

        v = tree.map_plain(lambda p: sharded.zeros([1], p) if _factored(p) else torch.zeros_like(p, requires_grad=False), params)
        return ScaleByCameState(r=without(-1), c=without(-2), v=v, m=tree.zeros_like(params), R=without(-1), C=without(-2))

    def update(updates: TensorTree, state: ScaleByCameState, params: TensorTree | None = None, **extra: Any):
        def mean(old: Tensor, new: Tensor, past: Scalar) -> Tensor:
            return sharded.laid_out((past * old + (1 - past) * new).to(old.dtype), old)

        def rows(x: Tensor, old: Tensor, eps: Scalar, past: Scalar) -> Tensor:
            return mean(old, (entrywise.square(x, old) + eps).mean(-1), past) if _factored(x) else old

        def columns(x: Tensor, old: Tensor, eps: Scalar, past: Scalar) -> Tensor:
            return mean(old, (entrywise.square(x, old) + eps).mean(-2), past) if _factored(x) else old

        def whole(g: Tensor, old: Tensor) -> Tensor:
            return old if _factored(g) else mean(old, entrywise.square(g, old) + eps1, b2)

        def clipped(g: Tensor, r: Tensor, c: Tensor, v: Tensor) -> Tensor:
            by_row, by_column = _root(r, c) if _factored(g) else (v.rsqrt(), 1)
            x = g * by_row * by_column
            return (x / (numerics.safe_root_mean_squares(x) / clipping_threshold).clamp(min=1)).to(g.dtype)

        def confident(g: Tensor, m: Tensor, R: Tensor, C: Tensor) -> Tensor:
            by_row, by_column = _root(R, C) if _factored(g) else (1, 1)
            return (m * by_row * by_column).to(g.dtype)

        g = tree.map(squarable, updates)
        r = tree.map(lambda g, old: rows(g, old, eps1, b2), g, state.r)
        c = tree.map(lambda g, old: columns(g, old, eps1, b2), g, state.c)
        v = tree.map(whole, g, state.v)
        x = tree.map(clipped, g, r, c, v)
        m = moments.update_moment(x, state.m, b1)
        left = tree.map(lambda x, m: entrywise.at_least(x, m) - m, x, m)
        R = tree.map(lambda x, old: rows(x, old, eps2, b3), left, state.R)
        C = tree.map(lambda x, old: columns(x, old, eps2, b3), left, state.C)
        return tree.map(confident, g, m, R, C), ScaleByCameState(r=r, c=c, v=v, m=m, R=R, C=C)

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False)


def came(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    b3: Scalar = 0.9999,
    eps1: Scalar = 1e-30,
    eps2: Scalar = 1e-16,
    clipping_threshold: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """CAME: `scale_by_came`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0: a number, a 0-dim tensor or a schedule.
        b1, b2, b3, eps1, eps2, clipping_threshold: as in `scale_by_came`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Its state is that of its links.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.came(0.1, b1=0.5)
        >>> tx.update(torch.tensor([3.0, -3.0]), tx.init(torch.zeros(2)))[0]
        tensor([-0.0500,  0.0500])
    """
    return chain(
        scale_by_came(b1, b2, b3, eps1, eps2, clipping_threshold), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr)
    )
