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

from funcopt.core import tree
from funcopt.core.autocast import context
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.shared import refuse_shared
from funcopt.core.traits import outside_the_graph
from funcopt.core.unfit import as_made, dense, explain_step, outlines
from funcopt.core.versions import announced, compiling, mark_static, trouble_of_the_compiler
from funcopt.execute.asked import asked, asks, loss_on
from funcopt.execute.downhill import warn_of_climbing, warn_of_leaves_that_climb
from funcopt.execute.engines.ahead import Unavailable
from funcopt.execute.engines.dynamo import CUDA_GRAPHS, negated, tensors_for_numbers
from funcopt.execute.layouts.adapt import BY_SEGMENT, BY_SHAPE, ON_VECTORS, forms, keeps_vectors, laid_out, links_of, segmented
from funcopt.execute.layouts.layout import Layout
from funcopt.execute.lent import CHECKED, Lent, refuse_spent, spend
from funcopt.execute.losses import checked
from funcopt.execute.microbatches import parts
from funcopt.execute.planned import ahead_of_the_first, without_plan
from funcopt.execute.policy import against_segments, compiles, flat_or_not, sizes
from funcopt.execute.probe import vouch, vouch_search
from funcopt.execute.runner import Form, InParts, Run, kept, reads, runs, updated
from funcopt.execute.settings import AHEAD, Compile, Donate, Flat, Mode, check_settings

__all__ = ["Step", "make_step"]

FORMS = {False: "eager", True: "compiled", AHEAD: "ahead of time"}


class Step:
    """One training step; made by `make_step`. Its form is chosen in `init`, shown by `repr` and told by `explain`."""

    def __init__(
        self,
        loss_fn: Any,
        tx: GradientTransformation,
        *,
        compile: Any,
        flat: Any,
        donate: Any,
        has_aux: Any,
        accumulate: Any,
        in_dims: Any,
        mode: Any,
    ):
        self.loss_fn, self.tx, self._given_tx = loss_fn, tx, tx
        self.compile: Compile = compile  # settings as `make_step` has checked them
        self.flat: Flat = flat
        self.donate, self.has_aux = bool(donate), has_aux
        self.checked, self.lent = donate == CHECKED, Lent()
        self.accumulate, self.in_dims, self.mode = accumulate, in_dims, mode
        self.layout: Layout | None = None
        self.forms: list[tuple[str, str]] = []  # how each link runs on it
        self._plan, self._asks = tx.plan, bool(asks(tx))
        self.running = tx  # on what the step holds: `tx` itself, or by segment
        self.why = "not chosen yet: call init"
        self._options: dict[str, Any] = {}
        self._device, self._leaves = torch.device("cpu"), 0
        self._steps: dict[Hashable, Callable[..., Any]] = {}
        self._reads: dict[Hashable, Callable[..., Any]] = {}  # the gradients of a chain that plans, which its plans share
        self.made: Any = None  # the make of params and state

    def __deepcopy__(self, memo: dict[str, Any]) -> "Step":
        """A step of the same form, which makes graphs of its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _steps={}, _reads={}, lent=Lent())
        return other

    def __reduce__(self):
        remedy = "save params and state with funcopt.checkpoint and make it again"
        raise TypeError(f"make_step: a step is made of functions and cannot be pickled; {remedy}")

    # --- the form ---

    def init(self, params: TensorTree, state: Any = None) -> tuple[TensorTree, Any]:
        """Params and state in the form on which the step runs; copies, which the step owns.

        Args:
            params: a tree of tensors; `nn.Parameter`s are detached. None may share memory with another.
            state: a leafwise state to go on from (of a checkpoint); None: `tx.init(params)`.
        """
        self._device, self._leaves = tree.device(params), len(tree.leaves(params))
        if self.compile and not compiles("make_step", self._device):
            self.compile = False
        dense("make_step", "params", tree.leaves(params), lambda: tree.paths(params))
        refuse_shared("make_step", params, trained=True)
        params = _owned(params)
        warn_of_leaves_that_climb("make_step", self.tx, params)
        self._steps.clear()
        self._reads.clear()
        held, fresh = self._chosen(self._given_tx, params)
        if self.compile and (one := without_plan(self.tx, held, fresh)) is not None:
            held, fresh = self._chosen(one, params)
        self._plan = self.tx.plan
        if state is not None:
            fresh = state if self.layout is None else self.layout.ravel_state(state, fresh)
        # No two leaves may share memory, or be strided views of one number, where results are written back.
        fresh = _owned(fresh)
        self._choose_mode((held, fresh))
        self.made = outlines((held, fresh))
        return held, fresh

    def _chosen(self, tx: GradientTransformation, params: TensorTree) -> tuple[TensorTree, Any]:
        """Chooses how params are held; returns them so, with a fresh state."""
        self.tx, self.layout, self.running = tx, None, tx
        vouch_search(self.tx, params)
        flat, self.why = self._flat_or_not(params)
        if flat:
            vouch(self.tx, params)
            self.layout = laid_out(self.tx, params)
            self.forms = list(forms(self.tx, self.layout, params))
            self.running = segmented(self.tx, self.layout, params)
            held = self.layout.ravel(params)
            state = self.running.init(held)
            against = None if self.flat is True or self.tx.flattenable else self._against(params, state)
            if against is None:
                return held, state
            self.layout, self.running, self.why = None, self.tx, against
        return params, self.tx.init(params)

    def _against(self, params: TensorTree, state: Any) -> str | None:
        """Why a chain that is not all on vectors had better stay leaf by leaf."""
        if not keeps_vectors(state):
            return f"no link keeps anything on vectors ({', '.join(dict.fromkeys(name for name, _ in self.forms))})"
        return against_segments(sizes(tree.leaves(params)), [name for name, form in self.forms if form != ON_VECTORS], self._device)

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
        return flat_or_not(sizes(leaves), bool(self.compile))

    def _choose_mode(self, held: Any) -> None:
        self._options = {}
        if self.mode is None:
            return
        if not self.compile or self._device.type != "cuda":
            why = "replays CUDA graphs and has no effect on an eager step or on a CPU"
            warnings.warn(f"make_step: mode='reduce-overhead' {why}", stacklevel=3)
            return
        self._options = CUDA_GRAPHS
        for leaf in tree.leaves(held):  # buffers that never move: a graph may be recorded on them
            mark_static(leaf)

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
        as_made(self.made, params=params)
        return self._given(params if self.layout is None else self.layout.unravel(params))

    def state(self, state: Any) -> Any:
        """The leafwise state (views), for checkpoints."""
        as_made(self.made, state=state)
        return self._given(state if self.layout is None else self.layout.unravel_state(state))

    def _given(self, views: Any) -> Any:
        return self.lent.out(views, fresh=self.layout is not None) if self.donate else views

    # --- the step ---

    def __call__(self, params: TensorTree, state: Any, *batch: Any, **extra: Any) -> tuple[TensorTree, Any, Any]:
        if self.lent.views:
            self.lent.written()
        given = (params, state)
        if self.checked and not compiling():
            refuse_spent(given)
            params, state = _owned(given)
        plan = self._plan(state, **extra) if self._plan else None
        run, before_the_first = self._steps.get(plan), False
        if run is None:
            run = self._build(plan)
            if not compiling():  # a graph that somebody else records keeps no functions
                before_the_first, self._steps[plan] = not self._steps, run
        if extra and self.layout is not None:
            extra = {name: value if name == "signals" else self.layout.raveled(value) for name, value in extra.items()}
        if self.compile is True and any(map(negated, batch)):
            batch = tree.map_plain(lambda x: x.resolve_neg() if isinstance(x, Tensor) else x, batch)
        if extra and self.compile:
            extra = tensors_for_numbers(extra, self._device if self._options else "cpu")
        try:
            if before_the_first and self.compile is True and isinstance(run, InParts):
                self._steps |= ahead_of_the_first(self.tx, state, plan, self._build, params, batch, extra, _owned)
            result = run(params, state, batch, extra)
        except Exception as error:
            explain_step(self, params, state, batch, error)
            raise
        if self.checked and not compiling():
            spend(given)
        return (params, state, result) if self.donate else result

    def _gradients(self, params: TensorTree, batch: tuple[Any, ...]) -> Any:
        def objective(params: TensorTree):
            params = tree.map_plain(announced, params)
            value = self.loss_fn(params if self.layout is None else self.layout.unravel(params), *batch)
            return checked("make_step", value, self.has_aux, leaves)

        leaves = tree.leaves(params)
        return torch.func.grad_and_value(objective, has_aux=self.has_aux)(params)

    def _loss(self, batch: tuple[Any, ...]) -> Callable[[TensorTree], Tensor]:
        """The loss on a batch as a function of params, held flat or leaf by leaf; the mean over its parts where it is cut into some."""
        return loss_on(
            self.loss_fn, [batch] if self.accumulate == 1 else parts(batch, self.accumulate, self.in_dims), self.has_aux, self.layout
        )

    def _build(self, plan: Hashable) -> Run:
        """`run(params, state, batch, extra)`: donated it returns the value, else params, state and value."""
        name, form = self._title(plan), self._form(plan)

        def gradients(params: TensorTree, batch: tuple[Any, ...]):  # a compiled function has a code object of its own, and so no self
            return self._gradients(params, batch)

        def advance(
            grads: TensorTree, value: Any, params: TensorTree, state: Any, extra: dict[str, Any], batch: tuple[Any, ...] | None = None
        ):
            planned = {} if plan is None else {"plan": plan}
            told = {} if batch is None else asked(self.tx, self._loss(batch), grads)
            loss = value[0] if self.has_aux else value
            return updated(self.running, grads, state, params, {"loss": loss, **told, **extra, **planned})

        def run() -> Run:
            if self.compile and self._plan is not None:
                return kept(InParts(self._reading(gradients, plan), advance, name, form, self._asks), form)
            return runs(
                gradients,
                advance,
                name,
                form,
                accumulate=self.accumulate,
                in_dims=self.in_dims,
                has_aux=self.has_aux,
                on_batch=self._asks,
            )

        return self._ahead(run, plan, name) if form.engine == "ahead" else run()

    def _form(self, plan: Hashable) -> Form:
        engine = "eager" if not self.compile or outside_the_graph(plan) else "ahead" if self.compile == AHEAD else "dynamo"
        return Form(engine, self.donate, self._options)

    def _reading(self, gradients: Callable[..., Any], plan: Hashable) -> Callable[..., Any]:
        """The gradients in a graph that all plans share; one for each kind of autocast where no compiler would ask for it."""
        form = self._form(None if self.compile is True else plan)  # of a plan outside the graph the update alone is
        key = (form.engine, context() if form.engine == "ahead" else None)
        if key not in self._reads:
            parts: dict[str, Any] = {"accumulate": self.accumulate, "in_dims": self.in_dims, "has_aux": self.has_aux}
            self._reads[key] = reads(gradients, f"gradients for {self._title(None)}", form, **parts)
        return self._reads[key]

    def _ahead(self, ahead: Callable[[], Run], plan: Hashable, name: str) -> Run:
        """Ahead of time if that can be had, else by torch.compile, else in eager; each in one sentence."""

        def instead(why: object, compile: bool, kind: str) -> Run:
            warnings.warn(f"make_step: {name} runs {kind}, since {why}", stacklevel=4)
            self.compile = compile
            self._steps[plan] = self._build(plan)
            return self._steps[plan]

        ways: dict[Hashable, Run] = {}  # by what is under autocast, for which the loss has graphs of its own

        def attempt(params: TensorTree, state: Any, batch: tuple[Any, ...], extra: dict[str, Any]):
            half = context()
            if half not in ways:
                ways[half] = ahead()
            try:
                return ways[half](params, state, batch, extra)
            except Unavailable as error:
                step = instead(f"ahead of time {error}", True, "through torch.compile")
            try:
                return step(params, state, batch, extra)
            except trouble_of_the_compiler() as error:
                return instead(str(error).splitlines()[0], False, "in eager")(params, state, batch, extra)

        return attempt

    def _title(self, plan: Hashable) -> str:
        links = ", ".join(link.name for link in links_of(self.tx))
        held = f"{self._leaves} leaves" if self.layout is None else f"{len(self.layout.shapes)} leaves held flat"
        return f"a step of {links} on {held}" + ("" if plan is None else f" (plan {plan})")


def _owned(values: Any) -> Any:
    return tree.map_until(Tensor, lambda x: x.detach().clone(memory_format=torch.contiguous_format), values)


def make_step(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    compile: Compile = False,
    flat: Flat = "auto",
    donate: Donate = False,
    has_aux: bool = False,
    accumulate: int = 1,
    in_dims: Any = 0,
    mode: Mode | None = None,
) -> Step:
    """One training step from a loss function and a transformation.

    Args:
        loss_fn: `(params, *batch) -> loss`, 0-dim, or `(loss, aux)` with `has_aux`.
            With a module: `functional(module)`.
        tx: any transformation; it is told the loss, and, if it needs them, the loss on this batch as a function
            of the params (`value_fn`, `obj_fn`) or its gradient (`grad_fn`).
        compile: put the whole step into one graph (torch 2.10 or newer; best effort
            from 2.6). Without a compiler on the machine it says so once and runs eagerly.
            "ahead": compiled ahead of time, without the guards of `torch.compile`: a third of
            the time of a step of a few thousand entries, half the time to compile. It takes
            tensors only, a graph is made for every form of the batch, and what `loss_fn`
            reads besides its arguments is fixed at the first call. Where that cannot be had,
            a warning says why, and `torch.compile` does it.
        flat: hold params and state as one vector per dtype between steps: True, False, or
            "auto", which does so where it pays: 16 leaves or more; in eager also at most
            8 MB; and a flattenable link that keeps a tree. Links that look at each leaf run by
            segment; `step.explain()` says which.
        donate: write new params and state into the buffers of the old ones, which are
            gone then. Halves the memory of a step. "checked", while looking for a mistake: the step works on copies, the
            old ones become NaN and are refused where they are given again. Views of `step.params` and `step.state`
            that are held at the next step are warned of, once.
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
        ValueError: a setting is out of range; at `init`, `flat=True` for sharded leaves, or a
            link of yours that declares to be `flattenable` and is not; at a step, a batch that cannot be cut into `accumulate` equal parts.

    Example:
        >>> step = fo.make_step(lambda w, x: ((w - x) ** 2).sum(), fo.sgd(0.25))
        >>> w, state = step.init(torch.tensor([4.0]))
        >>> w, state, loss = step(w, state, torch.tensor([0.0]))
        >>> w, loss
        (tensor([2.]), tensor(16.))
    """
    check_settings(loss_fn, compile, flat, donate, accumulate, in_dims, mode)
    warn_of_climbing("make_step", tx)
    return Step(loss_fn, tx, compile=compile, flat=flat, donate=donate, has_aux=has_aux, accumulate=accumulate, in_dims=in_dims, mode=mode)
