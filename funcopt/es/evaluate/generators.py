"""torch's own generators inside an objective, where the caller asked for them: seeded from the key, and put back afterwards.

same         one seed for all members
different    a seed for each chunk of members that vmap evaluates together, for each member where they are evaluated one by one

With them go the global generators of Python's `random` and of `numpy.random`, which simulators draw from.
"""

import contextlib
import random as python_random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from funcopt.core import random, versions
from funcopt.core.random.philox import host_value
from funcopt.es.evaluate.switches import as_written

__all__ = ["OwnGenerators", "drawn_beside", "generator_states", "seed_generators", "settled_generators"]


@contextlib.contextmanager
def settled_generators(where: str, randomness: str, stream: Tensor, number: int) -> Iterator[None]:
    """Inside, the generators begin where `number` (of a chunk or a member) says; afterwards they are where they were."""
    beside = _beside()
    try:
        with torch.random.fork_rng():
            seed_generators(where, randomness, stream, number)
            yield
    finally:
        python_random.setstate(beside[0])
        np.random.set_state(beside[1])


def seed_generators(where: str, randomness: str, stream: Tensor, number: int) -> None:
    key = random.fold_in(stream, 1 if randomness == "same" else 2 + number)
    seed = host_value(key.to("cpu"))  # waits for an accelerator that holds the key, where the caller asked for torch's generators
    if seed is None:
        raise ValueError(
            f"{where}: randomness={randomness!r} seeds torch's generators with the key, "
            "whose numbers cannot be read inside vmap or a graph; "
            "give the objective an argument `key` and draw from it"
        )
    torch.manual_seed(seed[0])
    python_random.seed(seed[0])
    np.random.seed(seed[0] & 0xFFFFFFFF)


@contextlib.contextmanager
def drawn_beside() -> Iterator[list[bool]]:
    """Whether what runs inside draws from Python's or numpy's global generators, which vmap does not know: said in the list afterwards."""
    (python, numpy), said = _beside(), []
    yield said
    after, then = _beside()
    said.append(python != after or numpy[2] != then[2] or not np.array_equal(numpy[1], then[1]))


def _beside() -> tuple[Any, Any]:
    return python_random.getstate(), np.random.get_state()


def generator_states(device: torch.device) -> list[Any]:
    """Where torch's generators are, for the CPU and for this device: to be compared afterwards."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


class OwnGenerators:
    """Notices a `torch.Generator` of the caller's own that goes on from evaluation to evaluation.

    Members would be compared on different draws, which no key decides. It looks at two evaluations after each `begin`,
    in which, outside of transforms, compiled functions run as they are written.
    """

    def __init__(self, where: str, what: str):
        self.where, self.what = where, what
        self.last: list[tuple[torch.Generator, Tensor]] = []  # drawn from in the evaluation before, and where each was at its first draw
        self.begin()

    def begin(self) -> None:
        self.left = 2

    def __call__(self, evaluate: Callable[[], Any]) -> Any:
        """`evaluate()`; ValueError where it finds a generator elsewhere than the evaluation before."""
        self.left -= 1
        if self.left < 0 or versions.compiling():
            return evaluate()
        with contextlib.nullcontext() if versions.transforming() else as_written(), FirstDraws() as draws:
            result = evaluate()
        last, self.last = self.last, draws.found
        if any(one is other and not torch.equal(now, before) for one, now in draws.found for other, before in last):
            raise ValueError(
                f"{self.where}: the {self.what} draws from a torch.Generator of its own that goes on from one evaluation to the next, "
                "so that "
                "each has other numbers, which the key does not decide; "
                "draw from torch's generator (with randomness='same') or from a key, or seed it where "
                "it is drawn from"
            )
        return result


class FirstDraws(TorchFunctionMode):
    """Which generators are handed to functions, and where each was the first time."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[torch.Generator, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        generator = (kwargs or {}).get("generator")
        if generator is not None and all(generator is not known for known, _ in self.found):
            self.found.append((generator, generator.get_state()))
        return func(*args, **(kwargs or {}))
