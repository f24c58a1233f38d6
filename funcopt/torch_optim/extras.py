"""What a step is told besides gradients: the loss, a reward, a metric, the epoch.

Numbers that differ from rank to rank (whatever is not a whole number) are averaged over
the ranks before use, so that every controller decides alike on all of them.
"""

from typing import Any

import torch
from torch import Tensor

from funcopt.core import sharded
from funcopt.core.protocol import GradientTransformation
from funcopt.core.wrap import links_with

__all__ = ["averaged", "call", "completed", "held", "numbers", "unmet"]

ONCE = ("loss",)  # of the step it was observed for, and of no later one


def numbers(given: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, whole, and outside of the graph of derivatives."""
    return {
        name: sharded.whole(value.detach()) if isinstance(value, Tensor) else value for name, value in given.items() if value is not None
    }


def averaged(given: dict[str, Any], group: Any) -> dict[str, Any]:
    """The extras with the mean over the ranks of every real number; as they are where nobody else trains.

    Args:
        given: extras of this rank.
        group: a process group; None for the default one, False for no averaging.
    """
    if group is False or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return given
    from funcopt.distributed.exchange import mean

    differing = {name: given[name] for name in sorted(given) if _differs(given[name])}
    return {**given, **mean(differing, group)}


def _differs(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point()
    return isinstance(value, float)


def call(word: str) -> str:
    """How an optimizer is told a word."""
    return f"call step({word}={word}), or observe({word}={word}) before a step that a trainer calls"


def unmet(tx: GradientTransformation, told: dict[str, Any]) -> list[tuple[str, ...]]:
    """The words that a transformation needs and is not told, each with those that do as well."""
    alternatives = [tuple(words.split("|")) for words in tx.needs]
    return [words for words in alternatives if all(told.get(word) is None for word in words)]


def completed(tx: GradientTransformation, told: dict[str, Any], on_missing: str, last_epoch: int) -> dict[str, Any]:
    """What a step is told, and what stands in for what is missing.

    Raises:
        ValueError: something is missing, and nothing may stand in for it.
    """
    missing = unmet(tx, told)
    for words in missing:
        declared, word = "|".join(words), words[0]
        holds = tx.needs[declared] == "may hold"
        if on_missing == "hold" and holds:
            continue
        who = next(links_with(tx, lambda traits, declared=declared: declared in traits.needs)).name
        also = "; on_missing='hold' goes on without" if holds else ", and nothing can stand in for it" if on_missing == "hold" else ""
        raise ValueError(f"{who}: needs the {word} of this step; {call(word)}{also}")
    return {**told, **{words[0]: held(words[0], last_epoch) for words in missing}} if missing else told


def held(name: str, last_epoch: int) -> Any:
    """What stands in for a missing number, so that a controller holds still: one that says nothing."""
    return last_epoch if name == "epoch" else float("nan")
