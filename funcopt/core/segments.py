"""Segments: a chain held flat of which some links look at each leaf.

Links that do not care how entries are cut into leaves run on the vectors; the others are
given each leaf as a view of its segment, keep their state leaf by leaf, and what they
return is put together again when the next link wants vectors.
"""

from typing import Any

from funcopt.core import tree
from funcopt.core.flat import Flat, Layout
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.wrap import declared_by

__all__ = ["by_segment", "links_of", "segmented"]


def segmented(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """`tx` on `Flat` trees: chains link by link, leafwise links on the vectors, all others by segment."""
    if tx.leafwise:
        return tx
    adapted = _adapted(tx, layout)

    def update(updates: Flat, state: Any, params: Flat | None = None, *, signals=None, **extra):
        updates, state = adapted.update(updates, state, params, signals=signals, **extra)
        return (updates if isinstance(updates, Flat) else layout.ravel(updates)), state

    return GradientTransformation(adapted.init, update, **declared_by(adapted, lambda state: state), name=tx.name)


def _adapted(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    if tx.leafwise:
        return _on_vectors(tx, layout)
    if tx.relink is not None:
        return tx.relink([_adapted(link, layout) for link in tx.links])
    return by_segment(tx, layout)


def _on_vectors(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """A leafwise link after one that ran by segment."""

    def update(updates: TensorTree, state: Any, params: Flat | None = None, *, signals=None, **extra):
        return tx.update(updates if isinstance(updates, Flat) else layout.ravel(updates), state, params, signals=signals, **extra)

    return GradientTransformation(tx.init, update, name=tx.name, **declared_by(tx, lambda state: state, alike=False))


def by_segment(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """A link that looks at each leaf, given the segments of vectors; it returns leaves, and so does its state."""

    def cut(values: Any) -> Any:
        return layout.unravel(values) if isinstance(values, Flat) else values

    def update(updates: TensorTree, state: Any, params: Flat | None = None, *, signals=None, **extra):
        extra = {name: cut(value) for name, value in extra.items()}
        return tx.update(cut(updates), state, cut(params), signals=signals, **extra)

    def init(params: Flat) -> Any:
        return tx.init(layout.unravel(params))

    return GradientTransformation(init, update, name=tx.name, **declared_by(tx, lambda state: state, alike=False))


def links_of(tx: GradientTransformation) -> list[GradientTransformation]:
    """The links of a chain and of the chains in it, one after the other; a transformation that is no chain is its only link."""
    if tx.relink is None:
        return [tx]
    return [inner for link in tx.links for inner in links_of(link)]


def keeps_vectors(state: Any) -> bool:
    """Whether a state holds trees as vectors, and so has work to be done on vectors."""
    found = []
    tree.map_until(Flat, lambda part: found.append(True) if isinstance(part, Flat) else None, state)
    return bool(found)
