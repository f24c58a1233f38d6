"""Apart: a pass of the compiler that takes stacks of numbers apart, of which each entry is read by itself.

A link stacks numbers so that a compiler which knows nothing of them works them out once
(`entrywise.stacked`). Where `once` says which are kept, a stack is n + 1 buffers in place
of as many as are worth it:

    x_1, ..., x_n = unbind(stack(x_1, ..., x_n))

which is left out here. The numbers are the same.
"""

from typing import Any

import torch
from torch import fx

__all__ = ["is_view", "take_apart"]


def take_apart(graph: fx.Graph) -> int:
    """Has whoever reads an entry of a stack of numbers, in a graph of ATen operations, read the number itself.

    Left alone are stacks that are read as a whole, of what was given to the graph, or of which an entry is a result.

    Returns:
        How many stacks were left out.
    """
    taken = 0
    for stack in list(graph.nodes):
        numbers = _stacked(stack)
        reads = _reads(stack) if numbers else None
        if not numbers or reads is None or any(map(_is_result, reads)):
            continue
        for node, index in reads.items():
            node.replace_all_uses_with(numbers[index])
        for node in reads:
            graph.erase_node(node)
        for node in [*stack.users, stack, *dict.fromkeys(stack.all_input_nodes)]:
            if not node.users:
                graph.erase_node(node)
        taken += 1
    return taken


def _is_result(node: fx.Node) -> bool:
    """Whether a node, or a view of it, is a result of the graph, which must share memory with no other."""
    return any(user.op == "output" or (is_view(user) and _is_result(user)) for user in node.users)


def is_view(node: fx.Node) -> bool:
    """Whether a node shows what it reads in another shape; a reshape may be a copy."""
    return bool(getattr(node.target, "is_view", False)) or node.target is torch.ops.aten.reshape.default


def _stacked(node: fx.Node) -> list[fx.Node]:
    """The numbers that a node lays in a row, as `torch.stack` is written in ATen; none where it does something else."""
    aten = torch.ops.aten
    if node.op != "call_function" or node.target is not aten.cat.default or node.args[1:] not in ((), (0,)):
        return []
    numbers: list[fx.Node] = []
    parts: Any = node.args[0]
    for part in parts:
        if part.op != "call_function" or part.target is not aten.unsqueeze.default:
            return []
        number = part.args[0]
        if (
            number.op != "call_function"
            or is_view(number)
            or number.meta["val"].dim()
            or number.meta["val"].dtype != node.meta["val"].dtype
        ):
            return []
        numbers.append(number)
    return numbers


def _reads(stack: fx.Node) -> dict[fx.Node, Any] | None:
    """The nodes that read one entry each, and which; None where somebody reads more of it."""
    aten = torch.ops.aten
    reads: dict[fx.Node, Any] = {}
    for user in stack.users:
        if user.target is aten.select.int and user.args[1] == 0:
            reads[user] = user.args[2]
        elif user.target is aten.unbind.int and user.args[1:] in ((), (0,)):
            reads.update((entry, entry.args[1]) for entry in user.users)
        else:
            return None
    return reads
