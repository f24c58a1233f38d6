"""Trees with a leading axis of copies: made, taken apart, and mapped over."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from funcopt.core import TensorTree, check, random, tree
from funcopt.core.unfit import dense
from funcopt.core.versions import compiling

__all__ = ["count", "member", "over_copies", "owned", "permutations", "repeat", "stack"]


def stack(trees: Sequence[TensorTree]) -> TensorTree:
    """The population whose copy i is `trees[i]`.

    Args:
        trees: at least one, all of one structure and with leaves of the same shapes.

    Returns:
        A tree like each of them with a leading axis of copies.

    Raises:
        ValueError: there is none, or their structures or shapes differ.

    Example:
        >>> fo.population.stack([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
        {'w': tensor([[0., 0.],
                      [1., 1.]])}
    """
    trees = list(trees)
    if not trees:
        raise ValueError("population.stack: needs at least one tree, got none")
    for number, one in enumerate(trees):
        dense("population.stack", "every tree", tree.leaves(one), lambda one=one: tree.paths(one))
        tree.assert_alike("population.stack", one, trees[0], (f"tree {number}", "tree 0"))
    return tree.map_plain(lambda *leaves: torch.stack(leaves), *trees)


def repeat(params: TensorTree, copies: int) -> TensorTree:
    """The population of `copies` equal copies, each with memory of its own.

    Args:
        params: tree of tensors: one copy.
        copies: how many, >= 1.

    Returns:
        A tree like `params` with a leading axis of copies, without autograd history.

    Raises:
        ValueError: `copies` is below 1.

    Example:
        >>> fo.population.repeat(torch.tensor([1.0, 2.0]), 3).shape
        torch.Size([3, 2])
    """
    check.integer("population.repeat", "copies", copies, 1)
    dense("population.repeat", "params", tree.leaves(params), lambda: tree.paths(params))
    return tree.map_plain(lambda x: x.detach().expand(copies, *x.shape).clone(memory_format=torch.contiguous_format), params)


def member(population: TensorTree, i: int | Tensor) -> TensorTree:
    """Copy i of a population.

    Args:
        population: a tree of tensors with a leading axis of copies: params, a state, both.
        i: an int (the leaves are views), or a 0-dim integer tensor, at which nothing
            looks (they are copies).

    Returns:
        A tree like one copy.

    Raises:
        ValueError: `i` is no copy, or a leaf is sparse or has no axis of copies.

    Example:
        >>> fo.population.member({"w": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}, 1)
        {'w': tensor([1., 1.])}
    """
    if isinstance(i, Tensor):
        return tree.map_plain(lambda x: x.index_select(0, i.reshape(1).to(x.device)).squeeze(0), population)
    dense("population.member", "population", tree.leaves(population), lambda: tree.paths(population))
    for path, x in zip(tree.paths(population), tree.leaves(population), strict=True):
        if x.dim() == 0 or not -len(x) <= i < len(x):
            raise ValueError(
                f"population.member: i must be one of the copies, of which '{path}' has {len(x) if x.dim() else 'no axis'}, got {i}"
            )
    return tree.map_plain(lambda x: x[i], population)


def permutations(keys: Tensor, rows: int, epoch: int | Tensor = 0) -> Tensor:
    """For every copy an order of all rows of its own: the data of an epoch.

    Args:
        keys: int64 [copies, 2], as `fo.random.split` makes them; copies with equal keys
            get equal orders.
        rows: of the data, >= 0.
        epoch: folded into the keys, so that each epoch has its own order.

    Returns:
        int64 [copies, rows], each row a permutation of 0 ... rows - 1.

    Raises:
        ValueError: `rows` is negative.

    Example:
        >>> fo.population.permutations(fo.random.split(fo.random.key(0), 2), 4)
        tensor([[0, 3, 1, 2],
                [2, 3, 0, 1]])
    """
    check.integer("population.permutations", "rows", rows, 0)
    return vmap(lambda key: random.uniform(random.fold_in(key, epoch), (rows,)))(keys).argsort(dim=-1, stable=True)


def owned(values: Any) -> Any:
    """Every leaf with memory of its own: `vmap` hands out one number for all copies where nothing depends on the copy."""
    return tree.map_until(Tensor, lambda x: x.detach().clone(memory_format=torch.contiguous_format), values)


def count(where: str, name: str, population: TensorTree, copies: int | None) -> int | None:
    """The length of the leading axis that all leaves share with each other and with `copies`; `copies` for a tree without leaves."""
    for path, leaf in zip(tree.paths(population), tree.leaves(population), strict=True):
        place = f"{name} at '{path}'" if path else name
        if not isinstance(leaf, Tensor) or leaf.dim() == 0:
            shape = "a tensor without axes" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(
                f"{where}: {place} must have a leading axis of copies, got {shape}; population.repeat makes a population of one tree"
            )
        if copies is None:
            copies = leaf.shape[0]
        if leaf.shape[0] != copies:
            raise ValueError(f"{where}: {place} must have a leading axis of {copies} copies, got {leaf.shape[0]}")
    return copies


def over_copies(f: Callable[..., Any], arguments: tuple[Any, ...], varies: Sequence[bool] | None = None) -> Any:
    """`vmap` of `f` over trees as this library sees them: what is no tensor passes.

    Args:
        f: a function of `arguments` as one copy sees them, to a tree of tensors.
        arguments: trees of tensors with an axis of copies, unless `varies` says less.
        varies: for each leaf of the arguments whether it has that axis.
    """
    leaves = tree.leaves(arguments)
    varies = [True] * len(leaves) if varies is None else varies
    outline: list[Any] = []

    def flat(*mine: Tensor) -> tuple[Tensor, ...]:
        rest = iter(mine)
        filled = [next(rest) if is_own else leaf for leaf, is_own in zip(leaves, varies, strict=True)]
        result = f(*tree.unflatten(arguments, filled))
        # Numbers in place of tensors, which must not outlive the call; a tree of constants does not trace.
        outline[:] = [result if compiling() else tree.map_plain(lambda x: 0, result)]
        return tuple(tree.leaves(result))

    results = vmap(flat)(*(leaf for leaf, is_own in zip(leaves, varies, strict=True) if is_own))
    return tree.unflatten(outline[0], list(results))
