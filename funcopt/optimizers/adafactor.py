"""Adafactor: Adam's mean square kept as its row and column means, steps in proportion to the params.

    d_t = 1 - (t - step_offset)^(-decay_rate),   s = g_t^2 + epsilon
    v_row = d v_row + (1 - d) mean of s over d0,   v_col = d v_col + (1 - d) mean of s over d1
    x = g_t / sqrt(v_row / mean of v_row over d1) / sqrt(v_col)           (matrices)
    v = d v + (1 - d) s,   x = g_t / sqrt(v)                              (the rest)
    x <- x / max(1, rms(x) / clipping_threshold)                          (per leaf)
    u_t = -lr * x * max(rms(p_t), 1e-3),   then momentum, then -weight_decay * p_t

d0 is the longest axis, d1 the next; they are factored where d1 has min_dim_size_to_factor entries. The
decay is not multiplied by the rate.

Source: Shazeer and Stern 2018. Reference: optax.adafactor (0.2.8), which computes d_t in float32. With
factored_axes="last", min_dim_size_to_factor=0 and lr=min(lr, 1 / sqrt(t)) torch.optim.Adafactor.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import squarable
from funcopt.transforms.clip import clip_by_block_rms
from funcopt.transforms.ema import ema
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.param_block import scale_by_param_block_rms
from funcopt.transforms.scale import scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["FactoredState", "adafactor", "scale_by_factored_rms"]

Axes = Literal["largest", "last"]
Floor = Literal["dtype"]
ScalarOrFloor = Scalar | Floor  # joined here: the compiler cannot, where an annotation inside an update asks it to


class FactoredState(NamedTuple):
    count: Tensor  # steps taken
    v_row: TensorTree  # running mean of g^2 over the longest axis; zeros(1) where not factored
    v_col: TensorTree  # running mean of g^2 over the second longest; zeros(1) where not factored
    v: TensorTree  # running mean of g^2; zeros(1) where factored


def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Scalar = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Scalar = 1e-30,
    decay_rate_fn: Callable[[Tensor, Scalar], Tensor] | None = None,
    *,
    factored_axes: Axes = "largest",
    floor: Scalar | Floor | None = None,
) -> GradientTransformation[FactoredState]:
    """Divides each gradient entry by a running RMS that is kept per row and per column.

    Args:
        factored: keep rows and columns where a leaf is large enough, else every entry.
        decay_rate: the share of the past is 1 - t^(-decay_rate) at step t, so that the
            memory grows with the run; in (0, 1].
        step_offset: how many steps the run had before, for a restart on other data; until a state
            has counted as many, each step's square counts alone.
        min_dim_size_to_factor: from which length of the second longest axis on.
        epsilon: added to the squared gradient, >= 0.
        decay_rate_fn: `(steps, decay_rate) -> share of the past` in place of the above, with
            the count of completed steps less `step_offset`.
        factored_axes: "largest" for the two longest axes, "last" for the last two (torch).
        floor: torch's `eps[0]`: the smallest RMS that is divided by, and the smallest mean of the rows, >= 0; "dtype" for
            the eps of the gradient's dtype. Nothing is added to the squares then. None: as `epsilon` says.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes it
        is given. Holds one row and one column per matrix. Finite entries count as at most
        4.5e15 (float32) in magnitude, so that no row of squares overflows.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> rms = fo.scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> gradient = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
        >>> direction, state = rms.update(gradient, rms.init(gradient))
        >>> direction, state.v_row
        (tensor([[1., 1.],
                [1., 1.]]), tensor([ 2.5000, 10.0000]))
    """
    where = "scale_by_factored_rms"
    check.positive(where, "decay_rate", decay_rate)
    check.within(where, "decay_rate", decay_rate, 0, 1)
    check.integer(where, "step_offset", step_offset, 0)
    check.integer(where, "min_dim_size_to_factor", min_dim_size_to_factor, 0)
    check.nonnegative(where, "epsilon", epsilon)
    check.choice(where, "factored_axes", factored_axes, get_args(Axes))
    if isinstance(floor, str):
        check.choice(where, "floor", floor, get_args(Floor))
    elif floor is not None:
        check.nonnegative(where, "floor", floor)
    epsilon = epsilon if floor is None else 0.0

    def axes(shape: torch.Size) -> tuple[int, int] | None:
        """d0 and d1, or None where the leaf is kept whole."""
        if not factored or len(shape) < 2 or 0 in shape:
            return None
        order = list(range(len(shape)))
        if factored_axes == "largest":
            order.sort(key=lambda axis: shape[axis])  # of equal lengths the later is the longer
        d1, d0 = order[-2], order[-1]
        return (d0, d1) if min(shape[d0], shape[d1]) >= min_dim_size_to_factor else None

    def slot(p: Tensor, without: int | None) -> Tensor:
        return sharded.zeros([n for axis, n in enumerate(p.shape) if axis != without] if without is not None else [1], p)

    def init(params: TensorTree) -> FactoredState:
        def row(p: Tensor) -> Tensor:
            found = axes(p.shape)
            return slot(p, found[0] if found else None)

        def column(p: Tensor) -> Tensor:
            found = axes(p.shape)
            return slot(p, found[1] if found else None)

        def whole(p: Tensor) -> Tensor:
            return slot(p, None) if axes(p.shape) else torch.zeros_like(p, requires_grad=False)

        v_row, v_col, v = (tree.map_plain(make, params) for make in (row, column, whole))
        return FactoredState(count=moments.zero_count(params), v_row=v_row, v_col=v_col, v=v)

    def update(updates: TensorTree, state: FactoredState, params: TensorTree | None = None, **extra: Any):
        # Before the offset is reached, as at the first step after it: the power of a negative number is none.
        steps = (state.count - step_offset).clamp(min=0).to(tree.scalar_dtype(state.count.device))
        past = 1 - (steps + 1) ** (-decay_rate) if decay_rate_fn is None else decay_rate_fn(steps, decay_rate)

        def mean(old: Tensor, new: Tensor) -> Tensor:
            return sharded.laid_out((past * old + (1 - past) * new).to(old.dtype), old)

        def row(g: Tensor, old: Tensor) -> Tensor:
            found = axes(g.shape)
            return mean(old, (entrywise.square(g, old) + epsilon).mean(found[0])) if found else old

        def column(g: Tensor, old: Tensor) -> Tensor:
            found = axes(g.shape)
            return mean(old, (entrywise.square(g, old) + epsilon).mean(found[1])) if found else old

        def whole(g: Tensor, old: Tensor) -> Tensor:
            return old if axes(g.shape) else mean(old, entrywise.square(g, old) + epsilon)

        def floored(g: Tensor, row: Tensor, column: Tensor, v: Tensor, found: tuple[int, int] | None, floor: ScalarOrFloor) -> Tensor:
            least = torch.finfo(g.dtype).eps if isinstance(floor, str) else floor
            if found:
                d0, d1 = found
                share = row / row.mean(d1 - 1 if d1 > d0 else d1, keepdim=True).clamp(min=least)
                v = share.unsqueeze(d0) * column.unsqueeze(d1)
            return (g * v.clamp(min=least * least).rsqrt()).to(g.dtype)

        def divided(g: Tensor, row: Tensor, column: Tensor, v: Tensor) -> Tensor:
            found = axes(g.shape)
            if floor is not None:
                return floored(g, row, column, v, found, floor)
            if not found:
                return (g * v.rsqrt()).to(g.dtype)
            d0, d1 = found
            share = row / row.mean(d1 - 1 if d1 > d0 else d1, keepdim=True)  # d0 is gone from the rows
            return (g * share.rsqrt().unsqueeze(d0) * column.rsqrt().unsqueeze(d1)).to(g.dtype)

        updates = tree.map(squarable, updates)
        v_row, v_col, v = tree.map(row, updates, state.v_row), tree.map(column, updates, state.v_col), tree.map(whole, updates, state.v)
        direction = tree.map(divided, updates, v_row, v_col, v)
        return direction, FactoredState(count=moments.increment(state.count), v_row=v_row, v_col=v_col, v=v)

    return GradientTransformation(init, update, name=where, per_leaf=True, turns=False)


def adafactor(
    lr: ScalarOrSchedule | None = 1.0,
    min_dim_size_to_factor: int = 128,
    decay_rate: Scalar = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Scalar | None = 1.0,
    momentum: Scalar | None = None,
    dtype_momentum: torch.dtype | None = torch.float32,
    weight_decay: ScalarOrSchedule = 0.0,
    eps: Scalar = 1e-30,
    factored: bool = True,
    weight_decay_mask: TensorTree | None = None,
    *,
    factored_axes: Axes = "largest",
) -> GradientTransformation:
    """Adafactor: `scale_by_factored_rms`, clipping, a step of size `lr` downhill, times the size of the params, momentum, decay.

    Args:
        lr: the rate, >= 0, as a share of the RMS of each leaf; a number, a 0-dim tensor or a schedule;
            None: the `base_lr` it hears.
        min_dim_size_to_factor: from which length of the second longest axis on.
        decay_rate: the share of the past is 1 - t^(-decay_rate) at step t, so that the memory grows with the run; in (0,
            1].
        decay_offset: its `step_offset`.
        multiply_by_parameter_scale: whether a leaf's step is in proportion to its RMS (at least 1e-3).
        clipping_threshold: largest RMS of a leaf's direction, > 0; None: no clipping.
        momentum: share of the past in a running mean of the steps, in [0, 1); None: none.
        dtype_momentum: dtype of that mean; None: that of the params.
        weight_decay: share of the params that each step takes away, >= 0; it has no rate but itself.
        eps: added to the squared gradient, >= 0.
        factored: keep rows and columns where a leaf is large enough, else every entry.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        factored_axes: "largest" for the two longest axes, "last" for the last two (torch).

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds. Of a factored leaf it holds one row and
        one column, of others a tree like it.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given.

    Example:
        >>> tx = fo.adafactor(0.1)
        >>> params = torch.tensor([2.0, -2.0])
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(params), params)[0]
        tensor([-0.2000,  0.2000])
    """
    check.dtype("adafactor", "dtype_momentum", dtype_momentum)
    links: list[GradientTransformation] = [
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, factored_axes=factored_axes)
    ]
    if clipping_threshold is not None:
        links.append(clip_by_block_rms(clipping_threshold))
    links.append(lr_scale(lr))
    if multiply_by_parameter_scale:
        links.append(scale_by_param_block_rms())
    later: list[GradientTransformation] = []
    if momentum is not None:
        later.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if callable(weight_decay) or isinstance(weight_decay, Tensor) or weight_decay != 0:
        later.append(add_decayed_weights(weight_decay, weight_decay_mask))
    if later:  # the step points downhill already: turned up and, when it is done, down again
        links += [scale(-1.0), *later, scale(-1.0)]
    return chain(*links)
