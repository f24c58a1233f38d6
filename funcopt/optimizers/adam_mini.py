"""Adam-mini: Adam with one mean square for a whole block of entries: a row, a head, a leaf.

    m_t   = b1 m_{t-1} + (1 - b1) g_t
    v_b,t = b2 v_b,t-1 + (1 - b2) mean of g_t^2 over block b
    u_t   = m^ / (sqrt(v^_b) + eps) in block b,   x^ divided by 1 - b^t

Half of Adam's memory, since there are as many v as blocks. The blocks are those in which the Hessian is dense: heads of
queries and keys, rows (neurons) of other matrices, and whole leaves for the rest.

Source: Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", 2024. Reference: the authors' code, as
pytorch_optimizer.AdamMini (4.1) has it, which works in float32 whatever it is given.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.core.math import entrywise
from funcopt.transforms.groups import entries_of
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByAdamMiniState", "adam_mini", "scale_by_adam_mini"]

KINDS = ("auto", "leaf", "rows", "entries")
Blocks = TensorTree | Callable[..., Any] | str | int


class ScaleByAdamMiniState(NamedTuple):
    count: Tensor  # steps taken
    m: TensorTree  # running mean of g; like params
    v: TensorTree  # running mean of g^2 of every block; like params in structure


def scale_by_adam_mini(
    b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, *, blocks: Blocks = "auto"
) -> GradientTransformation[ScaleByAdamMiniState]:
    """Divides a running mean of the gradient by the running RMS of its block.

    Args:
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root, >= 0.
        blocks: "rows": one block for each index of the first axis. "leaf": one. "entries": as many as entries, which is
            Adam. An int: so many blocks of equally many rows, for instance the number of heads. "auto": rows of what has
            two axes or more, else the leaf. Or a tree of these, or a function that gives one, such as
            `by_path({"*.q_proj.weight": 8, "*.k_proj.weight": 8, "*": "auto"})`.

    Returns:
        A transform from gradients to directions of order one, in the shapes and dtypes it is given. Holds one tree like
        `params` and a number for each block.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `init`, blocks do not divide the rows of a leaf.

    Example:
        >>> mini = fo.scale_by_adam_mini(eps=0.0)
        >>> gradient = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> direction, state = mini.update(gradient, mini.init(gradient))
        >>> direction  # over sqrt(25 / 2) and over sqrt(4 / 2)
        tensor([[0.8485, 1.1314],
                [0.0000, 1.4142]])
        >>> state.v.shape
        torch.Size([2])
    """
    where = "scale_by_adam_mini"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    single = isinstance(blocks, (str, int))
    if single:
        _entry(where, blocks, "")

    def shape(p: Tensor, entry: Any, path: str) -> tuple[int, ...]:
        """Of the mean squares of a leaf: (), or one number for each block of rows, or as many as entries."""
        entry = _entry(where, entry, path)
        if entry == "auto":
            entry = "rows" if p.dim() > 1 else "leaf"
        if entry == "entries":
            return tuple(p.shape)
        if entry == "leaf" or p.dim() == 0:
            return ()
        if entry == "rows":
            return (p.shape[0],)
        if p.shape[0] % entry:
            raise ValueError(f"{where}: blocks must divide the rows of a leaf, got {entry} for the {p.shape[0]} rows of '{path}'")
        return (entry,)

    def entries(values: TensorTree) -> list[Any]:
        return [blocks] * len(tree.leaves(values)) if single else entries_of(blocks, values, where, "blocks")

    def init(params: TensorTree) -> ScaleByAdamMiniState:
        found = zip(tree.leaves(params), entries(params), tree.paths(params), strict=True)
        v = [sharded.zeros(shape(p, entry, path), p) for p, entry, path in found]
        return ScaleByAdamMiniState(count=moments.zero_count(params), m=tree.zeros_like(params), v=tree.unflatten(params, v))

    def update(updates: TensorTree, state: ScaleByAdamMiniState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        m = moments.update_moment(updates, state.m, b1)

        def mean_square(g: Tensor, v: Tensor) -> Tensor:
            squares = entrywise.square(g, v)
            if v.shape != g.shape:
                squares = squares.reshape(*v.shape, g.numel() // max(1, v.numel())).mean(-1) if g.numel() else torch.zeros_like(v)
            return sharded.laid_out((b2 * v + (1 - b2) * squares).to(v.dtype), v)

        f1, f2 = moments.bias_factors(count, b1, b2)
        (root,) = entrywise.stacked(f2.sqrt())

        def divided(g: Tensor, m: Tensor, v: Tensor) -> Tensor:
            by_block = m if v.shape == m.shape or not m.numel() else m.reshape(*v.shape, m.numel() // v.numel())
            v = v if v.shape == by_block.shape or not m.numel() else v.unsqueeze(-1)
            return (entrywise.over_root(f1 * by_block, v, eps, 0.0, root).reshape(m.shape) if m.numel() else m).to(g.dtype)

        v = tree.map(mean_square, updates, state.v)
        return tree.map(divided, updates, m, v), ScaleByAdamMiniState(count=count, m=m, v=v)

    return GradientTransformation(init, update, name=where, per_leaf=single, turns=False)


def _entry(where: str, entry: Any, path: str) -> Any:
    if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 1:
        return entry
    if entry not in KINDS:
        at = f" at '{path}'" if path else ""
        raise ValueError(f"{where}: blocks must be a number of blocks or one of {', '.join(map(repr, KINDS))}, got {entry!r}{at}")
    return entry


def adam_mini(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
    *,
    blocks: Blocks = "auto",
) -> GradientTransformation:
    """Adam-mini: `scale_by_adam_mini`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0, as Adam's: a number, a 0-dim tensor or a schedule.
        b1, b2, eps, blocks: as in `scale_by_adam_mini`.
        weight_decay: share of the params that a step takes away, times `lr`; >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Its state is that of its links.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.adam_mini(0.1, eps=0.0)
        >>> tx.update(torch.tensor([3.0, 4.0]), tx.init(torch.zeros(2)))[0]
        tensor([-0.0849, -0.1131])
    """
    return chain(scale_by_adam_mini(b1, b2, eps, blocks=blocks), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
