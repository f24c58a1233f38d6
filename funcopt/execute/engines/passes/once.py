"""Once: a pass of the compiler that has the numbers of a step worked out once.

Inductor writes the formula of a value into every kernel that reads it, as long as that is
shorter than a threshold, which for leaves must be high (`graphs.OPTIONS`). A number that is
worked out from numbers that are worked out from numbers, as the controllers do it, is then
written out again wherever it is read, and

    size(y) = 1 + sum of size(x) over the x that y is worked out from

doubles with every value that is read twice: the ten rounds of a generator make a million
operations of sixty. Here numbers whose formula is longer than `LONG` are kept where they are
worked out, and what reads them reads a value. The results are the same.
"""

import functools
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.execute.engines.passes.read_before_write import keep_reads

__all__ = ["keep_numbers", "last_passes"]

VERSION = "funcopt read first 2, once 1"  # stands for these passes in the keys of the compiler's cache on disk
LONG = 64  # operations: a kernel of its own costs as much as these
LONGEST = 1 << 20  # sizes are counted up to here


def keep_numbers(graph: fx.Graph) -> int:
    """Marks, in a graph of ATen operations, the numbers with a long formula that several operations or a larger tensor read.

    Returns:
        How many.
    """
    sizes: dict[fx.Node, int] = {}
    marked = 0
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        sizes[node] = min(1 + sum(sizes.get(source, 1) for source in node.all_input_nodes), LONGEST)
        if sizes[node] > LONG and _number(node) and (len(node.users) > 1 or not all(map(_number, node.users))):
            node.meta["inductor_realize_to_strides"] = True
            sizes[node], marked = 1, marked + 1
    return marked


def _number(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and all(isinstance(length, int) and length == 1 for length in value.shape)


@functools.cache
def last_passes() -> dict[str, Any]:
    """The options of Inductor that add this pass and `readfirst`; none where this torch has no such passes."""
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass
    except ImportError:
        return {}

    class LastPasses(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            keep_reads(graph)
            keep_numbers(graph)

        def uuid(self) -> str:
            return VERSION

    return {"post_grad_custom_post_pass": LastPasses()}
