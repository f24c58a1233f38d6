"""Joined schedules and warm restarts: each piece on a count of its own, errors."""

import pytest
import torch

import funcopt as fo

ONE = fo.schedules.constant_schedule(1.0)


def test_each_piece_counts_from_its_own_start():
    ramp = fo.schedules.linear_schedule(0.0, 1.0, 4)
    schedule = fo.schedules.join_schedules([ramp, ramp, ramp], [2, 5])
    assert [schedule(n).item() for n in range(8)] == [0.0, 0.25, 0.0, 0.25, 0.5, 0.0, 0.25, 0.5]


def test_one_schedule_needs_no_boundary():
    assert fo.schedules.join_schedules([ONE], [])(3).item() == 1.0


def test_restarts_follow_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2, eta_min=0.1)
    pieces = [{"init_value": 0.5, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": steps, "end_value": 0.1} for steps in (3, 6)]
    ours = fo.schedules.sgdr_schedule(pieces)
    for count in range(9):
        assert ours(count).item() == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda s: s.join_schedules([ONE, ONE], []),
            ValueError,
            "needs one boundary fewer than schedules, got 2 schedules and 0 boundaries",
        ),
        (lambda s: s.join_schedules([ONE, ONE, ONE], [4, 2]), ValueError, r"join_schedules: boundaries must not fall, got \[4, 2\]"),
        (lambda s: s.join_schedules([ONE, 0.5], [4]), TypeError, "got 0.5 at position 1; constant_schedule makes one"),
        (lambda s: s.sgdr_schedule([]), ValueError, "sgdr_schedule: needs the arguments of at least one piece, got none"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make(fo.schedules)


def test_what_is_not_yet_chosen_may_have_no_number_before_its_start():
    # (c + 1)^(-1/2) has none at c = -5, where the first schedule runs; multiplied by 0 its slope is NaN all the same.
    def at(count, lr):
        return fo.schedules.join_schedules([lambda c: lr * 2.0, lambda c: lr * (c + 1.0) ** -0.5], [5])(torch.tensor(count))

    for count, slope in ((0, 2.0), (4, 2.0), (5, 1.0), (8, 0.5)):
        assert torch.func.grad(lambda lr, count=count: at(count, lr))(torch.tensor(0.1)).item() == pytest.approx(slope)
