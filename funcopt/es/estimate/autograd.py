"""A function that cannot be differentiated, inside a model that is: its derivative is estimated.

    forward   y = f(x)
    backward  J^T v  ~  the ES estimate of the gradient of <f(x + sigma eps), v>

Source: Nesterov and Spokoiny, 2017; the zero-order decorator of TorchOpt, whose
"naive", "forward" and "antithetic" methods are `antithetic=False`, that with
`baseline="center"`, and the default.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import random, tree
from funcopt.core.typed import Unpack
from funcopt.es.arguments import numbers_of, perturbed_of, placed_among
from funcopt.es.estimate.grad import Estimate
from funcopt.es.evaluate.refusals import keyed
from funcopt.es.keywords import Differentiation
from funcopt.es.options import settings_of
from funcopt.es.shaping.fitness import real

__all__ = ["differentiable"]


def differentiable(
    fn: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    popsize: int,
    sigma: Any,
    shaping: Any = "none",
    **options: Unpack[Differentiation],
) -> Callable[..., Tensor]:
    """`fn` with an estimated derivative, for use in autograd.

    Args:
        fn: `fn(*args, **kwargs)` gives a tensor of any shape.
        argnums: the arguments to differentiate by: tensors or trees of them.
        popsize: evaluations of fn in a backward pass.
        sigma: of the perturbations, > 0: the derivative is that of fn smoothed so far.
        shaping: of the fitness; all but "none" give up the size of the derivative.
        **options: those of `es.grad` but `maximize`, `has_aux` and `weights`.

    Returns:
        `f(*args, key=key, **kwargs)`, equal to fn. The key is that of the estimate in
        the backward pass.

    Raises:
        TypeError: there is no key (when called).

    Example:
        >>> steps = fo.es.differentiable(lambda x: x.round(), popsize=4096, sigma=0.5)
        >>> x = torch.tensor([0.2, 1.4], requires_grad=True)
        >>> y = steps(x, key=0)
        >>> y.detach()
        tensor([0., 1.])
        >>> y.sum().backward()
        >>> x.grad.round()
        tensor([1., 1.])
    """
    for name in ("maximize", "has_aux", "weights"):
        if name in options:
            raise TypeError(f"es.differentiable: {name} has no meaning for a derivative; leave it out")

    def projected(target: Any, others: tuple[Any, ...], kwargs: dict[str, Any], cotangent: Tensor) -> Tensor:
        return (fn(*placed_among(others, argnums, target), **kwargs) * cotangent).sum()

    estimate = Estimate(projected, 0, settings_of("es.differentiable", popsize=popsize, sigma=sigma, shaping=shaping, **options))

    def with_estimate(*args: Any, key: Any = None, **kwargs: Any) -> Tensor:
        if key is None:
            raise TypeError(
                "es.differentiable: needs a key for the estimate in the backward pass; pass key=, an int or fo.random.fold_in(root, step)"
            )
        key = random.as_key(key, "es.differentiable")
        target = perturbed_of(args, argnums)
        others = tuple(None if number in numbers_of(argnums) else value for number, value in enumerate(args))

        def value(leaves: tuple[Tensor, ...]) -> Tensor:
            whole = placed_among(args, argnums, tree.unflatten(target, list(leaves)))
            with estimate.evaluator.settled_randomness(key, 0):
                result = keyed(estimate.settings, lambda: fn(*whole, **kwargs), tree.device(target))
            return real("es.differentiable", "what the function returns", result)

        def derivative(leaves: tuple[Tensor, ...], cotangent: Tensor) -> list[Tensor]:
            grads, _ = estimate((tree.unflatten(target, list(leaves)), others, kwargs, cotangent), {}, key)
            return tree.leaves(grads)

        result = _Estimated.apply(value, derivative, *tree.leaves(target))
        assert isinstance(result, Tensor)
        return result

    return with_estimate


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(value: Callable[..., Tensor], derivative: Any, *leaves: Tensor) -> Tensor:
        with torch.no_grad():
            return value(leaves).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.derivative, *leaves = inputs
        ctx.save_for_backward(*leaves)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        leaves = ctx.saved_tensors
        grads = ctx.derivative(leaves, cotangent)
        return None, None, *(g if g.is_floating_point() else None for g in grads)
