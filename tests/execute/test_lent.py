"""Who keeps what a donated step writes into is told; who looks for it finds it."""

import warnings

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal

PARAMS = {"w": torch.tensor([1.0, -2.0]), "b": torch.ones(())}
X = torch.tensor([0.5, 0.5])


def loss(params, x):
    return (params["w"] * x).sum().square() + params["b"].square()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("look", ["params", "state"])
def test_whoever_holds_a_view_at_the_next_donated_step_is_told_once(flat, look):
    step = fo.make_step(loss, fo.adam(0.1), flat=flat, donate=True)
    params, state, _ = step(*step.init(PARAMS), X)
    best = step.params(params) if look == "params" else step.state(state)
    with pytest.warns(UserWarning, match=r"make_step: what step.params or step.state gave is still held.*fo.tree.clone"):
        params, state, _ = step(params, state, X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = step.params(params)
        step(params, state, X)
    assert best is not None and again is not None


@pytest.mark.parametrize("flat", [False, True])
def test_a_copy_and_a_look_are_no_reason_to_warn(flat):
    step = fo.make_step(loss, fo.adam(0.1), flat=flat, donate=True)
    params, state = step.init(PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            best = fo.tree.clone(step.params(params))
            loss(step.params(params), X)
            params, state, _ = step(params, state, X)
    assert not torch.equal(best["w"], step.params(params)["w"])


@pytest.mark.parametrize("flat", [False, True])
def test_checked_steps_are_donated_steps_whose_old_tensors_show_themselves(flat):
    results = []
    for donate in (False, "checked"):
        step = fo.make_step(loss, fo.adam(0.1), flat=flat, donate=donate)
        params, state = step.init(PARAMS)
        for _ in range(3):
            old, spent = params, state
            params, state, value = step(params, state, X)
        results.append(fo.tree.clone((step.params(params), step.state(state), value)))
    assert_trees_equal(results[1], results[0])
    assert all(leaf.isnan().all() for leaf in fo.tree.leaves(old))
    for again in ((old, state), (params, spent)):
        with pytest.raises(ValueError, match=r"make_step: '.*' of \(params, state\) was donated to an earlier step and is used up"):
            step(*again, X)


def test_settings_of_donation():
    with pytest.raises(ValueError, match="make_step: donate must be one of"):
        fo.make_step(loss, fo.adam(0.1), donate="often")
    with pytest.raises(ValueError, match="donate='checked' makes new buffers in every step"):
        fo.make_step(loss, fo.adam(0.1), compile=True, donate="checked", mode="reduce-overhead")
