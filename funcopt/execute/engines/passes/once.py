"""Once: a pass of the compiler that has the numbers of a step worked out once.

Inductor writes the formula of a value into every kernel that reads it, as long as that is
shorter than a threshold, which for leaves must be high (`graphs.OPTIONS`). A number that is
worked out from numbers that are worked out from numbers, as the controllers do it, is then
written out again wherever it is read, and

    size(y) = 1 + sum of size(x) over the x that y is worked out from

doubles with every value that is read twice: the ten rounds of a generator make a million
operations of sixty. Here numbers whose formula is longer than `LONG` are kept where they are
worked out, and what reads them reads a value. The results are the same.

A sum of k < 8 entries is written out as well, with the formula of an entry k times in it, and so

    size(y) = 1 + k size(x)

is 6^6 operations where a matrix of six columns is centered and made to length three times. Sums as long are kept, too, whatever
their shape.
"""

import functools
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.execute.engines.passes.read_before_write import keep_reads

__all__ = ["keep_numbers", "last_passes"]

VERSION = "funcopt read first 2, once 2"  # stands for these passes in the keys of the compiler's cache on disk
LONG = 64  # operations: a kernel of its own costs as much as these
LONGEST = 1 << 20  # sizes are counted up to here
FEW = 8  # a sum of fewer entries is written out
REDUCTION: Any = getattr(torch.Tag, "reduction", None)  # what torch calls sums and their kin


def keep_numbers(graph: fx.Graph) -> int:
    """Marks, in a graph of ATen operations, what has a long formula: numbers that several operations or a larger tensor read, short sums.

    Returns:
        How many.
    """
    sizes: dict[fx.Node, int] = {}
    marked = 0
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        entries = _written_out(node)
        sizes[node] = min(1 + entries * sum(sizes.get(source, 1) for source in node.all_input_nodes), LONGEST)
        if sizes[node] > LONG and (entries > 1 or (_number(node) and (len(node.users) > 1 or not all(map(_number, node.users))))):
            node.meta["inductor_realize_to_strides"] = True
            sizes[node], marked = 1, marked + 1
    return marked


def _number(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and all(isinstance(length, int) and length == 1 for length in value.shape)


def _written_out(node: fx.Node) -> int:
    """How many entries of its argument one entry of a result is worked out from, where the compiler writes them out; else 1."""
    if REDUCTION is None or REDUCTION not in getattr(node.target, "tags", ()):
        return 1
    result, argument = node.meta.get("val"), node.all_input_nodes[0].meta.get("val")
    if not (isinstance(result, Tensor) and isinstance(argument, Tensor)):
        return 1
    lengths = [*result.shape, *argument.shape]
    if not all(isinstance(length, int) for length in lengths) or not result.numel():
        return 1
    entries = argument.numel() // result.numel()
    return entries if 1 < entries < FEW else 1


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
