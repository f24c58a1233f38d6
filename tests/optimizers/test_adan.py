"""Adan by hand, the coefficient that optax has wrong, and its first step."""

import json
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal

RECORDED = Path(__file__).parents[1] / "golden" / "optax" / "scale_by_adan.json"


def test_second_step_by_hand():
    # b1 = b2 = b3 = 1/2, gradients 2 then 4: d = 0, 2; m = 1, 2.5; v = 0, 1; n = 2, 1 + (4 + 1)^2 / 2 = 13.5.
    adan = fo.scale_by_adan(0.5, 0.5, 0.5, eps=0.0)
    state = adan.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = adan.update(torch.tensor(gradient, dtype=torch.float64), state)
    assert (state.m.item(), state.v.item(), state.n.item(), state.g.item()) == (2.5, 1.0, 13.5, 4.0)
    torch.testing.assert_close(direction.item(), (2.5 + 0.5) / 0.75 / (13.5 / 0.75) ** 0.5)


def test_weighs_the_change_by_b2_where_optax_has_one_minus_b2():
    # b1 = b3 = 0 and b2 = 3/4, gradients 2 then 4: d = 2, v^ = (2 / 4) / (1 - 9/16) = 8/7.
    adan = fo.scale_by_adan(0.0, 0.75, 0.0, eps=0.0)
    state = adan.init(torch.zeros((), dtype=torch.float64))
    for gradient in (2.0, 4.0):
        direction, state = adan.update(torch.tensor(gradient, dtype=torch.float64), state)

    def expected(weight):
        return (4 + weight * 8 / 7) / (4 + weight * 2)

    torch.testing.assert_close(direction.item(), expected(0.75))
    assert abs(direction.item() - expected(0.25)) > 0.05


def test_the_recorded_updates_of_optax_are_others():
    case = json.loads(RECORDED.read_text())["cases"][0]
    assert case["known_bug"]
    assert case["updates"][1] != case["corrected"]["updates"][1]


def test_first_step_is_adams():
    gradient = torch.tensor([3.0, -0.5], dtype=torch.float64)
    adan, adam = fo.scale_by_adan(), fo.scale_by_adam()
    assert_trees_close(adan.update(gradient, adan.init(gradient))[0], adam.update(gradient, adam.init(gradient))[0])


def test_ready_made_is_the_chain():
    params = torch.tensor([2.0, -1.0], dtype=torch.float64)
    tx, parts = fo.adan(0.1, weight_decay=0.3), fo.chain(fo.scale_by_adan(eps_root=1e-8), fo.add_decayed_weights(0.3), fo.lr_scale(0.1))
    assert_trees_equal(tx.update(params, tx.init(params), params)[0], parts.update(params, parts.init(params), params)[0])


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"scale_by_adan: b3 must be in \[0, 1\), got 1.0"):
        fo.adan(0.1, b3=1.0)


@pytest.mark.parametrize("spike", [torch.finfo(torch.float64).max, -torch.finfo(torch.float64).max])
def test_the_largest_number_leaves_no_nan(spike):
    adan, params = fo.scale_by_adan(), torch.zeros(1, dtype=torch.float64)
    state = adan.init(params)
    for g in (1.0, spike, -1.0, 1.0):
        direction, state = adan.update(torch.full_like(params, g), state)
        assert direction.isfinite()
