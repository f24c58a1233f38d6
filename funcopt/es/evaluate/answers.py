"""What an objective answers: one number or K of them, perhaps with something beside them, made into tensors or refused with a sentence."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree, versions
from funcopt.es.evaluate.refusals import Refused
from funcopt.es.noise.lazy_weight import settle
from funcopt.es.options import Settings
from funcopt.es.shaping.fitness import real

__all__ = ["Answer", "answer_of"]


class Answer(NamedTuple):
    fitness: Tensor  # [] or [K]; with `members` [members] or [members, K]
    aux: Any  # (): there is none


def answer_of(result: Any, settings: Settings, members: int | None = None) -> Answer:
    """The answer of an objective for one member, or for `members` stacked ones."""
    where, weights, aux = settings.where, settings.estimand.weights, ()
    if settings.execution.has_aux:
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f"{where}: with has_aux=True the objective must return (value, aux), got {_kind(result)}")
        result, aux = result
        aux = tree.map_plain(lambda x: settle(x) if isinstance(x, Tensor) else torch.as_tensor(x), aux)
    fitness = _fitness(result, settings)
    leading = () if members is None else (members,)
    if fitness.shape[: len(leading)] != leading:
        raise ValueError(
            f"{where}: with vectorize='external' the objective must return one value for each of {members} members, "
            f"got {tuple(fitness.shape)}"
        )
    rest = fitness.shape[len(leading) :]
    if len(rest) > 1:
        raise ValueError(
            f"{where}: the objective must return one number, or K of them with weights=, got shape {tuple(rest)}; take a mean or a sum"
        )
    if weights is None and rest:
        if rest[0] != 1:
            raise ValueError(
                f"{where}: the objective returned {rest[0]} numbers; pass weights= with one weight for each, "
                f"as in weights=({', '.join(['1.0'] * min(rest[0], 3))}), or return one number"
            )
        fitness = fitness.squeeze(-1)
    elif weights is not None:
        fitness = fitness if rest else fitness.unsqueeze(-1)
        count = weights.numel() if isinstance(weights, Tensor) else len(weights) if hasattr(weights, "__len__") else 1
        if fitness.shape[-1] != count:
            raise ValueError(
                f"{where}: weights has {count} entries, but the objective returned {fitness.shape[-1]} numbers; "
                "give each objective one weight"
            )
    return Answer(fitness, aux)


def _fitness(result: Any, settings: Settings) -> Tensor:
    if isinstance(result, (list, tuple)):
        if not result:
            raise ValueError(
                f"{settings.where}: the objective must return one number, or K of them with weights=, got an empty {type(result).__name__}"
            )
        parts = [_fitness(part, settings) for part in result]
        if any(part.shape != parts[0].shape for part in parts):
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(
                f"{settings.where}: the objective must return a number, or K of them with weights=, got parts of shapes {shapes}; "
                "is it has_aux?"
            )
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1)
    if isinstance(result, Tensor):
        return real(settings.where, "what the objective returns", settle(result))
    try:
        # Numbers of Python have 53 bits, and keep them.
        number = torch.as_tensor(result, dtype=torch.float64 if isinstance(result, (int, float)) else None)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{settings.where}: the objective must return one number, or K of them with weights=, got {_kind(result)}"
        ) from None
    if versions.transforming() and settings.execution.vectorize in ("auto", "vmap"):
        raise Refused(
            f"{settings.where}: the objective returned a {_kind(result)} where vmap needs a tensor; "
            "return a tensor, or pass vectorize='loop'",
            f"an objective that returns a {_kind(result)}",
        )
    return real(settings.where, "what the objective returns", number)


def _kind(result: Any) -> str:
    return f"{type(result).__name__} of {len(result)}" if isinstance(result, (tuple, list)) else type(result).__name__
