"""Gradients of another dtype than their parameter's, as `grad_dtype` of torch allows, step as the same numbers in the parameter's dtype."""

import pytest
import torch

import funcopt as fo

MAKERS = {
    "adam": lambda p, **how: fo.torch_optim.adam(p, lr=0.01, **how),
    "madgrad": lambda p, **how: fo.torch_optim.Optimizer(p, fo.madgrad(0.01), **how),
    "sgd": lambda p, **how: fo.torch_optim.sgd(p, lr=0.01, momentum=0.9, **how),
}


def parameter_with(gradient):
    parameter = torch.nn.Parameter(torch.ones(3))
    if not hasattr(parameter, "grad_dtype"):
        pytest.skip("this torch has no gradients of another dtype")
    parameter.grad_dtype = None
    parameter.grad = gradient
    return parameter


@pytest.mark.parametrize("how", [{}, {"flat": True}], ids=["leaves", "flat"])
@pytest.mark.parametrize("name", MAKERS)
def test_half_precision_gradients_step_as_their_numbers_in_single(name, how):
    narrow = torch.tensor([1e-4, -3e-5, 2.0], dtype=torch.float16)
    ours, theirs = parameter_with(narrow), torch.nn.Parameter(torch.ones(3))
    theirs.grad = narrow.float()
    for parameter in (ours, theirs):
        opt = MAKERS[name]([parameter], **how)
        opt.step()
        opt.step()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("how", [{}, {"flat": True}], ids=["leaves", "flat"])
def test_complex_gradients_of_real_parameters_are_refused(how):
    parameter = parameter_with(torch.tensor([1j, 1.0, 0.5]))
    with pytest.raises(TypeError, match="the gradient of a real leaf must be real, got complex64"):
        fo.torch_optim.adam([parameter], lr=0.01, **how).step()
