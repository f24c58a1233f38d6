"""Read first: a pass of the compiler that keeps reads of donated leaves before the writes.

Inductor takes copies and other operations that change nothing out of a graph; where what is
left of a result is a plain read of an old leaf, it reads it when it writes the result, and
that may be after the leaf itself was overwritten. Here such a read becomes an operation
that stays, `maximum(x, x)`, and so is carried out in its place.
"""

from typing import Any

import torch

from funcopt.execute.engines.passes.narrow_matmul import insert

__all__ = ["keep_reads"]


def keep_reads(graph: torch.fx.Graph) -> None:
    """Replaces, in a graph that ends in copies into its inputs, sources that are plain reads of other such inputs."""
    aten = torch.ops.aten
    copies = [node for node in graph.nodes if node.op == "call_function" and node.target is aten.copy_.default]
    written = {node.args[0] for node in copies}
    for copy in copies:
        source = copy.args[1]
        origin = source
        while isinstance(origin, torch.fx.Node) and origin.op == "call_function" and _only_reads(origin):
            origin = origin.args[0]
        if origin in written and origin is not copy.args[0]:
            with graph.inserting_before((source if source.op != "placeholder" else _last_placeholder(graph)).next):
                copy.replace_input_with(source, _kept(graph, source))


def _kept(graph: torch.fx.Graph, source: torch.fx.Node) -> torch.fx.Node:
    """A read that stays where it stands; of complex numbers that of their parts, which have an order."""
    aten = torch.ops.aten
    if not source.meta["val"].is_complex():
        kept = insert(graph, aten.maximum.default, source, source)
        kept.meta.update(source.meta)
        return kept
    parts = insert(graph, aten.view_as_real.default, source)
    return insert(graph, aten.view_as_complex.default, insert(graph, aten.maximum.default, parts, parts))


def _only_reads(node: torch.fx.Node) -> bool:
    """A view, or a copy that was not taken out."""
    target: Any = node.target
    views = getattr(target, "is_view", False)
    return bool(node.args) and (views or target in (torch.ops.aten.clone.default, torch.ops.aten.alias.default))


def _last_placeholder(graph: torch.fx.Graph) -> torch.fx.Node:
    return [node for node in graph.nodes if node.op == "placeholder"][-1]
