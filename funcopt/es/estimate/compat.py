"""pytorch-optimize as it is: its ranks, its groups, its populations of odd size.

    u_i = rank / (n - 1) - 1/2, equal values all with the rank of the last of them
    g   = 1/(n sigma) sum_i u_i eps_i        n as asked for; an odd n evaluates n - 1 members

Everything else of it is `es.layerwise` and `es.grad` with `maximize=True` and
`tie="last"`. Not reproduced: gradients of groups that were not chosen stay in place
there and go on being applied; NaN takes the best rank; frozen parameters move.

Source: pytorch-optimize. Checked against its recorded runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from funcopt.core import check, tree
from funcopt.es.estimate.info import Info
from funcopt.es.estimate.layerwise import group_paths, layerwise
from funcopt.es.shaping.shared_ties import centered_rank_shared_ties

__all__ = ["centered_rank_shared_ties", "grad", "layer_groups"]


def layer_groups(module_or_params: Any, depth: int = 1) -> dict[str, list[str]]:
    """The layers of pytorch-optimize: parameters whose names begin alike, in the order of registration.

    Args:
        module_or_params: a module, or a tree of parameters in that order, such as
            `dict(model.named_parameters())`.
        depth: how many parts of the name count, >= 1; pytorch-optimize takes one.

    Returns:
        Name of the group -> names of its parameters. Good for `groups=` of `es.layers`
        and `es.layerwise`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
        >>> fo.es.compat.layer_groups(model)
        {'0': ['0.weight', '0.bias'], '2': ['2.weight', '2.bias']}
    """
    params = dict(module_or_params.named_parameters()) if isinstance(module_or_params, torch.nn.Module) else module_or_params
    return group_paths(params, None, depth)


def grad(
    objective: Callable[..., Any],
    *,
    n_samples: int,
    sigma: float,
    obj_weights: Sequence[float] = (1.0,),
    strategy: Any = "random",
    **options: Any,
) -> Callable[..., tuple[Any, Info]]:
    """The gradient of pytorch-optimize's `ES` by the names of its arguments, odd `n_samples` included.

    Args:
        objective: of one member, made as large as possible: one number for each weight.
        n_samples: >= 2. An odd number evaluates one member less, and divides by it all
            the same.
        sigma: of the perturbations, > 0.
        obj_weights: of the objectives; neither normalised nor positive.
        strategy: "all", "bottom_up", "top_down" or "random".
        **options: of `es.layerwise`.

    Returns:
        `grad_fn(params, *args, key=key, step=step) -> (grads, info)`; grads is what
        pytorch-optimize writes into `.grad`, with zeros for the layers not chosen.

    Example:
        >>> grad_fn = fo.es.compat.grad(lambda p: -p.square().sum(), n_samples=33, sigma=0.1, strategy="all")
        >>> grads, info = grad_fn(torch.tensor([1.0, -1.0]), key=0)
        >>> grads.sign(), len(info.fitness)
        (tensor([ 1., -1.]), 32)
    """
    check.integer("es.compat.grad", "n_samples", n_samples, 2)
    even = n_samples - n_samples % 2
    settings: dict[str, Any] = {"tie": "last", "shaping": "centered_rank", "scale": "inverse_sigma", "maximize": True, **options}
    estimate = layerwise(objective, strategy=strategy, popsize=even, sigma=sigma, weights=tuple(obj_weights), **settings)

    def grad_fn(*args: Any, **kwargs: Any) -> tuple[Any, Info]:
        grads, info = estimate(*args, **kwargs)
        if even != n_samples:
            grads = tree.map(lambda g: g * (even / n_samples) if g.is_floating_point() else g, grads)
        return grads, info

    return grad_fn
