"""Flat: there and back, for any tree, and with the gradient through the views."""

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_equal, small_params

shapes = st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), max_size=6)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(shapes=shapes, data=st.data())
def test_unravel_undoes_ravel(shapes, data):
    tree = {f"p{index}": torch.randn(shape).to(data.draw(dtypes)) for index, shape in enumerate(shapes)}
    layout = fo.Layout(tree)
    flat = layout.ravel(tree)
    assert_trees_equal(layout.unravel(flat), tree)
    assert all(vector.dim() == 1 for vector in flat.vectors.values())
    assert sum(vector.numel() for vector in flat.vectors.values()) == fo.tree.size(tree)


def test_views_share_memory_with_the_vector():
    params = small_params()
    layout = fo.Layout(params)
    flat = layout.ravel(params)
    flat.vectors["float64 cpu"].zero_()
    assert fo.tree.norm(layout.unravel(flat)) == 0


def test_states_go_there_and_back():
    params = small_params()
    layout = fo.Layout(params)
    tx = fo.chain(fo.scale_by_adam(mu_dtype=torch.float32), fo.lr_scale(0.1))
    leafwise = tx.init(params)
    like = tx.init(layout.ravel(params))
    assert_trees_equal(layout.unravel_state(layout.ravel_state(leafwise, like)), leafwise)
    assert layout.unravel_state(like)[0].mu["w"].dtype == torch.float32


def test_the_gradient_with_respect_to_the_vector_is_the_raveled_gradient():
    params = small_params()
    layout = fo.Layout(params)

    def loss(params):
        return (params["w"].sum() * params["deep"]["s"]) ** 2 + params["parts"][1].square().sum()

    flat = torch.func.grad(lambda flat: loss(layout.unravel(flat)))(layout.ravel(params))
    assert_trees_equal(layout.unravel(flat), torch.func.grad(loss)(params))


@given(shapes=st.lists(st.sampled_from([(), (2,), (3, 2), (0, 2)]), max_size=9), data=st.data())
def test_labels_and_shapes_are_laid_out_and_found_again(shapes, data):
    tree = {f"p{index}": torch.randn(shape) for index, shape in enumerate(shapes)}
    labels = [data.draw(st.sampled_from(["a", "b", 1, "1"])) for _ in shapes]
    layout = fo.Layout(tree, labels)
    flat = layout.ravel(tree)
    assert len(flat.vectors) == len(set(labels))
    assert_trees_equal(layout.unravel(flat), tree)
    assert_trees_equal(layout.unstack(layout.stacked(flat)), tree)
    assert_trees_equal(layout.vectors(layout.stacked(flat)), flat)
    assert_trees_equal(layout.unravel_state((layout.stack(tree), flat)), (tree, tree))
    for label in set(labels):
        kept = [other == label and type(other) is type(label) for other in labels]
        part, seen = layout.part(kept), fo.tree.prune(tree, kept, fo.MaskedNode())
        assert_trees_equal(part.unravel(part.ravel(seen)), seen)
        assert_trees_equal(layout.unravel_state(part.ravel(seen)), seen)


def test_leaves_that_no_cache_holds_together_are_stacked_in_parts():
    tree = {f"p{index}": torch.zeros(2**16) for index in range(9)}  # 256 kB each
    assert [len(members) for members in fo.Layout(tree, [()] * 9).stacks.values()] == [4, 4, 1]


def test_part_of_a_vector_is_no_part_of_a_layout():
    with pytest.raises(ValueError, match="all leaves of a vector must be kept, or none, got part of 'float32 cpu'"):
        fo.Layout({"a": torch.zeros(1), "b": torch.zeros(1)}, [(), ()]).part([True, False])
