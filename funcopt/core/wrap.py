"""What wrappers declare follows from what they wrap: said once, here, and so forgotten by none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from funcopt.core.plans import in_one_graph
from funcopt.core.protocol import GradientTransformation
from funcopt.core.traits import HEARING, NEEDING, Traits

__all__ = ["WHOLE", "Place", "field", "joined_hooks", "joined_words", "lifted", "links_with", "part", "within", "wrapped"]


Kind = TypeVar("Kind", bound=GradientTransformation)


class Place(NamedTuple):
    """Where the state of an inner transformation stands in that of an outer one."""

    get: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]  # (state, inner) -> state


WHOLE = Place(lambda state: state, lambda state, inner: inner)


def field(name: str) -> Place:
    """A field of a NamedTuple."""
    return Place(attrgetter(name), lambda state, inner: state._replace(**{name: inner}))


def part(key: Any, inside: str | None = None) -> Place:
    """An entry of a tuple or a dict; `inside`: of one that is a field of a NamedTuple."""

    def put(held: Any, inner: Any) -> Any:
        return {**held, key: inner} if isinstance(held, dict) else (*held[:key], inner, *held[key + 1 :])

    entry = Place(lambda held: held[key], put)
    return entry if inside is None else within(field(inside), entry)


def within(outer: Place, inner: Place) -> Place:
    """A place inside a place."""
    return Place(lambda state: inner.get(outer.get(state)), lambda state, held: outer.put(state, inner.put(outer.get(state), held)))


def lifted(hook: Callable[..., Any], at: Place) -> Callable[..., Any]:
    """A function of an inner state as one of the outer state."""

    def outer(state: Any, *arguments: Any, **named: Any) -> Any:
        return at.put(state, hook(at.get(state), *arguments, **named))

    return outer


def wrapped(
    init: Callable[..., Any],
    update: Callable[..., Any],
    inner: GradientTransformation,
    at: Place,
    *,
    kind: type[Kind] = GradientTransformation,  # pyright: ignore[reportArgumentType] (a default for a type variable)
    again: Callable[[GradientTransformation], GradientTransformation] | None = None,
    **changed: Any,
) -> Kind:
    """A transformation around another, which declares what that one declares.

    Args:
        inner: what is wrapped; its inits check their leaves themselves.
        at: where its state stands.
        kind: the class of the result.
        again: puts the same wrapper around another transformation.
        changed: what the wrapper declares otherwise. It is asked to be explicit about
            `flattenable` and `per_leaf` where it looks at several leaves at once.
    """
    plan, plans = inner.plan, inner.plans
    forwarded = None if plan is None else lambda state, **extra: plan(at.get(state), **extra)
    all_of_them = None if plans is None or "plan" in changed else lambda state: plans(at.get(state))
    hooks = {name: lifted(hook, at) for name, hook in inner.hooks.items()}
    carried = inner.traits._replace(leaves="any", plan=forwarded, plans=all_of_them, hooks=hooks, links=(), relink=None, grouping=None)
    carried = carried._replace(in_one_graph=None if again is None or plan is None else lambda: _again(again, inner))
    return kind(init, update, **{**carried._asdict(), **changed})


def _again(again: Callable[[GradientTransformation], GradientTransformation], inner: GradientTransformation):
    one = in_one_graph(inner)
    return None if one is None else again(one)


def joined_words(trait: str, parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What several hear or need: of each word the strongest."""
    order = HEARING if trait == "hears" else NEEDING
    words: dict[str, str] = {}
    for given in parts:
        for word, how in given.items():
            before = words.get(word, how)
            words[word] = how if order.index(how) > order.index(before) else before
    return words


def joined_hooks(parts: list[tuple[str | None, GradientTransformation, Place]]) -> dict[str, Callable[..., Any]]:
    """The hooks of several transformations, each (label, transformation, place): called on all that have it, or as "label/hook" on one."""
    found: dict[str, list[Callable[..., Any]]] = {}
    for label, tx, at in parts:
        if not tx.hooks:
            continue
        for name, hook in tx.hooks.items():
            for word in (name,) if label is None else (name, f"{label}/{name}"):
                found.setdefault(word, []).append(lifted(hook, at))
    return {word: _one_after_the_other(hooks) for word, hooks in found.items()}


def _one_after_the_other(hooks: list[Callable[..., Any]]) -> Callable[..., Any]:
    if len(hooks) == 1:
        return hooks[0]

    def all_of_them(state: Any, *arguments: Any, **named: Any) -> Any:
        return reduce(lambda state, hook: hook(state, *arguments, **named), hooks, state)

    return all_of_them


def links_with(tx: GradientTransformation, found: Callable[[Traits], bool]) -> Iterator[GradientTransformation]:
    """The links of a chain, and of the chains in it, whose traits are so; a transformation that is no chain is its only link."""
    if tx.links:
        for link in tx.links:
            yield from links_with(link, found)
    elif found(tx.traits):
        yield tx
