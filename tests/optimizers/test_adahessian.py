"""AdaHessian by hand, where it is Adam, and what it asks for."""

import pytest
import torch

import funcopt as fo


def test_first_step_by_hand():
    # m / c1 = g = 3 and v / c2 = h^2 = 4: 3 / (2 + 0) with the whole root, 3 / sqrt(2) with half of it.
    for power, expected in ((1.0, 1.5), (0.5, 3 / 2**0.5), (0.0, 3.0)):
        tx = fo.scale_by_adahessian(eps=0.0, hessian_power=power)
        start = torch.zeros(1, dtype=torch.float64)
        direction, _ = tx.update(torch.full_like(start, 3.0), tx.init(start), hessian=torch.full_like(start, -2.0))
        torch.testing.assert_close(direction.item(), expected)


def test_with_the_gradient_for_a_hessian_it_is_adam():
    adam, ours = fo.scale_by_adam(eps=1e-4), fo.scale_by_adahessian()
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    s, t = adam.init(start), ours.init(start)
    for step in range(5):
        g = start * (step + 1)
        expected, s = adam.update(g, s)
        direction, t = ours.update(g, t, hessian=g)
        torch.testing.assert_close(direction, expected)


def test_asks_for_the_hessian():
    tx = fo.scale_by_adahessian()
    with pytest.raises(ValueError, match=r"scale_by_adahessian: needs the diagonal of the Hessian; call update\(..., hessian=hessian\)"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_adahessian: hessian_power must be in \[0, 1\], got 2.0"):
        fo.scale_by_adahessian(hessian_power=2.0)
