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

__all__ = ["Form", "Pure", "Run", "in_form", "runs", "updated"]

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
    in_a_graph = form.engine != "eager"

    def whole(params: TensorTree, state: Any, batch: Any, extra: Any):
        grads, value = gradients(params, batch)
        told = {"batch": batch} if on_batch else {}
        new_params, new_state, *came_from = advance(grads, value, params, state, extra, **told)
        return (new_params, new_state, value, *came_from)

    def second(params: TensorTree, state: Any, read: Any, extra: Any):
        grads, value, *batch = read
        told = {"batch": batch[0]} if on_batch else {}
        new_params, new_state, *came_from = advance(grads, value, params, state, extra, **told)
        return (new_params, new_state, None, *came_from)

    if form.engine == "ahead" or (accumulate == 1 and not (TWO_GRAPHS and in_a_graph and form.donate)):
        run = in_form(whole, name, form)
    else:

        def graph(f: Callable[..., Any]) -> Callable[..., Any]:
            return compiled(f, f"gradients for {name}", options=form.options, dynamic=form.dynamic) if in_a_graph else f

        first, last = accumulated(gradients, accumulate, in_dims, has_aux, graph), in_form(second, name, form)

        def run(params: TensorTree, state: Any, batch: Any, extra: Any):
            grads, value = first(params, batch)
            new = last(params, state, (grads, value, batch) if on_batch else (grads, value), extra)
            return value if form.donate else (*new[:2], value)

        if form.donate and not in_a_graph:
            run = torch.no_grad()(run)
    if form.donate and form.options:  # the next replay overwrites what a CUDA graph returns
        return lambda *held: tree.clone(run(*held))
    return run
