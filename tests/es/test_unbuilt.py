"""Weights that are not built, read from below `__torch_function__`: whoever goes round it gets the perturbed numbers, or an error."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import funcopt as fo
from funcopt.es.noise.lazy_weight import Factors, UnbuiltError, mark

X = fo.random.normal(fo.random.key(0), (5, 12))
W = {"w": fo.random.normal(fo.random.key(1), (10, 12)), "v": fo.random.normal(fo.random.key(2), (8, 10))}


def net(x, w, v):
    return F.linear(torch.tanh(F.linear(x, w)), v)


@torch.jit.script
def scripted(x, w, v):
    return torch.tanh(x @ w.t()) @ v.t()


class Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return x @ w.t()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.t() @ x


compiled = torch.compile(net, backend="eager")
attention = nn.MultiheadAttention(12, 2, batch_first=True).eval()
another = nn.Linear(12, 10, bias=False)
lstm = nn.LSTM(12, 8)
normed = nn.utils.parametrizations.weight_norm(nn.Linear(12, 10))


def half(p):
    with torch.autocast("cpu", torch.bfloat16):
        return net(X, p["w"], p["v"]).float().square().mean()


def past_the_function(p):
    with torch._C.DisableTorchFunctionSubclass():
        return F.linear(X, p["w"]).square().mean()


def caught(p):
    try:
        return scripted(X, p["w"], p["v"]).square().mean()
    except Exception:
        return torch.zeros(())


def written_through(view):
    def objective(p):
        view(p["w"]).mul_(2)
        return F.linear(X, p["w"]).square().mean()

    return objective


def trained(p):
    w = p["w"].requires_grad_()
    with torch.enable_grad():
        opt = torch.optim.SGD([w], lr=0.01)
        F.linear(X, w).square().mean().backward()
        opt.step()
    return F.linear(X, p["w"]).square().mean()


def saved(p):
    file = io.BytesIO()
    torch.save(p["w"], file)
    file.seek(0)
    return F.linear(X, torch.load(file)).square().mean()


def handed_over(p):
    linear = copy.deepcopy(another)
    linear.weight.data = p["w"]
    return linear(X).square().mean()


EVERYWHERE = {
    "autocast": (W, half),
    "inner grad": (W, lambda p: torch.func.grad(lambda w: net(X, w, p["v"]).square().mean())(p["w"]).square().mean()),
    "inner grad of all": (W, lambda p: torch.func.grad(lambda q: net(X, q["w"], q["v"]).square().mean())(p)["v"].square().mean()),
    "inner grad beside it": (
        W,
        lambda p: torch.func.grad(lambda x: net(x, p["w"], p["v"]).square().mean() + p["w"].sum() * x.sum())(X).square().mean(),
    ),
    "inner vmap": (W, lambda p: torch.func.vmap(lambda row: (row * X).sum(-1))(p["w"]).square().mean()),
    "jvp": (W, lambda p: torch.func.jvp(lambda w: net(X, w, p["v"]), (p["w"],), (torch.ones(10, 12),))[1].square().mean()),
    "jacrev": (W, lambda p: torch.func.jacrev(lambda v: net(X, p["w"], v).tanh().mean(0))(p["v"]).square().sum()),
    "functionalize": (W, lambda p: torch.func.functionalize(lambda w: net(X, w, p["v"]))(p["w"]).square().mean()),
    "scripted": (W, lambda p: scripted(X, p["w"], p["v"]).square().mean()),
    "an objective that catches": (W, caught),
    "autograd function": (W, lambda p: Product.apply(X, p["w"]).square().mean()),
    "torch.ops": (W, lambda p: torch.ops.aten.mm.default(X, torch.ops.aten.t(p["w"])).square().mean()),
    "past the function": (W, past_the_function),
    "checkpoint": (W, lambda p: checkpoint(net, X, p["w"], p["v"], use_reentrant=False).square().mean()),
    "detach": (W, lambda p: F.linear(X, p["w"].detach()).square().mean()),
    "compiled inside": (W, lambda p: compiled(X, p["w"], p["v"]).square().mean()),
    "attention": (
        {name: p.detach() for name, p in attention.named_parameters()},
        lambda p: functional_call(attention, p, (X, X, X))[0].square().mean(),
    ),
    "weight norm": (
        {name: p.detach() for name, p in normed.named_parameters()},
        lambda p: functional_call(normed, p, (X,)).square().mean(),
    ),
    "products of scaled dots": (W, lambda p: F.scaled_dot_product_attention(X, p["w"], p["w"]).square().mean()),
    "in place": (W, lambda p: F.linear(X, p["w"].mul_(2)).square().mean() + p["w"].sum()),
    "written through t()": (W, written_through(lambda w: w.t())),
    "written through items": (W, written_through(lambda w: w[2:5])),
}
OUTSIDE_VMAP = {
    "data": (W, lambda p: F.linear(X, p["w"].data).square().mean()),
    "numpy": (W, lambda p: float((X.numpy() @ p["w"].numpy().T).__pow__(2).mean())),
    "torch.tensor": (W, lambda p: F.linear(X, torch.tensor(p["w"])).square().mean()),
    "new_tensor": (W, lambda p: F.linear(X, X.new_tensor(p["w"])).square().mean()),
    "saved": (W, saved),
    "deepcopy": (W, lambda p: F.linear(X, copy.deepcopy(p)["w"]).square().mean()),
    "trained inside": (W, trained),
    "another's data": (W, handed_over),
    "nn.Parameter": (W, lambda p: F.linear(X, nn.Parameter(p["w"])).square().mean()),
    "lstm": (
        {name: p.detach() for name, p in lstm.named_parameters()},
        lambda p: functional_call(lstm, p, (X.unsqueeze(1),))[0].square().mean(),
    ),
    "reentrant checkpoint": (W, lambda p: checkpoint(net, X, p["w"], p["v"], use_reentrant=True).square().mean()),
    "written through data": (W, written_through(lambda w: w.data)),
}
CASES = [(name, how) for name in EVERYWHERE for how in ("vmap", "loop")] + [(name, "loop") for name in OUTSIDE_VMAP]


def estimated(f, params, noise, how, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        return fo.es.grad(f, popsize=6, sigma=0.1, noise=noise, shaping="none", vectorize=how, **options)(fo.tree.clone(params), key=0)


@pytest.mark.parametrize("name, how", CASES)
def test_low_rank_noise_is_there_for_whoever_goes_round(name, how):
    if (name, how) == ("checkpoint", "vmap") and fo.core.versions.TORCH < (2, 6):
        pytest.skip("this torch has no checkpoint inside vmap")
    params, f = (EVERYWHERE | OUTSIDE_VMAP)[name]
    (built, dense), (grads, info) = (estimated(f, params, fo.es.low_rank(1, lazy=lazy), how) for lazy in (False, True))
    assert dense.fitness.unique().numel() == 6
    torch.testing.assert_close(info.fitness, dense.fitness, rtol=1e-5, atol=1e-6)
    for leaf in params:
        torch.testing.assert_close(grads[leaf], built[leaf], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["inner grad", "scripted", "inner vmap", "autocast"])
def test_so_is_dense_noise_that_is_taken_apart(name):
    params, f = EVERYWHERE[name]
    for how in ("vmap", "loop"):
        dense, apart = (estimated(f, params, noise, how)[1].fitness for noise in ("normal", fo.es.split(lazy=True)))
        torch.testing.assert_close(apart, dense, rtol=1e-5, atol=1e-6)


def of_an_estimator(f, noise):
    estimator = fo.es.estimator(f, popsize=6, sigma=0.1, noise=noise, shaping="none")
    return estimator.estimate(W, estimator.init(W, key=0))[2]


RELATIVES = {
    "layerwise": lambda f, noise: fo.es.layerwise(f, popsize=6, sigma=0.1, noise=noise, shaping="none", strategy="all")(W, key=0)[1],
    "estimator": of_an_estimator,
    "value": lambda f, noise: fo.es.grad_and_value(f, popsize=6, sigma=0.1, noise=noise, shaping="none")(W, key=0)[1][1],
}


@pytest.mark.parametrize("relative", RELATIVES)
@pytest.mark.parametrize("name", ["autocast", "inner grad", "scripted"])
def test_it_is_there_in_other_estimates_too(name, relative):
    f = EVERYWHERE[name][1]
    built, lazy = (RELATIVES[relative](f, fo.es.low_rank(1, lazy=lazy)).fitness for lazy in (False, True))
    torch.testing.assert_close(lazy, built, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["past the function", *(pytest.param(name, marks=pytest.mark.long) for name in ("inner grad", "inner vmap", "written through t()"))],
)
def test_so_it_is_in_compiled_chunks(name):
    params, f = EVERYWHERE[name]
    torch._dynamo.reset()
    dense = estimated(f, params, fo.es.low_rank(1, lazy=False), "vmap")[1].fitness
    lazy = estimated(f, params, fo.es.low_rank(1), "vmap", compile={"backend": "aot_eager", "fullgraph": True})[1].fitness
    torch.testing.assert_close(lazy, dense, rtol=1e-5, atol=1e-6)


class Exported(nn.Module):
    def forward(self, w):
        return F.linear(X, w).square().mean()


RECORDERS = {
    "torch.jit.trace": lambda w: torch.jit.trace(Exported(), (w,), check_trace=False),
    "make_fx": lambda w: make_fx(Exported())(w),
    "torch.export": lambda w: torch.export.export(Exported(), (w,)).module(),
}
if fo.core.versions.TORCH < (2, 6):
    del RECORDERS["torch.export"]  # which refused tensors of the file


@pytest.mark.parametrize("name", RECORDERS)
def test_a_graph_that_is_recorded_at_the_first_member_is_run_with_the_weights_of_the_others(name):
    def fitness(lazy):
        kept = []

        def f(p):
            kept.extend([] if kept else [RECORDERS[name](p["w"])])
            return kept[0](p["w"])

        return estimated(f, W, fo.es.low_rank(1, lazy=lazy), "loop")[1].fitness

    torch.testing.assert_close(fitness(True), fitness(False), rtol=1e-5, atol=1e-6)


def test_only_the_weights_that_are_read_below_are_built():
    seen = []

    def f(p):
        seen.append({name: type(leaf).__name__ for name, leaf in p.items()})
        return scripted(F.linear(X, p["w"]), torch.ones(10, 10), p["v"]).square().mean()

    grad_fn = fo.es.grad(f, popsize=4, sigma=0.1, noise=fo.es.low_rank(1, lazy=True), vectorize="vmap")
    for key in (0, 1):
        grad_fn(W, key=key)
    assert seen == [{"w": "Perturbed", "v": "Perturbed"}, *[{"w": "Perturbed", "v": "Tensor"}] * 2]


def test_an_objective_that_fails_all_the_same_fails_with_its_own_error():
    def f(p):
        raise RuntimeError("not today")

    for how in ("vmap", "loop"):
        with pytest.raises(RuntimeError, match="not today"):
            estimated(f, W, fo.es.low_rank(1), how)


def test_a_mark_has_no_memory_and_inside_vmap_no_numbers():
    weight = mark(torch.zeros(3, 2), torch.tensor(1.0), Factors(torch.ones(3, 1), torch.ones(2, 1)))
    with torch._C.DisableTorchFunctionSubclass():
        assert torch.sum(weight).item() == 6.0
        assert weight.data_ptr() == 0

    def member(s):
        inside = mark(torch.zeros(3, 2), s, Factors(torch.ones(3, 1), torch.ones(2, 1)))
        with torch._C.DisableTorchFunctionSubclass(), pytest.raises(UnbuiltError, match="reads a perturbed weight that has not been built"):
            torch.sum(inside)
        return inside.sum()

    assert torch.func.vmap(member)(torch.tensor([1.0, 2.0])).tolist() == [6.0, 12.0]


def test_a_derivative_that_is_recorded_is_not_lost_below():
    weight = mark(torch.zeros(3, 2), torch.tensor(1.0), Factors(torch.ones(3, 1), torch.ones(2, 1)))
    weight.requires_grad_()
    assert weight.requires_grad and weight.is_leaf
    with (
        torch._C.DisableTorchFunctionSubclass(),
        pytest.raises(UnbuiltError, match="where the derivative for it that is being recorded is lost"),
    ):
        torch.sum(weight)
