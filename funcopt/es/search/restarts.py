"""Restarts: a search that begins anew where it is through, with more members or with fewer.

    "ipop"    the popsize doubles from run to run
    "bipop"   runs of two kinds, whichever has used fewer evaluations: large ones, whose popsize doubles, and small ones with
              P_s = floor(P (P_l / (2 P))^(u^2)),  sigma_s = sigma 10^(-2 v),  u, v uniform in [0, 1),
              which end after half of the evaluations of the last large one

P is the first popsize and P_l the last large one. A run is through after 10 + ceil(30 D / P) generations
in which all finite fitness lay within `tolfun`, after 100 + 50 (D + 3)^2 / sqrt(P) generations, or where its spread
is below `tolx` times its first sigma.

Source: Auger and Hansen, "A restart CMA evolution strategy with increasing population
size", CEC 2005; Hansen, "Benchmarking a bi-population CMA-ES", GECCO 2009 workshop. Reference: pycma's fmin2.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.core import TensorTree, check, moments, random, tree
from funcopt.es.search.population import Population, dimension
from funcopt.es.search.protocol import Common, Search, as_tensor, default_popsize

__all__ = ["RestartsState", "restarts"]

Strategy = Literal["ipop", "bipop"]
SMALL, LARGE = 0, 1


class RestartsState(NamedTuple):
    inner: Any  # the state of the search that runs
    mean: TensorTree  # its mean; like params
    first: TensorTree  # where the first run began; like params
    popsize: Tensor  # members of the run; int64 on the CPU, like all counters here
    sigma: Tensor  # its first scale; float64 on the CPU
    run: Tensor  # its number: 0, 1, ...
    large: Tensor  # the last large popsize
    used: Tensor  # evaluations of small and of large runs; [2]
    ended: Tensor  # evaluations of the last large run
    kind: Tensor  # of the run: 0 small, 1 large
    generations: Tensor  # of the run
    flat: Tensor  # generations in a row whose fitness was flat; on the device of params
    common: Common  # what every search keeps: key, generation, best member of all runs


def restarts(
    factory: Callable[..., Search],
    popsize: int | None = None,
    sigma: float = 1.0,
    *,
    strategy: Strategy = "ipop",
    start: Callable[[Tensor, TensorTree], TensorTree] | None = None,
    tolfun: float = 1e-12,
    tolx: float = 1e-12,
) -> Search[RestartsState]:
    """A pool of restarts as one search, for functions with many valleys.

    Args:
        factory: `es.cma_es` or another, called as `factory(popsize=, sigma=)` for every run; a
            `functools.partial` for the settings.
        popsize: members of the first run, >= 2; None: 4 + floor(3 ln D).
        sigma: first scale of a run, a number > 0.
        strategy: "ipop" or "bipop"; see the head of the file.
        start: `(key, params) -> params`, where a run begins; None: the first params plus sigma times a normal draw, the first run at
            the params themselves. `es.domain(...).uniform` begins anywhere in a box.
        tolfun: fitness of a generation that differs by no more than this is flat, >= 0.
        tolx: a run is through below this spread, in units of its first sigma, >= 0.

    Returns:
        A `Search`; `best` is that of all runs, `center` the mean of the run that is on. The size of a population is a shape, so
        `tell` reads a number on the host in every generation, and the search runs outside of vmap and graphs.

    Raises:
        ValueError: an argument is out of its range, or the search is asked inside of vmap or a graph.
        TypeError: the factory does not make a search.

    Example:
        >>> def rastrigin(x):
        ...     return (x.square() - 10 * torch.cos(2 * torch.pi * x) + 10).sum()
        >>> search = fo.es.restarts(fo.es.cma_es, sigma=2.0)
        >>> state, _ = fo.es.run(search, rastrigin, torch.full((2,), 3.0, dtype=torch.float64), 1, 300)
        >>> search.best(state)[1] < 1e-8
        tensor(True)
    """
    where = "es.restarts"
    if popsize is not None:
        check.integer(where, "popsize", popsize, 2)
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
        raise TypeError(f"{where}: sigma must be a number, since runs of another size take another, got {type(sigma).__name__}")
    check.positive(where, "sigma", sigma)
    check.choice(where, "strategy", strategy, get_args(Strategy))
    check.nonnegative(where, "tolfun", tolfun)
    check.nonnegative(where, "tolx", tolx)

    def made(size: int, scale: float) -> Search:
        search = factory(popsize=size, sigma=scale)
        if not isinstance(search, Search):
            raise TypeError(f"{where}: factory must make a search, got {type(search).__name__}")
        return search

    example = made(popsize or 4, float(sigma))
    maximize = example.maximize

    def number(value: int) -> Tensor:
        return torch.full((), value, dtype=torch.int64, device="cpu")

    def begin(key: Tensor, first: TensorTree, run: int, size: int, scale: float) -> Any:
        own = random.fold_in(key, run)
        if start is not None:
            params = start(random.fold_in(own, 0), first)
        elif run == 0:
            params = first
        else:
            drawn = tree.random_like(random.fold_in(own, 0), first)
            params = tree.map(lambda x, z: x + sigma * z, first, drawn)
        return made(size, scale).init(params, random.fold_in(own, 1))

    def init(params: TensorTree, key: int | Tensor) -> RestartsState:
        size = default_popsize(params) if popsize is None else popsize
        key = random.as_key(key, where, device=tree.device(params))
        inner = begin(key, params, 0, size, float(sigma))
        common = inner.common
        return RestartsState(
            inner=inner,
            mean=inner.mean,
            first=tree.map(lambda x: x.detach().clone(), params),
            popsize=number(size),
            sigma=torch.full((), float(sigma), dtype=torch.float64, device="cpu"),
            run=number(0),
            large=number(size),
            used=torch.zeros(2, dtype=torch.int64, device="cpu"),
            ended=number(0),
            kind=number(LARGE),
            generations=number(0),
            flat=torch.zeros_like(common.count),
            common=common._replace(key=key),
        )

    def running(state: RestartsState) -> Search:
        return made(random.host_int(state.popsize, where), state.sigma.item())

    def ask(state: RestartsState) -> tuple[Population, RestartsState]:
        population, inner = running(state).ask(state.inner)
        return population, state._replace(inner=inner)

    def tell(state: RestartsState, fitness: Any, *, population: Any = None, noise: TensorTree | None = None) -> RestartsState:
        search = running(state)
        inner = search.tell(state.inner, fitness, population=population, noise=noise)
        best, known = inner.common.best_fitness, state.common.best_fitness
        overall = best > known if maximize else best < known
        told = as_tensor(where, fitness, best, random.host_int(state.popsize, where))
        finite = told.isfinite()
        low, high = torch.where(finite, told, math.inf).amin(), torch.where(finite, told, -math.inf).amax()
        state = state._replace(
            inner=inner,
            mean=inner.mean,
            used=state.used + torch.nn.functional.one_hot(state.kind, 2) * state.popsize,
            generations=moments.increment(state.generations),
            flat=torch.where(high - low <= tolfun, state.flat + 1, 0),
            common=Common(
                key=state.common.key,
                count=moments.increment(state.common.count),
                best=tree.where(overall, inner.common.best, state.common.best),
                best_fitness=torch.where(overall, best, known),
                n_failed=inner.common.n_failed,
            ),
        )
        return restarted(state) if is_through(state, search.ask(inner)[0]) else state

    def is_through(state: RestartsState, population: Population) -> bool:
        size, dim = random.host_int(state.popsize, where), dimension(state.mean)
        generations = random.host_int(state.generations, where)
        if generations >= 100 + 50 * (dim + 3) ** 2 / math.sqrt(size):
            return True
        if strategy == "bipop" and random.host_int(state.kind, where) == SMALL and generations * size >= state.ended.item() / 2:
            return True
        patience = 10 + math.ceil(30 * dim / size)
        narrow = population.spread.abs().amax() < tolx * state.sigma.item()
        return bool((state.flat >= patience) | narrow)

    def restarted(state: RestartsState) -> RestartsState:
        run, first_size = random.host_int(state.run, where) + 1, popsize or default_popsize(state.first)
        small, large = state.used.tolist()
        was_large = random.host_int(state.kind, where) == LARGE
        ended = state.generations * state.popsize if was_large else state.ended
        biggest = random.host_int(state.large, where)
        kind, size, scale = LARGE, 2 * biggest, float(sigma)
        if strategy == "bipop" and small < large:
            u, v = random.uniform(random.fold_in(random.fold_in(state.common.key, run), 2), 2, torch.float64).tolist()
            kind, size = SMALL, max(2, math.floor(first_size * (biggest / (2 * first_size)) ** (u * u)))
            scale = sigma * 10 ** (-2 * v)
        elif kind == LARGE:
            biggest = size
        inner = begin(state.common.key, state.first, run, size, scale)
        return state._replace(
            inner=inner,
            mean=inner.mean,
            popsize=number(size),
            sigma=torch.full((), scale, dtype=torch.float64, device="cpu"),
            run=number(run),
            large=number(biggest),
            ended=ended,
            kind=number(kind),
            generations=number(0),
            flat=torch.zeros_like(state.flat),
        )

    def center(state: RestartsState) -> TensorTree:
        return state.mean

    def best(state: RestartsState) -> tuple[TensorTree, Tensor]:
        return state.common.best, state.common.best_fitness

    return Search(init, ask, tell, center, best, f"restarts of {example.name}", maximize, example.process_group)
