"""chain: links one after the other, each on what its left neighbour gives, all on the same params.

    u_0 = g,   u_i, s_i = link_i(u_{i-1}, s_i),   the result is u_n

What each link's new state says is heard by the links to its right.
After optax.chain (0.2.8), which knows no signals.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from funcopt.core import plans, tree
from funcopt.core.door.kinds import stranger
from funcopt.core.door.renamed import renamed
from funcopt.core.door.shown import shown
from funcopt.core.protocol import EmptyState, GradientTransformation, TensorTree
from funcopt.core.searched import check_search
from funcopt.core.signals import ledger, open_signals, read_signals
from funcopt.core.traits import Traits, joined_turns
from funcopt.core.wrap import Place, joined_hooks, joined_words, part

__all__ = ["chain", "identity", "named_chain", "stateless", "stateless_with_tree_map"]


def identity() -> GradientTransformation[EmptyState]:
    """Leaves the updates as they are.

    Returns:
        A transformation that returns the updates it is given, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Example:
        >>> tx = fo.identity()
        >>> tx.update(torch.ones(2), tx.init(torch.ones(2)))
        (tensor([1., 1.]), EmptyState())
    """

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return updates, state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="identity", flattenable=True, per_leaf=True, turns=False, leaves="any", alike=None
    )


def stateless(
    f: Callable[[TensorTree, TensorTree | None], TensorTree],
    *,
    flattenable: bool = False,
    per_leaf: bool = False,
    turns: bool | None = None,
    leafwise: bool | None = None,
) -> GradientTransformation[EmptyState]:
    """A link from a function of whole trees, `f(updates, params) -> updates`.

    Args:
        f: pure; params is None where `update` is called without.
        flattenable: say True if `f` does not care how trees are cut into leaves, as what
            works entry by entry does not, and what takes a norm of each leaf does.
        per_leaf: say True if `f` works every leaf out by itself.
        turns: say True if `f` turns a direction downhill, False if it leaves it uphill.
        leafwise: former name of `flattenable`.

    Returns:
        A link that keeps no state.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        TypeError: `f` is not callable.

    Example:
        >>> halve = fo.stateless(lambda updates, params: fo.tree.scale(0.5, updates))
        >>> halve.update(torch.tensor([2.0, 4.0]), halve.init(torch.zeros(2)))[0]
        tensor([1., 2.])
    """
    if not callable(f):
        raise TypeError(f"stateless: f must be a function of (updates, params), got {f!r}")
    if leafwise is not None:
        renamed("stateless", "leafwise=", "flattenable=")
        flattenable = leafwise

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return f(updates, params), state

    told = {"flattenable": flattenable, "per_leaf": per_leaf, "turns": turns}
    return GradientTransformation(lambda params: EmptyState(), update, name="stateless", leaves="any", house=_ours(f), **told)


def stateless_with_tree_map(
    f: Callable[[Tensor, Tensor | None], Tensor], *, flattenable: bool = False, per_leaf: bool = False, turns: bool | None = None
) -> GradientTransformation[EmptyState]:
    """A link from a function of leaves, `f(update, param) -> update`.

    Args:
        f: pure; the param is None where `update` is called without params.
        flattenable, per_leaf, turns: as in `stateless`; `per_leaf` needs that `f` can be
            vmapped, since leaves of one shape are then worked out together.

    Returns:
        A link that keeps no state.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        TypeError: `f` is not callable.

    Example:
        >>> towards_zero = fo.stateless_with_tree_map(lambda u, p: u + 0.5 * p)
        >>> params = {"w": torch.tensor([2.0])}
        >>> towards_zero.update({"w": torch.tensor([1.0])}, towards_zero.init(params), params)[0]
        {'w': tensor([2.])}
    """
    if not callable(f):
        raise TypeError(f"stateless_with_tree_map: f must be a function of (update, param), got {f!r}")

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        if params is None:
            return tree.map(lambda u: f(u, None), updates), state
        return tree.map(f, updates, params), state

    told = {"flattenable": flattenable, "per_leaf": per_leaf, "turns": turns}
    return GradientTransformation(lambda params: EmptyState(), update, name="stateless_with_tree_map", leaves="any", house=_ours(f), **told)


def _ours(f: Callable[..., Any]) -> bool:
    return (getattr(f, "__module__", None) or "").startswith("funcopt.")


def _checked(where: str, link: Any) -> GradientTransformation:
    if isinstance(link, GradientTransformation):
        return link
    raise TypeError(f"{where}: every link must be a GradientTransformation, {stranger(link)}")


def _declared(where: str, links: Sequence[GradientTransformation], keys: Sequence[Any]) -> dict[str, Any]:
    """What a chain declares about itself follows from its links, whose states stand under these keys."""
    check_search(links)
    parts = [link.traits for link in links]
    hooked: list[tuple[str | None, GradientTransformation, Place]] = [
        (None, link, part(key)) for key, link, traits in zip(keys, links, parts, strict=True) if traits.hooks
    ]
    return {
        "name": where,
        "hears": joined_words("hears", _heard(parts)),
        "needs": joined_words("needs", [traits.needs for traits in parts]),
        "must_be_heard": tuple(dict.fromkeys([word for traits in parts for word in traits.must_be_heard])),
        "flattenable": all([traits.flattenable for traits in parts]),
        "per_leaf": all([traits.per_leaf for traits in parts]),
        "turns": joined_turns([traits.turns for traits in parts]),
        "one_length": any([traits.one_length for traits in parts]),
        "own_rate": any([traits.own_rate for traits in parts]),
        "rounds": any([traits.rounds for traits in parts]),
        "hooks": joined_hooks(hooked),
        "leaves": "any",
        "alike": next((traits.alike for traits in parts if traits.alike is not None), True),
        "links": links,
        "house": all([traits.house for traits in parts]),
    }


def _heard(parts: Sequence[Traits]) -> list[dict[str, str]]:
    """What each link hears from outside: a word that is said further left needs nobody there."""
    said: set[str] = set()
    heard: list[dict[str, str]] = []
    for traits in parts:
        heard.append({word: "if said" if how == "needed" and word in said else how for word, how in traits.hears.items()})
        said.update(traits.must_be_heard)
    return heard


def _init(links: Sequence[GradientTransformation], params: TensorTree) -> list[Any]:
    with ledger() as (book, outermost):
        states: list[Any] = []
        for link in links:
            since = len(book.entries)
            states.append(link.init(params))
            book.enter(link, states[-1], since)
        if outermost:
            book.check()
    return states


def _update(
    links: Sequence[GradientTransformation],
    updates: TensorTree,
    state: Any,
    states: Sequence[Any],
    params: TensorTree,
    signals: Any,
    plan: Any,
    extra: dict[str, Any],
) -> tuple[TensorTree, list[Any]]:
    heard = open_signals(signals, state)
    planned = plan if plan is not None else (None,) * len(links)
    new_states: list[Any] = []
    for link, link_state, link_plan in zip(links, states, planned, strict=True):
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

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        every word that a link says is heard by the links to its right in the same
        step, and by all as `signals.last` in the next.

    Raises:
        TypeError: a link is not a transformation.
        ValueError: a link finds the rate of one to its right whose steps have one length, or that finds its own; at `init` of
            the outermost chain, a word is said twice, or not said though somebody needs it, or said though nobody hears it.

    Example:
        >>> tx = fo.chain(fo.clip(1.0), fo.scale(-0.1))
        >>> tx.update(torch.tensor([5.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.1000,  0.0500])
    """
    links = tuple([_checked("chain", link) for link in links])

    def init(params: TensorTree) -> tuple[Any, ...]:
        return tuple(_init(links, params))

    def update(
        updates: TensorTree,
        state: tuple[Any, ...],
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        plan: Any = None,
        **extra: Any,
    ):
        if len(state) != len(links):
            raise ValueError(
                f"chain: the state must have one part for each of the {len(links)} links, got {len(state)}; "
                "is it the state of another chain?"
            )
        updates, states = _update(links, updates, state, state, params, signals, plan, extra)
        return updates, tuple(states)

    def plan(state: tuple[Any, ...], **extra: Any) -> tuple[Any, ...]:
        return tuple(link.plan(part, **extra) if link.plan else None for link, part in zip(links, state, strict=True))

    declared = _declared("chain", links, range(len(links)))
    if any([link.plan for link in links]):
        declared |= {"plan": plan, "plans": lambda state: plans.of_all(zip(links, state, strict=True))}
    return GradientTransformation(init, update, **declared, relink=lambda others: chain(*others))


def named_chain(*links: tuple[str, GradientTransformation]) -> GradientTransformation:
    """`chain` with a name for each link, by which its state is found: the state is a dict.

    Args:
        links: pairs of a name and a transformation.

    Returns:
        One transformation that runs the links from left to right; its state is a dict from their names to their states.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        ValueError: a name stands twice.
        TypeError: a link is no pair of a name and a transformation.

    Example:
        >>> tx = fo.named_chain(("momentum", fo.trace(0.9)), ("size", fo.scale(-0.1)))
        >>> list(tx.init(torch.zeros(2)))
        ['momentum', 'size']
    """
    for link in links:
        if (
            isinstance(link, GradientTransformation)
            or not isinstance(link, (tuple, list))
            or len(link) != 2
            or not isinstance(link[0], str)
        ):
            raise TypeError(
                f"named_chain: every link must be a pair of a name and a transformation, got {shown(link)}; "
                "write named_chain((name, tx), ...)"
            )
    names = [name for name, _ in links]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"named_chain: each name must stand once, got '{name}' {names.count(name)} times")
    parts = [_checked(f"named_chain: '{name}'", link) for name, link in links]

    def init(params: TensorTree) -> dict[str, Any]:
        return dict(zip(names, _init(parts, params), strict=True))

    def update(
        updates: TensorTree, state: dict[str, Any], params: TensorTree | None = None, *, signals: Any = None, plan: Any = None, **extra: Any
    ):
        if set(state) != set(names):
            raise ValueError(f"named_chain: the state must have the parts {', '.join(names)}, got {', '.join(state)}")
        ordered = [state[name] for name in names]
        updates, states = _update(parts, updates, ordered, ordered, params, signals, plan, extra)
        return updates, dict(zip(names, states, strict=True))

    def plan(state: dict[str, Any], **extra: Any) -> tuple[Any, ...]:
        return tuple(link.plan(state[name], **extra) if link.plan else None for name, link in zip(names, parts, strict=True))

    def relink(others: list[GradientTransformation]) -> GradientTransformation:
        return named_chain(*zip(names, others, strict=True))

    declared = _declared("named_chain", parts, names)
    if any(link.plan for link in parts):
        declared |= {
            "plan": plan,
            "plans": lambda state: plans.of_all((link, state[name]) for name, link in zip(names, parts, strict=True)),
        }
    return GradientTransformation(init, update, **declared, relink=relink)
