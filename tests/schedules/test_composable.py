"""Schedules multiply, with each other, with numbers, with functions and tensors, and what comes out is a schedule as any."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo

s = fo.schedules


@given(st.integers(0, 20), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_a_product_is_the_product_of_the_values(count, factor):
    rise, fall = s.linear_schedule(0.0, 1.0, 5), s.rex_decay_schedule(2.0, 15)
    expected = rise(count) * fall(count)
    for product in (rise * fall, fall * rise):
        torch.testing.assert_close(product(count), expected, rtol=0, atol=0)
    for product in (factor * rise * fall, rise * fall * factor, torch.tensor(factor, dtype=torch.float64) * (rise * fall)):
        torch.testing.assert_close(product(count), factor * expected)


def test_a_function_of_ones_own_multiplies_from_either_side():
    def mine(count):
        return 1 / (1 + count)

    rise = s.linear_schedule(0.0, 1.0, 4)
    for product in (rise * mine, mine * rise, s.ComposableSchedule(mine) * rise):
        assert product(torch.tensor(1)).item() == 0.125


def test_a_product_is_traced_whole_and_moves_a_step():
    schedule = 0.5 * s.linear_schedule(0.0, 1.0, 4) * s.reciprocal_sqrt_schedule(1.0, 1.0, 1)
    tx = fo.sgd(schedule)
    traced = torch.compile(lambda g, state: tx.update(g, state), backend="eager", fullgraph=True)
    state = tx.init(torch.zeros(1, dtype=torch.float64))
    for count in range(4):
        updates, state = traced(torch.ones(1, dtype=torch.float64), state)
        torch.testing.assert_close(updates, -schedule(count).reshape(1))


def test_a_derivative_passes_to_both():
    def value(a, b):
        return (s.constant_schedule(a) * s.linear_schedule(b, 0.0, 4))(2)

    da, db = torch.func.grad(value, argnums=(0, 1))(torch.tensor(3.0), torch.tensor(5.0))
    assert (da.item(), db.item()) == (2.5, 1.5)


def test_says_what_is_wrong():
    with pytest.raises(TypeError, match="ComposableSchedule: function must be a function of the count of steps, got 0.1"):
        s.ComposableSchedule(0.1)
    with pytest.raises(TypeError, match="ComposableSchedule: function must be a number or a function of the count of steps alone"):
        s.ComposableSchedule(lambda count, other: 0.1)
    with pytest.raises(TypeError, match="unsupported operand"):
        s.constant_schedule(1.0) * None
