"""functional: an `nn.Module` as a pure function of its params and buffers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from funcopt.core.door.shown import shown
from funcopt.core.shared import refuse_shared

__all__ = ["functional"]


def functional(module: torch.nn.Module) -> Callable[..., tuple[Any, dict[str, Tensor]]]:
    """A module as `(params, buffers, *inputs) -> (output, new buffers)`.

    The module itself is neither read for values nor written into: params come as
    `{name: p.detach() for name, p in module.named_parameters()}` (or a part of it: the
    rest stays as the module has it, as numbers), buffers as `dict(module.named_buffers())`. What a
    layer writes into its buffers, such as the running means of BatchNorm, comes back as
    new buffers. `step.init` takes the parameters as they are. In a loop of your own detach
    them: `torch.func.grad` at `nn.Parameter`s makes gradients with an autograd graph, of
    which `update` makes numbers, with a warning. To differentiate through updates, clone them.

    Args:
        module: any module, in the mode (train or eval) in which it is to run.

    Returns:
        A function of params, buffers and whatever the module is called with, which returns the module's output and its
        buffers after the call.

    Raises:
        TypeError: `module` is no `nn.Module`.
        ValueError: two of its parameters share memory; one parameter in two places is fine.

    Example:
        >>> module = torch.nn.Sequential(torch.nn.BatchNorm1d(1, momentum=0.5), torch.nn.Linear(1, 1))
        >>> model = fo.functional(module)
        >>> def loss_fn(params, buffers, x):
        ...     output, buffers = model(params, buffers, x)
        ...     return output.square().mean(), buffers
        >>> step = fo.make_step(loss_fn, fo.sgd(0.1), has_aux=True)
        >>> params, state = step.init(dict(module.named_parameters()))
        >>> buffers = dict(module.named_buffers())
        >>> params, state, (loss, buffers) = step(params, state, buffers, torch.tensor([[1.0], [3.0]]))
        >>> buffers["0.running_mean"], module[0].running_mean
        (tensor([1.]), tensor([0.]))
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"functional: needs an nn.Module, got {shown(module)}")
    refuse_shared("functional", dict(module.named_parameters()))

    first: dict[int, str] = {}  # of a parameter that has several names the first; one of them is enough
    names = {name: first.setdefault(id(p), name) for name, p in module.named_parameters(remove_duplicate=False)}

    def call(params: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Any, **named: Any) -> tuple[Any, dict[str, Tensor]]:
        for what, tensors in (("params", params), ("buffers", buffers)):
            if not isinstance(tensors, Mapping):
                raise TypeError(f"functional: {what} must be a dict of tensors by name, got {shown(tensors)}")
        fresh = {name: buffer.clone() for name, buffer in buffers.items()}  # layers write into these
        given = {names.get(name, name) for name in params}
        held = {name: p.detach() for name, p in module.named_parameters() if name not in given}  # gradients would carry a graph to them
        output = torch.func.functional_call(module, {**held, **params, **fresh}, inputs, named)
        return output, fresh

    return call
