"""tree.get, get_all_with_path and set, as optax has them, on states of several kinds."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, small_params
from tests.zoo import matrix_or_vector


def states():
    schedule = lambda count: 0.1 / (count + 1)  # noqa: E731
    return {
        "adamw": fo.adamw(schedule),
        "nested": fo.chain(fo.chain(fo.trace(0.9), fo.clip(1.0)), fo.chain(fo.scale_by_adam(), fo.lr_scale(schedule))),
        "partition": fo.partition({"matrix": fo.adam(0.1), "vector": fo.sgd(0.1, momentum=0.9)}, matrix_or_vector),
        "injected": fo.inject_hyperparams(fo.sgd)(lr=schedule, momentum=0.9),
    }


def shown(found):
    return ["".join(map(str, path)) for path, _ in found]


def test_paths_name_the_class_and_the_field():
    made = {name: tx.init(small_params()) for name, tx in states().items()}
    assert shown(fo.tree.get_all_with_path(made["adamw"], "count")) == ["[0]ScaleByAdamState.count", "[2]ScheduledLrScaleState.count"]
    assert shown(fo.tree.get_all_with_path(made["nested"], "mu")) == ["[1][0]ScaleByAdamState.mu"]
    found = shown(fo.tree.get_all_with_path(made["partition"], "TraceState"))
    assert found == ["PartitionState.inner_states['vector']MaskedState.inner_state[0]"]
    assert shown(fo.tree.get_all_with_path(made["injected"], "lr"))[:2] == [
        "InjectStatefulHyperparamsState.hyperparams['lr']",
        "InjectStatefulHyperparamsState.hyperparams_states['lr']",
    ]


def test_one_is_found_none_is_the_default_and_two_are_an_error_that_filtering_settles():
    state = fo.adamw(lambda count: 0.1).init(small_params())
    assert fo.tree.get(state, "trace") is None and fo.tree.get(state, "trace", 7) == 7
    assert fo.tree.get(state, "ScaleByAdamState").count == 0
    with pytest.raises(KeyError, match=r"tree.get: 'count' must name one part of the state, got 2: \[0\]ScaleByAdamState.count, "):
        fo.tree.get(state, "count")
    mine = lambda path, part: path[-1].tuple_name == "ScaleByAdamState"  # noqa: E731
    assert fo.tree.get(state, "count", filtering=mine) == 0


def test_set_replaces_all_that_are_meant_and_nothing_else():
    state = fo.adamw(lambda count: 0.1).init(small_params())
    mine = lambda path, part: path[-1] == fo.tree.NamedTupleKey("ScaleByAdamState", "count")  # noqa: E731
    changed = fo.tree.set(state, mine, count=torch.tensor(5))
    assert changed[0].count == 5 and changed[2].count == 0
    assert_trees_equal(changed[0].mu, state[0].mu)
    everything = fo.tree.set(state, count=torch.tensor(5))
    assert everything[0].count == everything[2].count == 5
    injected = states()["injected"].init(small_params())
    numbers = lambda path, part: isinstance(part, torch.Tensor)  # noqa: E731
    assert fo.tree.set(injected, numbers, lr=torch.tensor(0.5)).hyperparams["lr"] == 0.5
    with pytest.raises(KeyError, match="tree.set: no part of the state is called 'learning_rate'"):
        fo.tree.set(state, learning_rate=0.1)
