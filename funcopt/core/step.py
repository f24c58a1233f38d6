"""make_step: a loss function and a transformation as one training step, compiled or not.

    loss, g        = value and gradient of loss_fn at params
    updates, state = tx.update(g, state, params, loss=loss)
    params         = params + updates

Compiled, the three lines are one graph without breaks. Donated, the new values are
written into the old buffers at its end, which the compiler turns into one pass in
place. Held flat, params and state are one vector per dtype between steps.
"""

import logging
import time
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.apply import apply_updates
from funcopt.core.flat import Layout
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.versions import TORCH, compiler_missing

__all__ = ["Step", "make_step"]

log = logging.getLogger("funcopt")

# Torch 2.9 to 2.11 overwrite a donated parameter before the backward pass has read it when the whole
# step is one graph under vmap, without an error: there gradients and donated update are two graphs.
TWO_GRAPHS = (2, 9) <= TORCH <= (2, 11)
MANY_LEAVES = 16  # from here on the overhead per leaf, in time or in compile time, outweighs the copies of a flat step
CACHED_BYTES = 8 * 2**20  # an eager pass over vectors above cache size costs eleven times a fused one

EAGER = "eager"  # a plan: run this step outside the graph, as the rare one in which a pool keeps its records

# The checks of sizes at each call take half of its overhead. Inductor writes shared intermediates of
# several reductions to memory unless these thresholds are raised: 3.6 times slower at 12 M entries.
OPTIONS = {"size_asserts": False, "realize_reads_threshold": 64, "realize_opcount_threshold": 2000, "realize_acc_reads_threshold": 256}


class Step:
    """One training step; made by `make_step`. Its form is chosen in `init` and shown by `repr`."""

    def __init__(self, loss_fn, tx, *, compile, flat, donate, has_aux):
        self.loss_fn, self.tx = loss_fn, tx
        self.compile, self.flat, self.donate, self.has_aux = compile, flat, donate, has_aux
        self.layout: Layout | None = None
        self._steps: dict[Hashable, Callable] = {}

    def __repr__(self) -> str:
        held = "leaf by leaf" if self.layout is None else f"flat, {self.layout}"
        return f"Step({self.tx.name}: {'compiled' if self.compile else 'eager'}, {'donated' if self.donate else 'pure'}, {held})"

    # --- the form ---

    def init(self, params: TensorTree, state: Any = None) -> tuple[TensorTree, Any]:
        """Params and state in the form on which the step runs; copies, which the step owns.

        Args:
            params: a tree of tensors; `nn.Parameter`s are detached.
            state: a leafwise state to go on from (of a checkpoint); None: `tx.init(params)`.
        """
        if self.compile and (missing := compiler_missing(tree.device(params))):
            warnings.warn(f"make_step: runs eagerly, since there is no compiler here ({missing})", stacklevel=2)
            self.compile = False
        params = tree.map_until(Tensor, lambda p: p.detach().clone(memory_format=torch.contiguous_format), params)
        self._steps.clear()
        self.layout = Layout(params) if self._choose_flat(params) else None
        held = params if self.layout is None else self.layout.ravel(params)
        fresh = self.tx.init(held)
        if state is not None:
            fresh = state if self.layout is None else self.layout.ravel_state(state, fresh)
        # No two leaves may share memory, or be strided views of one number, where results are written back.
        return held, tree.map_until(Tensor, lambda x: x.detach().clone(memory_format=torch.contiguous_format), fresh)

    def _choose_flat(self, params: TensorTree) -> bool:
        leaves = tree.leaves(params)
        if self.flat is True and not self.tx.leafwise:
            raise ValueError(f"make_step: flat=True needs a transformation that is leafwise, and {_not_leafwise(self.tx)} looks at each leaf; pass flat='auto'")
        if self.flat != "auto":
            return bool(self.flat)
        if not self.tx.leafwise or len(leaves) < MANY_LEAVES:
            return False
        return self.compile or sum(x.numel() * x.element_size() for x in leaves) <= CACHED_BYTES

    def params(self, params: TensorTree) -> TensorTree:
        """The leafwise tree of params (views), for evaluation and checkpoints."""
        return params if self.layout is None else self.layout.unravel(params)

    def state(self, state: Any) -> Any:
        """The leafwise state (views), for checkpoints."""
        return state if self.layout is None else self.layout.unravel_state(state)

    # --- the step ---

    def __call__(self, params: TensorTree, state: Any, *batch: Any, **extra: Any) -> tuple[TensorTree, Any, Any]:
        plan = self.tx.plan(state, **extra) if self.tx.plan else None
        run = self._steps.get(plan)
        if run is None:
            run = self._steps[plan] = self._build(plan)
        if self.compile:
            extra = tensors_for_numbers(extra)
        if not self.donate:
            return run(params, state, batch, extra)
        return params, state, run(params, state, batch, extra)

    def _gradients(self, params, batch):
        def objective(params):
            return self.loss_fn(params if self.layout is None else self.layout.unravel(params), *batch)

        return torch.func.grad_and_value(objective, has_aux=self.has_aux)(params)

    def _advance(self, grads, value, params, state, extra, plan):
        loss = value[0] if self.has_aux else value
        if plan is not None:
            extra = {**extra, "plan": plan}
        updates, state = self.tx.update(grads, state, params, **{"loss": loss, **extra})
        return apply_updates(params, updates), state

    def _build(self, plan: Hashable) -> Callable:
        def whole(params, state, batch, extra):
            grads, value = self._gradients(params, batch)
            new_params, new_state = self._advance(grads, value, params, state, extra, plan)
            return new_params, new_state, value

        def donated(params, state, batch, extra):
            new_params, new_state, value = whole(params, state, batch, extra)
            return write_back((params, state), (new_params, new_state)), value

        in_a_graph = self.compile and not outside_the_graph(plan)
        name = f"{self.tx.name} {plan or ''}"
        if not self.donate:
            return compiled(whole, name) if in_a_graph else whole
        if not in_a_graph:
            run = donated
        elif TWO_GRAPHS:
            run = self._in_two_graphs(plan, name)
        else:
            run = compiled(donated, name)

        def run_donated(params, state, batch, extra):
            late, value = run(params, state, batch, extra)
            write_late((params, state), late)
            return value

        return run_donated

    def _in_two_graphs(self, plan: Hashable, name: str) -> Callable:
        def advance_donated(grads, value, params, state, extra):
            return write_back((params, state), self._advance(grads, value, params, state, extra, plan))

        gradients = compiled(lambda params, batch: self._gradients(params, batch), f"gradients for {name}")
        advance = compiled(advance_donated, name)

        def run(params, state, batch, extra):
            grads, value = gradients(params, batch)
            return advance(grads, value, params, state, extra), value

        return run


def outside_the_graph(plan: Hashable) -> bool:
    """Whether somebody's plan for this step is EAGER."""
    return plan == EAGER or (isinstance(plan, tuple) and any(map(outside_the_graph, plan)))


def write_back(old: Any, new: Any) -> tuple[tuple[int, ...], list[Tensor]]:
    """Copies the leaves of `new` into their partners in `old`, all but those that `write_late` must copy after the graph.

    The traps behind this, all silent (torch 2.13, CPU):
    - A result that is an old leaf in another place is overwritten before it is read, and a
      clone does not help: the compiler takes it out again.
    - A compiled `x.copy_(y)` into a 0-dim float64 tensor is dropped.
    - A compiled `_foreach_copy_` writes one-element tensors before loops that still work
      their scalars out from the old ones: a schedule then reads the next count.

    Returns:
        The positions of the leaves that were not written (0-dim ones, and those from which
        or to which an old leaf moves), and their results.
    """
    targets, results = tree.leaves(old), tree.leaves(new)
    if len(targets) != len(results):
        raise ValueError(f"make_step: donate=True needs a state of constant structure, got {len(results)} leaves in place of {len(targets)}")
    places = {id(target): position for position, target in enumerate(targets)}
    stays: set[int] = set()  # leaves that are handed on as they are: the members of a pool that do not move
    late = {position for position, target in enumerate(targets) if target.dim() == 0}
    for position, result in enumerate(results):
        source = places.get(id(result))
        if source == position:
            stays.add(position)
        elif source is not None:
            late |= {source, position}
    late -= stays
    for position, (target, result) in enumerate(zip(targets, results, strict=True)):
        if position not in late and position not in stays:
            target.copy_(result)
    positions = tuple(sorted(late))
    return positions, [results[position] for position in positions]


def write_late(old: Any, late: tuple[tuple[int, ...], list[Tensor]]) -> None:
    """Copies what `write_back` left over, eagerly."""
    positions, results = late
    if positions:
        targets = tree.leaves(old)
        torch._foreach_copy_([targets[position] for position in positions], [result.clone() for result in results])


def compiled(f: Callable, name: str) -> Callable:
    """`torch.compile` of a function as one graph, with a code object of its own (the limit of recompilations counts per code object)."""
    own = types.FunctionType(f.__code__.replace(co_name=f.__code__.co_name), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    graph = torch.compile(own, fullgraph=True, dynamic=False, options=OPTIONS)
    first = True

    def run(*arguments):
        nonlocal first
        if not first:
            return graph(*arguments)
        first = False
        began = time.perf_counter()
        result = graph(*arguments)
        log.info("compiled %s in %.1f s", name, time.perf_counter() - began)
        return result

    return run


def tensors_for_numbers(extra: dict[str, Any]) -> dict[str, Any]:
    """Numbers as 0-dim tensors: a graph is specialised on numbers, and so compiled anew for each."""

    def tensor(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        return torch.full((), value, dtype=torch.int64 if isinstance(value, int) else torch.float64)

    return {name: tensor(value) for name, value in extra.items()}


def _not_leafwise(tx: GradientTransformation) -> str:
    return ", ".join(dict.fromkeys(link.name for link in tx.links if not link.leafwise)) if tx.links else tx.name


def make_step(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    compile: bool = False,
    flat: bool | str = "auto",
    donate: bool = False,
    has_aux: bool = False,
) -> Step:
    """One training step from a loss function and a transformation.

    Args:
        loss_fn: `(params, *batch) -> loss`, 0-dim, or `(loss, aux)` with `has_aux`.
        tx: any transformation; it is told the loss.
        compile: put the whole step into one graph (torch 2.10 or newer; best effort
            from 2.6). Without a compiler on the machine it says so once and runs eagerly.
        flat: hold params and state as one vector per dtype between steps: True, False, or
            "auto", which does so where it pays (16 leaves or more; in eager also at most
            8 MB) and `tx` is leafwise.
        donate: write new params and state into the buffers of the old ones, which are
            gone then. Halves the memory of a step.
        has_aux: `loss_fn` returns a pair.

    Returns:
        A `Step`: `params, state = step.init(params)`, then
        `params, state, loss = step(params, state, *batch, **extra)` as often as you like;
        `step.params(params)` and `step.state(state)` are the leafwise trees.

    Raises:
        TypeError: `loss_fn` is not callable or `tx` not a transformation.
        ValueError: `flat=True` for a transformation that looks at each leaf.

    Example:
        >>> step = fo.make_step(lambda w, x: ((w - x) ** 2).sum(), fo.sgd(0.25))
        >>> w, state = step.init(torch.tensor([4.0]))
        >>> w, state, loss = step(w, state, torch.tensor([0.0]))
        >>> w, loss
        (tensor([2.]), tensor(16.))
    """
    if not callable(loss_fn):
        raise TypeError(f"make_step: loss_fn must be a function of (params, *batch), got {loss_fn!r}")
    if not isinstance(tx, GradientTransformation):
        raise TypeError(f"make_step: tx must be a GradientTransformation, got {tx!r}")
    check.choice("make_step", "flat", flat, (True, False, "auto"))
    return Step(loss_fn, tx, compile=compile, flat=flat, donate=donate, has_aux=has_aux)
