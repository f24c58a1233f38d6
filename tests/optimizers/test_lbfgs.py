"""L-BFGS: the direction against the inverse matrix that it stands for, and its laws; optax's recordings replay in tests/parity."""

import pytest
import torch

import funcopt as fo
from tests.helpers import small_params


def test_the_direction_is_that_of_the_bfgs_matrix():
    # With a memory that holds all pairs: H' = (I - rho s y^T) H (I - rho y s^T) + rho s s^T, from H = gamma I of the newest pair.
    torch.manual_seed(1)
    A = torch.randn(4, 4, dtype=torch.float64)
    A = A @ A.mT + torch.eye(4, dtype=torch.float64)
    tx, params = fo.scale_by_lbfgs(memory_size=5), torch.randn(4, dtype=torch.float64)
    state, pairs, last = tx.init(params), [], None
    for _ in range(5):
        g = A @ params
        if last is not None:
            pairs.append((params - last[0], g - last[1]))
            s, y = pairs[-1]
            H = (y @ s) / (y @ y) * torch.eye(4, dtype=torch.float64)
            for s, y in pairs:
                V = torch.eye(4, dtype=torch.float64) - torch.outer(y, s) / (y @ s)
                H = V.mT @ H @ V + torch.outer(s, s) / (y @ s)
        direction, state = tx.update(g, state, params)
        if last is not None:
            torch.testing.assert_close(direction, H @ g, rtol=1e-9, atol=1e-11)
        last = (params.clone(), g.clone())
        params = params - 0.3 * direction


def test_finds_the_minimum_of_a_square_in_as_many_steps_as_it_has_dimensions():
    scale = torch.logspace(0, 3, 6, dtype=torch.float64)
    step = fo.make_step(
        lambda p: 0.5 * (scale * (p - 1) ** 2).sum(),
        fo.lbfgs(linesearch=fo.scale_by_zoom_linesearch(30, curv_rtol=1e-3, initial_guess_strategy="one")),
    )
    params, state = step.init(torch.zeros(6, dtype=torch.float64))
    for _ in range(12):
        params, state, _ = step(params, state)
    torch.testing.assert_close(params, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_pair_along_which_nothing_moved_does_not_stop_it():
    tx, params = fo.scale_by_lbfgs(), torch.ones(2)
    state = tx.init(params)
    for gradient in (torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])):
        direction, state = tx.update(gradient, state, params)  # the params stay where they are
    torch.testing.assert_close(direction, torch.tensor([0.8, 0.6]))


def test_its_memory_forgets_a_nan():
    tx, params = fo.scale_by_lbfgs(3), small_params()
    state = tx.init(params)
    for bad in (False, True, False, False):
        g = fo.tree.map(lambda p, bad=bad: p * (torch.nan if bad else 1.0), params)
        direction, state = tx.update(g, state, params)
        assert bool(fo.tree.all_finite(direction)) is not bad
    assert fo.tree.all_finite(state)


def test_complex_leaves_are_pairs_of_real_ones():
    def moved(params, pair):
        tx = fo.lbfgs(memory_size=3)
        state = tx.init(params)
        for _ in range(4):
            loss = (
                (lambda p: (p * p).sum() + (p[..., :1] ** 4).sum()) if pair else (lambda p: (p * p.conj()).real.sum() + (p.real**4).sum())
            )
            grads = torch.func.grad(loss)(params)
            updates, state = tx.update(grads, state, params, value_fn=loss)
            params = fo.apply_updates(params, updates)
        return params

    z = torch.tensor([1 + 2j, -0.5 + 0.25j], dtype=torch.complex128)
    torch.testing.assert_close(torch.view_as_real(moved(z, False)), moved(torch.view_as_real(z).clone(), True))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="scale_by_lbfgs: memory_size must be >= 1, got 0"):
        fo.lbfgs(memory_size=0)
    with pytest.raises(ValueError, match="lbfgs: linesearch must be 'zoom', None or a transformation, got 'armijo'"):
        fo.lbfgs(linesearch="armijo")
    tx = fo.lbfgs()
    with pytest.raises(
        ValueError, match=r"scale_by_zoom_linesearch: needs the loss as a function of the params; call update\(..., value_fn=value_fn\)"
    ):
        tx.update(torch.ones(2), tx.init(torch.ones(2)), torch.ones(2))
