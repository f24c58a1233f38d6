"""Every row of the zoo: saved, read back with weights_only, and resumed bit for bit."""

import io

import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params
from tests.zoo import every


@every()
def test_a_resumed_run_is_the_uninterrupted_run(row):
    """At the third step; at others, tests/checkpoint/test_resume.py."""
    tx, start, at = row.make(), small_params(), 3
    _, params, state = rollout(tx, start, at, row.extra)
    file = io.BytesIO()
    torch.save(fo.checkpoint.state_dict({"params": params, "state": state}), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = fo.checkpoint.load_state_dict({"params": start, "state": row.make().init(start)}, saved)
    resumed = rollout(row.make(), fresh["params"], 4, row.extra, state=fresh["state"], start=at)
    straight = rollout(tx, params, 4, row.extra, state=state, start=at)
    assert_trees_equal(resumed, straight)
