"""How a chunk of members is compiled: which guards are worth having, and narrow products turned round.

A product of matrices whose result has fewer than sixteen columns, such as that of a last layer,
leaves most of a vector register empty. Its transpose has as many columns as there are
rows, so in graphs for the CPU

    A B   becomes   (B^T A^T)^T                A [.., m, k],  B [.., k, n],  1 < n < 16 <= m

which takes half the time (measured from k = 64 to 512), and of the same numbers: only their order in memory is another.

A graph has hundreds of guards, four in five of them on libraries and on settings that no one changes. They
are asked at every call, and a generation of a small policy makes dozens of calls.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from funcopt.core.graphs import guards_worth_having
from funcopt.core.versions import TORCH

__all__ = ["chunk_options", "turn_narrow"]

COLUMNS = 16  # float32 numbers in a vector register of 512 bits
ROWS = 1 << 14  # of a single product: one with more of them does not stay in the cache and gains nothing

LIBRARIES = ("__import_torch_dot_", "__import__('torch')", "__import__('collections')")
OURS = ("place.", "type(place", "self.settings")  # of Evaluator.chunk_function: a chunk is compiled for these


def chunk_options(given: bool | dict[str, Any]) -> dict[str, Any]:
    """The arguments of torch.compile for a chunk: what the caller of `es.grad` said, and what is said here where nobody else did.

    Example:
        >>> from funcopt.es.compiling import chunk_options
        >>> chunk_options({"backend": "eager"})
        {'dynamic': False, 'backend': 'eager'}
    """
    given = given if isinstance(given, dict) else {}
    if given.get("backend", "inductor") != "inductor" or "mode" in given or TORCH < (2, 9):
        return {"dynamic": False, **given}
    ours = {"post_grad_custom_pre_pass": _pass(), "guard_filter_fn": _worth_having}
    return {"dynamic": False, **given, "options": {**ours, **given.get("options", {})}}


def _worth_having(entries: Sequence[Any]) -> list[bool]:
    kept = guards_worth_having(entries)
    return [keep and not (e.name.startswith(OURS) or any(name in e.name for name in LIBRARIES)) for keep, e in zip(kept, entries, strict=True)]


def _pass() -> Callable[[fx.Graph], None]:
    """`turn_narrow` in the form in which Inductor's cache on disk can tell one version of it from another."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Turn(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            turn_narrow(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__,))

    return Turn()


def turn_narrow(graph: fx.Graph) -> int:
    """Turns the narrow products of a graph of ATen operations round, in place.

    Returns:
        How many.
    """
    aten, turned = torch.ops.aten, 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in (aten.mm.default, aten.bmm.default):
            continue
        left, right = node.args
        if not _narrow(left.meta["val"], right.meta["val"]):
            continue
        axes = [1, 0] if node.target is aten.mm.default else [0, 2, 1]
        with graph.inserting_before(node):
            product = _call(graph, node.target, _call(graph, aten.permute.default, right, axes), _call(graph, aten.permute.default, left, axes))
            node.replace_all_uses_with(_call(graph, aten.permute.default, product, axes))
        graph.erase_node(node)
        turned += 1
    return turned


def _narrow(A: Tensor, B: Tensor) -> bool:
    m, n = A.shape[-2], B.shape[-1]
    if A.device.type != "cpu" or A.dtype != torch.float32 or not (isinstance(m, int) and isinstance(n, int)):
        return False
    return 1 < n < COLUMNS <= m and (A.dim() == 3 or m <= ROWS)


def _call(graph: fx.Graph, target: Any, *args: Any) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta["val"] = target(*(arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args))
    return node
