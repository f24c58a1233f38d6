"""Once: passes of the compiler that have what a step reads in several places worked out once.

Inductor writes the formula of a value into every kernel that reads it, as long as that is
shorter than a threshold, which for leaves must be high (`dynamo.OPTIONS`). A number that is
worked out from numbers that are worked out from numbers, as the controllers do it, is then
written out again wherever it is read, and

    size(y) = 1 + sum of size(x) over the x that y is worked out from

doubles with every value that is read twice: the ten rounds of a generator make a million
operations of sixty. It is worked out again, too, for every few entries of a leaf that it meets.
Here a number that would be worked out `times` over is kept where it is worked out first, and what
reads it reads a value, where

    size * (times - 1) > LONG

A product of matrices reads its factors from memory, so that they are written to it anyway. What
else reads such a factor and stands before the product, as the sum that is the gradient of a
bias does, would work it out again from where *its* factors lie, often against the grain. It
reads what the product reads. The results are the same.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.execute.engines.passes.apart import is_view, take_apart
from funcopt.execute.engines.passes.read_before_write import keep_reads

__all__ = ["keep_factors", "keep_numbers", "last_passes"]

VERSION = "funcopt read first 2, apart 1, once 3"  # stands for these passes in the keys of the compiler's cache on disk
LONG = 64  # operations: a kernel of its own costs as much as these
CHEAP = 3  # operations: a rounding, a sign
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default)
LONGEST = 1 << 20  # sizes are counted up to here


def keep_numbers(graph: fx.Graph) -> int:
    """Marks, in a graph of ATen operations, the numbers that are cheaper to read than to work out wherever they are read.

    Returns:
        How many.
    """
    sizes: dict[fx.Node, int] = {}
    marked = 0
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        sizes[node] = min(1 + sum(sizes.get(source, 1) for source in node.all_input_nodes), LONGEST)
        if _number(node) and sizes[node] > CHEAP and sizes[node] * (sum(map(_times, node.users)) - 1) > LONG:
            node.meta["inductor_realize_to_strides"] = True
            sizes[node], marked = 1, marked + 1
    return marked


def keep_factors(graph: fx.Graph) -> int:
    """Marks, in a graph of ATen operations, what a product of matrices and others read and is worked out entry by entry.

    Returns:
        How many.
    """
    factors: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and node.target in PRODUCTS:
            factors |= {origin for origin in map(_origin, node.all_input_nodes) if len(origin.users) > 1 and _entry_by_entry(origin)}
    for factor in factors:
        factor.meta["inductor_realize_to_strides"] = True
    return len(factors)


def _origin(node: fx.Node) -> fx.Node:
    """What a node is a view of."""
    while node.op == "call_function" and is_view(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _times(node: fx.Node) -> int:
    """How often a node works out a number that it reads: for every entry of what it gives."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor):
        return 1
    return math.prod(length if isinstance(length, int) else LONG for length in value.shape)


def _entry_by_entry(node: fx.Node) -> bool:
    return node.op == "call_function" and torch.Tag.pointwise in getattr(node.target, "tags", ())


def _number(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and all(isinstance(length, int) and length == 1 for length in value.shape)


@functools.cache
def last_passes() -> dict[str, Any]:
    """The options of Inductor that add these passes and `keep_reads`; none where this torch has no such passes."""
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass
    except ImportError:
        return {}

    class LastPasses(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            take_apart(graph)
            keep_reads(graph)
            keep_factors(graph)
            keep_numbers(graph)

        def uuid(self) -> str:
            return VERSION

    return {"post_grad_custom_post_pass": LastPasses()}
