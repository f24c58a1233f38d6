"""PSGD against its equations written out, what it makes of gradients of many sizes, and when it fits."""

import pytest
import torch

import funcopt as fo
from funcopt.optimizers.psgd import _norm_below
from funcopt.transforms.noise import normal_like


def noise(step, shape=(3, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def test_first_step_is_the_equations_of_the_paper():
    g = noise(0)
    tx = fo.scale_by_psgd(0.9, lr_q=0.1, scale=2.0, key=5)
    u, state = tx.update(g, tx.init(g))
    q1, q2 = 2.0**0.5 * torch.eye(3, dtype=g.dtype), 2.0**0.5 * torch.eye(4, dtype=g.dtype)
    v = normal_like(fo.random.fold_in(fo.random.key(5), torch.tensor(0)), g)
    a, b = q1 @ g @ q2.T, torch.linalg.inv(q1).T @ v @ torch.linalg.inv(q2)
    q1 = q1 - 0.1 * torch.triu(a @ a.T - b @ b.T) @ q1 / _norm_below(a @ a.T + b @ b.T)
    q2 = q2 - 0.1 * torch.triu(a.T @ a - b.T @ b) @ q2 / _norm_below(a.T @ a + b.T @ b)
    expected = q1.T @ q1 @ g @ (q2.T @ q2)
    expected = expected * min(1.0, 1.1 / (expected.square().mean().sqrt() + 1e-6))
    torch.testing.assert_close(state.Q, [q1, q2])
    torch.testing.assert_close(u, expected)


def test_the_bound_of_the_norm_is_below_it_and_not_far():
    for step in range(10):
        a = noise(step, (6, 6))
        a = a @ a.T
        norm = torch.linalg.matrix_norm(a, 2)
        assert 0.5 * norm < _norm_below(a) <= norm * (1 + 1e-12)


def test_whitens_gradients_of_many_sizes():
    mix = torch.diag(torch.tensor([30.0, 3.0, 0.3], dtype=torch.float64)) @ torch.linalg.qr(noise(99, (3, 3)))[0]
    tx = fo.scale_by_psgd(0.0)
    state = tx.init(torch.zeros(3, 5, dtype=torch.float64))
    seen = []
    for step in range(200):
        u, state = tx.update(mix @ noise(step, (3, 5)), state)
        seen.append(u)
    spread = torch.linalg.svdvals(torch.cat(seen[120:], 1))
    assert spread[0] / spread[-1] < 3  # 100 as it comes


def test_fits_rarely_once_it_knows():
    tx = fo.scale_by_psgd()
    state = tx.init(torch.zeros(2))
    for step, expected in ((0, "fit"), (400, "fit"), (20000, "keep")):
        assert tx.plan(state._replace(step=torch.tensor(step), since=torch.tensor(0))) == expected
    assert tx.plan(state._replace(step=torch.tensor(20000), since=torch.tensor(33))) == "fit"
    every = fo.scale_by_psgd(every=3)
    state, plans = every.init(torch.zeros(2)), []
    for _ in range(7):
        plans.append(every.plan(state))
        _, state = every.update(torch.ones(2), state)
    assert plans == ["fit", "keep", "keep", "fit", "keep", "keep", "fit"]


def test_selected_fits_are_those_of_the_branch():
    branch, select = fo.scale_by_psgd(every=2), fo.scale_by_psgd(every=2, dispatch="select")
    a, b = branch.init(noise(0)), select.init(noise(0))
    for step in range(5):
        u, a = branch.update(noise(step), a)
        v, b = select.update(noise(step), b)
        torch.testing.assert_close(u, v)


@pytest.mark.parametrize(
    "arguments, message", [({"lr_q": 0.0}, "lr_q must be > 0"), ({"every": 0}, "every must be >= 1"), ({"b1": 1.0}, "b1 must be in")]
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_psgd: {message}"):
        fo.scale_by_psgd(**arguments)
