"""Adam-mini: Adam with one mean square a block, in every cut from one block to one for each entry."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


@pytest.mark.parametrize("blocks, cut", [("leaf", 1), ("rows", 4), (2, 2), (4, 4)])
def test_is_the_formula_of_the_paper(blocks, cut):
    b1, b2, eps = 0.8, 0.95, 1e-6
    p = torch.zeros(4, 3, dtype=torch.float64)
    tx = fo.scale_by_adam_mini(b1, b2, eps, blocks=blocks)
    state, m, v = tx.init(p), torch.zeros_like(p), torch.zeros(cut, dtype=p.dtype)
    for t in range(1, 5):
        g = gradients_at(t, p)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * torch.stack([part.square().mean() for part in g.split(4 // cut)])
        h = ((v / (1 - b2**t)).sqrt() + eps).repeat_interleave(4 // cut).unsqueeze(1)
        u, state = tx.update(g, state)
        torch.testing.assert_close(u, m / (1 - b1**t) / h, rtol=1e-10, atol=0)
    assert fo.tree.leaves(state.v)[0].numel() == cut


def test_is_adam_with_a_block_for_each_entry():
    mini, adam, params = fo.adam_mini(0.1, blocks="entries"), fo.adam(0.1), small_params()
    a, b = mini.init(params), adam.init(params)
    for t in range(3):
        ours, a = mini.update(gradients_at(t, params), a, params)
        theirs, b = adam.update(gradients_at(t, params), b, params)
        assert_trees_close(ours, theirs)


def test_auto_takes_rows_of_matrices_and_other_leaves_whole():
    state = fo.scale_by_adam_mini().init(small_params())
    assert [tuple(v.shape) for v in fo.tree.leaves(state.v)] == [(), (2,), (), (), (2,), (3,)]
    heads = fo.scale_by_adam_mini(blocks=fo.by_path({"q.weight": 2, "*": "auto"})).init(
        {"q": {"weight": torch.zeros(4, 4)}, "o": {"weight": torch.zeros(4, 4)}}
    )
    assert [tuple(v.shape) for v in fo.tree.leaves(heads.v)] == [(4,), (2,)]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_adam_mini: blocks must divide the rows of a leaf, got 3 for the 4 rows of 'w'"):
        fo.scale_by_adam_mini(blocks=3).init({"w": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match="blocks must be a number of blocks or one of 'auto', 'leaf', 'rows', 'entries', got 'heads'"):
        fo.adam_mini(0.1, blocks="heads")
