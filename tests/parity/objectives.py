"""The objectives of the closed loops among the recorded optax runs."""

from collections.abc import Callable
from typing import Any

import torch

from tests.parity.encoding import decode, leaf_tensors, map_leaves, only_keys

__all__ = ["gradient", "objective"]


def objective(description: dict, dtype: torch.dtype) -> Callable[[Any], torch.Tensor]:
    """The function from params to a 0-dim value that `description` means."""
    if description["name"] == "quartic":
        only_keys("objective quartic", description, {"name", "a", "t", "q"})
        a, t, q = decode(description["a"], dtype), decode(description["t"], dtype), description["q"]

        def quartic(params: Any) -> torch.Tensor:
            terms = map_leaves(lambda x, a, t: (0.5 * a * (x - t) ** 2 + 0.25 * q * (x - t) ** 4).sum(), params, a, t)
            return torch.stack(leaf_tensors(terms)).sum()

        return quartic
    if description["name"] == "rosenbrock":
        only_keys("objective rosenbrock", description, {"name"})

        def rosenbrock(params: Any) -> torch.Tensor:
            x = params["x"]
            return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

        return rosenbrock
    raise ValueError(f"recorded data: do not know the objective {description['name']!r}")


def gradient(function: Callable[[Any], torch.Tensor], params: Any) -> tuple[torch.Tensor, Any]:
    """Value and gradient of `function` at `params`."""
    with torch.enable_grad():
        inputs = map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(), params)
        value = function(inputs)
        grads = iter(torch.autograd.grad(value, leaf_tensors(inputs)))
    by_leaf = {id(leaf): grad for leaf, grad in zip(leaf_tensors(inputs), grads, strict=True)}
    return value.detach(), map_leaves(lambda leaf: by_leaf[id(leaf)], inputs)
