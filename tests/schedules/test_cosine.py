"""Cosine decay, alone and after a warm-up: against torch.optim, edges, errors."""

import pytest
import torch

import funcopt as fo


def test_follows_torch():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9, eta_min=0.1)
    ours = fo.schedules.cosine_decay_schedule(0.4, 9, alpha=0.25)
    for count in range(10):
        assert ours(count).item() == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_exponent_bends_the_curve():
    assert fo.schedules.cosine_decay_schedule(1.0, 4, exponent=3.0)(2).item() == pytest.approx(0.125)


def test_before_zero_it_has_its_first_value():
    assert fo.schedules.cosine_decay_schedule(0.5, 4)(-3).item() == 0.5


def test_without_warm_up_it_starts_at_the_peak():
    assert fo.schedules.warmup_cosine_decay_schedule(0.0, 0.3, 0, 5)(0).item() == 0.3


def test_a_peak_of_zero_is_zero_from_there_on_as_in_optax():
    for zero in (0.0, torch.tensor(0.0, dtype=torch.float64)):
        assert fo.schedules.warmup_cosine_decay_schedule(0.2, zero, 2, 5, end_value=0.1)(4).item() == 0.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: s.cosine_decay_schedule(1.0, 0), "cosine_decay_schedule: decay_steps must be > 0, got 0"),
        (
            lambda s: s.warmup_cosine_decay_schedule(0.0, 1.0, 5, 5),
            "counts the whole schedule and must be > warmup_steps, got 5 with warmup_steps 5",
        ),
        (lambda s: s.warmup_cosine_decay_schedule(0.0, 1.0, -1, 5), "warmup_cosine_decay_schedule: warmup_steps must be >= 0, got -1"),
        (lambda s: s.warmup_constant_schedule(0.0, float("nan"), 5), "warmup_constant_schedule: peak_value must be finite, got nan"),
        (
            lambda s: s.warmup_exponential_decay_schedule(0.0, 1.0, -5, 2, 0.5),
            "warmup_exponential_decay_schedule: warmup_steps must be >= 0, got -5",
        ),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make(fo.schedules)
