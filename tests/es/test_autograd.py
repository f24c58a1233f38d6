"""An estimated derivative inside a model that is differentiated."""

import pytest
import torch

import funcopt as fo


def steps(x, y):
    return (x * 4).round() / 4 * y


def test_backward_is_one_estimate_times_the_cotangent():
    x = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(2.0, dtype=torch.float64)
    settings = {"popsize": 64, "sigma": 0.5}
    out = fo.es.differentiable(steps, **settings)(x, y, key=3)
    assert torch.equal(out.detach(), steps(x.detach(), y))
    cotangent = torch.tensor([1.0, -3.0], dtype=torch.float64)
    out.backward(cotangent)
    expected, _ = fo.es.grad(lambda x: (steps(x, y) * cotangent).sum(), shaping="none", **settings)(x.detach(), key=3)
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)


def test_goes_into_the_model_before_it_and_takes_trees():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    f = fo.es.differentiable(lambda p, scale: (p["a"] + p["b"]).sum() * scale, popsize=4096, sigma=0.1)
    f({"a": w * 3, "b": w.detach()}, 2.0, key=0).backward()
    torch.testing.assert_close(w.grad, torch.full((2,), 6.0), rtol=0.15, atol=0)
    both = fo.es.differentiable(lambda a, b: (a * b).sum(), (0, 1), popsize=4096, sigma=0.1)
    a, b = torch.ones(2, requires_grad=True), torch.full((2,), 5.0, requires_grad=True)
    both(a, b, key=1).backward()
    torch.testing.assert_close(a.grad, torch.full((2,), 5.0), rtol=0.2, atol=0)
    torch.testing.assert_close(b.grad, torch.ones(2), rtol=0.5, atol=0.3)


def test_under_torch_func():
    f = fo.es.differentiable(lambda x: x.square().sum(), popsize=2048, sigma=0.1, vectorize="vmap")
    x = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(torch.func.grad(lambda x: f(x, key=0))(x), 2 * x, rtol=0.2, atol=0.2)


def test_says_what_is_wrong():
    f = fo.es.differentiable(lambda x: x.sum(), popsize=4, sigma=0.1)
    with pytest.raises(TypeError, match="es.differentiable: needs a key for the estimate in the backward pass"):
        f(torch.ones(2))
    with pytest.raises(TypeError, match="es.differentiable: maximize has no meaning for a derivative; leave it out"):
        fo.es.differentiable(lambda x: x.sum(), popsize=4, sigma=0.1, maximize=True)
