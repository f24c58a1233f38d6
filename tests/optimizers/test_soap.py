"""SOAP against its algorithm written out, its two forms against each other, and Adam where no axis has a factor."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params

B1, B2, EPS, BETA = 0.8, 0.9, 1e-3, 0.7


def noise(step, shape=(3, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def written_out(gradients, every):
    """The algorithm of the paper for one matrix, with the order and the signs of LAPACK."""
    L = R = m = v = 0.0
    for t, g in enumerate(gradients):
        L_new, R_new = BETA * L + (1 - BETA) * g @ g.T, BETA * R + (1 - BETA) * g.T @ g
        if t == 0:
            ql, qr = torch.linalg.eigh(L_new)[1].flip(1), torch.linalg.eigh(R_new)[1].flip(1)
            yield torch.zeros_like(g)
        else:
            rotated = ql.T @ g @ qr
            m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * rotated**2
            n = (ql.T @ m @ qr) / (v.sqrt() + EPS)
            yield ql @ n @ qr.T * (1 - B2**t) ** 0.5 / (1 - B1**t)
            if t % every == 0:
                left, right = ((ql.T @ L_new @ ql).diag().argsort(descending=True), (qr.T @ R_new @ qr).diag().argsort(descending=True))
                v = v[left][:, right]
                ql, qr = torch.linalg.qr(L_new @ ql[:, left])[0], torch.linalg.qr(R_new @ qr[:, right])[0]
        L, R = L_new, R_new


@pytest.mark.parametrize("dispatch", ["auto", "select"])
def test_is_the_algorithm_of_the_paper(dispatch):
    gradients = [noise(step) for step in range(9)]
    tx = fo.scale_by_soap(B1, B2, EPS, shampoo_beta=BETA, every=2, dispatch=dispatch)
    state = tx.init(gradients[0])
    for g, expected in zip(gradients, written_out(gradients, 2), strict=True):
        # The seventh digit: the third direction of four has little variance in the first factor, whose last is empty.
        u, state = tx.update(g, state)
        torch.testing.assert_close(u, expected, rtol=1e-7, atol=1e-9)


def test_is_adam_where_no_axis_has_a_factor():
    soap, adam, params = (
        fo.scale_by_soap(0.9, 0.99, 1e-12, max_dim=1),
        fo.scale_by_adam(0.9, 0.99, 1e-12),
        {"b": torch.zeros(4), "w": torch.zeros(2, 3)},
    )
    a, b = soap.init(params), adam.init(params)
    for step in range(5):
        g = gradients_at(step, params)
        ours, a = soap.update(g, a)
        if step == 0:
            assert not any(u.any() for u in fo.tree.leaves(ours))
            continue
        theirs, b = adam.update(g, b)
        assert_trees_close(ours, theirs, rtol=1e-5)


def test_bases_stay_orthonormal_and_find_the_axes_of_the_gradient():
    turn = torch.linalg.qr(noise(50, (3, 3)))[0]
    tx = fo.scale_by_soap(every=1, shampoo_beta=0.9)
    state = tx.init(torch.zeros(3, 5, dtype=torch.float64))
    for step in range(80):
        _, state = tx.update(turn @ (torch.tensor([9.0, 3.0, 1.0], dtype=torch.float64).unsqueeze(1) * noise(step, (3, 5))), state)
    q = state.Q[0]
    torch.testing.assert_close(q.T @ q, torch.eye(3, dtype=q.dtype))
    assert ((q.T @ turn).abs().diag() > 0.9).all()


def test_a_compiled_step_decomposes_in_the_steps_in_which_it_must():
    tx, params = fo.soap(0.1, every=3, eps=1e-3), {"w": noise(1)}
    plans = []
    state = tx.init(params)
    for step in range(8):
        plans.append(tx.plan(state)[0])
        _, state = tx.update({"w": noise(step)}, state, params)
    assert plans == ["first", "keep", "keep", "refresh", "keep", "keep", "refresh", "keep"]


def test_a_derivative_that_reaches_the_factors_is_refused():
    tx = fo.scale_by_soap()

    def first(scale):
        g = scale * noise(0)
        return tx.update(g, tx.init(g))[0].sum()

    with pytest.raises(ValueError, match="scale_by_soap: its decompositions cannot be differentiated through"):
        torch.func.grad(first)(torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("arguments, message", [({"shampoo_beta": 1.0}, "shampoo_beta must be in"), ({"every": 0}, "every must be >= 1")])
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_soap: {message}"):
        fo.scale_by_soap(**arguments)


def test_vectors_have_a_factor_where_they_are_asked_to():
    plain, full = fo.scale_by_soap().init(small_params()), fo.scale_by_soap(precondition_1d=True).init(small_params())
    assert [tuple(x.shape) for x in plain.Q["b"]] == [(0,)] and [tuple(x.shape) for x in full.Q["b"]] == [(4, 4)]
