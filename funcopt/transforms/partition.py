"""partition: another transformation for each group of leaves.

    u[leaves labelled k], s_t[k] = transforms[k].update(g[those], s_{t-1}[k], p[those])
    by="leaf": every leaf is a group of its own, labelled by its path

What is global inside a group (a norm, a rate, a bandit) sees that group alone.
Reference: optax.partition (0.2.8); labels by path and scopes for words are ours.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, check, plans, read_signals, signals as words, tree
from funcopt.core.door.kinds import stranger
from funcopt.core.masking import hide
from funcopt.core.protocol import Grouping
from funcopt.core.wrap import field, joined_hooks, joined_words, part, within
from funcopt.transforms.groups import Labels, by_path, entries_of
from funcopt.transforms.mask import MaskedState, hide_extras

__all__ = ["PartitionState", "partition"]

By = Literal["path", "leaf"]


class PartitionState(NamedTuple):
    inner_states: dict[Hashable, MaskedState]  # label -> state of its transformation

    def signals(self) -> dict[str, Tensor]:
        return {f"{label}/{word}": value for label, state in self.inner_states.items() for word, value in read_signals(state).items()}


def partition(
    transforms: Mapping[Hashable, GradientTransformation] | GradientTransformation,
    labels: TensorTree | Callable[..., Any] | Mapping[str, Hashable] | None = None,
    *,
    by: By | None = None,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation[PartitionState]:
    """Applies to each leaf the transformation of its label.

    Args:
        transforms: label -> transformation. A label that no leaf has is allowed. With `by="leaf"`
            one transformation, of which every leaf has a state of its own; what it draws is the same for leaves of one shape.
        labels: a tree of labels with the structure of params or a prefix of it, or a
            function from params (in `init`) or updates (in `update`) to such a tree, which
            may depend on structure, shapes and paths only.
        by: "path": the labels are found by the paths of the leaves (`by_path`). Then
            `labels` maps patterns such as "*.bias" to labels, the first that matches
            wins; or it is a function `(path, leaf) -> label`; or it is left out, and the
            labels of `transforms` are the patterns. "leaf": each leaf is labelled by its path.
        mask_compatible_extra_args: whether extra arguments that have the structure of
            the updates are cut into groups too.

    Returns:
        A transformation whose state holds one state for each label, with no entries for
        the leaves of the others.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        each label is a scope: its words are read as "label/word", and heard inside
        without the prefix ("label/base_lr" of the loop is the `base_lr` of that group).

    Raises:
        TypeError: something in `transforms` is not a transformation; with `by="leaf"`, it is a mapping.
        ValueError: a leaf has a label without a transformation; by path, a name matches
            no pattern or a pattern no name; by leaf, `labels` are given, two leaves have one path or a path holds a "/".

    Example:
        >>> params = {"layer": {"weight": torch.ones(2), "bias": torch.ones(1)}}
        >>> tx = fo.partition({"*.bias": fo.sgd(1.0), "*": fo.sgd(0.5)}, by="path")
        >>> tx.update(params, tx.init(params), params)[0]
        {'layer': {'weight': tensor([-0.5000, -0.5000]), 'bias': tensor([-1.])}}
        >>> tx = fo.partition(fo.chain(fo.clip_by_global_norm(1.0), fo.sgd(1.0)), by="leaf")
        >>> tx.update({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([5.0])}, tx.init({"a": torch.ones(2), "b": torch.ones(1)}))[0]
        {'a': tensor([-0.6000, -0.8000]), 'b': tensor([-1.])}
    """
    check.choice("partition", "by", by, (None, *get_args(By)))
    each = transforms if isinstance(transforms, GradientTransformation) else None
    if (by == "leaf") != (each is not None):
        rule = "be one transformation where by='leaf'" if by == "leaf" else "map labels to transformations, unless by='leaf'"
        raise TypeError(f"partition: transforms must {rule}, got {transforms!r}")
    groups: dict[Hashable, GradientTransformation] = {} if isinstance(transforms, GradientTransformation) else dict(transforms)
    for label, tx in groups.items():
        if not isinstance(tx, GradientTransformation):
            raise TypeError(
                f"partition: transforms must map labels to transformations, and for {label!r} it must be a GradientTransformation, "
                f"{stranger(tx)}"
            )
        _prefix(label)
    if by == "path":
        labels = by_path({str(label): label for label in groups} if labels is None else labels)
    elif by == "leaf":
        if labels is not None:
            raise ValueError(f"partition: labels must be left out where by='leaf', since each leaf is labelled by its path, got {labels!r}")
        labels = by_path(lambda path, leaf: path)
    elif labels is None:
        raise ValueError(
            "partition: needs labels, a tree of them or a function of params; or by='path', where the labels are patterns of paths"
        )

    def grouped(values: TensorTree) -> tuple[dict[Hashable, GradientTransformation], list[Hashable]]:
        """The transformation of each label, and the label of each leaf."""
        found = entries_of(labels, values, "partition", "labels")
        if each is not None:
            return dict.fromkeys(sorted(found), each), found
        strangers = [label for label in dict.fromkeys(found) if label not in groups]
        if strangers:
            paths = tree.paths(values)
            raise ValueError(
                f"partition: every label must have a transformation, got {', '.join(map(repr, strangers))} (first at "
                f"'{paths[found.index(strangers[0])]}'); "
                f"there are {', '.join(map(repr, groups))}"
            )
        return groups, found

    def init(params: TensorTree) -> PartitionState:
        groups, found = grouped(params)
        if each is not None:
            for path in found:
                _prefix(path)
            if len(groups) < len(found):
                twice = next(path for path in found if found.count(path) > 1)
                raise ValueError(
                    f"partition: paths of leaves must differ where by='leaf', got '{twice}' twice; rename a key that holds a dot"
                )
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

    def update(
        updates: TensorTree, state: PartitionState, params: TensorTree | None = None, *, signals: Any = None, plan: Any = None, **extra: Any
    ):
        groups, found = grouped(updates)
        heard = words.open_signals(signals, state)
        leaves, states = tree.leaves(updates), {}
        for label, tx, group_plan in zip(groups, groups.values(), plan or (None,) * len(groups), strict=True):
            keep = [other == label for other in found]
            shown = None if params is None else hide(keep, params)
            given = hide_extras(keep, updates, extra) if mask_compatible_extra_args else extra
            if group_plan is not None:
                given = {**given, "plan": group_plan}
            changed, inner = tx.update(
                hide(keep, updates), state.inner_states[label].inner_state, shown, signals=heard.inside(str(label)), **given
            )
            results = iter(tree.leaves(changed))
            leaves = [next(results) if mine else leaf for mine, leaf in zip(keep, leaves, strict=True)]
            states[label] = MaskedState(inner_state=inner)
        return tree.unflatten(updates, leaves), PartitionState(inner_states=states)

    def remade(links: Mapping[Hashable, GradientTransformation], labels: Callable[[TensorTree], list[Any]]) -> GradientTransformation:
        return partition(links, Labels(labels), mask_compatible_extra_args=mask_compatible_extra_args)

    def plan(state: PartitionState, **extra: Any) -> tuple[Any, ...]:
        links = groups if each is None else dict.fromkeys(sorted(state.inner_states, key=str), each)
        return tuple(tx.plan(state.inner_states[label].inner_state, **extra) if tx.plan else None for label, tx in links.items())

    def all_plans(state: PartitionState):
        return plans.of_all((tx, state.inner_states[label].inner_state) for label, tx in groups.items())

    def grouping(params: TensorTree) -> Grouping:
        links, found = grouped(params)
        return Grouping(found, links, remade)

    parts = list(groups.values()) if each is None else [each]
    places = {label: within(part(label, inside="inner_states"), field("inner_state")) for label in groups}
    turns, alike = {tx.turns for tx in parts}, {tx.alike for tx in parts}
    return GradientTransformation(
        init,
        update,
        name="partition",
        hears=joined_words("hears", [tx.hears for tx in parts]),
        needs=joined_words("needs", [tx.needs for tx in parts]),
        must_be_heard=tuple(f"{label}/{word}" for label, tx in groups.items() for word in tx.must_be_heard),
        hooks=joined_hooks([(str(label), tx, places[label]) for label, tx in groups.items()]) if each is None else _of_every_leaf(each),
        turns=turns.pop() if len(turns) == 1 else None,
        one_length=any(tx.one_length for tx in parts),
        own_rate=any(tx.own_rate for tx in parts),
        rounds=any(tx.rounds for tx in parts),
        leaves="any",
        alike=None if alike == {None} else False not in alike,
        plan=plan if any(tx.plan for tx in parts) else None,
        plans=all_plans if each is None else None,
        grouping=grouping,
        house=all(tx.house for tx in parts),
    )


def _prefix(label: Hashable) -> None:
    if "/" in str(label):
        raise ValueError(f"partition: labels are prefixes of words and hold no '/', got {label!r}")


def _of_every_leaf(tx: GradientTransformation) -> dict[str, Callable[..., Any]]:
    """The hooks of a transformation of which each label has a state, called on all of them."""

    def on_all(hook: Callable[..., Any]) -> Callable[..., Any]:
        def called(state: PartitionState, *arguments: Any, **named: Any) -> PartitionState:
            held = state.inner_states.items()
            return PartitionState(
                inner_states={label: MaskedState(inner_state=hook(inner.inner_state, *arguments, **named)) for label, inner in held}
            )

        return called

    return {word: on_all(hook) for word, hook in tx.hooks.items()}
