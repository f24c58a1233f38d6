"""What is wrong is said in a sentence with the remedy."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import funcopt as fo

PARAMS, X = {"w": torch.ones(3, 2), "b": torch.zeros(2)}, torch.ones(5, 3)


def fine(params, x):
    return (x @ params["w"] + params["b"]).square().mean()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"popsize": 5}, r"es.grad: popsize must be even with antithetic=True, whose members are pairs, got 5; use 6 or antithetic=False"),
        ({"popsize": 0}, r"es.grad: popsize must be >= 1, got 0"),
        ({"popsize": 0, "antithetic": False}, r"es.grad: popsize must be >= 1, got 0"),
        ({"chunk_size": 0}, r"es.grad: chunk_size must be >= 1, got 0"),
        ({"chunk_size": "large"}, r"es.grad: chunk_size must be one of 'auto', got 'large'"),
        ({"sigma": 0.0}, r"es.grad: sigma must be > 0, got 0.0; it is the standard deviation of the perturbations"),
        ({"sigma": -1}, r"es.grad: sigma must be > 0, got -1"),
        ({"sigma": float("nan")}, r"es.grad: sigma must be > 0, got nan"),
        ({"sigma": {"w": 0.1, "b": -0.1}}, r"es.grad: sigma must be > 0, got -0.1"),
        ({"shaping": "ranks"}, r"es.shaping: how must be one of"),
        ({"tie": "first"}, r"es.shaping: tie must be one of"),
        ({"scale": "sigmas"}, r"es.grad: scale must be one of 'inverse_sigma', 'openai', 'sigma', got 'sigmas'"),
        ({"memory": "disk"}, r"es.grad: memory must be one of 'auto', 'store', 'regenerate', got 'disk'"),
        ({"vectorize": "threads"}, r"es.grad: vectorize must be one of"),
        ({"noise": "gauss"}, r"es.grad: noise must be one of"),
        ({"shaping": "sign", "antithetic": False}, r"es.grad: shaping='sign' compares the members of a pair; it needs antithetic=True"),
        ({"devices": []}, r"es.grad: devices must name at least one device"),
        ({"workers": 0}, r"es.grad: workers must be >= 1, got 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        fo.es.grad(fine, **{"popsize": 4, "sigma": 0.1, **options})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"popsize": 4.0}, r"es.grad: popsize must be an int, got 4.0"),
        ({"sigma": "small"}, r"es.grad: sigma must be a number, a tensor or a tree of these, got 'small'"),
        ({"dtype": torch.int64}, r"es.grad: dtype must be a floating dtype, got torch.int64"),
        ({"compile": "yes"}, r"es.grad: compile must be True, False or a dict of options for torch.compile, got 'yes'"),
        ({"shaping": 3}, r"es.grad: shaping must be a name or a function from fitness \[P\] to utilities \[P\], got 3"),
    ],
)
def test_options_of_a_wrong_kind(options, message):
    with pytest.raises(TypeError, match=message):
        fo.es.grad(fine, **{"popsize": 4, "sigma": 0.1, **options})


def refused(objective, message, *args, error=ValueError, **options):
    with pytest.raises(error, match=message):
        fo.es.grad(objective, **{"popsize": 4, "sigma": 0.1, **options})(*(args or (PARAMS, X)), key=0)


@pytest.mark.parametrize("how", ["auto", "vmap", "loop"])
def test_objectives_that_return_no_scalar(how):
    refused(
        lambda p, x: x @ p["w"],
        r"the objective must return one number, or K of them with weights=, got shape \(5, 2\); take a mean or a sum",
        vectorize=how,
    )
    refused(
        lambda p, x: None, "the objective must return one number, or K of them with weights=, got NoneType", error=TypeError, vectorize=how
    )
    refused(lambda p, x: (), "got an empty tuple", vectorize=how)
    refused(
        lambda p, x: (fine(p, x), {"a": x}), r"must return a number|must return one number", error=(ValueError, TypeError), vectorize=how
    )
    refused(lambda p, x: fine(p, x), r"with has_aux=True the objective must return \(value, aux\), got Tensor", has_aux=True, vectorize=how)


@pytest.mark.parametrize("how", ["auto", "vmap", "loop"])
def test_several_objectives_need_weights(how):
    refused(
        lambda p, x: (fine(p, x), fine(p, x)),
        r"the objective returned 2 numbers; pass weights= with one weight for each, as in weights=\(1.0, 1.0\), or return one number",
        vectorize=how,
    )
    refused(
        lambda p, x: (fine(p, x), fine(p, x)),
        "weights has 3 entries, but the objective returned 2 numbers",
        weights=(1, 1, 1),
        vectorize=how,
    )


@pytest.mark.parametrize("how", ["auto", "vmap", "loop"])
def test_random_objectives_are_told_how_to_get_a_key(how):
    message = r"draws random numbers from torch's generator.*give it an argument `key` and draw from it \(fo.random.normal\(key, ...\)\)"
    before = torch.get_rng_state()
    refused(lambda p, x: fine(p, x) + torch.rand(()), message, vectorize=how)
    refused(lambda p, x: nn.functional.dropout(x @ p["w"]).mean(), message, vectorize=how)
    refused(lambda p, x: fine(p, x) + torch.rand(()), message, vectorize=how, randomness="error")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("how", ["auto", "vmap", "loop"])
def test_a_module_in_training_mode_batch_norm(how):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    mean = model[1].running_mean.clone()
    message = (
        r"batch norm .* in training mode, which writes its running statistics into the module; call model.eval\(\), or pass the buffers"
    )
    refused(lambda p, x: functional_call(model, p, (x,)).mean(), message, dict(model.named_parameters()), X, vectorize=how)
    assert torch.equal(model[1].running_mean, mean)


def test_vmap_alone_proposes_the_loop():
    refused(
        lambda p, x: 1.0,
        "the objective returned a float where vmap needs a tensor; return a tensor, or pass vectorize='loop'",
        vectorize="vmap",
    )
    refused(lambda p, x: fine(p, x).item(), r"vmap does not take reading a number of a tensor.*pass vectorize='loop'", vectorize="vmap")
    counter = torch.zeros(())
    refused(lambda p, x: counter.add_(fine(p, x)), "the objective writes into a tensor that is the same for all members", vectorize="vmap")


def trained(p, x):
    with torch.enable_grad():
        w = p["w"].clone().requires_grad_()
        (x @ w).square().mean().backward()
    return (x @ (w - w.grad)).square().mean()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return 2 * w

    @staticmethod
    def backward(ctx, g):
        return 2 * g


BELOW_VMAP = {
    "torch.autograd": trained,
    "reading or writing .data": lambda p, x: fine({**p, "w": p["w"].data}, x),
    "an operation that needs the memory of a tensor": lambda p, x: fine(copy.deepcopy(p), x),
    "detaching in place": lambda p, x: fine({**p, "w": torch.tensor(p["w"])}, x),
    "an autograd.Function without setup_context": lambda p, x: fine({**p, "w": Doubled.apply(p["w"])}, x),
}


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.parametrize("what", BELOW_VMAP)
def test_what_torch_does_not_do_inside_vmap_is_said_and_done_in_a_loop(what):
    refused(BELOW_VMAP[what], rf"vmap does not take {what}.*pass vectorize='loop', or 'processes'", vectorize="vmap")
    with pytest.warns(UserWarning, match="members are evaluated one after the other"):
        _, info = fo.es.grad(BELOW_VMAP[what], popsize=4, sigma=0.1)(PARAMS, X, key=0)
    for i in range(4):
        torch.testing.assert_close(info.fitness[i], BELOW_VMAP[what](info.member(i), X).detach())


def test_calls_that_do_not_fit():
    grad_fn = fo.es.grad(fine, popsize=4, sigma=0.1)
    with pytest.raises(
        TypeError, match=r"es.grad: needs a key for the noise of this call; pass key=, an int or fo.random.fold_in\(root, step\)"
    ):
        grad_fn(PARAMS, X)
    with pytest.raises(TypeError, match="es.grad: seed must be an int"):
        grad_fn(PARAMS, X, key=0.5)
    with pytest.raises(TypeError, match="es.grad: params must be a tree of tensors, got float at 'w'"):
        grad_fn({"w": 1.0}, X, key=0)
    with pytest.raises(TypeError, match="es.grad: perturbs real leaves, got torch.complex64 at 'w'"):
        grad_fn({"w": torch.ones(2, dtype=torch.complex64)}, X, key=0)
    with pytest.raises(ValueError, match="es.grad: there is nothing to perturb: params has no floating leaf"):
        grad_fn({"w": torch.ones(2, dtype=torch.int64)}, X, key=0)
    with pytest.raises(ValueError, match="es.grad: there is nothing to perturb: all leaves are masked out"):
        fo.es.grad(fine, popsize=4, sigma=0.1, mask=False)(PARAMS, X, key=0)
    with pytest.raises(ValueError, match=r"es.grad: sigma must be 0-dim or broadcast to the leaf at 'b' of shape \(2,\), got shape \(3,\)"):
        fo.es.grad(fine, popsize=4, sigma=torch.ones(3))(PARAMS, X, key=0)
    with pytest.raises(ValueError, match="es.grad: sigma must have the structure of params or a prefix of it"):
        fo.es.grad(fine, popsize=4, sigma={"w": 0.1})(PARAMS, X, key=0)
    with pytest.raises(ValueError, match=r"es.grad: mask 'v\*' matches none of the paths b, w"):
        fo.es.grad(fine, popsize=4, sigma=0.1, mask="v*")(PARAMS, X, key=0)
    with pytest.raises(TypeError, match="es.grad: mask must hold bools or tensors of 0 and 1, got 1 at 'b'"):
        fo.es.grad(fine, popsize=4, sigma=0.1, mask={"w": True, "b": 1})(PARAMS, X, key=0)
    with pytest.raises(TypeError, match="es.grad: argnums names argument 2, but the call has 2 positional arguments"):
        fo.es.grad(fine, 2, popsize=4, sigma=0.1)(PARAMS, X, key=0)
    with pytest.raises(TypeError, match="es.grad: buffers='center' needs the buffers as positional argument 2"):
        fo.es.grad(fine, popsize=4, sigma=0.1, buffers="center", buffers_argnum=2)(PARAMS, X, key=0)
    with pytest.raises(ValueError, match=r"es.grad: shaping must return one utility for each of the 4 members, got \(3,\)"):
        fo.es.grad(fine, popsize=4, sigma=0.1, shaping=lambda f: f[1:])(PARAMS, X, key=0)
    with pytest.raises(TypeError, match="es.grad: objective must be a function of the parameters, got 3"):
        fo.es.grad(3, popsize=4, sigma=0.1)
    with pytest.raises(TypeError, match="es.grad_and_value: unknown option 'popsizes'"):
        fo.es.grad_and_value(fine, popsize=4, sigma=0.1, popsizes=3)
