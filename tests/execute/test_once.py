"""Once: numbers that are worked out from numbers are kept, and not written out wherever they are read."""

import torch
from torch import fx

from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.engines.passes import once
from tests.helpers import assert_trees_close, needs_compiler


def doubling(x, leaf):
    """Written out, the formula is three times as long after every round."""
    for _ in range(12):
        x = (x * 0.5 + x / (1 + x.abs())) * 0.9
    return leaf * x, x


def traced(f, *arguments):
    graph = fx.experimental.proxy_tensor.make_fx(f)(*arguments).graph
    return graph, [node for node in graph.nodes if node.op == "call_function"]


def test_what_is_read_often_is_kept_and_no_formula_stays_long():
    graph, nodes = traced(doubling, torch.tensor(2.0), torch.ones(5))
    assert 1 <= once.keep_numbers(graph) <= 12
    sizes = {}
    for node in nodes:
        sizes[node] = 1 + sum(sizes.get(source, 1) for source in node.all_input_nodes)
        assert sizes[node] <= 8 * once.LONG
        if node.meta.get("inductor_realize_to_strides"):
            sizes[node] = 1


def test_short_formulas_and_larger_tensors_are_left_to_the_compiler():
    for f, x in ((lambda x, leaf: leaf * (1 - x) / x, torch.tensor(2.0)), (doubling, torch.ones(5))):
        assert once.keep_numbers(traced(f, x, torch.ones(5))[0]) == 0


@needs_compiler
def test_compiled_numbers_are_the_eager_ones():
    arguments = torch.tensor(2.0, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    assert_trees_close(compiled(doubling, "a doubling")(*arguments), doubling(*arguments), rtol=1e-14, atol=0)
