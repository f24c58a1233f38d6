"""CAME against its formula written out, matrices by rows and columns and the rest whole."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params

B1, B2, B3, EPS1, EPS2, D = 0.9, 0.99, 0.999, 1e-30, 1e-16, 1.0


def written_out(history):
    """The directions for the gradients of one leaf."""
    m = v = r = c = big_r = big_c = 0.0
    for g in history:
        s = g * g + EPS1
        if g.dim() > 1:
            r, c = B2 * r + (1 - B2) * s.mean(-1), B2 * c + (1 - B2) * s.mean(-2)
            x = g / (r.unsqueeze(-1) * c.unsqueeze(-2) / r.mean(-1)[..., None, None]).sqrt()
        else:
            v = B2 * v + (1 - B2) * s
            x = g / v.sqrt()
        x = x / max(1.0, x.square().mean().sqrt() / D)
        m = B1 * m + (1 - B1) * x
        if g.dim() < 2:
            yield m
            continue
        u = (x - m).square() + EPS2
        big_r, big_c = B3 * big_r + (1 - B3) * u.mean(-1), B3 * big_c + (1 - B3) * u.mean(-2)
        yield m / (big_r.unsqueeze(-1) * big_c.unsqueeze(-2) / big_r.mean(-1)[..., None, None]).sqrt()


def test_is_the_algorithm_of_the_paper():
    tx, params = fo.scale_by_came(B1, B2, B3, EPS1, EPS2, D), small_params()
    state, gradients, ours = tx.init(params), [gradients_at(t, params) for t in range(6)], []
    for g in gradients:
        u, state = tx.update(g, state)
        ours.append(u)
    for index in range(len(fo.tree.leaves(params))):
        for u, expected in zip(ours, written_out([fo.tree.leaves(g)[index] for g in gradients]), strict=True):
            torch.testing.assert_close(fo.tree.leaves(u)[index], expected, rtol=1e-10, atol=0)


def test_a_row_without_gradient_beside_huge_ones_stays_where_it_is():
    tx = fo.scale_by_came()
    g = torch.tensor([[0.0, 0.0], [1e12, 1e12]])
    u, _ = tx.update(g, tx.init(g))
    assert u.isfinite().all() and not u[0].any()


def test_holds_rows_and_columns():
    state = fo.scale_by_came().init({"w": torch.zeros(3, 5), "b": torch.zeros(4)})
    assert [tuple(x.shape) for x in (state.r["w"], state.c["w"], state.R["w"], state.C["w"], state.v["b"])] == [
        (3,),
        (5,),
        (3,),
        (5,),
        (4,),
    ]
    assert_trees_close(state.v["w"], torch.zeros(1))


@pytest.mark.parametrize(
    "arguments, message", [({"b3": 1.0}, "b3 must be in"), ({"eps2": 0.0}, "eps2 must be > 0"), ({"clipping_threshold": 0.0}, "clipping_")]
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_came: {message}"):
        fo.scale_by_came(**arguments)
