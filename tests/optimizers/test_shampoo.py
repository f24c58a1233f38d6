"""Shampoo against its algorithm written out, by eigenvalues and by Newton, in blocks, and grafted."""

import pytest
import torch

import funcopt as fo
from funcopt.optimizers.factors import inverse_root
from tests.helpers import gradients_at, small_params


def noise(step, shape=(3, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def root(matrix, order, floor):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag((values + floor) ** (-1 / order)) @ vectors.T


def written_out(gradients, b1=0.8, b2=0.9, eps=1e-4, ridge=1e-3, every=3):
    """The algorithm of the paper for one matrix, grafted on Adam."""
    m = nu = L = R = 0.0
    for t, g in enumerate(gradients, 1):
        m, nu = b1 * m + (1 - b1) * g, b2 * nu + (1 - b2) * g * g
        L, R = b2 * L + (1 - b2) * g @ g.T, b2 * R + (1 - b2) * g.T @ g
        mean, adam = m / (1 - b1**t), m / (1 - b1**t) / ((nu / (1 - b2**t)).sqrt() + 1e-8)
        if t % every == 0:
            left, right = L / (1 - b2**t), R / (1 - b2**t)
            roots = root(left, 4, eps + ridge * left.trace()), root(right, 4, eps + ridge * right.trace())
        if t < every:
            yield adam
        else:
            u = roots[0] @ mean @ roots[1]
            yield u * adam.norm() / u.norm()


@pytest.mark.parametrize("how", ["eigh", "newton"])
@pytest.mark.parametrize("dispatch", ["auto", "select"])
def test_is_the_algorithm_of_the_paper(how, dispatch):
    gradients = [noise(step) for step in range(8)]
    tx = fo.scale_by_shampoo(0.8, 0.9, 1e-4, ridge=1e-3, every=3, root=how, dispatch=dispatch)
    state = tx.init(gradients[0])
    for g, expected in zip(gradients, written_out(gradients), strict=True):
        u, state = tx.update(g, state)
        torch.testing.assert_close(u, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("spread", [1.0, 1e3, 1e6])
def test_newton_finds_the_root_that_eigenvalues_have(order, spread):
    q = torch.linalg.qr(noise(7, (6, 6)))[0]
    matrix = q @ torch.diag(torch.logspace(0, -torch.tensor(spread).log10().item(), 6, dtype=torch.float64)) @ q.T
    ours, exact = (inverse_root(matrix, order, 0.0, 1e-7, newton) for newton in (True, False))
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())


def test_blocks_are_matrices_of_their_own():
    g = noise(3, (5, 4))
    whole = dict(b1=0.0, b2=1.0, every=1, graft=None)
    tx = fo.scale_by_shampoo(**whole, block_size=3)
    blocks, state = tx.update(g, tx.init(g))
    assert [tuple(x.shape) for x in state.L] == [(3, 3), (3, 3), (3, 3), (1, 1), (2, 2), (3, 3), (2, 2), (1, 1)]
    single = fo.scale_by_shampoo(**whole)
    for rows in (slice(0, 3), slice(3, 5)):
        for columns in (slice(0, 3), slice(3, 4)):
            torch.testing.assert_close(blocks[rows, columns], single.update(g[rows, columns], single.init(g[rows, columns]))[0])


def test_a_huge_axis_holds_blocks_and_not_its_square():
    state = fo.scale_by_shampoo(block_size=64).init({"embedding": torch.zeros(5000, 8)})
    assert sum(x.numel() for x in fo.tree.leaves(state.L)) < 5000 * 64 + 80 * 64


def test_what_is_grafted_gives_every_leaf_its_length():
    params = small_params()
    tx, adam = fo.scale_by_shampoo(0.9, 0.99, every=1), fo.scale_by_adam(0.9, 0.99)
    a, b = tx.init(params), adam.init(params)
    for step in range(4):
        ours, a = tx.update(gradients_at(step, params), a)
        theirs, b = adam.update(gradients_at(step, params), b)
        for u, v in zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True):
            torch.testing.assert_close(u.norm(), v.norm(), rtol=1e-6, atol=0)


def test_undoes_a_change_of_coordinates_up_to_a_turn():
    # Sums, no graft: a matrix that is seen once comes out with singular values 1, whatever stretched it.
    g = torch.diag(torch.tensor([1e3, 1.0, 1e-3], dtype=torch.float64)) @ noise(1, (3, 3))
    tx = fo.scale_by_shampoo(0.0, 1.0, 0.0, ridge=0.0, every=1, graft=None)
    u, _ = tx.update(g, tx.init(g))
    torch.testing.assert_close(torch.linalg.svdvals(u), torch.ones(3, dtype=g.dtype), rtol=1e-5, atol=0)


def test_says_what_is_wrong():
    with pytest.raises(
        ValueError, match="scale_by_shampoo: start must be 1 where nothing is grafted that could be used before, got 5; give graft='adam'"
    ):
        fo.scale_by_shampoo(graft=None, start=5)
    with pytest.raises(ValueError, match="scale_by_shampoo: ridge must be > 0, got 0"):
        fo.shampoo(0.1, root="newton", ridge=0.0)
    with pytest.raises(ValueError, match="scale_by_shampoo: root must be one of 'eigh', 'newton', got 'svd'"):
        fo.shampoo(0.1, root="svd")
    with pytest.raises(ValueError, match="scale_by_shampoo: its decompositions cannot be differentiated through"):
        torch.func.grad(lambda s: fo.scale_by_shampoo().update(s * noise(0), fo.scale_by_shampoo().init(noise(0)))[0].sum())(
            torch.tensor(1.0).double()
        )
