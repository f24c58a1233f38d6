"""Any row of the zoo, saved at any step: what follows is what would have followed."""

import io

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params
from tests.zoo import ROWS


def through_a_file(tree):
    file = io.BytesIO()
    torch.save(fo.checkpoint.state_dict(tree), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumes(row, at, more):
    tx, again, start = row.make(), row.make(), small_params()
    _, params, state = rollout(tx, start, at, row.extra)
    fresh = fo.checkpoint.load_state_dict({"params": start, "state": again.init(start)}, through_a_file({"params": params, "state": state}))
    resumed = rollout(again, fresh["params"], more, row.extra, state=fresh["state"], start=at)
    assert_trees_equal(resumed, rollout(tx, params, more, row.extra, state=state, start=at))


@settings(max_examples=30, deadline=None)
@given(row=st.sampled_from(ROWS), at=st.integers(0, 7), more=st.integers(1, 4))
def test_a_resumed_run_is_the_uninterrupted_run(row, at, more):
    resumes(row, at, more)


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_at_every_step(row):
    for at in range(12):
        resumes(row, at, 3)
