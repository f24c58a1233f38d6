"""Microbatches: the mean gradient of a batch that does not fit at once, part by part.

    g = (g_1 + ... + g_k) / k,   loss = (loss_1 + ... + loss_k) / k

One graph takes a part and adds to the sum in place: compile time and memory do not grow with k.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.dtypes import summing
from funcopt.core.protocol import TensorTree
from funcopt.execute.donation import write_back, write_late

__all__ = ["accumulated", "parts"]


def parts(batch: tuple[Any, ...], count: int, in_dims: Any) -> list[tuple[Any, ...]]:
    """The batch cut into `count` equal parts.

    Raises:
        ValueError: a tensor cannot be cut so, or `in_dims` does not fit the batch.

    Example:
        >>> from funcopt.execute.microbatches import parts
        >>> parts((torch.arange(4), 7), 2, (0, None))
        [(tensor([0, 1]), 7), (tensor([2, 3]), 7)]
    """
    dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(batch)
    if len(dims) != len(batch):
        raise ValueError(f"make_step: in_dims must have one entry for each of the {len(batch)} batch arguments, got {len(dims)}")

    def cut(index: int, argument: Any, dim: int) -> list[Any]:
        def pieces(x: Any) -> tuple[Any, ...]:
            if not isinstance(x, Tensor) or x.dim() == 0:
                return (x,) * count
            if x.shape[dim] % count or not x.shape[dim]:
                remedy = "pass in_dims with None for what is not cut"
                raise ValueError(
                    f"make_step: accumulate={count} must divide axis {dim} of batch argument {index}, got shape {tuple(x.shape)}; {remedy}"
                )
            return x.chunk(count, dim)

        leaves = [pieces(x) for x in tree.leaves(argument)]
        return [tree.unflatten(argument, [piece[part] for piece in leaves]) for part in range(count)]

    columns = [
        [argument] * count if dim is None else cut(index, argument, dim)
        for index, (argument, dim) in enumerate(zip(batch, dims, strict=True))
    ]
    return [tuple(column[part] for column in columns) for part in range(count)]


def accumulated(
    gradients: Callable[..., Any], count: int, in_dims: Any, has_aux: bool, graph: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """`(params, batch) -> (grads, value)`, the mean of `gradients` over the parts of the batch.

    Args:
        gradients: `(params, batch) -> (grads, value)`; value is the loss, or `(loss, aux)` with `has_aux`.
        count: how many parts; with one this is `gradients`.
        in_dims: along which axes they are cut.
        has_aux: aux of the parts comes back stacked.
        graph: what compiles a function.
    """
    if count == 1:
        return graph(gradients)

    def add(total: TensorTree, params: TensorTree, part: tuple[Any, ...]) -> Any:
        grads, value = gradients(params, part)
        return write_back(total, tree.map(lambda t, g: t + g.to(t.dtype) / count, total, grads)), value

    add = graph(add)

    def run(params: TensorTree, batch: tuple[Any, ...]):
        total = tree.map_plain(lambda p: torch.zeros_like(p, dtype=summing(p.dtype)), params)
        values = []
        for part in parts(batch, count, in_dims):
            late, value = add(total, params, part)
            write_late(late)
            values.append(value)
        grads = tree.map_plain(lambda t, p: t.to(p.dtype), total, params)
        if not has_aux:
            return grads, torch.stack(values).mean()
        return grads, (
            torch.stack([loss for loss, _ in values]).mean(),
            tree.map_plain(lambda *xs: torch.stack(xs), *[aux for _, aux in values]),
        )

    return run
