"""Derivatives of a function of a tree of params, for links that are told the function: line searches, SAM, estimates of curvature.

Any tree may be one, also such as torch's own tree functions do not know: what is differentiated is the list of its leaves.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import TensorTree
from funcopt.core.versions import announced

__all__ = ["gradient_of", "product_with_hessian", "value_and_gradient_of", "value_of"]

Function = Callable[[TensorTree], Any]


def of_leaves(where: str, name: str, function: Function, like: TensorTree) -> Callable[[list[Tensor]], Tensor]:
    """A function of the leaves of a tree; what it gives must be one real number."""

    def value(leaves: list[Tensor]) -> Tensor:
        found = function(tree.unflatten(like, [announced(x) for x in leaves]))
        if not isinstance(found, Tensor) or found.dim() != 0 or found.is_complex():
            got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__}"
            raise TypeError(f"{where}: {name} must give the loss, a real 0-dim tensor, got {got}; cut a pair by lambda p: {name}(p)[0]")
        return found

    return value


def value_of(where: str, name: str, function: Function) -> Callable[[TensorTree], Tensor]:
    """The function's value, a number."""

    def value(params: TensorTree) -> Tensor:
        with torch.no_grad():
            return of_leaves(where, name, function, params)(tree.leaves(params)).detach()

    return value


def value_and_gradient_of(where: str, name: str, function: Function) -> Callable[[TensorTree], tuple[Tensor, TensorTree]]:
    """The function's value and gradient, as a function of the params."""

    def both(params: TensorTree) -> tuple[Tensor, TensorTree]:
        leaves = [x.detach() if x.requires_grad else x for x in tree.leaves(params)]
        with torch.enable_grad():
            grads, value = torch.func.grad_and_value(of_leaves(where, name, function, params))(leaves)
        return value.detach(), tree.unflatten(params, [g.detach() for g in grads])

    return both


def gradient_of(where: str, name: str, function: Function) -> Callable[[TensorTree], TensorTree]:
    """The function's gradient, as a function of the params that can be differentiated again."""

    def gradient(params: TensorTree) -> TensorTree:
        return tree.unflatten(params, torch.func.grad(of_leaves(where, name, function, params))(tree.leaves(params)))

    return gradient


def product_with_hessian(gradient: Callable[[TensorTree], TensorTree], params: TensorTree, z: TensorTree) -> TensorTree:
    """The Hessian times z: the derivative of <gradient, z>.

    Example:
        >>> from funcopt.core.functional.derivatives import gradient_of, product_with_hessian
        >>> product_with_hessian(gradient_of("here", "f", lambda p: p[0] * p[1]), torch.zeros(2), torch.tensor([2.0, 3.0]))
        tensor([3., 2.])
    """

    def along(leaves: list[Tensor]) -> Tensor:
        return tree.vdot(gradient(tree.unflatten(params, leaves)), z)

    leaves = [x.detach() if x.requires_grad else x for x in tree.leaves(params)]
    with torch.enable_grad():
        return tree.unflatten(params, list(torch.func.grad(along)(leaves)))
