"""Masks and labels by path: which leaves a word like "*.bias" stands for.

A path joins keys, indices and field names with dots ("encoder.layer.0.weight"); patterns
are those of a shell ("*", "?", "[ab]"; "*" crosses dots; capitals count). Of several
patterns the first that matches wins. Names that nothing matches and patterns that
match nothing are errors, since both are how a misspelt name shows.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import translate
from functools import lru_cache
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, tree
from funcopt.core.door.shown import shown
from funcopt.core.unfit import dense
from funcopt.core.versions import answered_while_tracing, compiling

__all__ = ["by_path", "describe_groups"]

LISTED = 10  # paths in an error
BESIDE: list[frozenset[str]] = [frozenset()]  # names of leaves that a tree may lack

Patterns = str | Sequence[str]
Firsts = tuple[int | None, ...]  # for every leaf the index of the first pattern that matches


def by_path(what: Patterns | Mapping[str, Any] | Callable[[str, Tensor], Any], *, but: Patterns = ()) -> Callable[[TensorTree], TensorTree]:
    """A mask, or labels, from the paths of the leaves: for `masked`, `partition`, `weight_decay_mask`, any function of the tree.

    Args:
        what: a pattern or several: True where one matches (a mask). A mapping from
            patterns to labels: the label of the first pattern that matches. A function
            `(path, leaf) -> label or bool`, which may look at the leaf's shape and dtype.
        but: patterns of leaves for which a mask is False all the same.

    Returns:
        A function from a tree to a tree of bools or labels.

    Raises:
        TypeError: `what` is none of these.
        ValueError: when called, a pattern matches no leaf (or none that an earlier one
            has left over), or a leaf has no label; lists them. A tree without leaves passes.

    Example:
        >>> params = {"layer": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, "norm": {"weight": torch.zeros(2)}}
        >>> fo.by_path("*.weight", but="norm.*")(params)
        {'layer': {'weight': True, 'bias': False}, 'norm': {'weight': False}}
        >>> fo.by_path({"norm.*": "slow", "*": "fast"})(params)
        {'layer': {'weight': 'fast', 'bias': 'fast'}, 'norm': {'weight': 'slow'}}
        >>> fo.by_path(lambda path, leaf: leaf.ndim > 1)(params)["norm"]
        {'weight': False}
    """
    excepted = _patterns("but", but)
    if isinstance(what, Mapping):
        if excepted:
            raise ValueError("by_path: but= is for masks; give the leaves that are excepted a label, further up in the mapping")
        given, labels, catch_all = _patterns("what", tuple(what)), tuple(what.values()), False
    elif isinstance(what, (str, Sequence)):
        given = _patterns("what", what)
        if not given:
            raise ValueError("by_path: needs at least one pattern")
        labels, catch_all = (False,) * len(excepted) + (True,) * len(given), True
    elif callable(what):
        _takes_path_and_leaf(what)
        return Labels(_asked(what, _compiled(excepted)))
    else:
        raise TypeError(
            "by_path: what must be a pattern, a sequence of patterns, a mapping from patterns to labels or a function of (path, leaf), "
            f"got {what!r}"
        )
    patterns = excepted + given
    shapes = _compiled(patterns)

    return Labels(lambda values: [False if index is None else labels[index] for index in _firsts(patterns, shapes, catch_all, values)])


@contextmanager
def beside(names: frozenset[str]) -> Iterator[None]:
    """Within it a tree may lack these leaves, which are somewhere else: patterns that fit only them, and their labels, are no mistake.

    For whoever holds several trees, or a part of one (a `torch.optim.Optimizer` whose first layers are frozen).
    """
    BESIDE.append(names)
    try:
        yield
    finally:
        BESIDE.pop()


class Labels:
    """A function from a tree to a tree of labels that can also give them as a list: trees of constants do not trace."""

    def __init__(self, entries: Callable[[TensorTree], list[Any]]):
        self.entries = entries

    def __call__(self, values: TensorTree) -> TensorTree:
        return tree.unflatten(values, self.entries(values))


def entries_of(labels: Any, values: TensorTree, where: str, name: str) -> list[Any]:
    """One label for every leaf, from a tree of them, a prefix of one, or a function that gives one."""
    if isinstance(labels, Labels):
        return labels.entries(values)
    if BESIDE[-1] and type(labels) is dict and type(values) is dict:
        labels = {name: label for name, label in labels.items() if name in values or name not in BESIDE[-1]}
    return tree.broadcast_prefix(labels(values) if callable(labels) else labels, values, where, name)


def _patterns(name: str, given: Patterns) -> tuple[str, ...]:
    patterns = (given,) if isinstance(given, str) else tuple(given)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"by_path: {name} must hold shell-style patterns such as '*.bias', got {pattern!r}")
        if patterns.count(pattern) > 1:
            raise ValueError(f"by_path: {name} must hold each pattern once, got '{pattern}' twice")
    return patterns


@answered_while_tracing
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """As regular expressions, which the compiler can follow where it cannot follow fnmatch."""
    return tuple(re.compile(translate(pattern)) for pattern in patterns)


def _takes_path_and_leaf(what: Callable[..., Any]) -> None:
    if compiling():  # which follows no signature: where a factory is called in a graph it has been called before
        return
    try:
        signature(what).bind("", torch.zeros(()))
    except TypeError:
        takes = ", ".join(signature(what).parameters) or "nothing"
        raise TypeError(f"by_path: what must be a function of (path, leaf), got one of {takes}; write lambda path, leaf: ...") from None
    except ValueError:  # a builtin that does not say what it takes
        return


def _asked(what: Callable[[str, Tensor], Any], excepted: tuple[re.Pattern[str], ...]) -> Callable[[TensorTree], list[Any]]:
    def entries(values: TensorTree) -> list[Any]:
        pairs = zip(tree.paths(values), tree.leaves(values), strict=True)
        if not excepted:
            return [what(path, leaf) for path, leaf in pairs]
        return [bool(what(path, leaf)) and not any(shape.match(path) is not None for shape in excepted) for path, leaf in pairs]

    return entries


def _firsts(patterns: tuple[str, ...], shapes: tuple[re.Pattern[str], ...], catch_all: bool, values: TensorTree) -> Firsts:
    """For every leaf the index of the first pattern that matches."""
    if compiling():
        return _matched(patterns, shapes, catch_all, tuple(tree.paths(values)), BESIDE[-1])
    return _remembered(patterns, shapes, catch_all, tree.structure(values), BESIDE[-1])


@lru_cache(maxsize=256)  # paths of 300 leaves take 1 to 2 ms, and structures rarely change
def _remembered(
    patterns: tuple[str, ...], shapes: tuple[re.Pattern[str], ...], catch_all: bool, structure: Any, beside: frozenset[str]
) -> Firsts:
    return _matched(patterns, shapes, catch_all, tuple(tree.paths_of(structure)), beside)


def _first(shapes: tuple[re.Pattern[str], ...], path: str) -> int | None:
    return next((index for index, shape in enumerate(shapes) if shape.match(path) is not None), None)


def _matched(
    patterns: tuple[str, ...], shapes: tuple[re.Pattern[str], ...], catch_all: bool, paths: tuple[str, ...], beside: frozenset[str]
) -> Firsts:
    firsts = tuple(_first(shapes, path) for path in paths)
    left_over = [path for path, index in zip(paths, firsts, strict=True) if index is None]
    used = {*firsts, *(_first(shapes, path) for path in beside)}
    unused = [pattern for index, pattern in enumerate(patterns) if index not in used]
    wrong: list[str] = []
    if left_over and not catch_all:
        wrong.append(f"no pattern matches {_listing(left_over)} (a last pattern '*' catches the rest)")
    if unused and paths:
        wrong.append(f"no leaf is left for the pattern{'s' if len(unused) > 1 else ''} {_listing(unused)}")
        if catch_all or not left_over:
            wrong.append(f"there are {_listing(paths)}")
    if wrong:
        raise ValueError("by_path: names and patterns must match, but " + "; ".join(wrong))
    return firsts


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def mask_function(where: str, mask: Any) -> Callable[[TensorTree], list[bool]]:
    """What a mask argument says of each leaf: a tree of bools or a prefix, a function that gives one, a pattern or several."""
    if isinstance(mask, str) or (isinstance(mask, Sequence) and len(mask) > 0 and all(isinstance(entry, str) for entry in mask)):
        mask = by_path(mask)
    if not callable(mask):
        for entry in tree.leaves(mask):
            if not isinstance(entry, (bool, Tensor)):
                raise TypeError(
                    f"{where}: mask must hold bools, got {shown(entry)}; "
                    "it is a tree of them or a prefix, a function of params that gives one, or patterns of paths"
                )

    def kept(values: TensorTree) -> list[bool]:
        entries = entries_of(mask, values, where, "mask")
        for entry in entries:
            if not isinstance(entry, bool) and not (isinstance(entry, Tensor) and entry.dim() == 0):
                raise TypeError(f"{where}: mask must hold bools, got {entry!r}")
        return [bool(entry) for entry in entries]

    return kept


def describe_groups(labels: Any, params: TensorTree | None = None, *, by: Literal["path"] | None = None) -> str:
    """A table of the groups that labels or a mask make of the params.

    Args:
        labels: what `partition` or `masked` is given: a tree of labels (or bools) or a
            prefix, a function that gives one, a pattern or several, or the mapping of a
            `partition` by path. Or the groups of a torch optimizer (`opt.param_groups`,
            `fo.torch_optim.param_groups`), whose numbers are shown too.
        params: tree of tensors; left out for groups, which hold theirs.
        by: "path" if `labels` maps patterns to labels (seen by itself where it maps
            patterns to transformations).

    Returns:
        One line for each group, in the order of the patterns, else in that of the tree:
        its leaves, its entries, its share of all entries, its paths.

    Raises:
        TypeError: there are no params for labels.
        ValueError: `by` is neither None nor "path"; labels do not fit the params.

    Example:
        >>> params = {"layer": {"weight": torch.zeros(3, 5), "bias": torch.zeros(5)}}
        >>> print(fo.describe_groups({"*.bias": fo.sgd(0.1), "*": fo.adamw(0.1)}, params))
        group   leaves  entries  share  paths
        *.bias       1        5    25%  layer.bias
        *            1       15    75%  layer.weight
    """
    if params is None:
        return _of_torch(labels)
    if isinstance(labels, Mapping) and labels and all(isinstance(value, GradientTransformation) for value in labels.values()):
        labels, by = {pattern: pattern for pattern in labels}, "path"
    order = list(labels.values()) if by == "path" and isinstance(labels, Mapping) else []
    if (
        by == "path"
        or isinstance(labels, str)
        or (isinstance(labels, Sequence) and labels and all(isinstance(entry, str) for entry in labels))
    ):
        labels = by_path(labels)
    elif by is not None:
        raise ValueError(f"describe_groups: by must be None or 'path', got {by!r}")
    entries = entries_of(labels, params, "describe_groups", "labels")
    dense("describe_groups", "params", tree.leaves(params), lambda: tree.paths(params))
    members: dict[Any, list[tuple[str, int]]] = {label: [] for label in order}
    for path, leaf, entry in zip(tree.paths(params), tree.leaves(params), entries, strict=True):
        members.setdefault(entry, []).append((path or "(the tensor itself)", leaf.numel()))
    return _table([(str(label), group) for label, group in members.items()])


def _of_torch(groups: Any) -> str:
    """The table of the groups of a torch optimizer, by their numbers."""
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(group, Mapping) and "params" in group for group in groups):
        raise TypeError(f"describe_groups: params must be given, unless the groups of a torch optimizer are, got {shown(groups)} alone")
    shared = [name for name in ("lr", "weight_decay") if any(name in group for group in groups)]
    named, place = [], 0
    for number, group in enumerate(groups):
        members = []
        names = group.get("param_names", ())
        for index, entry in enumerate(group["params"]):
            name, tensor = entry if isinstance(entry, tuple) else (names[index] if names else f"param:{place}", entry)
            members.append((name, tensor.numel()))
            place += 1
        said = ", ".join(f"{name} {group[name]:g}" for name in shared if isinstance(group.get(name), (int, float)))
        named.append((f"{number}: {said}" if said else str(number), members))
    return _table(named)


def _table(groups: Sequence[tuple[str, list[tuple[str, int]]]]) -> str:
    total = max(1, sum(size for _, members in groups for _, size in members))
    rows = [["group", "leaves", "entries", "share", "paths"]]
    for label, group in groups:
        count = sum(size for _, size in group)
        paths = ", ".join(path for path, _ in group[:LISTED]) + (f" and {len(group) - LISTED} more" if len(group) > LISTED else "")
        rows.append([label, str(len(group)), f"{count:,}", f"{count / total:.0%}", paths])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]

    def line(row: list[str]) -> str:
        return "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)), row[4]])

    return "\n".join(line(row) for row in rows)
