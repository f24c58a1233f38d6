"""Trees: structure, paths, casting of 0-dim results, and arithmetic against plain torch."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo

numbers = st.floats(-1e3, 1e3, allow_nan=False, width=32)
leaves = st.lists(numbers, min_size=0, max_size=4).map(lambda values: torch.tensor(values, dtype=torch.float64))
trees = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=6
)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


def test_paths_join_keys_indices_and_field_names():
    tree = {"z": [torch.zeros(1), {"y": torch.zeros(1)}], "a": Pair(torch.zeros(1), torch.zeros(1)), "none": None}
    assert fo.tree.paths(tree) == ["a.left", "a.right", "z.0", "z.1.y"]
    assert fo.tree.paths(torch.zeros(1)) == [""]


@given(tree=trees)
def test_unflatten_undoes_leaves(tree):
    again = fo.tree.unflatten(tree, fo.tree.leaves(tree))
    assert fo.tree.structure(again) == fo.tree.structure(tree)
    assert fo.tree.first_difference(again, tree) is None


@given(tree=trees)
def test_norms_are_those_of_one_vector(tree):
    vector = torch.cat([x.reshape(-1) for x in fo.tree.leaves(tree)] or [torch.zeros(0, dtype=torch.float64)])
    for order in (1, 2, float("inf")):
        expected = torch.linalg.vector_norm(vector, order) if vector.numel() else torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(fo.tree.norm(tree, order).double(), expected)
    torch.testing.assert_close(fo.tree.norm(tree, squared=True).double(), vector.square().sum())
    torch.testing.assert_close(fo.tree.sum(tree).double(), vector.sum(), rtol=1e-9, atol=1e-9)
    assert fo.tree.size(tree) == vector.numel()


@given(tree=trees, factor=st.floats(-10, 10))
def test_the_inner_product_is_linear(tree, factor):
    one, two = fo.tree.vdot(tree, tree), fo.tree.vdot(fo.tree.scale(factor, tree), tree)
    torch.testing.assert_close(two.double(), factor * one.double(), rtol=1e-9, atol=1e-6)


def test_zero_dim_results_are_cast_back_and_larger_leaves_keep_their_dtype():
    scalar = torch.tensor(0.5, dtype=torch.float64)
    tree = {"s": torch.tensor(1.0), "h": torch.tensor(1.0, dtype=torch.bfloat16), "w": torch.ones(2)}
    scaled = fo.tree.map(lambda x: scalar * x, tree)
    assert {path: x.dtype for path, x in zip(fo.tree.paths(scaled), fo.tree.leaves(scaled), strict=True)} == {
        "h": torch.bfloat16,
        "s": torch.float32,
        "w": torch.float32,
    }


def test_a_scalar_per_leaf_keeps_the_dtype_of_the_leaf():
    norms = fo.tree.map(lambda x: x.double().norm(), {"w": torch.ones(4)})
    assert norms["w"].dtype == torch.float32


def test_half_precision_is_summed_in_float32():
    many = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    torch.testing.assert_close(fo.tree.squared_norm({"w": many}), many.float().square().sum())


def test_where_keeps_what_is_not_chosen_out():
    chosen = fo.tree.where(torch.tensor(True), {"w": torch.ones(2)}, {"w": torch.full((2,), torch.nan)})
    assert torch.equal(chosen["w"], torch.ones(2))


def test_a_prefix_stands_for_what_is_below_it():
    tree = {"a": {"x": torch.zeros(1), "y": torch.zeros(1)}, "b": torch.zeros(1)}
    assert fo.tree.broadcast_prefix({"a": True, "b": False}, tree) == [True, True, False]
    assert fo.tree.broadcast_prefix(3, tree) == [3, 3, 3]
    with pytest.raises(ValueError, match="mask must have the structure of params or a prefix of it"):
        fo.tree.broadcast_prefix({"a": True}, tree, "masked", "mask")


@pytest.mark.parametrize(
    "dtypes, mode, expected",
    [
        ((torch.float32, torch.float32), None, torch.float32),
        ((torch.bfloat16, torch.float32), "highest", torch.float32),
        ((torch.bfloat16, torch.float32), "lowest", torch.bfloat16),
        ((torch.bfloat16, torch.float16), "promote", torch.float32),
        ((), None, torch.float32),
    ],
)
def test_the_dtype_of_a_tree(dtypes, mode, expected):
    assert fo.tree.dtype([torch.zeros(1, dtype=dtype) for dtype in dtypes], mode) == expected


@pytest.mark.parametrize("mode", [None, "highest", "lowest"])
def test_dtypes_that_cannot_be_ordered_are_named(mode):
    with pytest.raises(ValueError, match="torch.bfloat16, torch.float16"):
        fo.tree.dtype([torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float16)], mode)


def test_norm_knows_three_orders():
    with pytest.raises(ValueError, match="tree.norm: ord must be 1, 2 or inf, got 3"):
        fo.tree.norm(torch.ones(2), 3)


@pytest.mark.parametrize("name", ["max", "min"])
def test_complex_entries_have_no_order(name):
    with pytest.raises(TypeError, match=f"tree.{name}: entries must be real, got complex leaves"):
        getattr(fo.tree, name)([torch.zeros(2), torch.zeros(2, dtype=torch.complex64)])


def test_close_are_trees_of_one_structure_and_one_shape():
    ones = torch.ones(3)
    assert fo.tree.allclose({"a": ones, "b": [ones]}, {"a": ones + 1e-7, "b": [ones]})
    assert not fo.tree.allclose({"a": ones}, {"a": torch.ones(())})
    with pytest.raises(ValueError, match="tree.allclose: the trees must have one structure, but at 'a' the second has a leaf"):
        fo.tree.allclose({"b": ones}, {"a": ones})
