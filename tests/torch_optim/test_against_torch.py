"""PyTorch's own recipes for optimizers (torch.testing._internal.common_optimizers) against our classes: all inputs and error inputs."""

import warnings

import pytest
import torch

import funcopt as fo
from tests.torch_optim.runs import assert_close

pytest.importorskip("expecttest")
common = pytest.importorskip("torch.testing._internal.common_optimizers")

# Methods of torch of which there is no class here, and why.
WITHOUT = {
    "ASGD": "the average that it keeps is never used by it; its steps are sgd with a schedule (docs/from-torch-optim.md)",
    "LBFGS": "a method with an inner loop of its own, which calls the closure many times",
    "SparseAdam": "takes sparse gradients alone and leaves the rest of a parameter as it is; here gradients are made dense",
}
# Keywords of inputs that ask for another implementation of the same formula: refused by name.
ELSEWHERE = ("foreach", "fused", "differentiable")
# Error inputs that do not apply, by their description, and why.
NOT_REFUSED = {
    "lr as Tensor doesn't work with foreach & not capturable": "foreach is refused as such",
    r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True": "foreach is refused as such",
}
# Where torch's arithmetic is coarser than float64: what we may differ by, relative to the largest entry.
COARSE = {
    "NAdam": 1e-6,  # torch keeps the product of momenta in float32
    "Muon": 5e-2,  # both orthogonalise in bfloat16, after a division that differs by eps
    "Adafactor": 1e-9,  # 1e-30 under the squares where torch has a floor
}
INFOS = [info for info in common.optim_db if info.optim_cls.__name__ not in WITHOUT]


def ours(info):
    return getattr(fo.torch_optim, info.optim_cls.__name__.lower())


def inputs():
    for info in INFOS:
        for index, given in enumerate(info.optim_inputs_func("cpu")):
            yield pytest.param(info, given, id=f"{info.optim_cls.__name__}-{index}-{given.desc}")


def problem(dtype, groups: int):
    """Parameters in one or two groups, and a function that gives them their gradients at a step."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 2), (2, 4), (4, 4)]
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]
    aims = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]

    def gradients(step: int) -> None:
        for index, (p, aim) in enumerate(zip(params, aims, strict=True)):
            wave = torch.cos(torch.arange(p.numel(), dtype=torch.float64) + 0.7 * step + index).reshape(p.shape).to(dtype)
            p.grad = (p.detach() - aim) + 0.5 * wave

    return params, gradients, [params] if groups == 1 else [params[:1], params[1:]]


def trained(make, dtype, groups: int, given, steps: int):
    params, gradients, parts = problem(dtype, groups)
    kwargs = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in given.items()}
    opt = make(
        [{"params": part, "lr": 0.5 * kwargs.get("lr", 0.01)} if index else {"params": part} for index, part in enumerate(parts)], **kwargs
    )
    for step in range(steps):
        gradients(step)
        opt.step()
    return params


@pytest.mark.parametrize("info, given", list(inputs()))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_every_input_gives_the_parameters_of_torch(info, given, dtype):
    name = info.optim_cls.__name__
    if any(given.kwargs.get(key) for key in ELSEWHERE):
        with pytest.raises(ValueError, match="must be False or None"):
            ours(info)([torch.nn.Parameter(torch.ones(2, 2))], **given.kwargs)
        return
    plain = {key: value for key, value in given.kwargs.items() if key != "capturable"}
    steps = 40 if dtype == torch.float64 else 20
    for groups in (1, 2):
        mine = trained(ours(info), dtype, groups, given.kwargs, steps)
        theirs = trained(info.optim_cls, dtype, groups, plain, steps)
        if dtype == torch.float64:
            tolerance = {"rtol": COARSE.get(name, 1e-12), "atol": COARSE.get(name, 1e-12)}
        else:
            tolerance = {"rtol": 2e-5, "atol": max(2e-6, COARSE.get(name, 0.0))}  # rounding in another order
        assert_close(mine, theirs, **tolerance)


def error_inputs():
    for info in INFOS:
        for index, wrong in enumerate(info.optim_error_inputs_func("cpu", torch.float32)):
            yield pytest.param(info, wrong, id=f"{info.optim_cls.__name__}-{index}")


@pytest.mark.parametrize("info, wrong", list(error_inputs()))
def test_every_error_input_is_refused_in_the_words_of_torch(info, wrong):
    given = wrong.optimizer_error_input
    if given.desc in NOT_REFUSED:
        with pytest.raises(ValueError, match="must be False or None"):
            ours(info)([torch.nn.Parameter(torch.ones(1, 1))], **given.kwargs)
        return
    params = [torch.nn.Parameter(torch.ones(1, 1))] if given.params is None else given.params
    if issubclass(wrong.error_type, Warning):
        with pytest.warns(wrong.error_type, match=wrong.error_regex):
            ours(info)(params, **given.kwargs)
    else:
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            ours(info)(params, **given.kwargs)


def test_every_method_of_torch_is_there_or_has_its_reason():
    there = {info.optim_cls.__name__ for info in INFOS}
    everything = {
        name for name, value in vars(torch.optim).items() if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    } - {"Optimizer"}
    assert everything - there - set(WITHOUT) == set()
    assert all(reason for reason in WITHOUT.values())


def test_defaults_are_those_of_torch():
    for info in INFOS:
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, mine = info.optim_cls(params).defaults, ours(info)(params).defaults
        differing = {
            key: (value, mine[key]) for key, value in theirs.items() if key in mine and key not in ELSEWHERE and value != mine[key]
        }
        assert not differing, f"{info.optim_cls.__name__}: {differing}"
