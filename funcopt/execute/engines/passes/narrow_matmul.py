"""Narrow products turned round: a pass of the compiler.

A product of matrices whose result has fewer than sixteen columns, such as that of a last layer,
leaves most of a vector register empty. Its transpose has as many columns as there are
rows, so in graphs for the CPU

    A B   becomes   (B^T A^T)^T,   c + A B   becomes   c + (B^T A^T)^T                A [.., m, k],  B [.., k, n],  1 < n < 16 <= m

which takes half the time (measured from k = 64 to 512), and of the same numbers: only their order in memory is another.
A graph with an operation that may ask for that order (`as_strided`, `view(dtype)`, somebody's own) is left alone.
"""

import functools
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.core.versions import HigherOrderOperator, OpOverload

__all__ = ["insert", "narrow_products", "turn_narrow"]

VERSION = "funcopt narrow products 3"  # stands for this pass in the keys of the compiler's cache on disk

COLUMNS = 16  # float32 numbers in a vector register of 512 bits
ROWS = 1 << 14  # of a single product: one with more of them does not stay in the cache and gains nothing


def turn_narrow(graph: fx.Graph) -> int:
    """Turns the narrow products of a graph of ATen operations round, in place.

    Returns:
        How many.
    """
    aten, turned = torch.ops.aten, 0
    if any(node.op == "call_function" and _asks_for_order(node.target) for node in graph.nodes):
        return 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node.kwargs or node.target not in (aten.mm.default, aten.addmm.default, aten.bmm.default):
            continue
        *added, left, right = node.args
        if not _narrow(left.meta["val"], right.meta["val"]):
            continue
        axes, target = ([0, 2, 1], aten.bmm.default) if node.target is aten.bmm.default else ([1, 0], aten.mm.default)
        with graph.inserting_before(node):
            product = insert(
                graph, target, insert(graph, aten.permute.default, right, axes), insert(graph, aten.permute.default, left, axes)
            )
            product = insert(graph, aten.permute.default, product, axes)
            node.replace_all_uses_with(insert(graph, aten.add.Tensor, *added, product) if added else product)
        graph.erase_node(node)
        turned += 1
    return turned


def _asks_for_order(target: Any) -> bool:
    """Whether the numbers that an operation gives may depend on where in memory its arguments lie."""
    if not isinstance(target, OpOverload):
        return isinstance(target, HigherOrderOperator)
    space, _, name = target._schema.name.partition("::")
    return (
        space not in ("aten", "prims", "inductor", "funcopt")
        or name.startswith(("as_strided", "view_as_", "set_", "resize_"))
        or target._overloadname == "dtype"
    )


def _narrow(A: Tensor, B: Tensor) -> bool:
    m, n = A.shape[-2], B.shape[-1]
    if A.device.type != "cpu" or A.dtype != torch.float32 or not (isinstance(m, int) and isinstance(n, int)):
        return False
    return 1 < n < COLUMNS <= m and (A.dim() == 3 or m <= ROWS)


def insert(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    """A new node, with what later passes want to know of its value."""
    node = graph.call_function(target, args)
    node.meta["val"] = target(*(arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args))
    return node


@functools.cache
def narrow_products() -> dict[str, Any]:
    """The options of Inductor that add the pass; none where this torch has no such passes."""
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass
    except ImportError:
        return {}

    class NarrowProducts(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            turn_narrow(graph)

        def uuid(self) -> str:
            return VERSION

    return {"post_grad_custom_pre_pass": NarrowProducts()}
