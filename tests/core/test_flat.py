"""Flat: there and back, for any tree, and with the gradient through the views."""

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
