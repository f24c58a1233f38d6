"""chain: links one after the other, each on what its left neighbour gives, all on the same params.

    u_0 = g,   u_i, s_i = link_i(u_{i-1}, s_i),   the result is u_n

What each link's new state says is heard by the links to its right.
After optax.chain (0.2.8), which knows no signals.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import HEARING, EmptyState, GradientTransformation, TensorTree
from funcopt.core.signals import ledger, open_signals, read_signals

__all__ = ["chain", "identity", "named_chain", "stateless", "stateless_with_tree_map"]


def identity() -> GradientTransformation:
    """Leaves the updates as they are.

    Example:
        >>> tx = fo.identity()
        >>> tx.update(torch.ones(2), tx.init(torch.ones(2)))
        (tensor([1., 1.]), EmptyState())
    """

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        return updates, state

    return GradientTransformation(lambda params: EmptyState(), update, name="identity", leafwise=True, leaves="any", alike=False)


def stateless(f: Callable[[TensorTree, TensorTree | None], TensorTree], *, leafwise: bool = False) -> GradientTransformation:
    """A link from a function of whole trees, `f(updates, params) -> updates`.

    Args:
        f: pure; params is None where `update` is called without.
        leafwise: say True if `f` does not care how trees are cut into leaves.

    Example:
        >>> halve = fo.stateless(lambda updates, params: fo.tree.scale(0.5, updates))
        >>> halve.update(torch.tensor([2.0, 4.0]), halve.init(torch.zeros(2)))[0]
        tensor([1., 2.])
    """
    if not callable(f):
        raise TypeError(f"stateless: f must be a function of (updates, params), got {f!r}")

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        return f(updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name="stateless", leafwise=leafwise, leaves="any")


def stateless_with_tree_map(f: Callable[[Tensor, Tensor | None], Tensor]) -> GradientTransformation:
    """A link from a function of leaves, `f(update, param) -> update`.

    Args:
        f: pure; the param is None where `update` is called without params.

    Example:
        >>> towards_zero = fo.stateless_with_tree_map(lambda u, p: u + 0.5 * p)
        >>> params = {"w": torch.tensor([2.0])}
        >>> towards_zero.update({"w": torch.tensor([1.0])}, towards_zero.init(params), params)[0]
        {'w': tensor([2.])}
    """
    if not callable(f):
        raise TypeError(f"stateless_with_tree_map: f must be a function of (update, param), got {f!r}")

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        if params is None:
            return tree.map(lambda u: f(u, None), updates), state
        return tree.map(f, updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update, name="stateless_with_tree_map", leaves="any")


def _checked(where: str, link: Any) -> GradientTransformation:
    if isinstance(link, GradientTransformation):
        return link
    if callable(link):
        given = getattr(link, "__name__", "link")
        raise TypeError(f"{where}: every link must be a GradientTransformation, got the function {given}; call it: {given}(...)")
    raise TypeError(f"{where}: every link must be a GradientTransformation, got {link!r}")


def _declared(where: str, links: list[GradientTransformation]) -> dict[str, Any]:
    """What a chain declares about itself follows from its links."""
    hears: dict[str, str] = {}
    for link in links:
        for word, how in link.hears.items():
            hears[word] = max(how, hears.get(word, how), key=HEARING.index)
    return {
        "name": where,
        "hears": hears,
        "must_be_heard": tuple(dict.fromkeys(word for link in links for word in link.must_be_heard)),
        "leafwise": all(link.leafwise for link in links),
        "leaves": "any",
        "alike": next((link.alike for link in links if link.name != "identity"), True),  # identity takes whatever its neighbour takes
        "links": links,
    }


def _init(links: list[GradientTransformation], params: TensorTree) -> list:
    with ledger() as (book, outermost):
        states = []
        for link in links:
            since = len(book.entries)
            states.append(link.init(params))
            book.enter(link, states[-1], since)
        if outermost:
            book.check()
    return states


def _update(links, updates, state, states, params, signals, plan, extra) -> tuple[TensorTree, list]:
    heard = open_signals(signals, state)
    plans = plan if plan is not None else (None,) * len(links)
    new_states = []
    for link, link_state, link_plan in zip(links, states, plans, strict=True):
        if link_plan is not None:
            extra = {**extra, "plan": link_plan}
        updates, link_state = link.update(updates, link_state, params, signals=heard, **extra)
        extra.pop("plan", None)
        heard = heard.joined(read_signals(link_state))
        new_states.append(link_state)
    return updates, new_states


def chain(*links: GradientTransformation) -> GradientTransformation:
    """Applies links from left to right.

    Args:
        links: transformations; none at all is the identity. All see the same params.

    Returns:
        A transformation whose state is the tuple of the links' states.

    Signals:
        every word that a link says is heard by the links to its right in the same
        step, and by all as `signals.last` in the next.

    Raises:
        TypeError: a link is not a transformation.
        ValueError: at `init` of the outermost chain, a word is said twice, or not said
            though somebody needs it, or said though nobody hears it.

    Example:
        >>> tx = fo.chain(fo.clip(1.0), fo.scale(-0.1))
        >>> tx.update(torch.tensor([5.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.0500])
    """
    links = [_checked("chain", link) for link in links]

    def init(params: TensorTree) -> tuple:
        return tuple(_init(links, params))

    def update(updates: TensorTree, state: tuple, params=None, *, signals=None, plan=None, **extra):
        if len(state) != len(links):
            raise ValueError(f"chain: the state must have one part for each of the {len(links)} links, got {len(state)}; is it the state of another chain?")
        updates, states = _update(links, updates, state, state, params, signals, plan, extra)
        return updates, tuple(states)

    def plan(state: tuple, **extra) -> tuple:
        return tuple(link.plan(part, **extra) if link.plan else None for link, part in zip(links, state, strict=True))

    declared = _declared("chain", links)
    return GradientTransformation(init, update, **declared, plan=plan if any(link.plan for link in links) else None, relink=lambda others: chain(*others))


def named_chain(*links: tuple[str, GradientTransformation]) -> GradientTransformation:
    """`chain` with a name for each link, by which its state is found: the state is a dict.

    Args:
        links: pairs of a name and a transformation.

    Raises:
        ValueError: a name stands twice.

    Example:
        >>> tx = fo.named_chain(("momentum", fo.trace(0.9)), ("size", fo.scale(-0.1)))
        >>> list(tx.init(torch.zeros(2)))
        ['momentum', 'size']
    """
    names = [name for name, _ in links]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"named_chain: each name must stand once, got '{name}' {names.count(name)} times")
    parts = [_checked(f"named_chain: '{name}'", link) for name, link in links]

    def init(params: TensorTree) -> dict:
        return dict(zip(names, _init(parts, params), strict=True))

    def update(updates: TensorTree, state: dict, params=None, *, signals=None, plan=None, **extra):
        if set(state) != set(names):
            raise ValueError(f"named_chain: the state must have the parts {', '.join(names)}, got {', '.join(state)}")
        ordered = [state[name] for name in names]
        updates, states = _update(parts, updates, ordered, ordered, params, signals, plan, extra)
        return updates, dict(zip(names, states, strict=True))

    def plan(state: dict, **extra) -> tuple:
        return tuple(link.plan(state[name], **extra) if link.plan else None for name, link in zip(names, parts, strict=True))

    def relink(others: list[GradientTransformation]) -> GradientTransformation:
        return named_chain(*zip(names, others, strict=True))

    declared = _declared("named_chain", parts)
    return GradientTransformation(init, update, **declared, plan=plan if any(link.plan for link in parts) else None, relink=relink)
