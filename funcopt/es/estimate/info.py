"""What a gradient estimate tells about its population."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.autocast import in_full_precision
from funcopt.es.noise.population import Perturbations
from funcopt.es.options import Settings
from funcopt.es.shaping.fitness import magnitude

__all__ = ["Info", "info_of", "statistics"]


class Info(NamedTuple):
    """The population of one estimate; every field is a tensor or a tree of tensors, so that it passes through vmap.

    `member(i)` gives the parameters of any member, made again from the key: no population is kept.
    """

    fitness: Tensor  # [P] raw, in member order (pairs are i and i + P/2); [P, K] with K objectives
    mean: Tensor  # of the finite ones; [K] with K objectives
    std: Tensor  # of the finite ones, divided by their number
    best: Tensor  # the best fitness; [K]: those of the best member by weighted sum
    best_index: Tensor  # int64
    n_failed: Tensor  # members that are not finite, int64
    center: Tensor  # fitness of the unperturbed parameters; NaN if it was not asked for
    user_aux: Any  # stacked on a first axis [P]; () without has_aux
    buffers: Any  # after one unperturbed forward, with buffers="center"; else ()
    key: Tensor  # int64 [2]
    recipe: Any  # an empty tuple that knows how to make members

    def member(self, i: int) -> Any:
        """The parameters of member i of P, dense and in the dtypes of params.

        Raises:
            IndexError: there is no such member.
            ValueError: this is the info of several estimates, mapped over.
        """
        if self.key.dim() != 1:
            raise ValueError(
                f"es.Info.member: this is the info of {self.key.shape[0]} estimates made under vmap; "
                "estimate again with the key of one of them"
            )
        return self.recipe.member(i)


def recipe_of(perturbations: Perturbations) -> tuple[Any, ...]:
    """A tuple without entries, which tree libraries take apart and put together again: its class carries what makes members."""

    namespace = {
        "__slots__": (),
        "_fields": (),
        "__new__": lambda cls: tuple.__new__(cls),
        "__repr__": lambda self: "Recipe()",
        "_make": classmethod(lambda cls, entries: cls()),
        "_asdict": lambda self: {},
        "member": staticmethod(perturbations.member),
    }
    return type("Recipe", (tuple,), namespace)()


@in_full_precision
def statistics(fitness: Tensor, settings: Settings) -> dict[str, Tensor]:
    """mean, std, best, best_index and n_failed of [P] or [P, K]."""
    wide = fitness.to(tree.scalar_dtype(fitness.device))
    finite = wide.isfinite()
    count = finite.sum(0).clamp(min=1)
    size = magnitude(wide)
    mean = torch.where(finite, wide / size, 0.0).sum(0) / count
    variance = torch.where(finite, (wide / size - mean).square(), 0.0).sum(0) / count
    mean = torch.where(finite.any(0), mean * size, torch.nan)
    std = torch.where(finite.any(0), variance.sqrt() * size, torch.nan)
    weights = settings.estimand.objective_weights(wide)
    score = wide if weights is None else wide @ weights
    score = score if settings.estimand.maximize else -score
    whole = finite if weights is None else finite.all(1)
    best_index = torch.where(score.isnan(), -torch.inf, score).argmax()
    best = fitness.index_select(0, best_index.reshape(1)).squeeze(0)
    return {
        "mean": mean.to(fitness.dtype),
        "std": std.to(fitness.dtype),
        "best": best,
        "best_index": best_index,
        "n_failed": (~whole).sum(),
    }


def info_of(perturbations: Perturbations, fitness: Tensor, center: Tensor | None, aux: Any, buffers: Any) -> Info:
    if center is None:
        center = torch.full(fitness.shape[1:], torch.nan, dtype=fitness.dtype, device=fitness.device)
    return Info(
        fitness=fitness,
        center=center,
        user_aux=aux,
        buffers=buffers,
        key=perturbations.key,
        recipe=recipe_of(perturbations),
        **statistics(fitness, perturbations.settings),
    )
