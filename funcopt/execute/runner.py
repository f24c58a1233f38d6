"""The runner: a step is read, updated and written back here, whoever takes it and in whatever form.

    value, g        = gradients(params, batch)                      read
    updates, state' = tx.update(g, state, params, loss=value)       update
    params'         = params + updates
    params, state  <- params', state'                               write back, where the form is donated

A form says by which engine, and whether results are written into the old tensors. `make_step`, the step of a
population and the torch optimizers differ in what they hold and in how gradients come to be.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from funcopt.core import tree
from funcopt.core.apply import apply_updates
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.versions import TORCH
from funcopt.execute.donation import write_back, write_late
from funcopt.execute.engines.ahead import ahead_of_time
from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.microbatches import accumulated

__all__ = ["Form", "InParts", "Pure", "Run", "in_form", "kept", "reads", "runs", "updated"]

# Torch 2.9 to 2.11 overwrite a donated parameter before the backward pass has read it when the whole
# step is one graph under vmap, without an error: there gradients and donated update are two graphs.
TWO_GRAPHS = (2, 9) <= TORCH <= (2, 11)

Engine = Literal["eager", "dynamo", "ahead"]
Pure = Callable[..., Any]  # (params, state, batch, extra) -> (params', state', value)
Run = Callable[..., Any]  # of the same arguments: donated it returns the value alone


class Form(NamedTuple):
    """How a step runs."""

    engine: Engine = "eager"
    donate: bool = False  # results are written into the old params and state
    options: dict[str, Any] = {}  # of Inductor; those that replay CUDA graphs return memory that the next replay overwrites
    dynamic: bool | None = None  # of torch.compile: a graph for all sizes of a batch, or one for each
    where: str = "make_step"  # who speaks in errors


def updated(
    tx: GradientTransformation,
    grads: TensorTree,
    state: Any,
    params: TensorTree,
    extra: dict[str, Any],
    scaled: Callable[[Any], Any] | None = None,
) -> tuple[TensorTree, Any]:
    """New params and state: the updates of `tx`, made longer or shorter by `scaled` if that is given, added to params."""
    updates, state = tx.update(grads, state, params, **extra)
    return apply_updates(params, updates if scaled is None else scaled(updates)), state


def in_form(step: Pure, name: str, form: Form) -> Run:
    """`run(params, state, batch, extra)`: what `step` returns; of a donated form, once all is written, the value alone.

    Args:
        step: pure; what it returns after the value, if anything, says where each result came from (`write_back`).
        name: what it is called in messages.
    """
    if form.engine == "ahead":
        return ahead_of_time(step, name, form.donate)
    if not form.donate:
        return compiled(step, name, options=form.options, dynamic=form.dynamic) if form.engine == "dynamo" else step
    where = form.where

    def donated(params: TensorTree, state: Any, batch: Any, extra: Any):
        new_params, new_state, value, *came_from = step(params, state, batch, extra)
        return write_back((params, state), (new_params, new_state), *came_from, where=where), value

    # What is written in place keeps no history.
    graph = compiled(donated, name, options=form.options, dynamic=form.dynamic) if form.engine == "dynamo" else torch.no_grad()(donated)

    def run(params: TensorTree, state: Any, batch: Any, extra: Any) -> Any:
        late, value = graph(params, state, batch, extra)
        write_late(late)
        return value

    return run


def reads(
    gradients: Callable[..., Any], name: str, form: Form, *, accumulate: int = 1, in_dims: Any = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """`(params, batch) -> (grads, value)` in a form, apart from what is made of them.

    Args:
        gradients: the same, as a function.
        name: what it is called in messages.
        accumulate, in_dims, has_aux: parts of the batch that are taken one after the other (`microbatches.accumulated`).
    """
    if form.engine == "ahead":
        graph = ahead_of_time(lambda params, state, batch, extra: (*gradients(params, batch), ()), name, False)
        return lambda params, batch: graph(params, (), batch, {})[:2]

    def made(f: Callable[..., Any]) -> Callable[..., Any]:
        return compiled(f, name, options=form.options, dynamic=form.dynamic, update=False) if form.engine == "dynamo" else f

    return accumulated(gradients, accumulate, in_dims, has_aux, made)


class InParts:
    """A training step in two graphs, the second of which is made of what the first has read; a `Run`.

    Args:
        first: `(params, batch) -> (grads, value)`, in its form; several steps may share it.
        advance: as `runs` takes it.
        name, form: of the second.
        on_batch: `advance` is told the `batch`, too.
    """

    def __init__(self, first: Callable[..., Any], advance: Callable[..., Any], name: str, form: Form, on_batch: bool):
        def second(params: TensorTree, state: Any, read: Any, extra: Any):
            grads, value, *batch = read
            told = {"batch": batch[0]} if on_batch else {}
            new_params, new_state, *came_from = advance(grads, value, params, state, extra, **told)
            return (new_params, new_state, None, *came_from)

        self._first, self._last, self._on_batch = first, in_form(second, name, form), on_batch
        self._in_place = form.donate

    def read(self, params: TensorTree, batch: Any) -> tuple[Any, ...]:
        """What the second part is told of the first."""
        grads, value = self._first(params, batch)
        return (grads, value, batch) if self._on_batch else (grads, value)

    def write(self, params: TensorTree, state: Any, read: tuple[Any, ...], extra: Any) -> Any:
        new = self._last(params, state, read, extra)
        return read[1] if self._in_place else (*new[:2], read[1])

    def __call__(self, params: TensorTree, state: Any, batch: Any, extra: Any) -> Any:
        return self.write(params, state, self.read(params, batch), extra)


def runs(
    gradients: Callable[..., Any],
    advance: Callable[..., Any],
    name: str,
    form: Form,
    *,
    accumulate: int = 1,
    in_dims: Any = 0,
    has_aux: bool = False,
    on_batch: bool = False,
) -> Run:
    """A training step in its form.

    Args:
        gradients: `(params, batch) -> (grads, value)`.
        advance: `(grads, value, params, state, extra) -> (params', state')`, and where each result came from.
        accumulate, in_dims, has_aux: parts of the batch that are taken one after the other (`microbatches.accumulated`).
        on_batch: `advance` is told the `batch`, too.
    """

    def whole(params: TensorTree, state: Any, batch: Any, extra: Any):
        grads, value = gradients(params, batch)
        told = {"batch": batch} if on_batch else {}
        new_params, new_state, *came_from = advance(grads, value, params, state, extra, **told)
        return (new_params, new_state, value, *came_from)

    if form.engine == "ahead" or (accumulate == 1 and not (TWO_GRAPHS and form.engine != "eager" and form.donate)):
        return kept(in_form(whole, name, form), form)
    first = reads(gradients, f"gradients for {name}", form, accumulate=accumulate, in_dims=in_dims, has_aux=has_aux)
    if form.donate and form.engine == "eager":  # what is written in place keeps no history
        first = torch.no_grad()(first)
    return kept(InParts(first, advance, name, form, on_batch), form)


def kept(run: Run, form: Form) -> Run:
    """A run whose value stays: the next replay overwrites what a CUDA graph returns."""
    return (lambda *held: tree.clone(run(*held))) if form.donate and form.options else run
