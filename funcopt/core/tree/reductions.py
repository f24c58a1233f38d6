"""Sums, norms and extremes over all leaves of a tree, taken as one vector."""

import builtins
from collections.abc import Callable
from functools import reduce
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from funcopt.core import check, dtypes
from funcopt.core.dtypes import at_least_float32
from funcopt.core.math import lengths
from funcopt.core.sharded import extreme, is_sharded, sum_of, totals
from funcopt.core.tree.makers import cast
from funcopt.core.tree.mapping import columns, map_plain
from funcopt.core.tree.refusals import explained
from funcopt.core.tree.scalars import device
from funcopt.core.tree.structure import Tree, leaves
from funcopt.core.versions import compiling

__all__ = ["allclose", "dtype", "max", "min", "norm", "size", "squared_norm", "sum", "vdot"]

Mode = Literal["promote", "highest", "lowest"]


def sum(tree: Tree) -> Tensor:
    """The sum of all entries of all leaves, 0-dim, half precision summed in float32.

    Args:
        tree: tree of tensors.

    Returns:
        A 0-dim tensor.

    Example:
        >>> fo.tree.sum({"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])})
        tensor(6.)
    """
    return _total(at_least_float32, tree)


def vdot(left: Tree, right: Tree, dtype: torch.dtype | None = None) -> Tensor:
    """The inner product over all leaves, the first conjugated, in `dtype` if one is given; 0-dim, half precision summed in float32.

    Args:
        left: tree of tensors.
        right: tree like `left`.
        dtype: in which it is worked out; None: that of the leaves, at least float32.

    Returns:
        A 0-dim tensor.

    Raises:
        ValueError: the structures differ.

    Example:
        >>> fo.tree.vdot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        tensor(11.)
    """
    if dtype is not None:
        left, right = cast(left, dtype), cast(right, dtype)

    def product(x: Tensor, y: Tensor) -> Tensor:
        return at_least_float32(x).conj() * y

    return _total(product, left, right)


def squared_norm(tree: Tree, dtype: torch.dtype | None = None) -> Tensor:
    """The sum of the squared magnitudes of all entries, 0-dim and real.

    Args:
        tree: tree of tensors.
        dtype: of the result; None: that of the leaves, at least float32, which does not hold it from norms of 1.8e19 on: float64 does.

    Returns:
        A 0-dim real tensor.

    Example:
        >>> fo.tree.squared_norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        tensor(25.)
    """
    return _length(tree, dtype, squared=True)


def norm(tree: Tree, ord: float = 2, *, squared: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """The l2 (default), l1 or max norm of all entries of all leaves taken as one vector, 0-dim; the l2 norm has slope 0 at 0.

    Args:
        tree: tree of tensors.
        ord: 1, 2 or inf.
        squared: the square of it.
        dtype: of the l2 norm; None: that of the leaves, at least float32. Whatever it is, no square on the way overflows or vanishes.

    Returns:
        A 0-dim real tensor; 0 of an empty tree.

    Raises:
        ValueError: `ord` is none of these.

    Example:
        >>> fo.tree.norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])}), fo.tree.norm([torch.tensor([3e30]), torch.tensor([4e30])])
        (tensor(5.), tensor(5.0000e+30))
    """
    check.flag("tree.norm", "squared", squared)
    if ord in (None, 2):
        return _length(tree, dtype, squared)
    if ord == 1:
        total = _total(lambda x: at_least_float32(x).abs(), tree)
    elif ord in (float("inf"), "inf"):
        total = _extreme(lambda x: x.abs().max(), tree, torch.maximum, 0.0)
    else:
        raise ValueError(f"tree.norm: ord must be 1, 2 or inf, got {ord}")
    return total.square() if squared else total


def max(tree: Tree) -> Tensor:
    """The largest entry of all leaves, -inf if there is none.

    Args:
        tree: tree of real tensors.

    Returns:
        A 0-dim tensor.

    Example:
        >>> fo.tree.max({"w": torch.tensor([1.0, 5.0]), "b": torch.tensor([2.0])})
        tensor(5.)
    """
    return _extreme(torch.max, _ordered("max", tree), torch.maximum, -torch.inf)


def min(tree: Tree) -> Tensor:
    """The smallest entry of all leaves, inf if there is none.

    Args:
        tree: tree of real tensors.

    Returns:
        A 0-dim tensor.

    Example:
        >>> fo.tree.min({"w": torch.tensor([1.0, 5.0]), "b": torch.tensor([2.0])})
        tensor(1.)
    """
    return _extreme(torch.min, _ordered("min", tree), torch.minimum, torch.inf)


def size(tree: Tree) -> int:
    """The number of entries of all leaves.

    Args:
        tree: tree of tensors.

    Returns:
        An int.

    Example:
        >>> fo.tree.size({"w": torch.zeros(2, 3), "b": torch.zeros(3)})
        9
    """
    return builtins.sum(x.numel() for x in tensors(tree))


def allclose(left: Tree, right: Tree, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """True if all pairs of leaves have one shape and are close; a host answer, for tests.

    Args:
        left: tree of tensors.
        right: tree of the same structure.
        rtol: share of `right` by which entries may differ, >= 0.
        atol: distance by which they may differ besides, >= 0.

    Returns:
        True or False.

    Raises:
        ValueError: the structures differ; names the first path.

    Example:
        >>> fo.tree.allclose([torch.tensor(1.0)], [torch.tensor(1.0 + 1e-7)])
        True
    """
    pairs = zip(*columns(left, right)[0], strict=True)
    return all(x.shape == y.shape and torch.allclose(x, y, rtol=rtol, atol=atol) for x, y in pairs)


def dtype(tree: Tree, mode: Mode | None = None) -> torch.dtype:
    """The dtype of a tree.

    Args:
        tree: tree of tensors.
        mode: None demands that all leaves have the same; "promote", "highest" and
            "lowest" combine them. An empty tree has torch's default dtype.

    Returns:
        A `torch.dtype`.

    Raises:
        ValueError: the dtypes differ, or cannot be ordered.

    Example:
        >>> fo.tree.dtype({"w": torch.zeros(2)})
        torch.float32
    """
    check.choice("tree.dtype", "mode", mode, (None, *get_args(Mode)))
    found = {x.dtype for x in tensors(tree)}
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


def range_factor(tree: Tree) -> Tensor | None:
    """The power of two to multiply all entries by, to bring their squares and those of sums into range, 0-dim; None where they are."""
    found = leaves(tree)
    if all([lengths.wide_enough(x) for x in found]):
        return None
    largest = _extreme(lambda x: x.abs().max(), map_plain(torch.Tensor.detach, found), torch.maximum, 0.0)
    return lengths.range_factor(largest.to(dtypes.steering(largest.device)))


def _total(f: Callable[..., Tensor], tree: Tree, *rest: Tree) -> Tensor:
    """The sum over all entries of `f` of the leaves, an ordinary 0-dim tensor also where leaves are sharded."""
    found = columns(tree, *rest)[0] if rest and not compiling() else [tensors(one) for one in (tree, *rest)]
    terms = [f(*xs) for xs in zip(*found, strict=True)]
    # A number is its own sum; alone it stays a copy, since a sum may be kept.
    parts = totals([x if len(terms) > 1 and x.dim() == 0 and x.is_floating_point() and not is_sharded(x) else sum_of(x) for x in terms])
    return reduce(torch.add, parts) if parts else torch.zeros((), device=device(tree))


def tensors(tree: Tree) -> list[Tensor]:
    """The leaves, which must be tensors."""
    found = leaves(tree)
    for x in found:
        if not isinstance(x, Tensor):
            raise explained(TypeError(), tree)
    return found


def _extreme(f: Callable[[Tensor], Tensor], tree: Tree, larger: Callable[..., Any], nothing: float) -> Tensor:
    filled = [extreme(f, x, larger, nothing) for x in tensors(tree) if x.numel()]
    return reduce(larger, filled) if filled else torch.full((), nothing, device=device(tree))


def _length(tree: Tree, dtype: torch.dtype | None, squared: bool) -> Tensor:
    found = tensors(tree)
    if not found:
        return torch.zeros((), device=device(tree), dtype=dtype)
    if dtype is None:
        dtype = reduce(torch.promote_types, [dtypes.summing(dtypes.real(x.dtype)) for x in found])
    # What is only squared, and to be float64, needs no root of a scaled sum.
    factor = None if squared and dtype == torch.float64 else range_factor(found)
    total = reduce(torch.add, totals([_squares(x, factor) for x in found]))
    if factor is None:
        return (total if squared else lengths.safe_sqrt(total)).to(dtype)
    length = (lengths.safe_sqrt(total) / factor).to(dtype)
    return length.square() if squared else length


def _squares(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """The sum of the squared magnitudes of a leaf; of a sharded one in parts."""
    if factor is None and not is_sharded(x):
        return lengths.added_squares(x)
    x = lengths.magnitudes(x.abs() if x.is_complex() and is_sharded(x) else x)
    return sum_of((x if factor is None else x * factor).square())


def _ordered(name: str, tree: Tree) -> Tree:
    """The tree, if its entries have an order."""
    if any(x.is_complex() for x in tensors(tree)):
        raise TypeError(f"tree.{name}: entries must be real, got complex leaves; norm(tree, inf) has the largest magnitude")
    return tree
