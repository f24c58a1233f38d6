"""Narrow products turned round: the same numbers from a product that fills its registers."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import funcopt as fo
from funcopt.execute.engines.passes.narrow_matmul import turn_narrow


def traced(f, *shapes, dtype=torch.float32):
    inputs = [fo.random.normal(fo.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]
    return make_fx(f, tracing_mode="fake")(*inputs), inputs


@pytest.mark.parametrize("left, right", [((64, 32), (32, 10)), ((3, 64, 32), (3, 32, 10)), ((16, 8), (8, 2))])
def test_narrow_products_are_turned_round(left, right):
    graph, inputs = traced(lambda x, w: torch.relu(x @ w), left, right)
    expected = graph(*inputs)
    assert turn_narrow(graph.graph) == 1
    graph.recompile()
    assert turn_narrow(graph.graph) == 0  # what is turned round is wide
    result = graph(*inputs)
    assert result.shape == expected.shape
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "left, right, dtype",
    [
        ((64, 32), (32, 16), torch.float32),  # as wide as a register
        ((8, 32), (32, 10), torch.float32),  # few rows
        ((64, 32), (32, 1), torch.float32),  # a vector
        ((1 << 15, 4), (4, 10), torch.float32),  # too long for the cache
        ((64, 32), (32, 10), torch.bfloat16),  # another library
    ],
)
def test_other_products_stay_as_they_are(left, right, dtype):
    graph, _ = traced(lambda x, w: x @ w, left, right, dtype=dtype)
    assert turn_narrow(graph.graph) == 0


def test_a_product_with_something_added_is_turned_round_too():
    graph, inputs = traced(lambda c, x, w: torch.addmm(c, x, w), (10,), (64, 32), (32, 10))
    expected = graph(*inputs)
    assert turn_narrow(graph.graph) == 1
    graph.recompile()
    torch.testing.assert_close(graph(*inputs), expected, rtol=1e-5, atol=1e-5)
    graph, _ = traced(lambda c, x, w: torch.addmm(c, x, w, beta=2), (10,), (64, 32), (32, 10))
    assert turn_narrow(graph.graph) == 0


@pytest.mark.parametrize(
    "asks",
    [
        lambda y: y.as_strided((10, 4), (7, 2), 3) + 1,
        lambda y: y.view(torch.int32) + 1,
        lambda y: torch.view_as_complex(y.view(64, 5, 2)).abs(),
        lambda y: torch.as_strided_scatter(y, torch.zeros(5), (5,), (64,), 0),
    ],
)
def test_a_product_stays_as_it_is_where_its_order_in_memory_is_asked_for(asks):
    graph, _ = traced(lambda x, w: asks(x @ w), (64, 20), (20, 10))
    assert turn_narrow(graph.graph) == 0


@pytest.mark.parametrize("compile", [pytest.param(True, marks=pytest.mark.long), "ahead"])
def test_steps_of_a_network_with_a_narrow_layer_are_those_of_an_eager_run(compile):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 20, generator=generator), torch.randint(3, (32,), generator=generator)
    params = {"w": torch.randn(20, 24, generator=generator), "v": torch.randn(24, 3, generator=generator), "c": torch.zeros(3)}

    def loss_fn(p, x, y):
        outputs = torch.addmm(p["c"], torch.tanh(x @ p["w"]), p["v"])
        return torch.nn.functional.cross_entropy(outputs, y), outputs

    ends = []
    for how in (compile, False):
        step = fo.make_step(loss_fn, fo.adam(0.05), compile=how, donate=True, has_aux=True)
        held = step.init(params)
        for _ in range(4):
            *held, (loss, outputs) = step(*held, x, y)
            assert outputs.is_contiguous()  # whatever the order in which they were worked out
        ends.append((held, loss, outputs))
    for ours, theirs in zip(fo.tree.leaves(ends[0]), fo.tree.leaves(ends[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
