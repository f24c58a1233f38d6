"""tanh as a fraction, and guards that are still asked."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import funcopt as fo
from funcopt.core import versions
from funcopt.es.evaluate.compiling import chunk_options, quick_tanh


def traced(f, *shapes, dtype=torch.float32):
    inputs = [fo.random.normal(fo.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]
    return make_fx(f, tracing_mode="fake")(*inputs), inputs


@pytest.mark.parametrize("dtype, error", [(torch.float32, 4e-7), (torch.bfloat16, 4e-3)])
def test_tanh_as_a_fraction(dtype, error):
    x = torch.cat([torch.logspace(-30, -3, 1000), torch.linspace(1e-3, 12, 20_000), torch.tensor([1e30, torch.inf])]).to(dtype)
    graph = make_fx(torch.tanh)(x)
    assert quick_tanh(graph.graph) == 1
    graph.recompile()
    result, expected = graph(x), x.double().tanh()
    assert result.dtype == dtype and result.max() == 1
    assert ((result - expected) / expected).abs().max() < error
    assert torch.equal(graph(-x), -result)
    assert graph(torch.tensor([torch.nan, 0.0], dtype=dtype)).isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype, error", [(torch.float32, 4e-7), (torch.bfloat16, 4e-3)])
def test_one_more_than_tanh_as_an_exponential(dtype, error):
    x = torch.cat([torch.linspace(-40, 40, 20_001), torch.tensor([-torch.inf, torch.inf])]).to(dtype)
    graph = make_fx(lambda x: x.tanh() + 1)(x)
    assert quick_tanh(graph.graph) == 1
    assert not any(node.target is torch.ops.aten.clamp_min.default for node in graph.graph.nodes)
    graph.recompile()
    result, expected = graph(x), 2 / (1 + (-2 * x.double()).exp())
    assert result.dtype == dtype and result[-1] == 2 and result[-2] == 0
    assert ((result - expected).abs() <= error * expected + 1e-38).all()
    graph = make_fx(lambda x: (x.tanh() + 1) * x.tanh())(x)
    assert quick_tanh(graph.graph) == 2


def test_a_tanh_that_would_be_worked_out_again_and_again_stays_as_it_is():
    for f in (lambda x, w: torch.bmm(x.tanh(), w), lambda x, w: (x.tanh().unsqueeze(-1) * w.unsqueeze(1)).sum(2)):
        graph, _ = traced(f, (3, 1, 8), (3, 8, 20))
        assert quick_tanh(graph.graph) == 0
    graph, _ = traced(lambda x, w: torch.bmm(x.tanh(), w), (3, 2, 8), (3, 8, 20))
    assert quick_tanh(graph.graph) == 1


def test_tanh_in_float64_stays_as_it_is():
    graph, _ = traced(torch.tanh, (3,), dtype=torch.float64)
    assert quick_tanh(graph.graph) == 0


def test_what_the_caller_says_goes_first():
    assert "options" not in chunk_options({"backend": "eager"})
    assert "options" not in chunk_options({"mode": "max-autotune"})
    assert chunk_options({"options": {"size_asserts": True}})["options"]["size_asserts"]
    assert chunk_options({"dynamic": True})["dynamic"]


@pytest.mark.long
def test_what_an_objective_reads_around_it_is_looked_at_again():
    factor = torch.tensor(1.0)
    layers = {"scale": 2.0}

    def objective(p, x):
        return (torch.tanh(x @ p["w"]) @ p["v"]).square().mean() * factor * layers["scale"]

    params = {"w": torch.ones(8, 20), "v": torch.ones(20, 3)}
    x = fo.random.normal(fo.random.key(0), (32, 8))
    compiled, plain = (fo.es.grad(objective, popsize=8, sigma=0.1, chunk_size=4, rng="generator", compile=form) for form in (True, False))
    for _ in range(2):
        torch.testing.assert_close(compiled(params, x, key=1)[1].fitness, plain(params, x, key=1)[1].fitness, rtol=1e-4, atol=1e-5)
        layers["scale"], factor = 5.0, torch.tensor(3.0)


def test_a_torch_that_compiles_nothing_is_told_of_and_estimates_eagerly(monkeypatch):
    monkeypatch.setattr(versions, "TORCH", (2, 5))
    with pytest.warns(UserWarning, match=r"es.grad: runs eagerly, since there is no compiler here \(torch .* is older than 2.6\)"):
        estimate = fo.es.grad(lambda x: x.square().sum(), popsize=8, sigma=0.1, compile=True)
    grads, _ = estimate(torch.ones(3), key=0)
    assert torch.equal(grads, fo.es.grad(lambda x: x.square().sum(), popsize=8, sigma=0.1)(torch.ones(3), key=0)[0])
