"""Once: numbers that are worked out from numbers, and factors of products, are kept, and not written out wherever they are read."""

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


def of_a_layer(x, weight, upper):
    """What the gradient of a layer's bias and of its weight read in common, the bias first."""
    slope = torch.where(x @ weight > 0, upper, 0.0)
    return slope.sum(0), x.mT @ slope, upper.exp() @ weight.mT


def test_what_a_product_and_a_sum_read_is_kept():
    graph, nodes = traced(of_a_layer, torch.randn(7, 5), torch.randn(5, 4), torch.randn(7, 4))
    assert once.keep_factors(graph) == 1
    (kept,) = [node for node in nodes if node.meta.get("inductor_realize_to_strides")]
    assert "where" in kept.name  # not what a product alone reads, nor what was given


@needs_compiler
def test_kept_factors_change_no_result():
    generator = torch.Generator().manual_seed(0)
    arguments = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((7, 5), (5, 4), (7, 4))]
    assert_trees_close(compiled(of_a_layer, "a layer")(*arguments), of_a_layer(*arguments), rtol=1e-12, atol=1e-14)
