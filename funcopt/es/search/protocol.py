"""Searches: pure `init`, `ask` and `tell` around a distribution that moves to where fitness is good.

    search            = es.snes(sigma=0.5)
    state             = search.init(params, key)
    population, state = search.ask(state)
    state             = search.tell(state, fitness)      fitness [P], a tensor, array or list; smaller is better unless maximize=True
    params            = search.center(state)

What all searches share is here: keys of generations, orientation of the fitness, the
best member so far, and a generation in which every member failed, from which nothing
is learned. A method says where it starts, how it spreads and what it learns.
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy
import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, apply_updates, check, moments, random, tree
from funcopt.core.autocast import in_full_precision
from funcopt.core.door.shown import shown
from funcopt.core.unfit import dense
from funcopt.core.versions import compiling
from funcopt.es.search.population import Generation, Population, dimension, ravel, ravel_rows, unravel, work_dtype
from funcopt.es.shaping.fitness import mean_of, real
from funcopt.es.shaping.shaping import bounded
from funcopt.execute.downhill import warn_of_climbing

if TYPE_CHECKING or sys.version_info < (3, 11):
    from typing_extensions import NamedTuple  # which may be generic; torch brings it
else:
    from typing import NamedTuple
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    State = TypeVarWithDefault("State", default=Any)  # so that a bare `Search` has any state
else:
    State = TypeVar("State")

__all__ = ["Common", "Fitness", "Search", "default_popsize", "descend", "make_search", "mover", "positive_sigma", "sigma_of", "step_center"]


class Common(NamedTuple):
    """What every search remembers beside its distribution."""

    key: Tensor  # [2]; generation t draws from fold_in(key, t)
    count: Tensor  # generations told
    best: TensorTree  # the best member so far; like params
    best_fitness: Tensor  # its fitness as it was told; inf (-inf if maximised) before the first
    n_failed: Tensor  # members of the last generation whose fitness was not finite


Fitness = Tensor | numpy.ndarray | Sequence[float | Tensor]  # one number for each member
Made = TypeVar("Made", covariant=True)
Kept = TypeVar("Kept")
Read = TypeVar("Read", contravariant=True)


class Init(Protocol[Made]):
    """The first state, around a tree of parameters."""

    def __call__(self, params: TensorTree, key: int | Tensor) -> Made: ...


class Ask(Protocol[Kept]):
    """The next population, and the state."""

    def __call__(self, state: Kept) -> tuple[Population, Kept]: ...


class Tell(Protocol[Kept]):
    """The state that has learned from the fitness of the population: the one that was asked for, unless one is told."""

    def __call__(
        self,
        state: Kept,
        fitness: Fitness,
        *,
        population: TensorTree | Population | Generation | None = None,
        noise: TensorTree | None = None,
    ) -> Kept: ...


class Center(Protocol[Read]):
    """The parameters around which it searches."""

    def __call__(self, state: Read) -> TensorTree: ...


class Best(Protocol[Read]):
    """The best member so far, and its fitness as it was told."""

    def __call__(self, state: Read) -> tuple[TensorTree, Tensor]: ...


class Search(NamedTuple, Generic[State]):
    """The functions of a search; a tuple of pure functions, none of which looks at a value."""

    init: Init[State]  # (params, key) -> state
    ask: Ask[State]  # state -> (population, state)
    tell: Tell[State]  # (state, fitness[P], *, population=None, noise=None) -> state
    center: Center[State]  # state -> params
    best: Best[State]  # state -> (params, fitness) of the best member so far
    name: str  # of the method
    maximize: bool  # whether a larger fitness is better
    process_group: Any  # ranks that share the evaluation; see `evaluator`


def make_search(
    name: str,
    start: Callable[[TensorTree, Common], State],
    spread: Callable[[State], Tensor],
    learn: Callable[[State, Tensor, Generation], State],
    *,
    popsize: int | None,
    mirrored: bool = False,
    smallest: int = 2,
    maximize: bool = False,
    process_group: Any = None,
) -> Search[State]:
    """A search from what is its own.

    Args:
        start: `(params, common) -> state`, a NamedTuple with the fields `mean` and `common`.
        spread: `state -> 0-dim, [D] or [D, D]`: the factor of the noise, in the dtype it is drawn in.
        learn: `(state, fitness, generation) -> state`, with fitness bigger is better.
        popsize: None: 4 + floor(3 ln D), even if mirrored.
        mirrored: the second half of the population mirrors the first.
        smallest: the popsize must be at least that.
    """
    where = f"es.{name}"
    if popsize is not None:
        check.integer(where, "popsize", popsize, smallest)
        if mirrored and popsize % 2:
            raise ValueError(f"{where}: popsize must be even, since members come in pairs, got {popsize}")

    def size(params: TensorTree) -> int:
        return max(default_popsize(params, mirrored), smallest) if popsize is None else popsize

    def init(params: TensorTree, key: int | Tensor) -> Any:
        leaves = tree.leaves(params)
        dense(where, "params", leaves, lambda: tree.paths(params))
        if not leaves or dimension(params) == 0:
            raise ValueError(f"{where}: params must hold at least one number, got an empty tree")
        for path, leaf in zip(tree.paths(params), leaves, strict=True):
            if not leaf.is_floating_point():
                raise TypeError(
                    f"{where}: params must be a tree of floating point tensors, got {leaf.dtype} at '{path}'; keep it out of params"
                )
        device = tree.device(params)
        strangers = [path for path, leaf in zip(tree.paths(params), leaves, strict=True) if leaf.device != device]
        if strangers:
            raise ValueError(f"{where}: params must lie on one device, got {device} and another at '{strangers[0]}'")
        params = tree.map(lambda leaf: leaf.detach().clone(), params)
        common = Common(
            key=random.as_key(key, where, device=device),
            count=torch.zeros((), dtype=torch.int64, device=device),
            best=tree.clone(params),
            best_fitness=torch.full((), -math.inf if maximize else math.inf, dtype=tree.scalar_dtype(device), device=device),
            n_failed=torch.zeros((), dtype=torch.int64, device=device),
        )
        return start(params, common)

    def ask(state: Any) -> tuple[Population, Any]:
        if not hasattr(state, "common"):
            raise TypeError(f"{where}: state must be what init and tell give, got {shown(state)}; begin with search.init(params, key)")
        count, device = size(state.mean), state.common.key.device
        population = Population(
            mean=state.mean,
            spread=spread(state),
            key=random.fold_in(state.common.key, state.common.count),
            numbers=torch.arange(count, device=device),
            signs=torch.tensor([1, -1] if mirrored else [1], device="cpu").to(device, non_blocking=True),
        )
        return population, state

    def tell(
        state: Any, fitness: Fitness, *, population: TensorTree | Population | Generation | None = None, noise: TensorTree | None = None
    ) -> Any:
        asked, _ = ask(state)
        fitness = real(where, "fitness", as_tensor(where, fitness, state.common.best_fitness, asked.popsize))
        generation = told(where, asked, population, noise)
        raw = fitness.detach().to(state.common.best_fitness.dtype)  # numbers: a graph would grow from generation to generation
        oriented = raw if maximize else -raw
        new: Any = learn(state, oriented, generation)
        finite = oriented.isfinite()
        # Nobody knows anything if nobody is finite; the distribution stays, and with it the optimizer of the center.
        # So it does where the next would not be finite: a step of fitness that is told as it stands may not fit the dtype.
        new = tree.where(finite.any() & tree.all_finite(distribution(new)), new, state)
        return new._replace(common=remembered(state.common, oriented, raw, finite, generation))

    def remembered(common: Common, oriented: Tensor, raw: Tensor, finite: Tensor, generation: Generation) -> Common:
        scores = torch.where(finite, oriented, -math.inf)
        index = scores.argmax()
        score = scores.max()
        before = common.best_fitness if maximize else -common.best_fitness
        member = generation.population.members(generation.row(index).unsqueeze(0))
        better = score > before
        return Common(
            key=common.key,
            count=moments.increment(common.count),
            best=tree.where(better, tree.map(lambda leaf: leaf[0], member), common.best),
            best_fitness=torch.where(better, score if maximize else -score, common.best_fitness),
            n_failed=(~finite).sum(),
        )

    def center(state: Any) -> TensorTree:
        return state.mean

    def best(state: Any) -> tuple[TensorTree, Tensor]:
        return state.common.best, state.common.best_fitness

    return Search(in_full_precision(init), in_full_precision(ask), in_full_precision(tell), center, best, name, maximize, process_group)


def as_tensor(where: str, fitness: Any, like: Tensor, popsize: int) -> Tensor:
    """A tensor of one number for each member, of an array or of a list of numbers and 0-dim tensors too.

    What is no tensor lies on the CPU, and is not rounded on its way.
    """
    given = fitness
    if not isinstance(fitness, Tensor):
        try:
            if isinstance(fitness, (list, tuple)) and any(isinstance(x, Tensor) for x in fitness):
                fitness = torch.stack([torch.as_tensor(x, dtype=like.dtype, device=like.device).reshape(()) for x in fitness])
            else:
                fitness = torch.as_tensor(numpy.asarray(fitness, dtype=numpy.float64)).to(like.device, like.dtype)
        except (TypeError, ValueError, RuntimeError):  # ragged, or no numbers
            fitness = None
    if fitness is None or fitness.shape != (popsize,):
        got = type(given).__name__ if fitness is None else tuple(fitness.shape)
        raise ValueError(
            f"{where}: fitness must be a tensor of shape ({popsize},), one number for each member, or an array or a list of them, got {got}"
        )
    return fitness


def distribution(state: Any) -> list[TensorTree]:
    """That of a search: its mean, scales and paths."""
    return [getattr(state, name) for name in state._fields if name not in ("optimizer", "common")]


def told(where: str, asked: Population, population: Any, noise: Any) -> Generation:
    """The noise of what was told: drawn again, or recovered from the population, or given as z."""
    if population is not None and noise is not None:
        raise ValueError(f"{where}: tell takes population= or noise=, not both")
    given = population if noise is None else noise
    if isinstance(given, Generation):
        return given
    if given is None or isinstance(given, Population):
        return Generation(asked if given is None else given)
    dtype = asked.spread.dtype
    if isinstance(given, Tensor) and given.dim() == 2 and given.shape[1] == dimension(asked.mean):
        rows = given.to(dtype)  # [P, D], whatever the tree
    else:
        if not compiling():
            tree.assert_alike(where, tree.map(lambda leaf: leaf[0], given), asked.mean, ("a member of what is told", "params"))
        rows = ravel_rows(given, dtype)
    if rows.shape[0] not in (asked.popsize, asked.draws) or (noise is None and rows.shape[0] != asked.popsize):
        raise ValueError(
            f"{where}: {'population' if noise is None else 'noise'} must have the leading axis {asked.popsize}, got {rows.shape[0]}"
        )
    rows = rows[: asked.draws]
    if noise is None:
        rows = rows - ravel(asked.mean, dtype)
        rows = torch.linalg.solve(asked.spread, rows.mT).mT if asked.spread.dim() == 2 else rows / asked.spread
    return Generation(asked, rows)


def default_popsize(params: TensorTree, mirrored: bool = False) -> int:
    """4 + floor(3 ln D), made even for pairs."""
    size = 4 + math.floor(3 * math.log(dimension(params)))
    return size + size % 2 if mirrored else size


def positive_sigma(where: str, sigma: Any) -> None:
    """Checks the numbers of a sigma: a number, a tensor, or a tree of them."""
    for leaf in tree.leaves(sigma):
        if not isinstance(leaf, Tensor):
            check.positive(where, "sigma", leaf)


def sigma_of(where: str, sigma: Any, params: TensorTree) -> TensorTree:
    """sigma as a tree like params: from a number, a 0-dim tensor, or a tree (or the beginning of one) of numbers and tensors."""
    dtype = work_dtype(params)
    entries = (
        [sigma] * len(tree.leaves(params)) if isinstance(sigma, (int, float)) else tree.broadcast_prefix(sigma, params, where, "sigma")
    )
    if isinstance(sigma, Tensor) and sigma.dim() > 0 and not isinstance(params, Tensor):
        raise ValueError(
            f"{where}: sigma must be a number, a 0-dim tensor or a tree like params, got a tensor of shape {tuple(sigma.shape)}"
        )
    leaves = []
    for path, entry, leaf in zip(tree.paths(params), entries, tree.leaves(params), strict=True):
        entry = (
            entry.to(device=leaf.device, dtype=dtype)
            if isinstance(entry, Tensor)
            else torch.full((), entry, dtype=dtype, device=leaf.device)
        )
        try:
            leaves.append(entry.expand(leaf.shape).clone())
        except RuntimeError:
            raise ValueError(
                f"{where}: sigma must broadcast to the shape {tuple(leaf.shape)} at '{path}', got {tuple(entry.shape)}"
            ) from None
    return tree.unflatten(params, leaves)


class DescendState(NamedTuple):
    """Plain steps remember nothing."""


def descend(lr: Scalar) -> GradientTransformation:
    """Steps of `-lr` times the estimate: what moves the center where no optimizer is given."""
    return GradientTransformation(
        lambda params: DescendState(),
        lambda updates, state, params=None, **extra: (tree.map(lambda g: -lr * g, updates), state),
        name="es.descend",
        flattenable=True,
        per_leaf=True,
        turns=lr >= 0 if isinstance(lr, (int, float)) else None,
    )


def mover(where: str, optimizer: GradientTransformation | None) -> GradientTransformation | None:
    """What moves the center, if it is given: it must make a step of its own."""
    if optimizer is not None:
        warn_of_climbing(where, optimizer)
    return optimizer


def step_center(optimizer: GradientTransformation, estimate: Tensor, state: Any, fitness: Tensor) -> tuple[TensorTree, Any]:
    """The mean after a step of `optimizer` on the negated ascent estimate [D], and the optimizer's state.

    The optimizer is told `loss`, the mean of the finite fitness of what is minimised.
    """
    gradient = unravel(-estimate, state.mean)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.mean, loss=-mean_of(bounded(fitness)))
    return apply_updates(state.mean, updates), optimizer_state
