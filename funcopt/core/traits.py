"""Traits: what a transformation declares about itself.

Whatever runs a transformation (`make_step`, the torch optimizers, a population) decides by
its traits alone, never by its name. `fo.check` compares with what it does. A wrapper says
only what it changes; the rest is carried by `wrap.wrapped`, a chain's follow from its links.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["EAGER", "HEARING", "NEEDING", "Traits", "declared", "joined_turns", "outside_the_graph"]

EAGER = "eager"  # a plan: run this step outside the graph, as the rare one in which a pool keeps its records

HEARING = ("in passing", "if said", "last", "needed")  # from the weakest to the strongest
LEAVES = ("real", "complex", "any")
NEEDING = ("may hold", "always")


NOTHING: Mapping[str, Any] = {}  # a plain one: a compiler follows no mapping proxy once a module has lent its parameters


class Traits(NamedTuple):
    """The declarations of a transformation, each once; what they mean is told by `GradientTransformation`."""

    name: str = ""
    hears: Mapping[str, str] = NOTHING
    must_be_heard: tuple[str, ...] = ()
    needs: Mapping[str, str] = NOTHING
    leaves: str = "real"
    alike: bool | None = True
    flattenable: bool = False
    per_leaf: bool = False
    turns: bool | None = None
    one_length: bool = False
    own_rate: bool = False
    rounds: bool = False
    hooks: Mapping[str, Callable[..., Any]] = NOTHING
    plan: Callable[..., Any] | None = None
    plans: Callable[..., Any] | None = None
    in_one_graph: Callable[[], Any] | None = None
    links: tuple[Any, ...] = ()
    relink: Callable[..., Any] | None = None
    grouping: Callable[..., Any] | None = None
    house: bool = False  # made by this library throughout, whose contract holds its declarations


NAMES = Traits._fields
_FLAGS = ("flattenable", "per_leaf", "alike", "turns", "one_length", "own_rate", "rounds")


def declared(name: str, given: Mapping[str, Any]) -> Traits:
    """Traits from the keywords of a declaration.

    Raises:
        TypeError, ValueError: a keyword is unknown or out of its range.
    """
    settled = dict(given)  # transformations are made within steps, too: what is not given costs nothing
    if "hears" in given:
        settled["hears"] = _by_word(name, "hears", given["hears"], "if said", HEARING)
    if "needs" in given:
        settled["needs"] = _by_word(name, "needs", given["needs"], "may hold", NEEDING)
    for trait in ("must_be_heard", "links"):
        if trait in given:
            settled[trait] = tuple(given[trait])
    if not given["house"]:
        _check(name, given)
    return Traits(name=name, **settled)


def _check(name: str, given: Mapping[str, Any]) -> None:
    strangers = [word for word in given if word not in NAMES]
    if strangers:
        raise TypeError(f"{name}: a transformation does not declare {', '.join(strangers)}; it declares {', '.join(NAMES[:-1])}")
    for trait in _FLAGS:
        if not isinstance(given.get(trait, False), bool) and not (trait in ("turns", "alike") and given[trait] is None):
            raise TypeError(f"{name}: {trait} must be True or False, got {given[trait]!r}")
    if given.get("leaves", "real") not in LEAVES:
        raise ValueError(f"{name}: leaves must be one of {', '.join(LEAVES)}, got {given['leaves']!r}")
    for word, hook in given.get("hooks", {}).items():
        if not callable(hook):
            raise TypeError(f"{name}: hooks must map names to functions (state, ...) -> state, got {hook!r} for {word!r}")


def _by_word(name: str, trait: str, given: Mapping[str, str] | Sequence[str], default: str, allowed: Sequence[str]) -> dict[str, str]:
    """How each word is meant, from a mapping or a mere list of words."""
    if isinstance(given, str):
        raise TypeError(f"{name}: {trait} must be a sequence of words or a mapping from them, got {given!r}; write ({given!r},)")
    if not given:
        return {}
    words = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, default)
    for how in words.values():
        if how not in allowed:
            raise ValueError(f"{name}: {trait} must say one of {', '.join(allowed)} for each word, got {how!r}")
    return words


def joined_turns(parts: Sequence[bool | None]) -> bool | None:
    """Whether one of several gives the step its sign: one that does is enough, one of which nothing is known leaves it open."""
    return True if True in parts else None if None in parts else False


def outside_the_graph(plan: Any) -> bool:
    """Whether somebody's plan for this step is EAGER."""
    return plan == EAGER or (isinstance(plan, tuple) and any(map(outside_the_graph, plan)))
