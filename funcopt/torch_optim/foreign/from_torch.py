"""from_torch: an optimizer class of torch.optim, or of anyone who builds on it, as a transformation.

    instance <- clones of params and gradients, the memory in the state
    instance.step()
    updates = new params - params, state = the memory that the instance has now

Pure from outside: one instance per transformation over parameters of its own, filled and emptied
at every call, one call at a time; global random numbers are put back as they were. The
difference is handed on in a wider dtype, in which `apply_updates` adds before it rounds, so
that params become what the class makes of them, bit for bit, unless an entry falls to less
than 2^-29 of itself in one step (half types: 2^-13). float64 has no wider dtype: there that
holds where an entry is at most halved or doubled, else to the last digit of what it was.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, random, signals as words, tree
from funcopt.core.shared import refuse_shared
from funcopt.core.traits import EAGER
from funcopt.core.versions import compiling, default_rate, transforming
from funcopt.torch_optim.foreign.instance import LOCK, Instance, Setting, Told
from funcopt.torch_optim.foreign.memory import Boxed, grown

__all__ = ["FromTorch", "FromTorchState", "from_torch"]

PLACES = ("param", "groups", "extra", "attrs")  # where an optimizer keeps what it keeps


class FromTorchState(NamedTuple):
    count: Tensor  # steps taken; on the CPU, as all numbers here
    key: Tensor  # of the random numbers that the optimizer draws; int64 [2]
    param: dict[str, dict[str, Any]]  # `state[p]`, by the path of the parameter
    groups: list[dict[str, Any]]  # `param_groups` without their params
    extra: dict[str, Any]  # entries of `state` that belong to no parameter
    attrs: dict[str, Any]  # attributes of the instance

    def signals(self) -> dict[str, Tensor]:
        lr = self.groups[0].get("lr") if self.groups else None
        lr = lr.tensor if isinstance(lr, Boxed) else lr
        return {"lr": lr} if isinstance(lr, Tensor) and lr.dim() == 0 else {}

    def grown(self, saved: Mapping[str, Tensor]) -> "FromTorchState":
        """The same with lists as long as they were when this was saved, for `fo.checkpoint`."""
        return FromTorchState(self.count, self.key, *(grown(getattr(self, name), saved, f"{name}.") for name in PLACES))


class FromTorch(GradientTransformation):
    """What `from_torch` makes: a transformation whose `init` also takes `warm`."""

    _lazy: Callable

    @property
    def init(self) -> Callable[..., FromTorchState]:
        return lambda params, warm=True: (self[0] if warm else self._lazy)(params)


def from_torch(optimizer_class: Callable[..., torch.optim.Optimizer], *, key: int | Tensor | None = 0, **settings: Any) -> FromTorch:
    """An optimizer class as a transformation, which gives the updates that the class would make.

    Args:
        optimizer_class: a class of torch.optim, pytorch_optimizer or whoever builds on them, or a
            function from a list of parameters (and `settings`) to an instance of one: for
            several groups, or optimizers around optimizers. The parameters come in the order of
            the params, dicts in the order of their keys as they were put in.
        key: of the random numbers that the optimizer draws: an int, a 0-dim integer tensor
            or a key; None draws one from torch's generator.
        settings: what the class takes. Numbers may be 0-dim tensors, which are read at every
            call, and may then change; `lr` may be a schedule, or None: the `base_lr` it hears.

    Returns:
        A transformation that runs eagerly, one call at a time. `init(params)` takes one step on
        clones to learn what the state will hold; `init(params, warm=False)` leaves the state
        empty until the first update. Updates have twice the width of params (float64 have their
        own). Some need more at `update`: `value_fn=`, a function from params to the loss, for those
        that take a closure (LBFGS, SAM), whose gradients then replace those they are given;
        `hessian=`, the diagonal as a tree like params, for AdaHessian and SophiaH.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        hears `base_lr` (only with `lr=None`); says `lr`, that of the first group.

    Cannot:
        vmap, compile, hypergradient: optimizers of torch write in place and read numbers on
            the host. Under `make_step(compile=True)` its steps run outside the graph.

    Raises:
        TypeError: `optimizer_class` is an instance, or wants the module in place of params, or
            keeps what no tensor can hold.
        ValueError: at `update`, `value_fn` or `hessian` is missing; or it runs inside vmap,
            grad or a traced graph, where nothing may be written in place.

    Example:
        >>> tx = fo.torch_optim.from_torch(torch.optim.SGD, lr=0.5, momentum=0.9)
        >>> params = torch.tensor([1.0, 2.0])
        >>> state = tx.init(params)
        >>> updates, state = tx.update(torch.tensor([2.0, 0.0]), state, params)
        >>> fo.apply_updates(params, updates), fo.read_signals(state)
        (tensor([0., 2.]), {'lr': tensor(0.5000, dtype=torch.float64)})
    """
    title = _checked_class(optimizer_class)
    key = random.as_key(key, title)
    hears_rate = "lr" in settings and settings["lr"] is None
    settings = {name: value for name, value in settings.items() if name != "lr" or not hears_rate}
    live = {name: value for name, value in settings.items() if _is_live(name, value)}
    instances: dict[Any, Instance] = {}  # by the form of the params; one at a time

    def built(params: TensorTree, key: Tensor) -> Instance:
        order = _order(params)
        count = torch.zeros((), dtype=torch.int64, device="cpu")
        first = {name: _number(value, count) for name, value in live.items()}
        make = partial(optimizer_class, **{**default_rate(optimizer_class), **settings, **first})
        instance = Instance(title, make, tree.leaves(params), tree.paths(params), order, key)
        instances.clear()
        instances[_form(params)] = instance
        return instance

    def numbers(state: FromTorchState, signals: Any) -> dict[str, Any]:
        heard = (
            {"lr": words.need(signals, title, "base_lr", "pass lr=, or hand it over: update(..., signals={'base_lr': lr})")}
            if hears_rate
            else {}
        )
        return {name: _number(value, state.count) for name, value in {**live, **heard}.items()}

    def as_state(kept: dict[str, Any], count: Tensor, key: Tensor) -> FromTorchState:
        return FromTorchState(count=count, key=key.clone(), **kept)

    def init(params: TensorTree, warm: bool = True) -> FromTorchState:
        _refuse_transforms(title)
        if not tree.leaves(params):
            return as_state(
                {name: [] if name == "groups" else {} for name in PLACES}, torch.zeros((), dtype=torch.int64, device="cpu"), key
            )
        refuse_shared(title, params, trained=True)
        with LOCK:
            instance = built(params, key)
            kept = instance.warm() if warm else instance.first()
        return as_state(kept, torch.zeros((), dtype=torch.int64, device="cpu"), key)

    def update(updates: TensorTree, state: FromTorchState, params=None, *, signals=None, value_fn=None, hessian=None, **extra):
        _refuse_transforms(title)
        check.params(title, params)
        count = int(state.count)
        old = tree.leaves(params)
        if not old:  # a class of torch refuses an empty list
            return updates, state._replace(count=state.count + 1)
        with LOCK:
            instance = instances.get(_form(params)) or built(params, state.key)
            setting = Setting(
                memory={name: getattr(state, name) for name in PLACES},
                numbers=numbers(state, signals),
                key=random.fold_in(state.key, count),
                started=count > 0,
            )
            if instance.takes_hessian and hessian is None:
                raise check.Missing(f"{title}: needs the diagonal of the Hessian", "hessian")
            if instance.takes_closure and value_fn is None:
                raise _no_closure(title)
            told = Told(_closure(params, value_fn), None if hessian is None else tree.leaves(hessian))
            try:
                new, kept = instance.step(old, tree.leaves(updates), setting, told)
            except Exception as error:
                if type(error).__name__ == "NoClosureError" and value_fn is None:
                    raise _no_closure(title) from error
                raise
        updates = tree.unflatten(params, [_difference(x, y) for x, y in zip(old, new, strict=True)])
        return updates, as_state(kept, state.count + 1, state.key)

    hears = {"base_lr": "needed"} if hears_rate else ()
    tx = FromTorch(init, update, name=title, hears=hears, leaves="complex", turns=True, plan=lambda state, **extra: EAGER)
    tx._lazy = GradientTransformation(partial(init, warm=False), update, name=title, leaves="complex")[0]
    return tx


# --- what a class is and needs ----------------------------------------------------------------------------------------------------


def _checked_class(optimizer_class: Any) -> str:
    if isinstance(optimizer_class, torch.optim.Optimizer):
        name = type(optimizer_class).__name__
        raise TypeError(
            f"from_torch: optimizer_class must be a class or a function of the params, got an instance; call from_torch({name}, lr=...)"
        )
    if not callable(optimizer_class):
        raise TypeError(
            f"from_torch: optimizer_class must be a class such as torch.optim.AdamW, or a function of the params, got {optimizer_class!r}"
        )
    target = optimizer_class
    while isinstance(target, partial):
        target = target.func
    title = f"from_torch({getattr(target, '__name__', type(target).__name__)})"
    if isinstance(target, type):
        taken = list(inspect.signature(target).parameters)
        if taken and taken[0] in ("model", "module"):
            raise TypeError(f"{title}: takes the module itself and hooks into its backward pass, which no function of gradients can do")
    return title


def _closure(params: TensorTree, value_fn: Callable | None) -> Callable[[Sequence[Tensor]], Callable[[], Tensor]] | None:
    """Of parameters: a closure that evaluates `value_fn` where they are and gives them its gradient."""
    if value_fn is None:
        return None

    def at(parameters: Sequence[Tensor]) -> Callable[[], Tensor]:
        def evaluated() -> Tensor:
            with torch.enable_grad():
                here = [parameter.detach().requires_grad_() for parameter in parameters]
                value = value_fn(tree.unflatten(params, here))
                gradients = torch.autograd.grad(value, here, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
            return value.detach()

        return evaluated

    return at


def _no_closure(title: str) -> ValueError:
    return check.Missing(f"{title}: evaluates the loss anew within a step", "value_fn", " with a function from params to the loss")


def _refuse_transforms(title: str) -> None:
    if compiling() or transforming():
        raise ValueError(
            f"{title}: runs an optimizer that writes in place and reads numbers on the host, which vmap, "
            "grad and traced graphs do not allow; "
            "run it in a plain loop, or take the transformation of funcopt that does the same"
        )


# --- numbers, orders, differences -------------------------------------------------------------------------------------------------


def _is_live(name: str, value: Any) -> bool:
    """Whether the caller may change it from call to call."""
    if isinstance(value, (tuple, list)):
        return any(isinstance(x, Tensor) and x.dim() == 0 for x in value)
    return (isinstance(value, Tensor) and value.dim() == 0) or (name == "lr" and callable(value) and not isinstance(value, Tensor))


def _number(value: Any, count: Tensor) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_number(x, count) for x in value])
    if not isinstance(value, Tensor) and callable(value):
        value = value(count)
    return value.detach().item() if isinstance(value, Tensor) else value


def _form(params: TensorTree) -> Any:
    return tree.structure(params), tuple((type(x), x.shape, x.dtype, x.device) for x in tree.leaves(params)), tuple(_order(params))


def _order(params: TensorTree) -> list[int]:
    """The places of the leaves, dicts gone through as they were filled."""
    places = tree.unflatten(params, list(range(len(tree.leaves(params)))))
    return list(_walk(params, places))


def _walk(params: TensorTree, places: Any) -> Iterator[int]:
    if isinstance(places, int):
        yield places
    elif type(places) is dict:
        for key in params:
            yield from _walk(params[key], places[key])
    elif isinstance(places, (list, tuple)):
        for part, inner in zip(params, places, strict=True):
            yield from _walk(part, inner)
    elif places is not None:
        yield from tree.leaves(places)


WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64, torch.complex64: torch.complex128}


def _difference(old: Tensor, new: Tensor) -> Tensor:
    """`new - old` so that `old + difference`, rounded, is `new`."""
    dtype = WIDER.get(old.dtype, old.dtype)
    return new.to(dtype) - old.detach()
