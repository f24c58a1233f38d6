"""All levels, rates and seeds of one optimizer on one kind at once, and what came out.

    lane = (level, rate, seed);  the draws of seed s at step t are the same for every level, rate and optimizer
    solved as soon as value(params) <= target at one of the looks; the averaged params where the method keeps an average

Of the rates the one counts at which most seeds solved the level, then the one whose slowest of these seeds was first, then the lowest.
So a run may end when every level has a rate at which all seeds solved it.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

import funcopt as fo
from funcopt.race.levels.kind import Kind
from funcopt.race.levels.methods import Method

__all__ = ["LOOKS", "STEPS", "Outcome", "solve"]

STEPS = 400  # the budget of every level
LOOKS = 20  # at the value, evenly spaced
NEVER = math.inf


class Outcome(NamedTuple):
    """One level by one optimizer, at its best rate."""

    seeds: int  # that solved it
    rate: float | None = None  # None: it found its own, or nobody solved it
    steps: int | None = None  # of the slowest of those seeds, at the next look; None: none did


def solve(kind: Kind, method: Method, *, seeds: int, levels: int = 4, steps: int = STEPS) -> list[Outcome]:
    """The first `levels` levels of a kind by one optimizer.

    Args:
        kind: what is to be solved.
        method: ours, or a class of torch.optim.
        seeds: how many starts and streams of noise, >= 1.
        levels: 1 to 4.
        steps: the budget, a multiple of `LOOKS`.

    Returns:
        One outcome a level, the easiest first.
    """
    shape = (levels, len(method.rates), seeds)
    rate = torch.tensor(method.rates, dtype=torch.float64).repeat_interleave(seeds).repeat(levels)
    difficulty = torch.tensor(kind.levels[:levels], dtype=torch.float32).repeat_interleave(len(method.rates) * seeds)
    seed = torch.arange(seeds).repeat(levels * len(method.rates))
    generator = torch.Generator().manual_seed(0)

    def draw(size: tuple[int, ...]) -> Tensor:
        return torch.randn(seeds, *size, generator=generator)[seed]

    params = vmap(kind.init)(draw(kind.start), difficulty)
    train = _theirs if method.theirs else _ours
    solved_at = torch.full((len(seed),), NEVER)
    evaluated = vmap(kind.value)
    for step, looked_at in enumerate(train(kind, method.make, params, difficulty, rate, seed, draw), 1):
        if step % (steps // LOOKS) == 0:
            with torch.no_grad():
                there = evaluated(looked_at(), difficulty) <= kind.target
            solved_at = torch.where(there & (solved_at == NEVER), float(step), solved_at)
            if step == steps or bool((solved_at < NEVER).reshape(shape).all(2).any(1).all()):
                break
    return [best(level, method.rates) for level in solved_at.reshape(shape)]


def best(solved_at: Tensor, rates: tuple[float, ...]) -> Outcome:
    """The outcome at the best of the rates, from [rates, seeds] of steps (inf: not solved)."""
    seeds = (solved_at < NEVER).sum(1)
    slowest = torch.where(solved_at < NEVER, solved_at, 0.0).amax(1)
    chosen = min(range(len(rates)), key=lambda i: (-int(seeds[i]), float(slowest[i]), i))
    if not seeds[chosen]:
        return Outcome(0)
    return Outcome(int(seeds[chosen]), None if math.isnan(rates[chosen]) else rates[chosen], int(slowest[chosen]))


def _ours(kind: Kind, make: Callable, params, difficulty: Tensor, rate: Tensor, seed: Tensor, draw: Callable) -> Iterator[Callable]:
    keys = torch.stack([fo.random.fold_in(fo.random.key(0), int(s)) for s in seed])
    step = fo.population.make_step(kind.objective, make, hyper={"rate": rate, "seed": keys}, in_dims=0)
    params, state = step.init(params)
    count = 0
    while True:
        params, state, _ = step(params, state, draw(kind.noise), difficulty, epoch=count // LOOKS)
        count += 1
        yield partial(vmap(fo.averaged_params), state.inner, params)


def _theirs(kind: Kind, make: Callable, params, difficulty: Tensor, rate: Tensor, seed: Tensor, draw: Callable) -> Iterator[Callable]:
    """Every lane has tensors of its own, in a group of its rate, so that a class may mix the entries of a tensor as it likes."""
    lanes = [{name: value[i].clone().requires_grad_() for name, value in params.items()} for i in range(len(seed))]
    groups = [
        {"params": [leaf for lane, r in zip(lanes, rate, strict=True) if r == at for leaf in lane.values()], "lr": float(at)}
        for at in rate.unique()
    ]
    opt = make(groups)
    objective = vmap(kind.objective)

    def stacked() -> dict[str, Tensor]:
        return {name: torch.stack([lane[name] for lane in lanes]) for name in params}

    while True:
        opt.zero_grad()
        objective(stacked(), draw(kind.noise), difficulty).sum().backward()  # a lane's gradient is its own: NaN stays where it is
        opt.step()
        yield stacked
