"""Which form a step takes where nobody says, by the sizes of its leaves."""

import pytest
import torch

from funcopt.execute import policy

CPU = torch.device("cpu")


def leaves(count, numel):
    return [torch.empty(numel, device="meta") for _ in range(count)]


@pytest.mark.parametrize(
    "count, numel, compile, flat, why",
    [
        (15, 4, True, False, "15 leaves, fewer than 16"),
        (16, 4, False, True, "16 leaves, at least 16"),
        (16, 2**17, False, True, "16 leaves, at least 16"),  # 8 MB: just what a cache holds
        (16, 2**18, False, False, "eager, and 16 MB are more than a cache holds (8 MB)"),
        (16, 2**18, True, True, "16 leaves, at least 16"),
    ],
)
def test_make_step_holds_many_leaves_flat_and_eagerly_no_more_than_a_cache_holds(count, numel, compile, flat, why):
    held, said = policy.flat_or_not(policy.sizes(leaves(count, numel)), compile)
    assert held == flat
    assert said == why


@pytest.mark.parametrize(
    "count, numel, compile, gathered",
    [
        (1, 4, False, False),
        (2, 4, False, True),
        (2, 2**21, False, False),
        (15, 4, True, False),
        (16, 2**16, True, True),
        (16, 2**16 + 1, True, False),
    ],
)
def test_the_torch_optimizers_gather_what_a_cache_holds_and_compiled_many_small_leaves(count, numel, compile, gathered):
    assert policy.gathers(policy.sizes(leaves(count, numel)), compile) == gathered


def test_links_that_look_at_each_leaf_stay_with_large_leaves_that_no_cache_holds_together():
    large, small = policy.sizes(leaves(20, 2**18)), policy.sizes(leaves(1000, 2**12))
    assert (
        policy.against_segments(large, ["muon", "muon"], CPU)
        == "muon would leave a cache that holds single leaves (1024 kB on the average)"
    )
    assert policy.against_segments(large, [], CPU) is None
    assert policy.against_segments(large, ["muon"], torch.device("cuda")) is None
    assert policy.against_segments(small, ["muon"], CPU) is None  # 16 kB each


def test_where_there_is_no_compiler_that_is_said_once(monkeypatch):
    monkeypatch.setattr(policy, "compiler_missing", lambda device: "no C++ compiler")
    with pytest.warns(UserWarning, match=r"here: runs eagerly, since there is no compiler here \(no C\+\+ compiler\)"):
        assert not policy.compiles("here", CPU)
    assert not policy.compiles("here", CPU, told=True)


def test_an_optimizer_that_trains_already_asks_for_a_newer_torch(monkeypatch):
    monkeypatch.setattr(policy, "compiler_missing", lambda device: None)
    monkeypatch.setattr(policy, "TORCH", (2, 9))
    assert policy.compiles("here", CPU)
    with pytest.warns(UserWarning, match="is older than 2.10"):
        assert not policy.compiles("here", CPU, best_effort=False)
