"""Every row of the zoo: saved, read back with weights_only, and resumed bit for bit."""

import io

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params
from tests.zoo import ROWS


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_is_the_uninterrupted_run(row, at):
    tx = row.make()
    start = small_params()
    _, params, state = rollout(tx, start, at, row.extra)
    file = io.BytesIO()
    torch.save(fo.checkpoint.state_dict({"params": params, "state": state}), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = fo.checkpoint.load_state_dict({"params": start, "state": row.make().init(start)}, saved)
    resumed = rollout(row.make(), fresh["params"], 4, row.extra, state=fresh["state"], start=at)
    straight = rollout(tx, params, 4, row.extra, state=state, start=at)
    assert_trees_equal(resumed, straight)
