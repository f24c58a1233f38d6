"""How a chunk of members is compiled: which guards are worth having, narrow products turned round (narrow_matmul.py), tanh as a fraction.

The compiler's tanh takes 2 ns a number, a third of the evaluation of a small policy. In graphs for the CPU

    tanh(x)   becomes   x P(x^2) / Q(x^2) within -1 and 1, x within -9 and 9        P, Q of degree 4

fitted by ourselves for the least relative error on [0, 9]: 2e-8, with the roundings of float32 4e-7. At 9 the result is 1.
Of 1 + tanh(x), as in gelu, the exponential is cheaper still and keeps the digits that the sum would lose:

    1 + tanh(x)   becomes   2 / (1 + exp(-2 x))

A graph has hundreds of guards, four in five of them on libraries and on settings that no one changes. They
are asked at every call, and a generation of a small policy makes dozens of calls.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.core.versions import TORCH
from funcopt.execute.engines.dynamo import guards_worth_having
from funcopt.execute.engines.passes.narrow_matmul import __file__ as narrow_file, insert, turn_narrow

__all__ = ["chunk_options", "quick_tanh"]

END = 9.0  # from here on tanh rounds to 1 in float32
P = (1.0, 0.13381032, 0.0034955955, 2.0609196e-05, 1.3354803e-08)  # of x^2, the constant first
Q = (1.0, 0.46714348, 0.025877011, 0.00032856465, 7.7766196e-07)

READERS = 3  # of a tanh: with more of them it is left as it is

LIBRARIES = ("__import_torch_dot_", "__import__('torch')", "__import__('collections')")
OURS = ("place.", "type(place", "self.settings")  # of Evaluator.chunk_function: a chunk is compiled for these


def chunk_options(given: bool | dict[str, Any]) -> dict[str, Any]:
    """The arguments of torch.compile for a chunk: what the caller of `es.grad` said, and what is said here where nobody else did.

    Example:
        >>> from funcopt.es.evaluate.compiling import chunk_options
        >>> chunk_options({"backend": "eager"})
        {'dynamic': False, 'backend': 'eager'}
    """
    given = given if isinstance(given, dict) else {}
    if given.get("backend", "inductor") != "inductor" or "mode" in given or TORCH < (2, 9):
        return {"dynamic": False, **given}
    ours = {"post_grad_custom_pre_pass": _pass(), "guard_filter_fn": _worth_having, "size_asserts": False}
    return {"dynamic": False, **given, "options": {**ours, **given.get("options", {})}}


def _worth_having(entries: Sequence[Any]) -> list[bool]:
    kept = guards_worth_having(entries)
    return [
        keep and not (e.name.startswith(OURS) or any(name in e.name for name in LIBRARIES)) for keep, e in zip(kept, entries, strict=True)
    ]


def _pass() -> Callable[[fx.Graph], None]:
    """Both changes in the form in which Inductor's cache on disk can tell one version of it from another."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Pass(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            turn_narrow(graph)
            quick_tanh(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__, narrow_file))

    return Pass()


def quick_tanh(graph: fx.Graph) -> int:
    """Writes every tanh of a graph of ATen operations as a fraction, in place; half precision in float32.

    Returns:
        How many.
    """
    aten, found = torch.ops.aten, 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not aten.tanh.default:
            continue
        (source,) = _given(node)
        given = source.meta["val"]
        if given.device.type != "cpu" or given.dtype not in (torch.float32, torch.bfloat16, torch.float16) or _readers(node) > READERS:
            continue

        def call(target: Any, *args: Any) -> fx.Node:
            return insert(graph, target, *args)

        def polynomial(coefficients: tuple[float, ...], z: fx.Node) -> fx.Node:
            value: Any = coefficients[-1]
            for c in reversed(coefficients[:-1]):
                value = call(aten.add.Tensor, call(aten.mul.Tensor, z, value), c)
            return value

        replaced = _raised(node)
        with graph.inserting_before(node):
            x: Any = source if given.dtype == torch.float32 else call(torch.ops.prims.convert_element_type.default, source, torch.float32)
            if replaced is not node:
                y = call(aten.add.Tensor, call(aten.exp.default, call(aten.mul.Tensor, x, -2.0)), 1.0)
                y = call(aten.mul.Tensor, call(aten.reciprocal.default, y), 2.0)
            else:
                x = call(aten.clamp_max.default, call(aten.clamp_min.default, x, -END), END)
                z = call(aten.mul.Tensor, x, x)
                y = call(aten.div.Tensor, call(aten.mul.Tensor, x, polynomial(P, z)), polynomial(Q, z))
                y = call(aten.clamp_max.default, call(aten.clamp_min.default, y, -1.0), 1.0)
            replaced.replace_all_uses_with(
                y if given.dtype == torch.float32 else call(torch.ops.prims.convert_element_type.default, y, given.dtype)
            )
        for done in dict.fromkeys((replaced, node)):
            graph.erase_node(done)
        found += 1
    return found


def _raised(node: fx.Node) -> fx.Node:
    """The node that adds 1 to this one, if nobody else reads it; else this one."""
    user, args = next(iter(node.users), node), next(iter(node.users), node).args
    return (
        user
        if len(node.users) == 1 and user.target is torch.ops.aten.add.Tensor and not user.kwargs and args[0] is node and args[1] == 1
        else node
    )


def _readers(node: fx.Node) -> float:
    """How often an element is read before it is written to memory: the compiler works it out anew for each, unless it sees a tanh in it."""
    size, count = node.meta["val"].numel(), 0.0
    for user in node.users:
        value = user.meta.get("val")
        if user.target in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            left, right = _given(user)
            m, n = left.meta["val"].shape[-2], right.meta["val"].shape[-1]
            count += 1 if (m > 1 and n > 1) or (m == 1 and n == 1) else n if left is node else m  # a vector's product is written out
        elif user.op == "output" or not isinstance(value, Tensor) or value.numel() < size:
            count += 1
        else:
            count += math.inf if value.numel() > size else _readers(user)
        if count > READERS:
            break
    return count


def _given(node: fx.Node) -> tuple[Any, ...]:
    """Its arguments, of operations that take nodes only."""
    return node.args
