"""From a population to its fitness, and a loop around ask, evaluate and tell.

Members are evaluated as in `es.grad`: by vmap in chunks, one after the other, or
stacked; objectives that take a `key` get one that depends on the generation.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import check
from funcopt.core.protocol import TensorTree
from funcopt.core.ranks import team_of
from funcopt.core.typed import Unpack
from funcopt.es.estimate.agreement import Standing
from funcopt.es.estimate.ranks import evaluate_shared
from funcopt.es.evaluate.evaluator import Evaluator, Task
from funcopt.es.keywords import Evaluation
from funcopt.es.noise.distributions import Law
from funcopt.es.noise.population import Perturbations
from funcopt.es.noise.sources import EAGER, Philox, Source
from funcopt.es.options import Execution, settings_of
from funcopt.es.search import population as populations
from funcopt.es.search.population import Generation, Population, dimension, spread_out
from funcopt.es.search.protocol import Search, State
from funcopt.es.shaping.fitness import mean_of
from funcopt.es.shaping.shaping import bounded

__all__ = ["History", "evaluator", "run"]

OPTIONS = sorted(field.name for field in fields(Execution) if field.name != "process_group")


class History(NamedTuple):
    """What `run` saw of every generation; each [generations]."""

    best: Tensor  # fitness of the best member so far
    mean: Tensor  # mean fitness of the members, the failed ones counted as the worst
    n_failed: Tensor  # members whose fitness was not finite
    sigma: Tensor  # how far members lay from the center: the root mean square over elements of the spread
    evaluations: Tensor  # members evaluated so far


class Offsets(Law):
    """The noise of a population, stretched by its spread, as a law of perturbations with sigma = 1."""

    joint = True

    def __init__(self, generation: Generation):
        self.generation = generation

    def draw(self, key: Tensor, leaf: Tensor, pairs: range, source: Source = EAGER) -> Tensor:
        return spread_out(self.generation.population.spread, self.generation.noise(pairs)).to(leaf.device)

    def decides(self) -> tuple[Any, ...]:
        """What ranks must have in common."""
        population = self.generation.population
        return population.spread, population.key, population.numbers, population.signs


def evaluator(objective: Callable[..., Any], *, process_group: Any = None, **options: Unpack[Evaluation]) -> Callable[..., Any]:
    """A function from a population to the fitness of its members.

    Args:
        objective: `(params, *args, **kwargs) -> 0-dim tensor` for one member. It gets a
            `key` of its own if it has an argument of that name.
        process_group: ranks that share the work, as in `es.grad`: each evaluates its
            chunks and all get all fitness, the same bits on any number of ranks.
        **options: `chunk_size`, `vectorize`, `compile`, `devices`, `dtype`,
            `randomness`, `common_random_numbers`, `buffers`, `has_aux` and the others of
            `es.grad` that are about evaluation.

    Returns:
        `(population, *args, **kwargs) -> fitness [P]`, with `has_aux` a tuple of it and
        what members returned beside, stacked.

    Raises:
        TypeError: an option that is none of these.

    Example:
        >>> search = fo.es.snes(popsize=6)
        >>> population, state = search.ask(search.init(torch.zeros(2), fo.random.key(0)))
        >>> fitness = fo.es.evaluator(lambda x, target: (x - target).square().sum())
        >>> torch.allclose(fitness(population, 1.0), (population.stacked() - 1).square().sum(1))
        True
    """
    return _evaluator(objective, process_group, options)


def width(spread: Tensor, dtype: torch.dtype) -> Tensor:
    """Root mean square over elements of the standard deviation that a spread, a number, [D] or [D, D], gives each."""
    variances = spread.to(dtype).square()
    return (variances.sum(1) if spread.dim() == 2 else variances).mean().sqrt()


def _evaluator(
    objective: Callable[..., Any], process_group: Any, options: Mapping[str, Any], who: str = "es.evaluator", **beside: Any
) -> Callable[..., Any]:
    """`evaluator`, for `who`; `beside`: what ranks must have in common besides."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(f"es.evaluator: unknown option {unknown[0]!r}; the options are {', '.join(OPTIONS)}")
    evaluators: dict[tuple[int, bool], Evaluator] = {}  # by popsize: what was probed and compiled

    def fitness_of(population: Population | Generation, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(population, (Population, Generation)):
            raise TypeError(f"es.evaluator: needs the population that ask gave, got {type(population).__name__}")
        generation = population if isinstance(population, Generation) else Generation(population)
        population = generation.population
        mirrored = population.signs.shape[0] == 2
        size = (population.popsize, mirrored)
        if size not in evaluators:
            evaluators[size] = Evaluator(
                objective, 0, settings_of("es.evaluator", popsize=population.popsize, sigma=1.0, antithetic=mirrored, **options)
            )
            evaluators[size].standing = Standing(who, beside)
        members = evaluators[size]
        settings = replace(members.settings, estimand=replace(members.settings.estimand, noise=Offsets(generation)))
        perturbations = Perturbations(settings, population.mean, population.key)
        task = Task((population.mean, *args), kwargs)
        team = team_of(process_group, "es.evaluator")
        evaluation = members.evaluate(perturbations, task, None) if team is None else evaluate_shared(team, members, perturbations, task)
        return (evaluation.fitness, evaluation.aux) if members.settings.execution.has_aux else evaluation.fitness

    return fitness_of


def run(
    search: Search[State],
    objective: Callable[..., Any],
    params: TensorTree,
    key: int | Tensor,
    generations: int,
    *args: Any,
    **options: Unpack[Evaluation],
) -> tuple[State, History]:
    """Runs a search: ask, evaluate, tell.

    Args:
        search: of `es.snes` or any other factory.
        objective: `(params, *args) -> 0-dim tensor` for one member.
        params: where the search starts.
        key: an int or a key.
        generations: >= 0. Where it is small the noise of one is held, so that it is drawn once.
        *args: handed to the objective.
        **options: of `es.evaluator`.

    Returns:
        The last state and the `History`.

    Raises:
        TypeError, ValueError: `generations` is no whole number, an option is unknown, out of its range or `has_aux`;
            whatever `search` and `es.evaluator` raise.
        RuntimeError: ranks do not make the same call, or one is lost; names what differs.

    Example:
        >>> search = fo.es.cma_es(sigma=0.5)
        >>> state, history = fo.es.run(search, lambda x: (x - 1).square().sum(), torch.zeros(3), 0, 60)
        >>> params, fitness = search.best(state)
        >>> fitness < 1e-6, history.best.shape
        (tensor(True), torch.Size([60]))
    """
    check.integer("es.run", "generations", generations, 0)
    if options.get("has_aux"):
        raise ValueError("es.run: has_aux is for es.evaluator, which hands on what members return beside their fitness")
    ours = {"generations": generations, "maximize": search.maximize, "search": (search.init, search.ask, search.tell)}
    fitness_of = _evaluator(objective, search.process_group, options, f"es.run of es.{search.name}", **ours)
    source = Philox(compile=bool(options.get("compile")))
    state: Any = search.init(params, key)
    seen: list[tuple[Tensor, ...]] = []
    evaluations = 0
    for _ in range(generations):
        population, state = search.ask(state)
        small = population.draws * dimension(population.mean) <= populations.BLOCK
        told = population.drawn(source) if small else population
        fitness = fitness_of(told, *args)
        state = search.tell(state, fitness, population=told)
        wide = fitness.to(state.common.best_fitness.dtype)
        mean = mean_of(bounded(wide)) if search.maximize else -mean_of(bounded(-wide))
        evaluations += population.popsize
        used = torch.full((), evaluations, dtype=torch.int64, device=mean.device)
        seen.append((search.best(state)[1], mean, state.common.n_failed, width(population.spread, wide.dtype), used))
    if not seen:
        return state, History(*(torch.empty(0) for _ in History._fields))
    return state, History(*(torch.stack(column) for column in zip(*seen, strict=True)))
