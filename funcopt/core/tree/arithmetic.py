"""Arithmetic on trees of tensors: leaf by leaf, and over all leaves taken as one vector."""

import builtins
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from funcopt.core.sharded import extreme, is_sharded, sum_of, totals
from funcopt.core.tree.structure import Tree, device, leaves, map, map_plain

__all__ = [
    "add",
    "add_scale",
    "allclose",
    "cast",
    "cast_like",
    "clone",
    "conj",
    "div",
    "dtype",
    "full_like",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "real",
    "scale",
    "size",
    "squared_norm",
    "sub",
    "sum",
    "vdot",
    "where",
    "zeros_like",
]


def zeros_like(tree: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Zeros in the shapes, devices and (unless given) dtypes of a tree."""
    return map_plain(lambda x: torch.zeros_like(x, dtype=dtype, requires_grad=False), tree)


def ones_like(tree: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Ones in the shapes, devices and (unless given) dtypes of a tree."""
    return full_like(tree, 1, dtype)


def full_like(tree: Tree, value: float, dtype: torch.dtype | None = None) -> Tree:
    """One number in the shapes, devices and (unless given) dtypes of a tree."""
    return map_plain(lambda x: torch.full_like(x, value, dtype=dtype, requires_grad=False), tree)


def clone(tree: Tree) -> Tree:
    """A copy that shares no memory with the original. What a state keeps of its arguments it clones."""
    return map_plain(torch.clone, tree)


def cast(tree: Tree, dtype: torch.dtype | None) -> Tree:
    """The floating leaves in another dtype; None leaves the tree as it is."""
    if dtype is None:
        return tree
    return map_plain(lambda x: x.to(dtype) if x.is_floating_point() or x.is_complex() else x, tree)


def cast_like(tree: Tree, like: Tree) -> Tree:
    """Every leaf in the dtype of its partner in `like`."""
    if [x.dtype for x in leaves(tree)] == [y.dtype for y in leaves(like)]:
        return tree
    return map_plain(lambda x, y: x.to(y.dtype), tree, like)


def add(left: Tree, right: Tree, *more: Tree) -> Tree:
    """The sum of two or more trees, leaf by leaf."""
    return map(lambda *xs: reduce(torch.add, xs), left, right, *more)


def sub(left: Tree, right: Tree) -> Tree:
    """`left - right`, leaf by leaf."""
    return map(torch.sub, left, right)


def mul(left: Tree, right: Tree) -> Tree:
    """`left * right`, leaf by leaf."""
    return map(torch.mul, left, right)


def div(left: Tree, right: Tree) -> Tree:
    """`left / right`, leaf by leaf."""
    return map(torch.div, left, right)


def scale(factor: float | Tensor, tree: Tree) -> Tree:
    """`factor * tree`, leaf by leaf."""
    return map(lambda x: factor * x, tree)


def add_scale(left: Tree, factor: float | Tensor, right: Tree) -> Tree:
    """`left + factor * right`, leaf by leaf."""
    return map(lambda x, y: x + factor * y, left, right)


def where(condition: Tensor | bool, left: Tree, right: Tree) -> Tree:
    """`left` where a 0-dim condition (or a tree of conditions) holds, else `right`; what is not chosen may be anything, NaN included."""
    if isinstance(condition, bool):
        return left if condition else right
    if isinstance(condition, Tensor):
        return map_plain(lambda x, y: torch.where(condition, x, y), left, right)
    return map_plain(torch.where, condition, left, right)


def conj(tree: Tree) -> Tree:
    """The complex conjugate of every leaf."""
    return map_plain(torch.conj, tree)


def real(tree: Tree) -> Tree:
    """The real part of every leaf."""
    return map_plain(lambda x: x.real if x.is_complex() else x, tree)


def _total(f: Callable[..., Tensor], tree: Tree, *rest: Tree) -> Tensor:
    """The sum over all entries of `f` of the leaves, an ordinary 0-dim tensor also where leaves are sharded."""
    terms = [f(*xs) for xs in zip(leaves(tree), *(leaves(other) for other in rest), strict=True)]
    # A number is its own sum; alone it stays a copy, since a sum may be kept.
    parts = totals([x if len(terms) > 1 and x.dim() == 0 and x.is_floating_point() and not is_sharded(x) else sum_of(x) for x in terms])
    return reduce(torch.add, parts) if parts else torch.zeros((), device=device(tree))


def _extreme(f: Callable[[Tensor], Tensor], tree: Tree, larger: Callable, nothing: float) -> Tensor:
    filled = [extreme(f, x, larger, nothing) for x in leaves(tree) if x.numel()]
    return reduce(larger, filled) if filled else torch.full((), nothing, device=device(tree))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def sum(tree: Tree) -> Tensor:
    """The sum of all entries of all leaves, 0-dim."""
    return _total(lambda x: x, tree)


def vdot(left: Tree, right: Tree) -> Tensor:
    """The inner product over all leaves, the first conjugated; 0-dim, half precision summed in float32."""
    return _total(lambda x, y: _at_least_float32(x).conj() * y, left, right)


def squared_norm(tree: Tree) -> Tensor:
    """The sum of the squared magnitudes of all entries, 0-dim and real; half precision is summed in float32."""

    def square(x: Tensor) -> Tensor:
        x = _at_least_float32(x)
        return (x.abs() if x.is_complex() else x).square()

    return _total(square, tree)


def norm(tree: Tree, ord: float = 2, *, squared: bool = False) -> Tensor:
    """The l2 (default), l1 or max norm of all entries of all leaves taken as one vector, 0-dim.

    Example:
        >>> fo.tree.norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        tensor(5.)
    """
    if ord in (None, 2):
        total = squared_norm(tree)
        return total if squared else total.sqrt()
    if ord == 1:
        total = _total(torch.abs, tree)
    elif ord in (float("inf"), "inf"):
        total = _extreme(lambda x: x.abs().max(), tree, torch.maximum, 0.0)
    else:
        raise ValueError(f"tree.norm: ord must be 1, 2 or inf, got {ord}")
    return total.square() if squared else total


def max(tree: Tree) -> Tensor:
    """The largest entry of all leaves, -inf if there is none."""
    return _extreme(torch.max, tree, torch.maximum, -torch.inf)


def min(tree: Tree) -> Tensor:
    """The smallest entry of all leaves, inf if there is none."""
    return _extreme(torch.min, tree, torch.minimum, torch.inf)


def size(tree: Tree) -> int:
    """The number of entries of all leaves."""
    return builtins.sum(x.numel() for x in leaves(tree))


def allclose(left: Tree, right: Tree, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """True if all pairs of leaves are close; a host answer, for tests."""
    return all(torch.allclose(x, y, rtol=rtol, atol=atol) for x, y in zip(leaves(left), leaves(right), strict=True))


def dtype(tree: Tree, mode: str | None = None) -> torch.dtype:
    """The dtype of a tree.

    Args:
        mode: None demands that all leaves have the same; "promote", "highest" and
            "lowest" combine them. An empty tree has torch's default dtype.

    Raises:
        ValueError: the dtypes differ, or cannot be ordered.
    """
    found = {x.dtype for x in leaves(tree)}
    if not found:
        return torch.get_default_dtype()
    if len(found) == 1:
        return next(iter(found))
    promoted = reduce(torch.promote_types, found)
    if mode == "promote":
        return promoted
    if mode == "highest" and promoted in found:
        return promoted
    if mode == "lowest":
        for candidate in found:
            if all(torch.promote_types(candidate, other) == other for other in found):
                return candidate
    listing = ", ".join(sorted(str(d) for d in found))
    if mode is None:
        raise ValueError(f"tree.dtype: all leaves must have one dtype, got {listing}; pass mode='promote', 'highest' or 'lowest'")
    raise ValueError(f"tree.dtype: mode '{mode}' cannot order {listing}")
