"""GaLore: full rank is the method itself, what is held, when a basis is renewed, and matrices that LAPACK would refuse."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, rollout

SHAPES = {"tall": (5, 3), "wide": (3, 5), "b": (4,)}


def params():
    return {
        name: torch.sin(torch.arange(1.0, 1 + torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape)
        for name, shape in SHAPES.items()
    }


def test_all_of_the_rank_and_a_method_that_turns_with_the_basis_is_the_method_itself():
    ours, _, _ = rollout(fo.scale_by_galore(3, 1, base_optimizer=fo.scale(2.0)), params(), 3)
    theirs, _, _ = rollout(fo.scale(2.0), params(), 3)
    assert_trees_close(ours, theirs)


def test_one_direction_is_the_largest_singular_one():
    g = {"w": torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    U, S, Vh = torch.linalg.svd(g["w"])
    tx = fo.scale_by_galore(1, base_optimizer=fo.identity())
    found, _ = tx.update(g, tx.init(g))
    torch.testing.assert_close(found["w"], S[0] * torch.outer(U[:, 0], Vh[0]))


def test_holds_moments_of_the_low_rank():
    state = fo.scale_by_galore(2).init(params())
    assert {name: tuple(x.shape) for name, x in state.base_optimizer_state.mu.items()} == {"tall": (3, 2), "wide": (2, 3), "b": (4,)}
    assert {name: tuple(x.shape) for name, x in state.projector.items()} == {"tall": (5, 2), "wide": (5, 2), "b": (0, 0)}


def test_a_basis_is_renewed_when_it_is_due_and_choosing_gives_the_same():
    seen = {}
    for how in ("auto", "select"):
        tx, start = fo.scale_by_galore(1, 3, dispatch=how), params()
        state, bases = tx.init(start), []
        for step in range(5):
            updates, state = tx.update(gradients_at(step, start), state, start)
            bases.append(state.projector["tall"])
        assert [torch.equal(x, y) for x, y in zip(bases, bases[1:], strict=False)] == [True, True, False, True]
        seen[how] = updates
    assert_trees_close(seen["auto"], seen["select"])


def test_convolutions_by_their_numbers():
    start = {"conv": torch.randn(6, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))}
    numbers = fo.MuonDimensionNumbers(reduction_axis=(1, 2, 3), output_axis=0)
    tx = fo.scale_by_galore(6, base_optimizer=fo.identity(), weight_dimension_numbers=numbers)
    assert_trees_close(tx.update(start, tx.init(start))[0], start)


@pytest.mark.parametrize("value", [0.0, 1e300, torch.nan, torch.inf])
def test_no_matrix_makes_it_fail(value):
    g = {"w": torch.full((3, 2), value, dtype=torch.float64)}
    tx = fo.scale_by_galore(1)
    updates, _ = tx.update(g, tx.init(g))
    assert bool(updates["w"].isfinite().all()) is (value in (0.0, 1e300))


def test_derivatives_go_through_the_gradient_and_not_through_the_basis():
    g = torch.diag(torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64))  # of which a basis has no derivative
    tx = fo.scale_by_galore(2, base_optimizer=fo.identity())
    slope = torch.func.grad(lambda g: tx.update(g, tx.init(g))[0].sum())(g)
    assert slope.isfinite().all() and slope.abs().sum() > 0


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_galore: rank must be >= 1, got 0"):
        fo.galore(0.1, rank=0)
    with pytest.raises(ValueError, match="scale_by_galore: update_proj_gap must be >= 1, got 0"):
        fo.galore(0.1, update_proj_gap=0)
    with pytest.raises(ValueError, match="weight_dimension_numbers must name different axes"):
        fo.scale_by_galore(weight_dimension_numbers=fo.MuonDimensionNumbers(0, 0)).init({"w": torch.ones(2, 2)})
