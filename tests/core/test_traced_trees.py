"""Trees in code that is being traced: what is walked here is walked as optree does, whatever the containers."""

from collections import OrderedDict
from typing import Any, NamedTuple

import optree
import pytest
import torch

import funcopt as fo
from funcopt.core.tree.traced import gathered, mapped, put_back


class Pair(NamedTuple):
    b: Any
    a: Any


class Odd(tuple):
    """A leaf to optree, as it is registered nowhere."""


x, y, z = (torch.full((n,), float(n)) for n in (1, 2, 3))
TREES = {
    "nothing": {},
    "None": None,
    "a leaf": x,
    "a number": 3.0,
    "dicts and lists": {"b": x, "a": [y, None, (z,)], "": {}},
    "keys that are no strings": {2: x, 1: y},
    "keys of two kinds": {2: x, "a": y},
    "a NamedTuple": Pair(x, {"z": y, "a": z}),
    "an OrderedDict": OrderedDict(b=x, a=y),
    "a structseq": torch.return_types.max((x, y)),
    "a tuple of one's own": [Odd((x, y)), z],
    "bools": {"b": True, "a": [False]},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_walks_as_optree_does(tree):
    found, structure = optree.tree_flatten(tree)
    assert [id(leaf) for leaf in gathered(tree)] == [id(leaf) for leaf in found]
    calls: list = []
    doubled = mapped(lambda one, other: calls.append(one) or (one, other), tree, tree)
    assert [id(leaf) for leaf in calls] == [id(leaf) for leaf in found]
    again = optree.tree_map(lambda one, other: (one, other), tree, tree)
    assert optree.tree_structure(doubled) == optree.tree_structure(again)
    assert repr(doubled) == repr(again)  # the order of keys too
    numbers = list(range(len(found)))
    assert repr(put_back(tree, numbers)) == repr(structure.unflatten(numbers))


@pytest.mark.parametrize("other", [{"a": x}, {"a": x, "c": y}, [x, y], {"a": x, "b": y, "c": z}, None, {"a": {"d": x}, "b": y}], ids=repr)
def test_trees_that_differ_are_left_to_optree_and_its_errors(other):
    tree = {"a": x, "b": y}
    try:
        expected = optree.tree_map(lambda one, two: [two], tree, other)
    except ValueError:
        with pytest.raises(ValueError):
            mapped(lambda one, two: [two], tree, other)
    else:
        assert repr(mapped(lambda one, two: [two], tree, other)) == repr(expected)


def test_leaves_too_many_or_too_few_are_refused():
    with pytest.raises(ValueError, match="tree.unflatten: there are 1 leaves too many"):
        put_back({"a": x}, [x, y])
    with pytest.raises((ValueError, IndexError)):
        put_back({"a": x, "b": y}, [x])


def test_traces_whole():
    tree = {"b": x, "a": [y, None, Pair(z, {"c": x})], "odd": OrderedDict(b=x, a=y)}
    double = torch.compile(lambda tree: fo.tree.map(lambda leaf: 2 * leaf, tree), backend="eager", fullgraph=True)
    assert repr(double(tree)) == repr(fo.tree.map(lambda leaf: 2 * leaf, tree))
