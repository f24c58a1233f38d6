"""Per-example clips and the private mean: against a loop over examples, vmapped, traced, and the noise that was asked for."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close

GRADS = {"w": torch.arange(30, dtype=torch.float64).reshape(5, 2, 3).sin(), "b": torch.arange(5, dtype=torch.float64).cos() * 3}


def test_equals_a_loop_over_examples():
    total, clipped = fo.per_example_global_norm_clip(GRADS, 1.5)
    single = [fo.clip_by_global_norm(1.5).update({k: g[i] for k, g in GRADS.items()}, fo.EmptyState())[0] for i in range(5)]
    assert_trees_close(total, fo.tree.add(*single))
    assert clipped == sum(fo.tree.norm({k: g[i] for k, g in GRADS.items()}) > 1.5 for i in range(5))


@pytest.mark.parametrize("uniform", [True, False])
def test_no_example_weighs_more_than_the_bound(uniform):
    for i in range(5):
        total, _ = fo.per_example_layer_norm_clip({k: 100 * g[i : i + 1] for k, g in GRADS.items()}, 1.5, uniform)
        assert fo.tree.norm(total) <= 1.5 + 1e-9


def test_noise_has_the_spread_that_was_asked_for_and_comes_from_the_key():
    tx = fo.differentially_private_aggregate(2.0, 3.0, key=7)
    zeros = torch.zeros(4, 20000, dtype=torch.float64)
    noise, state = tx.update(zeros, tx.init(zeros[0]))
    torch.testing.assert_close(noise.std(), torch.tensor(6.0 / 4, dtype=torch.float64), rtol=0.03, atol=0)
    again, _ = tx.update(zeros, tx.init(zeros[0]))
    later, _ = tx.update(zeros, state)
    assert torch.equal(noise, again) and not torch.equal(noise, later)


def test_dpsgd_vmaps_and_traces():
    tx = fo.dpsgd(0.1, 1.0, 0.5, seed=0, momentum=0.9)
    params = {"w": torch.zeros(2, 3, dtype=torch.float64), "b": torch.zeros((), dtype=torch.float64)}
    state = tx.init(params)
    expected = tx.update(GRADS, state, params)
    traced = torch.compile(lambda g, s, p: tx.update(g, s, p), backend="eager", fullgraph=True)
    assert_trees_close(traced(GRADS, state, params), expected)
    lanes = fo.tree.map(lambda x: torch.stack([x, 2 * x]), params)
    states = torch.func.vmap(tx.init)(lanes)
    updates, _ = torch.func.vmap(tx.update)(fo.tree.map(lambda g: torch.stack([g, g]), GRADS), states, lanes)
    assert_trees_close(fo.tree.map(lambda u: u[0], updates), expected[0])


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: fo.per_example_global_norm_clip({"w": torch.ones(2, 3), "b": torch.ones(3)}, 1.0),
            "leading batch axis of one length, got 3 at 'b', 2 at 'w'",
        ),
        (
            lambda: fo.per_example_layer_norm_clip({"w": torch.ones(())}, 1.0),
            "per_example_layer_norm_clip: every leaf must have a leading batch axis",
        ),
        (
            lambda: fo.dpsgd(0.1, 1.0, 1.0, seed=0).update(torch.ones(0, 3), fo.dpsgd(0.1, 1.0, 1.0, seed=0).init(torch.ones(3))),
            "differentially_private_aggregate: the batch must have an example, got none",
        ),
        (lambda: fo.differentially_private_aggregate(0.0, 1.0), "l2_norm_clip must be > 0, got 0.0"),
        (lambda: fo.dpsgd(0.1, 1.0, -1.0), "noise_multiplier must be >= 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
