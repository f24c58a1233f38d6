"""What a step knows besides loss and gradient, for links that need it: the loss as a function of the params, and its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.core.functional.derivatives import value_and_gradient_of
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.execute.layouts.layout import Flat, Layout

__all__ = ["asked", "asks", "loss_on"]

FUNCTIONS = ("value_fn", "obj_fn", "grad_fn")


def asks(tx: GradientTransformation) -> set[str]:
    """Which functions of the params a transformation needs."""
    return {word for words in tx.needs for word in words.split("|")}.intersection(FUNCTIONS)


def loss_on(
    loss_fn: Callable[..., Any], batches: Sequence[tuple[Any, ...]], has_aux: bool, layout: Layout | None
) -> Callable[[TensorTree], Tensor]:
    """The mean loss on some batches as a function of params, which may be held flat."""

    def loss(params: TensorTree) -> Tensor:
        if layout is not None and isinstance(params, Flat):
            params = layout.unravel(params)
        values = [loss_fn(params, *batch) for batch in batches]
        values = [value[0] if has_aux else value for value in values]
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    return loss


def asked(tx: GradientTransformation, loss: Callable[[TensorTree], Tensor], grads: TensorTree) -> dict[str, Any]:
    """The extra arguments for what a transformation asks.

    Args:
        loss: of the params, on the batch of this step.
        grads: the gradient at the params of this step.

    Example:
        >>> from funcopt.execute.asked import asked
        >>> told = asked(fo.lbfgs(), lambda p: (p * p).sum(), torch.tensor([4.0]))
        >>> sorted(told), told["value_fn"](torch.tensor([3.0]))
        (['grad', 'value_fn'], tensor(9.))
    """
    words = asks(tx)
    if not words:
        return {}
    told: dict[str, Any] = {word: loss for word in ("value_fn", "obj_fn") if word in words}
    if "value_fn" in words:
        told["grad"] = grads
    if "grad_fn" in words:
        gradient = value_and_gradient_of("make_step", "loss_fn", loss)
        told["grad_fn"] = lambda params, number=0: gradient(params)[1]
    return told
