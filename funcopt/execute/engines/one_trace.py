"""A second trace that torch's compiler starts for nothing, spared: a quarter of the time to compile a step.

    0-dim float64 tensor on the CPU -> a symbol for its number, in case somebody asks for it
    after the trace                 -> a pass turns operations on such symbols into operations on tensors

A symbol that nobody has asked for is left over in that pass, which then has the function traced again without it (torch 2.13,
`torch/fx/passes/_tensorify_python_scalars.py`). The numbers in a state are such tensors. Where no operation of a graph takes
or gives such a symbol the pass has nothing to do, and is left out; all other graphs are its own.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

__all__ = ["traced_once"]

KEEPERS = (  # the module that calls the pass, by version of torch
    "torch._functorch._aot_autograd.graph_compile",
    "torch._functorch._aot_autograd.jit_compile_runtime_wrappers",
    "torch._functorch._aot_autograd.dispatch_and_compile_graph",
)
PASS = "tensorify_python_scalars"


@contextmanager
def traced_once() -> Iterator[None]:
    """Within, a graph is traced again for its symbols only if it has some."""
    keeper = next((module for module in map(_module, KEEPERS) if hasattr(module, PASS)), None)
    if keeper is None:  # an elder torch, or a later one that keeps it elsewhere
        yield
        return
    tensorify = getattr(keeper, PASS)

    def where_needed(graph: fx.GraphModule, *context: Any) -> None:
        if any(_takes_symbol(node) for node in graph.graph.nodes):
            tensorify(graph, *context)

    setattr(keeper, PASS, where_needed)
    try:
        yield
    finally:
        setattr(keeper, PASS, tensorify)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _takes_symbol(node: fx.Node) -> bool:
    return any(isinstance(each.meta.get("val"), torch.SymFloat) for each in (node, *node.all_input_nodes))
