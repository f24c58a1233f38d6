"""tree_map_params: what is kept per parameter is found in every kind of state, and nothing else is touched."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, small_params
from tests.zoo import ROWS

STATES = {
    "chain": lambda: fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(lambda count: 0.1)),
    "partition": lambda: fo.partition({"w": fo.adam(0.1), "*": fo.sgd(0.1, momentum=0.9)}, by="path"),
    "multi_steps": lambda: fo.multi_steps(fo.adam(0.1), 2),
    "lookahead": lambda: fo.lookahead(fo.adam(0.1), 2, 0.5),
}


@pytest.mark.parametrize("name", STATES)
def test_moments_change_their_dtype_and_counters_stay(name):
    tx, params = STATES[name](), small_params()
    state = tx.init(params)
    narrow = fo.tree_map_params(params, lambda x: x.to(torch.float32), state)
    shapes = {tuple(p.shape) for p in fo.tree.leaves(params)}
    assert fo.tree.structure(narrow) == fo.tree.structure(state)
    for before, after in zip(fo.tree.leaves(state), fo.tree.leaves(narrow), strict=True):
        if before.dim():
            assert tuple(before.shape) in shapes and after.dtype == torch.float32
    assert fo.read_signals(narrow).keys() == fo.read_signals(state).keys()
    for word, value in fo.read_signals(narrow).items():
        assert value.dtype == torch.float64, word


def test_the_rest_comes_by_parameter():
    params = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(())}
    tx = fo.trace(0.9)
    state = fo.tree_map_params(params, lambda x, name: x + ord(name), tx.init(params), {"a": "a", "b": "b", "c": "c"})
    assert_trees_equal(state.trace, {"a": torch.full((2,), 97.0), "b": torch.full((2,), 98.0), "c": torch.tensor(99.0)})


def test_others_are_changed_on_request():
    params = torch.zeros(2)
    tx = fo.scale_by_adam()
    state = fo.tree_map_params(params, lambda x: x, tx.init(params), transform_non_params=lambda x: x + 5)
    assert state.count == 5 and (state.mu == 0).all()


@pytest.mark.parametrize("row", [row for row in ROWS if "init" not in row.cannot], ids=lambda row: row.id)
def test_the_identity_changes_no_state(row):
    tx, params = row.make(), small_params()
    state = tx.init(params)
    assert_trees_equal(fo.tree_map_params(params, lambda x: x, state), state)


def test_vectors_and_equal_endings():
    params = {"w": torch.zeros(2), "a": {"w": torch.zeros(2)}}
    state = fo.tree_map_params(params, lambda x, name: x + name, fo.trace(0.9).init(params), {"w": 1.0, "a": 2.0})
    assert_trees_equal(state.trace, {"w": torch.ones(2), "a": {"w": torch.full((2,), 2.0)}})
    assert fo.tree_map_params(torch.zeros(3), lambda x: x + 1, fo.trace(0.9).init(torch.zeros(3))).trace.sum() == 3


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="tree_map_params: a single 0-dim tensor cannot be told"):
        fo.tree_map_params(torch.zeros(()), lambda x: x, fo.trace(0.9).init(torch.zeros(())))


def test_what_from_torch_keeps_belongs_to_its_parameters():
    tx, params = fo.torch_optim.from_torch(torch.optim.AdamW), {"layer": {"w": torch.zeros(2)}, "b": torch.zeros(3)}
    state = fo.tree_map_params(params, lambda x, number: x + number, tx.init(params), {"layer": 1.0, "b": 2.0})
    assert state.param["layer.w"]["exp_avg"].tolist() == [1.0, 1.0] and state.param["b"]["exp_avg_sq"].tolist() == [2.0] * 3
    assert state.count == 0 and state.key.tolist() == [0, 0]


TELLING = {
    "adamw": lambda: fo.chain(fo.clip_by_global_norm(1.0), fo.adamw(lambda count: 0.1)),
    "multi_steps": lambda: fo.multi_steps(fo.adam(0.1), 2),
    "pilot": lambda: fo.pilot(0.1),
    "roulette": lambda: fo.roulette({"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "lion": fo.Member(fo.scale_by_lion(), lr=0.1)}, seed=0),
}


@pytest.mark.parametrize("name", TELLING)
def test_a_transformation_tells_what_params_look_like(name):
    tx, params = TELLING[name](), small_params()
    state = tx.init(params)
    narrow = lambda x: x.to(torch.float32)  # noqa: E731
    by_params, by_transformation = (fo.tree_map_params(like, narrow, state) for like in (params, tx))
    assert_trees_equal(by_transformation, by_params)
    assert torch.float32 in {x.dtype for x in fo.tree.leaves(by_params)}


def test_a_transformation_that_keeps_nothing_whole_cannot_tell():
    tx, params = fo.sgd(0.1), small_params()
    with pytest.raises(
        ValueError, match="no part of the state has the form of all params of .*give the params in place of the transformation"
    ):
        fo.tree_map_params(tx, lambda x: x, tx.init(params))
