"""make_step: a loss function and a transformation as one training step, compiled or not.

    loss, g        = value and gradient of loss_fn at params
    updates, state = tx.update(g, state, params, loss=loss)
    params         = params + updates

Compiled, the three lines are one graph without breaks. Donated, the new values are
written into the old buffers at its end, which the compiler turns into one pass in
place. Held flat, params and state are one vector per dtype between steps. With
accumulate=k the first line is the mean over k parts of the batch, one after the other.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.ahead import Unavailable, ahead_of_time
from funcopt.core.apply import apply_updates
from funcopt.core.donation import write_back, write_late
from funcopt.core.flat import Layout
from funcopt.core.graphs import CUDA_GRAPHS, OPTIONS, compiled, tensors_for_numbers
from funcopt.core.microbatches import accumulated
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.segments import BY_SEGMENT, BY_SHAPE, ON_VECTORS, forms, keeps_vectors, laid_out, links_of, segmented
from funcopt.core.versions import TORCH, announced, compiler_missing

__all__ = ["EAGER", "OPTIONS", "Step", "compiled", "make_step", "tensors_for_numbers", "write_back", "write_late"]

# Torch 2.9 to 2.11 overwrite a donated parameter before the backward pass has read it when the whole
# step is one graph under vmap, without an error: there gradients and donated update are two graphs.
TWO_GRAPHS = (2, 9) <= TORCH <= (2, 11)
MANY_LEAVES = 16  # from here on the overhead per leaf, in time or in compile time, outweighs the copies of a flat step
CACHED_BYTES = 8 * 2**20  # an eager pass over vectors above cache size costs eleven times a fused one

LARGE_LEAF = 64 * 2**10  # bytes; on a CPU links that look at leaves larger than this are slower on what is cut out of a vector

AHEAD = "ahead"  # compile=: the second engine, for small steps
FORMS = {False: "eager", True: "compiled", AHEAD: "ahead of time"}
EAGER = "eager"  # a plan: run this step outside the graph, as the rare one in which a pool keeps its records


class Step:
    """One training step; made by `make_step`. Its form is chosen in `init`, shown by `repr` and told by `explain`."""

    def __init__(self, loss_fn, tx, *, compile, flat, donate, has_aux, accumulate, in_dims, mode):
        self.loss_fn, self.tx = loss_fn, tx
        self.compile, self.flat, self.donate, self.has_aux = compile, flat, donate, has_aux
        self.accumulate, self.in_dims, self.mode = accumulate, in_dims, mode
        self.layout: Layout | None = None
        self.forms: list[tuple[str, str]] = []  # how each link runs on it
        self.running = tx  # on what the step holds: `tx` itself, or by segment
        self.why = "not chosen yet: call init"
        self._options: dict[str, Any] = {}
        self._device, self._leaves = torch.device("cpu"), 0
        self._steps: dict[Hashable, Callable] = {}

    # --- the form ---

    def init(self, params: TensorTree, state: Any = None) -> tuple[TensorTree, Any]:
        """Params and state in the form on which the step runs; copies, which the step owns.

        Args:
            params: a tree of tensors; `nn.Parameter`s are detached.
            state: a leafwise state to go on from (of a checkpoint); None: `tx.init(params)`.
        """
        self._device, self._leaves = tree.device(params), len(tree.leaves(params))
        if self.compile and (missing := compiler_missing(self._device)):
            warnings.warn(f"make_step: runs eagerly, since there is no compiler here ({missing})", stacklevel=2)
            self.compile = False
        params = _owned(params)
        self._steps.clear()
        held, fresh = self._chosen(params)
        if state is not None:
            fresh = state if self.layout is None else self.layout.ravel_state(state, fresh)
        # No two leaves may share memory, or be strided views of one number, where results are written back.
        fresh = _owned(fresh)
        self._choose_mode((held, fresh))
        return held, fresh

    def _chosen(self, params: TensorTree) -> tuple[TensorTree, Any]:
        """Chooses how params are held; returns them so, with a fresh state."""
        self.layout, self.running = None, self.tx
        flat, self.why = self._flat_or_not(params)
        if flat:
            self.layout = laid_out(self.tx, params)
            self.forms = list(forms(self.tx, self.layout, params))
            self.running = segmented(self.tx, self.layout, params)
            held = self.layout.ravel(params)
            state = self.running.init(held)
            against = None if self.flat is True or self.tx.leafwise else self._against(params, state)
            if against is None:
                return held, state
            self.layout, self.running, self.why = None, self.tx, against
        return params, self.tx.init(params)

    def _against(self, params: TensorTree, state: Any) -> str | None:
        """Why a chain that is not all on vectors had better stay leaf by leaf."""
        if not keeps_vectors(state):
            return f"no link keeps anything on vectors ({', '.join(dict.fromkeys(name for name, _ in self.forms))})"
        looking = [name for name, form in self.forms if form != ON_VECTORS]
        size = sum(x.numel() * x.element_size() for x in tree.leaves(params))
        if looking and self._device.type == "cpu" and size > CACHED_BYTES and size > LARGE_LEAF * self._leaves:
            return f"{', '.join(dict.fromkeys(looking))} would leave a cache that holds single leaves ({size / self._leaves / 2**10:.0f} kB on the average)"
        return None

    def _flat_or_not(self, params: TensorTree) -> tuple[bool, str]:
        """Whether to hold params flat, and why."""
        leaves = tree.leaves(params)
        sharded = next((path for path, x in zip(tree.paths(params), leaves, strict=True) if hasattr(x, "full_tensor")), None)
        if sharded is not None and self.flat is True:
            raise ValueError(f"make_step: flat=True needs leaves that lie in one piece, and '{sharded}' is sharded; pass flat='auto'")
        if self.flat != "auto":
            return bool(self.flat), f"flat={self.flat}"
        if sharded is not None:
            return False, f"'{sharded}' is sharded"
        if len(leaves) < MANY_LEAVES:
            return False, f"{len(leaves)} leaves, fewer than {MANY_LEAVES}"
        size = sum(x.numel() * x.element_size() for x in leaves)
        if not self.compile and size > CACHED_BYTES:
            return False, f"eager, and {size / 2**20:.0f} MB are more than a cache holds ({CACHED_BYTES // 2**20} MB)"
        return True, f"{len(leaves)} leaves, at least {MANY_LEAVES}"

    def _choose_mode(self, held: Any) -> None:
        self._options = {}
        if self.mode is None:
            return
        if not self.compile or self._device.type != "cuda":
            warnings.warn("make_step: mode='reduce-overhead' replays CUDA graphs and has no effect on an eager step or on a CPU", stacklevel=3)
            return
        self._options = CUDA_GRAPHS
        for leaf in tree.leaves(held):  # buffers that never move: a graph may be recorded on them
            torch._dynamo.mark_static_address(leaf, guard=False)

    def __repr__(self) -> str:
        held = "leaf by leaf" if self.layout is None else f"flat, {self.layout}"
        cut = "" if self.layout is None else "".join(f", {how}: {names}" for how, names in self._names() if how != ON_VECTORS)
        return f"Step({self.tx.name}: {FORMS[self.compile]}, {'donated' if self.donate else 'pure'}, {held}{cut})"

    def _names(self) -> Iterator[tuple[str, str]]:
        for how in (ON_VECTORS, BY_SHAPE, BY_SEGMENT):
            if names := ", ".join(dict.fromkeys(name for name, form in self.forms if form == how)):
                yield how, names

    def explain(self) -> str:
        """Which links run on vectors, which on leaves of one shape together, which by segment or leaf by leaf, and why.

        Example:
            >>> tx = fo.chain(fo.clip(1.0), fo.scale_by_trust_ratio(), fo.lr_scale(0.1))
            >>> step = fo.make_step(lambda p: p["w"].sum(), tx, flat=True)
            >>> _ = step.init({"w": torch.ones(3), "b": torch.ones(2)})
            >>> print(step.explain())
            chain: eager, pure, held flat (flat=True)
              on vectors: clip, lr_scale
              by segment: scale_by_trust_ratio
        """
        head = f"{self.tx.name}: {FORMS[self.compile]}, {'donated' if self.donate else 'pure'}"
        if self.layout is None:
            return f"{head}, held leaf by leaf ({self.why})"
        return "\n".join([f"{head}, held flat ({self.why})", *(f"  {how}: {names}" for how, names in self._names())])

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
        if extra and self.layout is not None:
            extra = {name: value if name == "signals" else self.layout.raveled(value) for name, value in extra.items()}
        if self.compile is True and any(map(negated, batch)):
            batch = tree.map_plain(lambda x: x.resolve_neg() if isinstance(x, Tensor) else x, batch)
        if extra and self.compile:
            extra = tensors_for_numbers(extra, self._device if self._options else "cpu")
        if not self.donate:
            return run(params, state, batch, extra)
        return params, state, run(params, state, batch, extra)

    def _gradients(self, params, batch):
        def objective(params):
            params = tree.map_plain(announced, params)
            return self.loss_fn(params if self.layout is None else self.layout.unravel(params), *batch)

        return torch.func.grad_and_value(objective, has_aux=self.has_aux)(params)

    def _advance(self, grads, value, params, state, extra, plan):
        loss = value[0] if self.has_aux else value
        if plan is not None:
            extra = {**extra, "plan": plan}
        updates, state = self.running.update(grads, state, params, **{"loss": loss, **extra})
        return apply_updates(params, updates), state

    def _build(self, plan: Hashable) -> Callable:
        """`run(params, state, batch, extra)`: donated it returns the value, else params, state and value."""
        in_a_graph = self.compile and not outside_the_graph(plan)
        name = self._title(plan)

        def graph(f: Callable, name: str) -> Callable:
            return compiled(f, name, self._options, dynamic=None) if in_a_graph else f

        def whole(params, state, batch, extra):
            grads, value = self._gradients(params, batch)
            return (*self._advance(grads, value, params, state, extra, plan), value)

        def donated(params, state, batch, extra):
            *new, value = whole(params, state, batch, extra)
            return write_back((params, state), tuple(new)), value

        if self.compile == AHEAD and in_a_graph:
            return self._ahead(whole, plan, name)
        if self.accumulate > 1 or (TWO_GRAPHS and in_a_graph and self.donate):
            run = self._in_two_graphs(plan, name, graph)
        else:
            run = graph(donated if self.donate else whole, name)
        return self._finished(run, in_a_graph) if self.donate else run

    def _ahead(self, whole: Callable, plan: Hashable, name: str) -> Callable:
        """Ahead of time if that can be had, else by torch.compile, else in eager; each in one sentence."""

        def instead(why: object, compile: bool, kind: str) -> Callable:
            warnings.warn(f"make_step: {name} runs {kind}, since {why}", stacklevel=4)
            self.compile = compile
            self._steps[plan] = self._build(plan)
            return self._steps[plan]

        run = ahead_of_time(whole, name, self.donate)

        def attempt(params, state, batch, extra):
            try:
                return run(params, state, batch, extra)
            except Unavailable as error:
                step = instead(f"ahead of time {error}", True, "through torch.compile")
            try:
                return step(params, state, batch, extra)
            except torch._dynamo.exc.TorchDynamoException as error:
                return instead(str(error).splitlines()[0], False, "in eager")(params, state, batch, extra)

        return attempt

    def _finished(self, run: Callable, in_a_graph: bool) -> Callable:
        """What a donated graph leaves to be done after it."""
        replayed = bool(self._options) and in_a_graph
        run = run if in_a_graph else torch.no_grad()(run)  # what is written in place keeps no history

        def run_donated(params, state, batch, extra):
            late, value = run(params, state, batch, extra)
            write_late(late)
            return tree.clone(value) if replayed else value  # the next replay overwrites what a CUDA graph returns

        return run_donated

    def _in_two_graphs(self, plan: Hashable, name: str, graph: Callable) -> Callable:
        def advance(grads, value, params, state, extra):
            new = self._advance(grads, value, params, state, extra, plan)
            return write_back((params, state), new) if self.donate else new

        def of_a_part(params, batch):  # a compiled function has a code object of its own, and so no self
            return self._gradients(params, batch)

        gradients = accumulated(of_a_part, self.accumulate, self.in_dims, self.has_aux, lambda f: graph(f, f"gradients for {name}"))
        advance = graph(advance, name)

        def run(params, state, batch, extra):
            grads, value = gradients(params, batch)
            new = advance(grads, value, params, state, extra)
            return (new, value) if self.donate else (*new, value)

        return run

    def _title(self, plan: Hashable) -> str:
        links = ", ".join(link.name for link in links_of(self.tx))
        held = f"{self._leaves} leaves" if self.layout is None else f"{len(self.layout.shapes)} leaves held flat"
        return f"a step of {links} on {held}" + ("" if plan is None else f" (plan {plan})")


def _owned(values: Any) -> Any:
    return tree.map_until(Tensor, lambda x: x.detach().clone(memory_format=torch.contiguous_format), values)


def negated(value: Any) -> bool:
    """Whether a value holds views such as the imaginary part of a conjugate, whose sign torch.compile does not see."""
    if isinstance(value, Tensor):
        return value.is_neg()
    return any(isinstance(x, Tensor) and x.is_neg() for x in tree.leaves(value))


def outside_the_graph(plan: Hashable) -> bool:
    """Whether somebody's plan for this step is EAGER."""
    return plan == EAGER or (isinstance(plan, tuple) and any(map(outside_the_graph, plan)))


def make_step(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    compile: bool | str = False,
    flat: bool | str = "auto",
    donate: bool = False,
    has_aux: bool = False,
    accumulate: int = 1,
    in_dims: Any = 0,
    mode: str | None = None,
) -> Step:
    """One training step from a loss function and a transformation.

    Args:
        loss_fn: `(params, *batch) -> loss`, 0-dim, or `(loss, aux)` with `has_aux`.
            With a module: `functional(module)`.
        tx: any transformation; it is told the loss.
        compile: put the whole step into one graph (torch 2.10 or newer; best effort
            from 2.6). Without a compiler on the machine it says so once and runs eagerly.
            "ahead": compiled ahead of time, without the guards of `torch.compile`: a third of
            the time of a step of a few thousand entries, half the time to compile. It takes
            tensors only, a graph is made for every form of the batch, and what `loss_fn`
            reads besides its arguments is fixed at the first call. Where that cannot be had,
            a warning says why, and `torch.compile` does it.
        flat: hold params and state as one vector per dtype between steps: True, False, or
            "auto", which does so where it pays: 16 leaves or more; in eager also at most
            8 MB; and a leafwise link that keeps a tree. Links that look at each leaf run by
            segment; `step.explain()` says which.
        donate: write new params and state into the buffers of the old ones, which are
            gone then. Halves the memory of a step.
        has_aux: `loss_fn` returns a pair.
        accumulate: cut the batch into this many parts, run them one after the other, and
            step with the mean of their gradients and losses; aux is stacked. For a loss
            that is a mean over entries of the batch this is the step on the whole batch.
        in_dims: the axis along which each batch argument is cut, as in `torch.func.vmap`:
            one for all or a tuple with one each; None for what every part gets whole.
        mode: "reduce-overhead" replays CUDA graphs; needs `compile` and `donate`, and
            says that it has no effect where the params are on a CPU.

    Returns:
        A `Step`: `params, state = step.init(params)`, then
        `params, state, loss = step(params, state, *batch, **extra)` as often as you like;
        `step.params(params)` and `step.state(state)` are the leafwise trees.
        Extra arguments (`reward`, `metric`, `epoch`, ...) go to `tx`; a graph takes numbers
        among them as 0-dim tensors, so that they may change without compiling anew.

    Raises:
        TypeError: `loss_fn` is not callable or `tx` not a transformation.
        ValueError: a setting is out of range; at `init`, `flat=True` for sharded leaves; at
            a step, a batch that cannot be cut into `accumulate` equal parts.

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
    check.choice("make_step", "compile", compile, (True, False, AHEAD))
    check.choice("make_step", "flat", flat, (True, False, "auto"))
    check.integer("make_step", "accumulate", accumulate, 1)
    check.choice("make_step", "mode", mode, (None, "reduce-overhead"))
    if compile == AHEAD and accumulate > 1:
        raise ValueError("make_step: compile='ahead' makes one graph of the whole step, and accumulate is two; pass compile=True")
    if mode is not None and not (compile is True and donate):
        raise ValueError("make_step: mode='reduce-overhead' replays a graph on buffers that stay where they are; pass compile=True, donate=True")
    settings = {"compile": compile, "flat": flat, "donate": donate, "has_aux": has_aux}
    return Step(loss_fn, tx, **settings, accumulate=accumulate, in_dims=in_dims, mode=mode)
