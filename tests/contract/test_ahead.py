"""Rows of the zoo through the ahead-of-time engine, donated: the same numbers as their plain eager run."""

import pytest
import torch

import funcopt as fo
from funcopt.execute.engines.ahead import ahead_of_time, missing
from funcopt.execute.engines.dynamo import tensors_for_numbers
from tests.contract.test_compiled import GROUPS, grouped, two_leaves
from tests.helpers import assert_trees_close, gradients_at
from tests.zoo import ROWS

pytestmark = pytest.mark.skipif(missing() is not None, reason=f"no ahead-of-time engine: {missing()}")

NAMES = (
    "adamw",
    "lion",
    "pilot",
    "agreement_policy",
    "ucb_episodes",
    "adaptive",
    "schedule_free_adamw",
    "clip_by_global_norm",
    "lookahead",
)
HANDFUL = list({row.name: row for row in ROWS if row.name in NAMES and not {"compile", "donate"} & set(row.cannot)}.values())


@grouped([HANDFUL, *GROUPS], long=1)
def test_ahead_of_time_and_donated_equals_eager(rows):
    rows = [row for row in rows if "donate" not in row.cannot]
    made = {row.id: row.make() for row in rows}

    def step(params, states, batch, extra):
        (gradients,) = batch
        new_params, new_states = {}, {}
        for row in rows:
            updates, new_states[row.id] = made[row.id].update(gradients[row.id], states[row.id], params[row.id], **extra[row.id])
            new_params[row.id] = fo.apply_updates(params[row.id], updates)
        return new_params, new_states, ()

    run = ahead_of_time(step, "the zoo", donate=True)
    params = {row.id: two_leaves() for row in rows}
    states = fo.tree.clone({row.id: made[row.id].init(two_leaves()) for row in rows})
    plain = fo.tree.clone((params, states))
    for index in range(3):
        gradients = {row.id: gradients_at(index, two_leaves()) for row in rows}
        run(params, states, (gradients,), {row.id: tensors_for_numbers(row.extra(index)) for row in rows})
        *plain, _ = step(*plain, (gradients,), {row.id: row.extra(index) for row in rows})
        assert_trees_close(params, plain[0], rtol=1e-6, atol=1e-8)
        assert_trees_close(states, plain[1], rtol=1e-6, atol=1e-8)


def test_the_handful_holds_what_it_names():
    assert {row.name for row in HANDFUL} == set(NAMES)
    assert torch.get_default_dtype() == torch.float32
