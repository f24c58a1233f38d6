"""Masks: trees, functions, patterns and predicates say the same; hidden leaves cost no state; mistakes are named."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at, small_params

PARAMS = {"layer": {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "norm": {"weight": torch.ones(2)}}
MASK = {"layer": {"weight": True, "bias": False}, "norm": {"weight": False}}


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        {"layer": {"weight": True, "bias": False}, "norm": False},
        lambda params: fo.tree.map_plain(lambda p: p.dim() > 1, params),
        "layer.weight",
        ["layer.w*"],
        fo.by_path("*.weight", but="norm.*"),
        fo.by_path(lambda path, leaf: leaf.dim() > 1),
        fo.by_path({"norm.*": False, "*.bias": False, "*": True}),
    ],
    ids=["tree", "prefix", "function", "pattern", "patterns", "but", "predicate", "mapping"],
)
def test_every_way_to_say_a_mask_says_the_same(mask):
    tx = fo.masked(fo.chain(fo.trace(0.9), fo.scale(-1.0)), mask)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert_trees_equal(updates, {"layer": {"weight": -torch.ones(2, 2), "bias": torch.ones(2)}, "norm": {"weight": torch.ones(2)}})
    assert fo.tree.size(state) == 4
    decayed = fo.add_decayed_weights(0.5, mask)
    updates, _ = decayed.update(PARAMS, decayed.init(PARAMS), PARAMS)
    assert_trees_equal(updates, {"layer": {"weight": torch.full((2, 2), 1.5), "bias": torch.ones(2)}, "norm": {"weight": torch.ones(2)}})


def test_every_optimizer_takes_patterns_for_its_decay():
    gradients = gradients_at(0, small_params())
    for mask in ("*", fo.by_path("*", but=["b", "deep.*", "parts.*"])):
        tx = fo.adamw(0.1, weight_decay=0.1, weight_decay_mask=mask)
        tx.update(gradients, tx.init(gradients), gradients)


def test_masks_nest():
    tx = fo.masked(fo.masked(fo.scale(-1.0), "*.weight"), {"layer": True, "norm": False})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert updates["layer"]["weight"][0, 0] == -1 and updates["layer"]["bias"][0] == 1 and updates["norm"]["weight"][0] == 1


def test_a_hidden_subtree_is_hidden_as_a_whole():
    state = fo.masked(fo.trace(0.9), "layer.weight").init(PARAMS)
    assert state.inner_state.trace["norm"] == fo.MaskedNode()
    assert state.inner_state.trace["layer"]["bias"] == fo.MaskedNode()


def test_a_leaf_that_cannot_be_differentiated_may_be_masked_out():
    params = {"w": torch.ones(2), "n": torch.arange(3)}
    tx = fo.masked(fo.sgd(0.1), {"w": True, "n": False})
    updates, _ = tx.update(params, tx.init(params), params)
    assert_trees_equal(updates["n"], params["n"])


def test_a_bare_tensor_has_the_empty_path():
    tx = fo.masked(fo.scale(-1.0), "*")
    assert tx.update(torch.ones(1), tx.init(torch.ones(1)))[0] == -1


def test_patterns_on_a_tree_without_leaves_pass():
    assert fo.masked(fo.scale(-1.0), "*.bias").init({}).inner_state == fo.EmptyState()


@pytest.mark.parametrize(
    "mask, message",
    [
        ({"layer": 1, "norm": True}, "masked: mask must hold bools, got 1"),
        (
            {"layer": {"weight": True}, "norm": True},
            "masked: mask must have the structure of params or a prefix of it, but at 'layer.bias'",
        ),
        (
            "*.biass",
            r"by_path: names and patterns must match, but no leaf is left for the pattern '\*.biass'; "
            "there are 'layer.bias', 'layer.weight'",
        ),
        (["*.bias", "*.bias"], r"what must hold each pattern once, got '\*.bias' twice"),
    ],
)
def test_says_what_is_wrong(mask, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fo.masked(fo.trace(0.9), mask).init(PARAMS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((3,), "by_path: what must be a pattern"),
        (([],), "by_path: needs at least one pattern"),
        (([1],), "by_path: what must hold shell-style patterns"),
    ],
)
def test_by_path_says_what_is_wrong(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fo.by_path(*arguments)


def test_the_groups_as_a_table():
    table = fo.describe_groups(fo.by_path({"*.bias": "plain", "*": "decay"}), PARAMS)
    assert table.splitlines() == [
        "group  leaves  entries  share  paths",
        "plain       1        2    25%  layer.bias",
        "decay       2        6    75%  layer.weight, norm.weight",
    ]
    assert fo.describe_groups({"*.bias": "plain", "*": "decay"}, PARAMS, by="path") == table
    assert "True" in fo.describe_groups(MASK, PARAMS)
    assert fo.describe_groups("norm.*", PARAMS).splitlines()[1].startswith("False")
