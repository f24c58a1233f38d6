"""functional: an `nn.Module` as a pure function of its params and buffers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["functional"]


def functional(module: torch.nn.Module) -> Callable[..., tuple[Any, dict[str, Tensor]]]:
    """A module as `(params, buffers, *inputs) -> (output, new buffers)`.

    The module itself is neither read for values nor written into: params come as
    `dict(module.named_parameters())` (or a part of it: the rest stays as the module has
    it), buffers as `dict(module.named_buffers())`. What a layer writes into its buffers,
    such as the running means of BatchNorm, comes back as new buffers.

    Args:
        module: any module, in the mode (train or eval) in which it is to run.

    Raises:
        TypeError: `module` is no `nn.Module`.

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
        raise TypeError(f"functional: needs an nn.Module, got {module!r}")

    def call(params: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Any, **named: Any) -> tuple[Any, dict[str, Tensor]]:
        fresh = {name: buffer.clone() for name, buffer in buffers.items()}  # layers write into these
        output = torch.func.functional_call(module, {**params, **fresh}, inputs, named)
        return output, fresh

    return call
