"""Segments: a chain held flat of which some links look at each leaf.

    links that do not care how entries are cut into leaves   run on the vectors
    masks and groups by path                                 run on the vectors: each label has its own
    links that work every leaf out by itself                 run on leaves of one shape together (execute/layouts/by_shape.py)
    all others                                               are given each leaf as a view of its segment

What the last keep stays leaf by leaf, and what they return is put together again when the
next link wants vectors.
"""

from collections.abc import Hashable, Iterator
from typing import Any

from funcopt.core import tree
from funcopt.core.masking import hide
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.wrap import WHOLE, wrapped
from funcopt.execute.layouts.by_shape import by_stack, stackable
from funcopt.execute.layouts.layout import Flat, Layout, Stacked

__all__ = ["BY_SEGMENT", "BY_SHAPE", "ON_VECTORS", "by_segment", "forms", "keeps_vectors", "laid_out", "links_of", "segmented"]

ON_VECTORS, BY_SHAPE, BY_SEGMENT = "on vectors", "by shape", "by segment"


def laid_out(tx: GradientTransformation, params: TensorTree) -> Layout:
    """The layout on which `tx` has most to do on vectors."""
    return Layout(params, _labels(tx, params))


def _labels(tx: GradientTransformation, params: TensorTree) -> list[tuple[Hashable, ...]]:
    """For each leaf the labels that it has in all groupings, one inside the other and one after the other."""
    labels: list[tuple[Hashable, ...]] = [()] * len(tree.leaves(params))
    if tx.grouping is not None:
        grouping = tx.grouping(params)
        labels = [(label,) for label in grouping.labels]
        for label, inner in grouping.links.items():
            keep = [other == label for other in grouping.labels]
            inside = iter(_labels(inner, hide(keep, params)))
            labels = [words + next(inside) if seen else words for words, seen in zip(labels, keep, strict=True)]
    elif tx.relink is not None:
        for link in tx.links:
            labels = [ours + words for ours, words in zip(labels, _labels(link, params), strict=True)]
    return labels


def segmented(tx: GradientTransformation, layout: Layout, params: TensorTree) -> GradientTransformation:
    """`tx` on `Flat` trees of this layout, which was laid out for `tx` and these params; what it returns is `Flat`."""
    if tx.flattenable:
        return tx
    adapted = _adapted(tx, layout, params)

    def update(updates: Flat, state: Any, params: Flat | None = None, *, signals: Any = None, **extra: Any):
        updates, state = adapted.update(updates, state, params, signals=signals, **extra)
        return layout.vectors(updates), state

    return wrapped(adapted.init, update, tx, WHOLE, plan=adapted.plan, plans=adapted.plans)


def _adapted(tx: GradientTransformation, layout: Layout, params: TensorTree) -> GradientTransformation:
    if tx.flattenable:
        return _on_vectors(tx, layout)
    if tx.relink is not None:
        return tx.relink([_adapted(link, layout, params) for link in tx.links])
    if tx.grouping is not None:
        return _on_vectors(_by_label(tx, layout, params), layout)
    return by_stack(tx, layout) if stackable(tx, layout, params) else by_segment(tx, layout)


def _by_label(tx: GradientTransformation, layout: Layout, params: TensorTree) -> GradientTransformation:
    """Masks and groups, with labels of vectors in place of labels of leaves."""
    assert tx.grouping is not None
    labels, links, remade = tx.grouping(params)
    of_vectors = layout.labelled(labels)
    inner = {}
    for label, link in links.items():
        keep = [other == label for other in labels]
        inner[label] = segmented(link, layout.part(keep), hide(keep, params)) if any(keep) else link
    return remade(inner, lambda vectors: of_vectors)


def _on_vectors(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """A flattenable link after one that ran by segment."""

    def update(updates: TensorTree, state: Any, params: Flat | None = None, *, signals: Any = None, **extra: Any):
        return tx.update(layout.vectors(updates), state, params, signals=signals, **extra)

    return wrapped(tx.init, update, tx, WHOLE, alike=False)


def by_segment(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """A link that looks at each leaf, given the segments of vectors; it returns leaves, and so does its state."""

    def cut(values: Any) -> Any:
        return layout.unravel(values) if isinstance(values, Flat) else layout.unstack(values) if isinstance(values, Stacked) else values

    def update(updates: TensorTree, state: Any, params: Flat | None = None, *, signals: Any = None, **extra: Any):
        extra = {name: cut(value) for name, value in extra.items()}
        return tx.update(cut(updates), state, cut(params), signals=signals, **extra)

    def init(params: Flat) -> Any:
        return tx.init(layout.unravel(params))

    return wrapped(init, update, tx, WHOLE, alike=False)


def links_of(tx: GradientTransformation) -> list[GradientTransformation]:
    """The links of a chain and of the chains in it, one after the other; a transformation that is no chain is its only link."""
    if tx.relink is None:
        return [tx]
    return [inner for link in tx.links for inner in links_of(link)]


def forms(tx: GradientTransformation, layout: Layout, params: TensorTree) -> Iterator[tuple[str, str]]:
    """The name of each link, and how it runs on this layout."""
    if tx.grouping is not None and not tx.flattenable:
        labels, links, _ = tx.grouping(params)
        for label, link in links.items():
            if label in labels:
                keep = [other == label for other in labels]
                yield from forms(link, layout.part(keep), hide(keep, params))
    elif tx.relink is not None:
        for link in tx.links:
            yield from forms(link, layout, params)
    else:
        yield tx.name, ON_VECTORS if tx.flattenable else BY_SHAPE if stackable(tx, layout, params) else BY_SEGMENT


def keeps_vectors(state: Any) -> bool:
    """Whether a state holds trees as vectors or stacks, and so has work to be done on them."""
    found = []
    tree.map_until((Flat, Stacked), lambda part: found.append(True) if isinstance(part, (Flat, Stacked)) else None, state)
    return bool(found)
