"""Sources of draws for replays: the generator of the reference, and the recorded draws themselves."""

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Mt19937:
    """Python's `random.Random(seed)` as state: 624 words and the position. Pure: a generator is built, set, drawn from and read."""

    def __init__(self, seed: int):
        self.seed = seed

    def init(self, key: Tensor) -> Tensor:
        return torch.tensor(random.Random(self.seed).getstate()[1], dtype=torch.int64)

    def _generator(self, state: Tensor) -> random.Random:
        generator = random.Random()
        generator.setstate((3, tuple(state.tolist()), None))
        return generator

    def _kept(self, generator: random.Random) -> Tensor:
        return torch.tensor(generator.getstate()[1], dtype=torch.int64)

    def uniform(self, state: Tensor) -> tuple[Tensor, Tensor]:
        generator = self._generator(state)
        u = generator.random()
        return torch.tensor(u, dtype=torch.float64), self._kept(generator)

    def choice(self, state: Tensor, order: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        generator = self._generator(state)
        k = generator.choice(range(int(mask.sum())))
        return torch.tensor(k), self._kept(generator)


class ReplayState(NamedTuple):
    position: Tensor


class Replay:
    """Hands out recorded draws in order, and insists on the same kind of draw from the same candidates."""

    def __init__(self, draws: list[dict[str, Any]], names: list[str]):
        self.draws, self.names = draws, names

    def init(self, key: Tensor) -> ReplayState:
        return ReplayState(torch.zeros((), dtype=torch.int64))

    def _next(self, state: ReplayState, kind: str) -> tuple[dict[str, Any], ReplayState]:
        position = int(state.position)
        assert position < len(self.draws), "a draw that was not recorded"
        draw = self.draws[position]
        assert draw["t"] == kind, f"draw {position}: recorded {draw}, asked for one of kind '{kind}'"
        return draw, ReplayState(state.position + 1)

    def uniform(self, state: ReplayState) -> tuple[Tensor, ReplayState]:
        draw, state = self._next(state, "u")
        return torch.tensor(draw["v"], dtype=torch.float64), state

    def choice(self, state: ReplayState, order: Tensor, mask: Tensor) -> tuple[Tensor, ReplayState]:
        draw, state = self._next(state, "c")
        candidates = [self.names[i] for i in order[mask].tolist()]
        assert candidates == draw["from"], f"recorded candidates {draw['from']}, ours {candidates}"
        return torch.tensor(draw["i"]), state
