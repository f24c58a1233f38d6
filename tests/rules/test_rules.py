"""Rules as values: how they join, what they refuse, and what each makes of one reading."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, strategies as st

import funcopt as fo
from funcopt.rules import cosine, cosine_restart, inverse, named, normalized, relative, scaling, stable, trend, variance
from funcopt.rules.rule import Knob, Reading
from funcopt.rules.statistics import loss_watch, reward_watch

EVERY = [cosine, cosine_restart, inverse, normalized, relative, scaling, stable, trend, variance]
BASE = torch.tensor(0.9, dtype=torch.float64)


def seen(values, rewards=False, **settings):
    watch = reward_watch(settings) if rewards else loss_watch(settings)
    state = watch.init(BASE)
    for value in values:
        state, _ = watch.observe(state, torch.tensor(value, dtype=torch.float64))
    return state


def reading(losses=(), rewards=(), clock=0, cycle=(0, 1), **settings):
    return Reading(loss=seen(losses, **settings), reward=seen(rewards, rewards=True), clock=torch.tensor(clock), cycle=torch.tensor(cycle))


def factor(rule, knob, what, channel="loss", m=None, base=BASE):
    return rule.bind(Knob(knob, 0.0, 0.999, relative=False), channel).factor(what, base, m).item()


# --- values ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", EVERY)
def test_rules_are_frozen_values(make):
    assert make() == make() and hash(make()) == hash(make())
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().base = 1.0
    assert named(make.__name__) == make()


def test_products_do_not_know_their_order():
    a, b, c = trend(0.1), variance(), cosine()
    assert a * b == b * a == a + b
    assert (a * b) * c == a * (c * b) and hash(a * b * c) == hash(c * b * a)
    assert (a * b).base == 0.1 and named("variance*trend").base is None


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: trend() * trend(0.1), ValueError, "each rule may stand once in a product, got trend 2 times"),
        (lambda: cosine() * cosine_restart(), ValueError, "cosine and cosine_restart exclude each other"),
        (lambda: trend(0.1) * variance(0.2), ValueError, "one rule of a product may carry the base, got trend and variance"),
        (lambda: trend() * 0.1, TypeError, "unsupported operand"),
        (lambda: named("trend+"), ValueError, "the rules are cosine, .*, got ''"),
        (lambda: trend(up=0.9), ValueError, "trend: up must be >= 1, got 0.9"),
        (lambda: trend(down=1.1), ValueError, r"trend: down must be in \(0, 1\], got 1.1"),
        (lambda: trend(step=-1.0), ValueError, "trend: step must be >= 0, got -1.0"),
        (lambda: relative(step=-1.0), ValueError, "relative: step must be >= 0, got -1.0"),
        (lambda: variance(strength=-1.0), ValueError, "variance: strength must be >= 0, got -1.0"),
        (lambda: variance(sense="up"), ValueError, "variance: sense must be one of 'react', 'smooth', got 'up'"),
        (lambda: stable(normalize=1), TypeError, "stable: normalize must be True or False, got 1"),
        (lambda: cosine(length=0), ValueError, "cosine: length must be >= 1, got 0"),
        (lambda: cosine(floor=2.0), ValueError, r"cosine: floor must be in \[0, 1\], got 2.0"),
        (lambda: cosine_restart(mult=0.0), ValueError, "cosine_restart: mult must be > 0, got 0.0"),
        (lambda: normalized(gain=-1.0), ValueError, "normalized: gain must be >= 0, got -1.0"),
        (lambda: scaling(span=0.0), ValueError, "scaling: span must be > 0, got 0.0"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- factors --------------------------------------------------------------------------------------------------------------------


def test_before_any_signal_every_factor_is_one():
    nothing, one = reading(), torch.tensor(1.0, dtype=torch.float64)
    for rule, knob in ((trend(), "lr"), (variance(), "lr"), (cosine(), "lr"), (cosine_restart(), "lr"), (trend(), "weight_decay")):
        assert factor(rule, knob, nothing, m=one) == 1
    for rule in (inverse(), relative(), normalized(), variance(), variance(sense="smooth"), stable()):
        assert factor(rule, "momentum", nothing, m=one) == 1
    for rule in (trend(), scaling(), variance()):
        assert factor(rule, "lr", nothing, channel="reward", m=one) == 1


def test_variance_by_hand():
    # 1, 1, 4: mean 2, variance (1 + 1 + 4) / 2 = 3, mean square 18 / 3 = 6: v = 1/2.
    noisy = reading([1.0, 1.0, 4.0])
    assert factor(variance(strength=2.0), "lr", noisy) == pytest.approx(1 / 2)
    assert factor(variance(normalize=False), "lr", noisy) == pytest.approx(1 / 4)
    assert factor(variance(), "b2", noisy) == pytest.approx(1.5)
    assert factor(variance(sense="smooth"), "b2", noisy) == pytest.approx(1 / 1.5)
    assert factor(stable(strength=4.0), "decay", noisy) == pytest.approx(3.0)


def test_levels_by_hand():
    # m' = 1, loss 4: z = 3, held to 2: 1 + tanh 1.
    assert factor(normalized(), "momentum", reading([1.0, 1.0, 4.0], scale="relative")) == pytest.approx(1 + math.tanh(1))
    # 2 then 1.8: m = 1.98, m_1 = 2: 2 * 1.98 / 3.98.
    assert factor(inverse(), "momentum", reading([2.0, 1.8], scale="relative")) == pytest.approx(2 * 1.98 / 3.98)
    # The reward 0.5 against the center 1 and span 1/4: 1 - 2.
    assert factor(scaling(span=0.25), "lr", reading(rewards=[0.5]), channel="reward") == pytest.approx(-1.0)


def test_cosines_by_hand():
    assert factor(cosine(length=4, floor=0.2), "lr", reading(clock=2)) == pytest.approx(0.6)
    assert factor(cosine(length=4, floor=0.2), "lr", reading(clock=100)) == pytest.approx(0.2)
    assert factor(cosine_restart(floor=0.2), "lr", reading(cycle=(2, 4))) == pytest.approx(0.6)


def test_a_step_of_the_logit():
    bound = relative(step=0.5).bind(Knob("momentum", 0.5, 0.99, relative=False), "loss")
    h = bound.factor(reading(), BASE, torch.tensor(bound.integrator.better, dtype=torch.float64))
    logit = math.log(0.9 / 0.1) + 0.5
    assert (1 - 0.1 * h).item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-12)
    assert bound.integrator.better * bound.integrator.worse == pytest.approx(1.0, rel=1e-15)


# --- statistics -----------------------------------------------------------------------------------------------------------------


def test_the_window_forgets():
    assert seen([100.0, 1.0, 1.0, 1.0], window=3).variance == 0
    assert seen([100.0, 1.0, 1.0, 1.0], window=4).variance > 0.5


@given(size=st.floats(1e-290, 1e290))
def test_the_normalised_variance_of_huge_and_tiny_losses(size):
    v = seen([size, size, 4 * size]).variance.item()
    assert v == pytest.approx(0.5 if size > 1e-9 else v, rel=1e-5)
    assert 0 <= v <= 0.5 + 1e-9


@given(values=st.lists(st.floats(-1e200, 1e200), min_size=2, max_size=30))
def test_the_normalised_variance_is_in_range(values):
    k = min(len(values), 20)
    assert 0 <= seen(values).variance.item() <= k / (k - 1) * (1 + 1e-12)


def test_a_rising_reward_is_better_and_a_constant_one_neutral():
    rising = [0.1 * t for t in range(30)]
    assert seen(rising, rewards=True).verdict == 1
    assert seen(rising[::-1], rewards=True).verdict == -1
    assert seen([0.3] * 30, rewards=True).verdict == 0
    assert seen([0.3] * 30, rewards=True, scale="relative").verdict == -1  # the source's word: a tie has not improved


def test_a_deadband_is_neutral():
    assert seen([1.0, 1.0], scale="relative").verdict == -1
    assert seen([1.0, 1.0], scale="relative", deadband=True).verdict == 0


def test_the_mean_of_extreme_values_stays_a_number():
    for scale in ("pair", "relative", "deviation", "absolute"):
        state = seen([1.7e308, -1.7e308, 1.7e308, 0.0, -1.7e308, 1.0], scale=scale)
        assert torch.isfinite(state.numbers).all() and torch.isfinite(state.variance)


def test_a_state_of_lanes_gives_a_number_per_lane():
    watch = loss_watch()
    state = torch.func.vmap(lambda x: watch.observe(watch.init(x), x)[0])(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert state.number("mean").tolist() == [1.0, 2.0]


def test_bounds_in_own_units():
    assert fo.rules.absolute(1e-5, 1e-2) == (1e-5, 1e-2)
