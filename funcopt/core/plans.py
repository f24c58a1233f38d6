"""All that the `plan` of a transformation may give, from what its parts may: graphs are made of them before they are needed."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice, product
from typing import Any

from funcopt.core.protocol import GradientTransformation

__all__ = ["in_one_graph", "of_all", "of_one", "with_steps", "with_turns"]

MOST = 64  # nobody makes that many graphs ahead


def of_one(tx: GradientTransformation, state: Any) -> Sequence[Hashable] | None:
    """The plans of a transformation in this state; (None,) of one without, None where nobody knows."""
    if tx.plan is None:
        return (None,)
    return None if tx.plans is None else tx.plans(state)


def of_all(parts: Iterable[tuple[GradientTransformation, Any]]) -> Sequence[Hashable] | None:
    """A tuple with a plan of each part, in every combination; None where one is not known or there are more than `MOST`.

    Args:
        parts: transformations and their states.

    Example:
        >>> from funcopt.core import plans
        >>> tx = fo.multi_steps(fo.sgd(0.1), 2)
        >>> plans.of_all([(fo.sgd(0.1), ()), (tx, tx.init(torch.zeros(1)))])
        [(None, (False, None)), (None, (True, None))]
    """
    known = [of_one(tx, state) for tx, state in parts]
    if any(found is None for found in known):
        return None
    combined = list(islice(product(*[found for found in known if found is not None]), MOST + 1))
    return None if len(combined) > MOST else combined


def in_one_graph(tx: GradientTransformation) -> GradientTransformation | None:
    """The same without a plan, choosing in the graph; itself where it has none, None where that cannot be.

    Example:
        >>> from funcopt.core import plans
        >>> pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sign": fo.Member(fo.scale_by_lion(), lr=0.01)}
        >>> tx = fo.chain(fo.roulette(pool), fo.lr_scale())
        >>> tx.plan is None, plans.in_one_graph(tx).plan is None, plans.in_one_graph(fo.soap(0.1))
        (False, True, None)
    """
    if tx.plan is None:
        return tx
    if tx.in_one_graph is not None:
        return tx.in_one_graph()
    if tx.relink is None:
        return None
    found = [in_one_graph(link) for link in tx.links]
    links = [link for link in found if link is not None]
    return tx.relink(links) if len(links) == len(found) else None


def with_turns(inner: GradientTransformation, state: Any, turns: Sequence[bool | None]) -> Sequence[Hashable] | None:
    """Of something that is due in some calls: each of `turns` with each plan of the transformation inside."""
    found = of_one(inner, state)
    return None if found is None else [(due, plan) for due in turns for plan in found]


def with_steps(inner: GradientTransformation, state: Any) -> Sequence[Hashable] | None:
    """The plans of what steps in some of its calls: whether this is one, and then that of the transformation inside."""
    found = of_one(inner, state)
    return None if found is None else ((False, None), *((True, plan) for plan in found))
