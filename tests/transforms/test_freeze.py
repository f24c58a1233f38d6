"""freeze and selective_transform: what is frozen stays, and costs no state."""

import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params


def test_frozen_leaves_stay_and_the_others_go_their_way():
    params = small_params()
    _, free, _ = rollout(fo.adam(0.1), params, 3)
    for tx in (fo.chain(fo.adam(0.1), fo.freeze("deep.*")), fo.selective_transform(fo.adam(0.1), freeze_mask=["deep.*"])):
        _, after, _ = rollout(tx, params, 3)
        assert_trees_equal(after, {**free, "deep": params["deep"]})


def test_frozen_leaves_have_no_state():
    params = {"w": torch.zeros(5), "b": torch.zeros(2)}
    state = fo.selective_transform(fo.adam(0.1), freeze_mask={"w": True, "b": False}).init(params)
    assert fo.tree.size(fo.find(state, "mu")) == 2


def test_words_are_read_under_train():
    state = fo.selective_transform(fo.sgd(0.1), freeze_mask="w").init({"w": torch.zeros(5), "b": torch.zeros(2)})
    assert list(fo.read_signals(state)) == ["train/lr"]


def test_nan_becomes_zero_where_frozen():
    tx = fo.set_to_zero()
    assert_trees_equal(tx.update(torch.tensor([torch.nan]), tx.init(torch.ones(1)))[0], torch.zeros(1))
