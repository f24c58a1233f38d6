"""Buckets: the same entries at the same places, whatever is joined; left alone what cannot be."""

from unittest import mock

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from funcopt.controllers.pilot import small_leaves as buckets
from funcopt.controllers.pilot.small_leaves import bucketed, map_entries

shapes = st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=6)


def trees_of(shapes, count=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        {f"leaf {index}": torch.randn(shape, generator=generator, dtype=dtype) for index, shape in enumerate(shapes)} for _ in range(count)
    ]


def f(x, y):
    return x.abs().sqrt() * y + torch.tensor(0.5, dtype=torch.float64)


@given(shapes=shapes, most=st.integers(0, 20))
def test_entries_are_worked_out_as_leaf_by_leaf(shapes, most):
    x, y = trees_of(shapes)
    with mock.patch.object(buckets, "MOST", most):
        together = map_entries(f, x, y)
    assert fo.tree.first_difference(together, x) is None
    for path, leaf in together.items():
        torch.testing.assert_close(leaf, f(x[path], y[path]), rtol=1e-15, atol=0)


@given(shapes=shapes, most=st.integers(0, 20))
def test_buckets_hold_all_entries_in_their_order_and_no_more_than_they_may(shapes, most):
    x, y = trees_of(shapes)
    with mock.patch.object(buckets, "MOST", most):
        pair = bucketed(x, y)
    for values, joined in zip((x, y), pair, strict=True):
        parts, leaves = fo.tree.leaves(joined), fo.tree.leaves(values)
        assert torch.equal(
            *[torch.cat([torch.zeros(0, dtype=torch.float64), *(part.reshape(-1) for part in some)]) for some in (parts, leaves)]
        )
        assert all(part.numel() <= max(most, *(leaf.numel() for leaf in leaves)) for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_leaf_without_dimensions_keeps_its_dtype(dtype):
    x, y = trees_of([(), (), (2,)], dtype=dtype)
    assert {leaf.dtype for leaf in map_entries(f, x, y).values()} == {dtype}


@pytest.mark.parametrize(
    "odd", [torch.zeros(2, dtype=torch.float32), torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)), torch.zeros(2, device="meta")]
)
def test_trees_of_several_kinds_of_leaves_stay_as_they_are(odd):
    (x,) = trees_of([(2,), (3,)], 1)
    x["odd"] = odd
    assert bucketed(x)[0] is x
    assert map_entries(lambda x: x, x)["odd"] is odd


def test_a_large_leaf_is_not_copied():
    (x,) = trees_of([(2,), (2,), (buckets.MOST + 1,), (2,)], 1)
    (joined,) = bucketed(x)
    assert [part.numel() for part in joined] == [4, buckets.MOST + 1, 2]
    assert joined[1].data_ptr() == x["leaf 2"].data_ptr()


def test_trees_of_another_structure_are_refused_by_path():
    for call in (bucketed, lambda *trees: map_entries(f, *trees)):
        with pytest.raises(ValueError, match="one structure.*leaf 1"):
            call(*trees_of([(2,), (3,)], 1), *trees_of([(2,)], 1))


def test_it_runs_under_vmap_and_has_a_derivative():
    x, y = trees_of([(3, 2), (3,), (3, 0)])
    vmapped = torch.func.vmap(lambda x: map_entries(f, x, {path: leaf[0] for path, leaf in y.items()}))(x)
    for path, leaf in vmapped.items():
        torch.testing.assert_close(leaf, f(x[path], y[path][0]))
    grad = torch.func.grad(lambda x: fo.tree.sum(map_entries(f, x, y)))(x)
    expected = torch.func.grad(lambda x: fo.tree.sum(fo.tree.map(f, x, y)))(x)
    fo.tree.map(torch.testing.assert_close, grad, expected)


def test_a_graph_holds_the_leaves_as_they_are():
    x, y = trees_of([(2,), (3,)])
    graph = torch.compile(lambda x, y: (map_entries(f, x, y), bucketed(x)), backend="eager", fullgraph=True)
    mapped, (same,) = graph(x, y)
    fo.tree.map(torch.testing.assert_close, mapped, fo.tree.map(f, x, y))
    assert list(same) == list(x)
