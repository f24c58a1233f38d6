"""partition: another transformation for each group of leaves.

    u[leaves labelled k], s_t[k] = transforms[k].update(g[those], s_{t-1}[k], p[those])

What is global inside a group (a norm, a rate, a bandit) sees that group alone.
Reference: optax.partition (0.2.8); labels by path and scopes for words are ours.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, read_signals, signals as words, tree
from funcopt.core.masking import hide
from funcopt.core.protocol import Grouping
from funcopt.transforms.groups import Labels, by_path, entries_of
from funcopt.transforms.mask import MaskedState, hide_extras

__all__ = ["PartitionState", "partition"]


class PartitionState(NamedTuple):
    inner_states: dict[Hashable, MaskedState]  # label -> state of its transformation

    def signals(self) -> dict[str, Tensor]:
        return {f"{label}/{word}": value for label, state in self.inner_states.items() for word, value in read_signals(state).items()}


def partition(
    transforms: Mapping[Hashable, GradientTransformation],
    labels: TensorTree | Callable | Mapping[str, Hashable] | None = None,
    *,
    by: str | None = None,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """Applies to each leaf the transformation of its label.

    Args:
        transforms: label -> transformation. A label that no leaf has is allowed.
        labels: a tree of labels with the structure of params or a prefix of it, or a
            function from params (in `init`) or updates (in `update`) to such a tree, which
            may depend on structure, shapes and paths only.
        by: "path": the labels are found by the paths of the leaves (`by_path`). Then
            `labels` maps patterns such as "*.bias" to labels, the first that matches
            wins; or it is a function `(path, leaf) -> label`; or it is left out, and the
            labels of `transforms` are the patterns.
        mask_compatible_extra_args: whether extra arguments that have the structure of
            the updates are cut into groups too.

    Returns:
        A transformation whose state holds one state for each label, with no entries for
        the leaves of the others.

    Signals:
        each label is a scope: its words are read as "label/word", and heard inside
        without the prefix ("label/base_lr" of the loop is the `base_lr` of that group).

    Raises:
        TypeError: something in `transforms` is not a transformation.
        ValueError: a leaf has a label without a transformation; by path, a name matches
            no pattern or a pattern no name.

    Example:
        >>> params = {"layer": {"weight": torch.ones(2), "bias": torch.ones(1)}}
        >>> tx = fo.partition({"*.bias": fo.sgd(1.0), "*": fo.sgd(0.5)}, by="path")
        >>> tx.update(params, tx.init(params), params)[0]
        {'layer': {'weight': tensor([-0.5000, -0.5000]), 'bias': tensor([-1.])}}
    """
    groups = dict(transforms)
    for label, tx in groups.items():
        if not isinstance(tx, GradientTransformation):
            raise TypeError(f"partition: transforms must map labels to transformations, got {tx!r} for {label!r}")
        if "/" in str(label):
            raise ValueError(f"partition: labels are prefixes of words and hold no '/', got {label!r}")
    check.choice("partition", "by", by, (None, "path"))
    if by == "path":
        labels = by_path({str(label): label for label in groups} if labels is None else labels)
    elif labels is None:
        raise ValueError("partition: needs labels, a tree of them or a function of params; or by='path', where the labels are patterns of paths")

    def labelled(values: TensorTree) -> list[Hashable]:
        found = entries_of(labels, values, "partition", "labels")
        strangers = [label for label in dict.fromkeys(found) if label not in groups]
        if strangers:
            paths = tree.paths(values)
            raise ValueError(
                f"partition: every label must have a transformation, got {', '.join(map(repr, strangers))} (first at '{paths[found.index(strangers[0])]}'); "
                f"there are {', '.join(map(repr, groups))}"
            )
        return found

    def init(params: TensorTree) -> PartitionState:
        found = labelled(params)
        states = {}
        with words.ledger() as (book, outermost):
            for label, tx in groups.items():
                since = len(book.entries)
                with words.scope(str(label)):
                    inner = tx.init(hide([other == label for other in found], params))
                    book.enter(tx, inner, since)
                states[label] = MaskedState(inner_state=inner)
            if outermost:
                book.check()
        return PartitionState(inner_states=states)

    def update(updates: TensorTree, state: PartitionState, params=None, *, signals=None, plan=None, **extra):
        found = labelled(updates)
        heard = words.open_signals(signals, state)
        leaves, states = tree.leaves(updates), {}
        for label, tx, group_plan in zip(groups, groups.values(), plan or (None,) * len(groups), strict=True):
            keep = [other == label for other in found]
            shown = None if params is None else hide(keep, params)
            given = hide_extras(keep, updates, extra) if mask_compatible_extra_args else extra
            if group_plan is not None:
                given = {**given, "plan": group_plan}
            changed, inner = tx.update(hide(keep, updates), state.inner_states[label].inner_state, shown, signals=heard.inside(str(label)), **given)
            results = iter(tree.leaves(changed))
            leaves = [next(results) if mine else leaf for mine, leaf in zip(keep, leaves, strict=True)]
            states[label] = MaskedState(inner_state=inner)
        return tree.unflatten(updates, leaves), PartitionState(inner_states=states)

    def remade(links: Mapping[Hashable, GradientTransformation], labels: Callable[[TensorTree], list]) -> GradientTransformation:
        return partition(links, Labels(labels), mask_compatible_extra_args=mask_compatible_extra_args)

    def plan(state: PartitionState, **extra) -> tuple:
        return tuple(tx.plan(state.inner_states[label].inner_state, **extra) if tx.plan else None for label, tx in groups.items())

    hears: dict[str, str] = {}
    for tx in groups.values():
        for word, how in tx.hears.items():
            hears[word] = how if hears.get(word) in (None, "if said") else hears[word]
    return GradientTransformation(
        init,
        update,
        name="partition",
        hears=hears,
        must_be_heard=tuple(dict.fromkeys(word for tx in groups.values() for word in tx.must_be_heard)),
        leaves="any",
        alike=all(tx.alike for tx in groups.values()),
        plan=plan if any(tx.plan for tx in groups.values()) else None,
        grouping=lambda params: Grouping(labelled(params), groups, remade),
    )
