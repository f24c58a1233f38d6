"""Projections: where they end, that they end there again, that nothing in the set is nearer; and the link that uses them."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, rollout, small_params

P = fo.projections
A = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
SETS = {
    "non_negative": (P.projection_non_negative, lambda x: bool((x >= 0).all())),
    "hypercube": (P.projection_hypercube, lambda x: bool(((x >= 0) & (x <= 1)).all())),
    "simplex": (P.projection_simplex, lambda x: bool((x >= 0).all()) and abs(float(x.sum()) - 1) < 1e-9),
    "l1_ball": (P.projection_l1_ball, lambda x: float(x.abs().sum()) <= 1 + 1e-9),
    "l1_sphere": (P.projection_l1_sphere, lambda x: abs(float(x.abs().sum()) - 1) < 1e-9),
    "l2_ball": (P.projection_l2_ball, lambda x: float(x.norm()) <= 1 + 1e-9),
    "linf_ball": (P.projection_linf_ball, lambda x: float(x.abs().max()) <= 1),
    "halfspace": (lambda x: P.projection_halfspace(x, A, 0.5), lambda x: float(A @ x) <= 0.5 + 1e-9),
    "hyperplane": (lambda x: P.projection_hyperplane(x, A, 0.5), lambda x: abs(float(A @ x) - 0.5) < 1e-8),
}
POINTS = st.lists(st.floats(-10, 10), min_size=4, max_size=4)


@pytest.mark.parametrize("name", SETS)
@settings(deadline=None, max_examples=40)
@given(point=POINTS, other=POINTS)
def test_ends_in_the_set_stays_there_and_is_nearest(name, point, other):
    project, holds = SETS[name]
    x, y = torch.tensor(point, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    nearest = project(x)
    assert holds(nearest)
    torch.testing.assert_close(project(nearest), nearest, rtol=1e-9, atol=1e-9)
    assert (x - nearest).norm() <= (x - project(y)).norm() + 1e-9


@pytest.mark.parametrize("name", SETS)
def test_vmaps_traces_and_differentiates(name):
    project, _ = SETS[name]
    x = torch.tensor([[0.3, -1.2, 2.0, 0.1], [5.0, 4.0, -3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(project)(x), torch.stack([project(x[0]), project(x[1])]))
    torch.testing.assert_close(torch.compile(project, backend="aot_eager", fullgraph=True)(x[0]), project(x[0]))
    assert torch.func.grad(lambda x: project(x).square().sum())(torch.zeros(4, dtype=torch.float64)).isfinite().all()


def test_a_tree_is_one_vector():
    tree = small_params()
    flat = torch.cat([leaf.reshape(-1) for leaf in fo.tree.leaves(tree)])
    projected = P.projection_simplex(tree, 2.0)
    torch.testing.assert_close(torch.cat([leaf.reshape(-1) for leaf in fo.tree.leaves(projected)]), P.projection_simplex(flat, 2.0))
    assert P.projection_simplex({}) == {}


def test_every_step_ends_in_the_set():
    tx = fo.chain(fo.adam(0.3), fo.project(P.projection_l2_ball))
    _, params, _ = rollout(tx, small_params(), 5)
    assert fo.tree.norm(params) <= 1 + 1e-9
    only = fo.chain(fo.adam(0.3), fo.masked(fo.project(P.projection_simplex), "w"))
    free, _, _ = rollout(fo.adam(0.3), small_params(), 1)
    updates, after, _ = rollout(only, small_params(), 1)
    torch.testing.assert_close(after["w"].sum(), torch.tensor(1.0, dtype=torch.float64))
    assert_trees_close(updates[0]["b"], free[0]["b"])


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="projection_simplex: scale must be > 0, got 0"):
        P.projection_simplex(torch.ones(2), 0)
    with pytest.raises(TypeError, match="project: projection must be a function"):
        fo.project(3)
    with pytest.raises(ValueError, match="project: needs the params"):
        fo.project(P.projection_non_negative).update(torch.ones(1), fo.EmptyState())


@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 100.0), (torch.float16, 1000.0)])
def test_ranks_and_sums_of_many_entries_are_exact_in_half_precision(dtype, scale):
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = fo.projections.projection_simplex(x.double(), scale)
    assert torch.allclose(fo.projections.projection_simplex(x, scale).double(), wide, atol=0.005)
    assert torch.allclose(fo.projections.projection_l1_ball(-x, scale).double(), -wide, atol=0.005)
