"""What line searches share: the loss along a line, how long to go on trying, and the gradient that a search leaves behind.

A search runs on numbers: to derivatives the rate that it finds is a constant.
"""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, find_all, tree
from funcopt.core.functional.derivatives import value_and_gradient_of, value_of
from funcopt.core.versions import compiling, transforming, untraced

__all__ = ["value_and_grad_from_state"]

Dispatch = Literal["auto", "select"]
Kept = TypeVar("Kept")


class Line(NamedTuple):
    """The loss along params + rate * updates, in numbers that steer."""

    params: TensorTree
    updates: TensorTree
    loss: Tensor  # at the params
    grad: TensorTree
    slope: Tensor  # of the loss along the line, at the params
    value_fn: Callable[[TensorTree], Tensor]
    where: str

    def at(self, rate: Tensor) -> TensorTree:
        return tree.add_scale(self.params, rate, self.updates)

    def value(self, rate: Tensor) -> Tensor:
        return value_of(self.where, "value_fn", self.value_fn)(self.at(rate)).to(self.loss.dtype)

    def value_slope_grad(self, rate: Tensor) -> tuple[Tensor, Tensor, TensorTree]:
        value, grad = value_and_gradient_of(self.where, "value_fn", self.value_fn)(self.at(rate))
        return value.to(self.loss.dtype), slope(grad, self.updates, self.loss.dtype), grad


def slope(grad: TensorTree, updates: TensorTree, dtype: torch.dtype) -> Tensor:
    """<grad, updates>, in which complex entries count as two real ones."""
    return tree.vdot(grad, updates, dtype).real.to(dtype)


def line(
    where: str, like: Tensor, updates: TensorTree, params: TensorTree, loss: Any, grad: Any, value_fn: Any, extra: dict[str, Any]
) -> Line:
    """The line of a search, from what `update` was given; what was not told of the loss is worked out.

    Raises:
        ValueError: no params are given, or no `value_fn`.
    """
    check.params(where, params)
    if value_fn is None:
        raise check.Missing(f"{where}: needs the loss as a function of the params", "value_fn")
    told = extra if loss is None else {**extra, "loss": loss}
    named = {word: told[word] for word in named_by(value_fn, tuple(told))} if told else {}
    function = (lambda p: value_fn(p, **named)) if named else value_fn
    params, updates = constant(params), constant(updates)
    if loss is None:
        loss = extra.get("value")
    if loss is None or grad is None:
        loss, grad = value_and_gradient_of(where, "value_fn", function)(params)
    loss, grad = tree.scalar(loss, like).to(like.dtype).detach(), constant(grad)
    return Line(params, updates, loss, grad, slope(grad, updates, like.dtype), function, where)


def constant(values: TensorTree) -> TensorTree:
    return tree.map_plain(torch.Tensor.detach, values)


@untraced
def _parameters(value_fn: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(value_fn).parameters)[1:]


def named_by(value_fn: Callable[..., Any], words: tuple[str, ...]) -> list[str]:
    """Which of the extra arguments a loss takes beside the params, by their names."""
    takes = getattr(value_fn, "__code__", None)
    if takes is not None and not hasattr(value_fn, "__wrapped__"):
        names = takes.co_varnames[1 : takes.co_argcount + takes.co_kwonlyargcount]
    else:
        names = _parameters(value_fn)
    return [word for word in words if word in names]


def goes_on(running: Tensor, dispatch: str) -> bool:
    """Whether to try again. Where Python may look it waits for the device, kept busy for longer by a trial; else all trials are made."""
    if dispatch == "select" or compiling() or transforming():
        return True
    return bool(running.item())


def tried(advance: Callable[[Kept], Kept], running: Callable[[Kept], Tensor], state: Kept, limit: int, dispatch: str) -> Kept:
    """`advance` until nothing is running any more, at most `limit` times and at least once."""
    looks = not (dispatch == "select" or compiling() or transforming())
    for number in range(limit):
        if number and looks and not goes_on(running(state), dispatch):
            break
        after = advance(state)
        state = after if looks or not number else tree.where(running(state), after, state)
    return state


def stepped(rate: Tensor, updates: TensorTree) -> TensorTree:
    """`rate * updates`; nothing where the rate is 0, whatever the updates are."""
    return tree.map(lambda u: torch.where(rate == 0, torch.zeros_like(u), rate * u), updates)


def value_and_grad_from_state(value_fn: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, TensorTree]]:
    """Value and gradient of a loss, taken from where a line search has left them instead of being worked out again.

    Args:
        value_fn: `(params, *args, **kwargs) -> loss`, a real 0-dim tensor.

    Returns:
        `(params, *args, state=state, **kwargs) -> (value, grad)`. Before the first step, and where what the state holds is
        not finite, they are worked out. It holds for params that are those of the search's last step, and for a loss without
        noise; under vmap and in a graph they are always worked out, and chosen.

    Raises:
        KeyError, ValueError: the state holds no search, or more than one, or one that keeps no gradient.

    Example:
        >>> tx = fo.chain(fo.sgd(1.0), fo.scale_by_backtracking_linesearch(10, store_grad=True))
        >>> value_and_grad = fo.value_and_grad_from_state(lambda p: (p**2).sum())
        >>> params = torch.tensor([2.0])
        >>> state = tx.init(params)
        >>> loss, grad = value_and_grad(params, state=state)
        >>> updates, state = tx.update(grad, state, params, loss=loss, grad=grad, value_fn=lambda p: (p**2).sum())
        >>> value_and_grad(fo.apply_updates(params, updates), state=state)[1]  # at 2 - 0.8 * 4
        tensor([-2.4000])
    """
    where = "value_and_grad_from_state"
    if not callable(value_fn):
        raise TypeError(f"{where}: value_fn must be a function of the params, got {value_fn!r}")

    def value_and_grad(params: TensorTree, *args: Any, state: Any, **kwargs: Any) -> tuple[Tensor, TensorTree]:
        kinds = ("ScaleByZoomLinesearchState", "ScaleByBacktrackingLinesearchState")
        found = [entry for kind in kinds for entry in find_all(state, kind)]
        if len(found) != 1:
            places = ", ".join(path or "the state itself" for path, _ in found)
            raise KeyError(f"{where}: the state must hold one line search, got {f'{len(found)}: {places}' if found else 'none'}")
        value, grad = found[0][1].value, found[0][1].grad
        if not tree.leaves(grad) and tree.leaves(params):
            raise ValueError(f"{where}: the search at '{found[0][0]}' keeps no gradient; make it with store_grad=True")
        known = value.isfinite()
        looks = not (compiling() or transforming())
        if looks and goes_on(known, "auto"):
            return value, grad
        fresh, slopes = value_and_gradient_of(where, "value_fn", lambda p: value_fn(p, *args, **kwargs))(params)
        if looks:
            return fresh, slopes
        return torch.where(known, value, fresh.to(value.dtype)), tree.where(known, grad, slopes)

    return value_and_grad
