"""One optimizer of torch over parameters of its own, which takes a step with a memory that it is given.

It is made once per transformation and form of params, and between two calls it holds
neither parameters nor memory. All calls of all instances go one after the other, since
the random numbers that an optimizer draws come from generators of the whole process.
"""

import inspect
import random as python_random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import untraced
from funcopt.torch_optim.foreign.memory import Boxed, Kept

__all__ = ["LOCK", "Instance", "Setting"]

LOCK = threading.RLock()


class Setting(NamedTuple):
    """What one step starts from."""

    memory: dict[str, Any]  # as `Kept.taken_out` gave it
    numbers: dict[str, Any]  # hyperparameters that replace those of the memory
    key: Tensor  # of the random numbers of this step; int64 [2]
    started: bool  # or the memory is that of a new instance


class Told(NamedTuple):
    """What the class may ask for beside gradients."""

    # from the parameters to a function that evaluates the loss where they are
    closure: Callable[[Sequence[Tensor]], Callable[[], Tensor]] | None
    hessian: Sequence[Tensor] | None


class Instance:
    """An optimizer and its parameters.

    Args:
        title: who speaks in errors.
        make: from a list of parameters to an optimizer.
        leaves: the params.
        names: their paths.
        order: in which they are given to `make`.
        key: of the random numbers that `make` draws.
    """

    def __init__(self, title: str, make: Callable, leaves: Sequence[Tensor], names: Sequence[str], order: Sequence[int], key: Tensor):
        if len(set(names)) < len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise ValueError(f"{title}: two params have the path '{twice}'; rename a key that contains a dot")
        self.title = title
        self.devices = sorted({leaf.device.index or 0 for leaf in leaves if leaf.is_cuda})
        self.parameters = [torch.nn.Parameter(leaf.detach().clone()) for leaf in leaves]
        with own_randomness(key, self.devices):
            self.optimizer = make([self.parameters[i] for i in order])
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise TypeError(f"{title}: optimizer_class must make a torch.optim.Optimizer, got {self.optimizer!r}")
        self.order = [self._place(p) for group in self.optimizer.param_groups for p in group["params"]]
        self.kept = Kept(self.optimizer, dict(zip(self.parameters, names, strict=True)))
        taken = inspect.signature(type(self.optimizer).step).parameters
        self.takes_closure = "closure" in taken and taken["closure"].default is inspect.Parameter.empty
        self.takes_hessian = "hessian" in taken
        # A tensor class of its own keeps its numbers in attributes, which `.data =` leaves behind: its parameters keep their memory.
        self.plain = [type(leaf) in (Tensor, torch.nn.Parameter) for leaf in leaves]
        self.forms = [(torch.empty_like(leaf, device="meta"), leaf.device) for leaf in leaves]
        self.new = self.kept.taken_out()  # the memory before the first step
        self._let_go()

    def _place(self, parameter: Tensor) -> int:
        return next(i for i, other in enumerate(self.parameters) if other is parameter)

    def first(self) -> dict[str, Any]:
        """The memory before the first step."""
        return tree.clone(self.new)

    def warm(self) -> dict[str, Any]:
        """The memory before the first step in the form that it has after it, with zeros where there is nothing yet."""
        try:
            return _filled(self._rehearsed(), self.new)
        except Exception:  # what is wrong is said at the first update
            return self.first()

    @untraced
    def step(
        self, params: Sequence[Tensor], gradients: Sequence[Tensor], setting: Setting, told: Told
    ) -> tuple[list[Tensor], dict[str, Any]]:
        """New params and the memory after one step; nothing is written into the arguments."""
        memory = setting.memory if setting.started else _restricted(setting.memory, self.new)
        try:
            try:
                self._load(params, gradients, memory, setting.numbers)
            except LookupError:  # objects of a memory that another instance had
                if self.kept.complete:
                    raise TypeError(
                        f"{self.title}: the state holds objects that this optimizer has not made, and one step does not show them"
                    ) from None
                self._rehearsed()
                self._load(params, gradients, memory, setting.numbers)
            with own_randomness(setting.key, self.devices):
                try:
                    self._advance(told)
                except Exception as error:
                    if type(error).__name__ != "NoClosureError" or told.closure is None:
                        raise
                    self.takes_closure = True
                    self._load(params, gradients, memory, setting.numbers)
                    self._advance(told)
            self.kept.complete = True
            new = [p.detach() if plain else p.detach().clone() for p, plain in zip(self.parameters, self.plain, strict=True)]
            return new, self.kept.taken_out()
        finally:
            self._let_go()

    def _load(self, params: Sequence[Tensor], gradients: Sequence[Tensor], memory: dict[str, Any], numbers: dict[str, Any]) -> None:
        for parameter, plain, value, gradient in zip(self.parameters, self.plain, params, gradients, strict=True):
            if plain:
                parameter.data = value.detach().clone()
            else:
                parameter.detach().copy_(value.detach())
            parameter.grad = gradient.detach().to(value.dtype, copy=True)
        self.kept.put_in(memory)
        for name, number in numbers.items():
            for group in self.optimizer.param_groups:
                if name in group:
                    group[name] = number
            if name in vars(self.optimizer):
                setattr(self.optimizer, name, number)

    def _advance(self, told: Told) -> None:
        if self.takes_hessian:
            assert told.hessian is not None
            self.optimizer.step(hessian=[told.hessian[i] for i in self.order])
        elif self.takes_closure:
            assert told.closure is not None
            self.optimizer.step(told.closure(self.parameters))
        else:
            self.optimizer.step()

    def _rehearsed(self) -> dict[str, Any]:
        """The memory after one step on a bowl, which shows what the optimizer keeps."""
        empty = [torch.empty_like(leaf, device=device) for leaf, device in self.forms]
        params = [torch.arange(1.0, 1.0 + x.numel(), device=x.device).sin().reshape(x.shape).to(x.dtype) for x in empty]
        gradients = [0.5 * p for p in params]

        def closure(parameters: Sequence[Tensor]) -> Callable[[], Tensor]:
            def evaluated() -> Tensor:
                for parameter in parameters:
                    parameter.grad = 0.5 * parameter.detach()
                return torch.stack([parameter.detach().abs().square().sum().float() / 4 for parameter in parameters]).sum()

            return evaluated

        self.kept.complete = True
        return self.step(
            params,
            gradients,
            Setting(self.new, {}, torch.zeros(2, dtype=torch.int64, device="cpu"), started=True),
            Told(closure, gradients),
        )[1]

    def _let_go(self) -> None:
        for parameter, plain in zip(self.parameters, self.plain, strict=True):
            parameter.grad = None
            if plain:
                parameter.data = parameter.data.new_empty(0)


def _filled(warm: Any, new: Any) -> Any:
    """`new` in the form of `warm`: zeros where it has nothing that fits."""
    if isinstance(warm, Boxed):
        return Boxed(_filled(warm.tensor, new.tensor if isinstance(new, Boxed) else None))
    if isinstance(warm, dict):
        return {key: _filled(part, new.get(key) if isinstance(new, dict) else None) for key, part in warm.items()}
    if isinstance(warm, (list, tuple)):
        parts = new if isinstance(new, (list, tuple)) and len(new) == len(warm) else [None] * len(warm)
        return _like(warm, [_filled(part, other) for part, other in zip(warm, parts, strict=True)])
    if warm is None:
        return None
    return new.clone() if _fits(warm, new) else torch.zeros_like(warm)


def _restricted(memory: Any, new: Any) -> Any:
    """What `memory` holds of a new instance's memory; what it has no place for is that of `new`."""
    if isinstance(new, Boxed):
        return memory if isinstance(memory, Boxed) and _fits(memory.tensor, new.tensor) else new
    if isinstance(new, dict):
        return {key: _restricted(memory.get(key) if isinstance(memory, dict) else None, part) for key, part in new.items()}
    if isinstance(new, (list, tuple)):
        parts = memory if isinstance(memory, (list, tuple)) and len(memory) == len(new) else [None] * len(new)
        return _like(new, [_restricted(part, other) for part, other in zip(parts, new, strict=True)])
    return memory if _fits(memory, new) else new


def _like(parts: Any, values: list) -> Any:
    return type(parts)(*values) if hasattr(parts, "_fields") else type(parts)(values)


def _fits(left: Any, right: Any) -> bool:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return False
    return left.shape == right.shape and left.dtype == right.dtype


@contextmanager
def own_randomness(key: Tensor, devices: Sequence[int]) -> Iterator[None]:
    """Torch, numpy and Python draw numbers that follow from the key, and afterwards go on where they were."""
    first, second = (word % 2**63 for word in key.tolist())
    of_python, of_numpy, of_torch = python_random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = [(torch.cuda.default_generators[i], torch.cuda.get_rng_state(i)) for i in devices]
    try:
        python_random.seed(first)
        np.random.seed((first ^ second) % 2**32)
        for generator in (torch.default_generator, *(generator for generator, _ in of_cuda)):
            generator.manual_seed(first)
        yield
    finally:
        python_random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        for generator, before in of_cuda:
            generator.set_state(before)
