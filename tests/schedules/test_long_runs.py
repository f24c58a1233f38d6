"""Schedules whose end is decided late, and REX: the formulas of their papers, what does not depend on the end, errors."""

import math

import pytest

import funcopt as fo

s = fo.schedules


def curve(schedule, counts):
    return [schedule(count).item() for count in counts]


@pytest.mark.parametrize("shape", ["linear", "sqrt", "cosine"])
def test_a_plateau_does_not_depend_on_the_end_and_the_fall_is_that_of_its_name(shape):
    short, long = (s.warmup_stable_decay_schedule(0.1, 1.0, 4, total, 5, 0.2, shape) for total in (15, 40))
    assert curve(short, range(10)) == curve(long, range(10))
    f = {"linear": lambda x: 1 - x, "sqrt": lambda x: 1 - math.sqrt(x), "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}[shape]
    assert curve(short, range(10, 16)) == pytest.approx([0.2 + 0.8 * f(k / 5) for k in range(6)])


def test_the_rate_of_the_transformer_is_a_reciprocal_square_root():
    d, warm = 512, 40
    ours = s.reciprocal_sqrt_schedule(0.0, (d * warm) ** -0.5, warm)
    theirs = [d**-0.5 * min(n**-0.5, n * warm**-1.5) for n in range(1, 200)]  # section 5.3
    assert curve(ours, range(1, 200)) == pytest.approx(theirs, rel=1e-12)
    assert s.reciprocal_sqrt_schedule(1.0, 1.0, 0, timescale=9)(16).item() == pytest.approx(0.6)


def test_rex_is_that_of_the_paper_and_above_a_line():
    schedule = s.rex_decay_schedule(0.3, 50)
    theirs = [0.3 * (1 - n / 50) / (0.5 + 0.5 * (1 - n / 50)) for n in range(50)]
    assert curve(schedule, range(50)) == pytest.approx(theirs, rel=1e-12)
    assert all(value > 0.3 * (1 - n / 50) for n, value in enumerate(curve(schedule, range(1, 49)), 1))


def test_an_infinite_schedule_waits_for_its_end():
    settings = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "cooldown_steps": 6, "constant_value": 0.3}
    waiting = s.infinite_cosine_schedule(**settings)
    ended = s.infinite_cosine_schedule(**settings, anneal_begin=20, anneal_steps=5, end_value=0.03)
    assert curve(waiting, range(21)) == curve(ended, range(21))
    assert waiting(10**9) == 0.3 == waiting(9)
    assert curve(ended, range(20, 26)) == pytest.approx([0.3 * 0.1 ** (k / 5) for k in range(6)])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: s.warmup_stable_decay_schedule(0.0, 1.0, 6, 10, 5), "total_steps counts the whole schedule and must be >= warmup_steps"),
        (lambda: s.warmup_stable_decay_schedule(0.0, 1.0, 2, 10, 5, shape="step"), "shape must be one of 'linear', 'sqrt', 'cosine', got"),
        (lambda: s.warmup_stable_decay_schedule(0.0, 1.0, 2, 10, 0), "warmup_stable_decay_schedule: cooldown_steps must be >= 1, got 0"),
        (lambda: s.reciprocal_sqrt_schedule(0.0, 1.0, 0), "timescale must be given where warmup_steps is 0"),
        (lambda: s.reciprocal_sqrt_schedule(0.0, 1.0, 5, 0.0), "reciprocal_sqrt_schedule: timescale must be > 0, got 0.0"),
        (lambda: s.rex_decay_schedule(0.1, 0), "rex_decay_schedule: decay_steps must be > 0, got 0"),
        (lambda: s.infinite_cosine_schedule(0.0, 1.0, 3, 6, 0.3, 8, 2, 0.1), "anneal_begin must be >= 9, got 8"),
        (lambda: s.infinite_cosine_schedule(0.0, 1.0, 3, 6, 0.3, 9, 2), "infinite_cosine_schedule: end_value must be > 0, got 0.0"),
        (
            lambda: s.infinite_cosine_schedule(0.0, 1.0, 3, 6, 0.3, anneal_steps=2),
            "anneal_begin must be given where anneal_steps is, got 2",
        ),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
