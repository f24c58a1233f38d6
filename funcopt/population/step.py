"""The step of a population: gradient, update and sum of every copy at once, under `vmap`.

    tx_i               = factory(**hyper_i)
    loss_i, g_i        = value and gradient of loss_fn at params_i
    updates_i, state_i = tx_i.update(g_i, state_i, params_i, loss=loss_i)
    params_i           = params_i + updates_i                        for every copy i, in one graph

The hyperparameters are a part of the state and enter the graph as tensors: to change
them, replace them; nothing is compiled anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, random, read_signals, tree
from funcopt.core.door.front import behind
from funcopt.core.door.kinds import stranger
from funcopt.core.door.shown import shown
from funcopt.core.random.keys import seeds_drawn, seeds_repeated
from funcopt.core.shared import refuse_shared
from funcopt.core.versions import announced
from funcopt.execute.asked import asked, loss_on
from funcopt.execute.donation import origins
from funcopt.execute.downhill import warn_of_climbing, warn_of_leaves_that_climb
from funcopt.execute.engines.dynamo import tensors_for_numbers
from funcopt.execute.losses import checked
from funcopt.execute.policy import compiles
from funcopt.execute.runner import Form, Run, runs, updated
from funcopt.population.copies import count, over_copies, owned

__all__ = ["PopulationState", "PopulationStep", "make_step"]


class PopulationState(NamedTuple):
    """The state of a population; every leaf has a leading axis of copies."""

    hyper: dict[str, Tensor]  # what the factory is called with, copy by copy
    inner: Any  # of the transformations

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner)


class PopulationStep:
    """One training step of all copies; made by `make_step`."""

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        factory: Callable[..., GradientTransformation] | GradientTransformation,
        *,
        hyper: Mapping[str, Tensor],
        in_dims: int | None | tuple[int | None, ...],
        compile: bool,
        donate: bool,
        has_aux: bool,
    ):
        self.loss_fn, self.factory, self.hyper, self.in_dims = loss_fn, factory, hyper, in_dims
        self.compile, self.donate, self.has_aux = compile, donate, has_aux
        self._copies = count("population.make_step", "hyper", {name: value for name, value in hyper.items() if value.dim()}, None)
        self._steps: dict[int, Run] = {}  # one for each number of arguments of the batch
        self._keys: tuple[Tensor, ...] | None = None  # for each seed that the factory draws for itself a key for every copy

    def __repr__(self) -> str:
        numbers = ", ".join(self.hyper) or "no hyperparameters of their own"
        return f"PopulationStep({numbers}: {'compiled' if self.compile else 'eager'}, {'donated' if self.donate else 'pure'})"

    def init(
        self, params: TensorTree | Callable[[Tensor], TensorTree], keys: Tensor | None = None, state: Any = None
    ) -> tuple[TensorTree, PopulationState]:
        """Params and state of all copies; copies of what is given, which the step owns.

        Args:
            params: a tree whose leaves have a leading axis of copies (`stack` and
                `repeat` make one), or a function from a key to the params of one copy.
            keys: for such a function, int64 [copies, 2].
            state: a `PopulationState` to go on from (of a checkpoint); None: a fresh one.

        Raises:
            ValueError: the leading axes differ; there are keys without a function, or
                the other way round.
        """
        where = "population.make_step"
        if (keys is None) == (callable(params) and not isinstance(params, Tensor)):
            raise ValueError(
                f"{where}: init needs keys exactly if params is a function of one, got {'none' if keys is None else 'a tree and keys'}"
            )
        copies = self._copies
        if keys is not None:
            count(where, "keys", keys, copies)
            params = over_copies(cast("Callable[..., Any]", params), (keys,))
        copies = count(where, "params", params, copies)
        if copies is None:
            raise ValueError(f"{where}: params must hold a tensor with a leading axis of copies, got an empty tree")
        refuse_shared(where, params, trained=True)
        params = owned(params)
        device = tree.device(params)
        if self.compile and not compiles(where, device):
            self.compile = False
        if state is None:
            hyper = owned({name: (value if value.dim() else value.expand(copies)).to(device) for name, value in self.hyper.items()})
            self._keys = self._drawn(hyper, params)

            def first(params: TensorTree, hyper: dict[str, Tensor], keys: tuple[Tensor, ...] | None) -> Any:
                tx = self._make(hyper, keys, self.factory)
                warn_of_climbing(where, tx)
                warn_of_leaves_that_climb(where, tx, params)
                return tx.init(params)

            state = PopulationState(hyper=hyper, inner=over_copies(first, (params, hyper, self._keys or None)))
        count(where, "state", state, copies)
        return params, owned(state)

    def __call__(self, params: TensorTree, state: PopulationState, *batch: Any, **extra: Any) -> tuple[TensorTree, PopulationState, Any]:
        if not isinstance(state, PopulationState):
            raise TypeError(
                f"population.make_step: state must be what init gives, got {shown(state)}; write params, state = step.init(params)"
            )
        run = self._steps.get(len(batch))
        if run is None:
            run = self._steps[len(batch)] = self._build(self._dims(batch))
        if self.compile:
            extra = tensors_for_numbers(extra)
        if self._keys is None:  # nobody called init, or with a state of before
            self._keys = self._drawn(state.hyper, params)
        arguments = (params, state.inner, batch, (state.hyper or None, extra or None, self._keys or None))  # an empty dict does not trace
        try:
            result = run(*arguments)
        except Exception:  # where nothing has failed, nobody looks through the leaves
            count("population.make_step", "params", params, self._copies)
            raise
        if not self.donate:
            params, inner, value = result
            if self.compile:
                inner = _apart(inner, state.hyper)
            return params, PopulationState(hyper=state.hyper, inner=inner), value
        return params, state, result

    def _make(
        self, hyper: Mapping[str, Tensor] | None, keys: tuple[Tensor, ...] | None = None, factory: Any = None
    ) -> GradientTransformation:
        if keys:
            with seeds_repeated(list(keys)):
                return self._make(hyper, None, factory)
        if factory is None:
            factory = self.factory if isinstance(self.factory, GradientTransformation) else behind(self.factory)
        tx = factory if isinstance(factory, GradientTransformation) else factory(**(hyper or {}))
        if not isinstance(tx, GradientTransformation):
            raise TypeError(f"population.make_step: the factory must return a GradientTransformation, {stranger(tx)}")
        return tx

    def _drawn(self, hyper: Mapping[str, Tensor], params: TensorTree) -> tuple[Tensor, ...]:
        """What the factory draws from torch's generator, drawn once and made into a key for every copy: it is called in every step."""
        leaves = [*tree.leaves(params), *hyper.values()]
        if isinstance(self.factory, GradientTransformation) or not leaves:
            return ()
        with seeds_drawn() as seeds:
            self._make({name: value[0] for name, value in hyper.items()}, None, self.factory)
        return tuple(random.split(random.key(seed), len(leaves[0])).to(leaves[0].device) for seed in seeds)

    def _dims(self, batch: tuple[Any, ...]) -> tuple[int | None, ...]:
        if not isinstance(self.in_dims, tuple):
            return (self.in_dims,) * len(batch)
        if len(self.in_dims) != len(batch):
            raise ValueError(
                f"population.make_step: in_dims must say 0 or None for each of {len(batch)} arguments of the batch, got {self.in_dims}"
            )
        return self.in_dims

    def _build(self, dims: tuple[int | None, ...]) -> Run:
        """`run(params, inner, batch, (hyper, extra, keys))`: donated it returns the value, else params, inner and value."""

        def varies(held: tuple[Any, ...], batch: tuple[Any, ...], extra: Any) -> list[bool]:
            """Which leaves have an axis of copies: what is held; of the batch, what in_dims says; of extras, all tensors with an axis."""
            own = [True] * len(tree.leaves(held))
            for part, dim in zip(batch, dims, strict=False):
                own += [dim is not None] * len(tree.leaves(part))
            return own + [isinstance(x, Tensor) and x.dim() > 0 for x in tree.leaves(extra)]

        def of_one(params: TensorTree, batch: tuple[Any, ...]):
            def objective(params: TensorTree):
                value = self.loss_fn(tree.map_plain(announced, params), *batch)
                return checked("population.make_step", value, self.has_aux, leaves)

            leaves = tree.leaves(params)
            return torch.func.grad_and_value(objective, has_aux=self.has_aux)(params)

        def gradients(params: TensorTree, batch: tuple[Any, ...]):
            return over_copies(of_one, (params, batch), varies((params,), batch, None))

        def advance(grads: TensorTree, value: Any, params: TensorTree, inner: Any, beside: tuple[Any, Any, Any], batch: tuple[Any, ...]):
            came_from: list[int | None] = []

            def one(
                grads: TensorTree, value: Any, params: TensorTree, inner: Any, hyper: Any, keys: Any, batch: tuple[Any, ...], extra: Any
            ):
                tx, loss = self._make(hyper, keys), value[0] if self.has_aux else value
                told = asked(tx, loss_on(self.loss_fn, [batch], self.has_aux, None), grads)
                new = updated(tx, grads, inner, params, {"loss": loss, **told, **(extra or {})})
                came_from[:] = origins((params, inner), new)
                return new

            hyper, extra, keys = beside
            held = (grads, value, params, inner, hyper, keys)
            new = over_copies(one, (*held, batch, extra), varies(held, batch, extra))
            return (*new, came_from) if self.donate else new

        form = Form("dynamo" if self.compile else "eager", self.donate, where="population.make_step")
        return runs(gradients, advance, "a step of a population", form, on_batch=True)


def _apart(inner: Any, hyper: dict[str, Tensor]) -> Any:
    """A graph hands on a hyperparameter in the state as the very tensor it was given: the next step would get it twice and recompile."""
    seen = {id(value) for value in hyper.values()}
    leaves = [x.clone() if id(x) in seen else x for x in tree.leaves(inner)]
    return tree.unflatten(inner, leaves)


def make_step(
    loss_fn: Callable[..., Any],
    factory: Callable[..., GradientTransformation] | GradientTransformation,
    *,
    hyper: Mapping[str, Tensor | Sequence[float] | float] | None = None,
    in_dims: int | tuple[int | None, ...] | None = None,
    compile: bool = False,
    donate: bool = False,
    has_aux: bool = False,
) -> PopulationStep:
    """One training step of many copies, each with its own hyperparameters, seed and data.

    Args:
        loss_fn: `(params, *batch) -> loss` of one copy, 0-dim, or `(loss, aux)` with `has_aux`.
        factory: called as `factory(**hyper)` with the 0-dim tensors of one copy, gives
            its transformation; every setting of this library may be such a tensor, and
            `seed=` a key. It is called inside every step and should only build. Where it
            gives no key (`fo.noisy_sgd`, `fo.apollo`), each copy has one of its own, drawn at `init`.
            A transformation in its place is shared by all copies.
        hyper: name -> a tensor with a leading axis of copies, a list with a number for
            each, or one number for all. Seeds are keys, int64 [copies, 2].
        in_dims: which arguments of the batch have a leading axis of copies: 0 (all),
            None (none: all copies see the same data), or a tuple with 0 or None for
            each, as in `torch.func.vmap`.
        compile: put the step of all copies into one graph (torch 2.10 or newer).
        donate: write new params and state into the buffers of the old ones, which are
            gone then.
        has_aux: `loss_fn` returns a pair.

    Returns:
        A `PopulationStep`: `params, state = pop.init(params)`, then
        `params, state, losses = pop(params, state, *batch, **extra)` as often as you
        like. `state` is a `PopulationState`; replace entries of `state.hyper` to change
        hyperparameters. Of extras, tensors with an axis have one entry per copy, numbers
        and 0-dim tensors hold for all.

    Raises:
        TypeError: `loss_fn` or `factory` is not callable, or the factory gives something else.
        ValueError: hyperparameters, params or state differ in the number of copies; a
            compiled step has a loss with an `autograd.Function` in it, which torch
            cannot map there (the message of the first step).

    Example:
        >>> pop = fo.population.make_step(lambda w, x: (w - x) ** 2, fo.sgd, hyper={"lr": [0.25, 0.5]})
        >>> w, state = pop.init(fo.population.repeat(torch.tensor(4.0), 2))
        >>> w, state, losses = pop(w, state, torch.tensor(0.0))
        >>> w, losses
        (tensor([2., 0.]), tensor([16., 16.]))
    """
    where = "population.make_step"
    if not callable(loss_fn):
        raise TypeError(f"{where}: loss_fn must be a function of (params, *batch), got {loss_fn!r}")
    if not isinstance(factory, GradientTransformation) and not callable(factory):
        raise TypeError(f"{where}: factory must be a function that makes a transformation, or a transformation, {stranger(factory)}")
    if isinstance(factory, GradientTransformation) and hyper:
        raise TypeError(f"{where}: hyper is for a factory, and {factory.name} is made already; pass the function that makes it")
    dims = in_dims if isinstance(in_dims, tuple) else (in_dims,)
    if any(dim not in (0, None) or isinstance(dim, bool) for dim in dims):
        raise ValueError(f"{where}: in_dims must be 0, None or a tuple of these, got {in_dims!r}")
    values = {name: _tensor(value) for name, value in (hyper or {}).items()}
    return PopulationStep(loss_fn, factory, hyper=values, in_dims=in_dims, compile=compile, donate=donate, has_aux=has_aux)


def _tensor(value: Tensor | Sequence[float] | float) -> Tensor:
    """As a tensor; floats in float64."""
    if isinstance(value, Tensor):
        return value.detach()
    try:
        found = torch.tensor(value, device="cpu")
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(f"population.make_step: hyper must map names to tensors, numbers or lists of them, got {shown(value)}") from None
    return torch.tensor(value, dtype=torch.float64, device="cpu") if found.is_floating_point() else found
