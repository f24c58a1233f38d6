"""SGD against torch.optim, dampening and averaging included, and against arithmetic by hand."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, run, run_torch


@pytest.mark.parametrize("momentum, nesterov", [(None, False), (0.0, False), (0.9, False), (0.9, True)])
def test_follows_torch(momentum, nesterov):
    ours = run(fo.sgd(0.02, momentum, nesterov), steps=200)
    assert_trees_close(ours, run_torch(torch.optim.SGD, lr=0.02, momentum=momentum or 0.0, nesterov=nesterov, steps=200))


def test_coupled_decay_stands_left_of_it():
    ours = run(fo.chain(fo.add_decayed_weights(0.1), fo.sgd(0.02, 0.9, True)), steps=100)
    assert_trees_close(ours, run_torch(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1, steps=100))


def test_dampening_is_a_schedule_left_of_the_momentum():
    # torch takes the first gradient in full and (1 - dampening) of every later one.
    dampening = 0.3
    damped = fo.scale_by_schedule(lambda count: 1 - dampening * (count > 0).double())
    ours = run(fo.chain(damped, fo.sgd(0.02, 0.9)), steps=100)
    assert_trees_close(ours, run_torch(torch.optim.SGD, lr=0.02, momentum=0.9, dampening=dampening, steps=100))


def test_says_averaged_sgd_of_torch():
    lr, lambd, alpha = 0.05, 0.02, 0.75
    ours = run(fo.sgd(lambda count: lr / (1 + lambd * lr * count) ** alpha, weight_decay=lambd), steps=100)
    assert_trees_close(ours, run_torch(torch.optim.ASGD, lr=lr, lambd=lambd, alpha=alpha, steps=100), rtol=1e-6)


def test_second_step_by_hand():
    # momentum 1/2, gradients 1 then 1: 1 + 1/2, and with Nesterov 1 + (1 + 1/2) / 2.
    for nesterov, expected in ((False, -0.15), (True, -0.175)):
        tx = fo.sgd(0.1, 0.5, nesterov)
        state = tx.init(torch.zeros((), dtype=torch.float64))
        for _ in range(2):
            updates, state = tx.update(torch.ones((), dtype=torch.float64), state)
        torch.testing.assert_close(updates.item(), expected)


def test_is_linear_in_the_gradient():
    tx = fo.sgd(0.1, 0.9, True)
    one, two = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)

    def second(first, then):
        _, state = tx.update(first, tx.init(first))
        return tx.update(then, state)[0]

    torch.testing.assert_close(second(one, two) + second(two, one), second(one + two, one + two))


def test_without_momentum_keeps_nothing_but_its_rate():
    assert len(fo.tree.leaves(fo.sgd(0.1).init(torch.zeros(5)))) == 1


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"trace: decay must be in \[0, 1\), got 1.0"):
        fo.sgd(0.1, momentum=1.0)
    with pytest.raises(ValueError, match="lr must be >= 0, got -0.1"):
        fo.sgd(-0.1)
