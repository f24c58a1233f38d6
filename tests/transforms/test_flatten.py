"""flatten: per-leaf methods become whole-model ones; flattenable ones do not change; dtypes come back."""

import torch

import funcopt as fo
from tests.helpers import assert_trees_close, rollout, small_params


def test_flattenable_methods_do_not_change():
    plain, _, _ = rollout(fo.adamw(0.1), small_params(), 4)
    flat, _, _ = rollout(fo.flatten(fo.adamw(0.1)), small_params(), 4)
    assert_trees_close(flat, plain)


def test_a_block_is_the_whole_model():
    params = small_params()
    updates, _, _ = rollout(fo.flatten(fo.clip_by_block_rms(0.1)), params, 1)
    torch.testing.assert_close((fo.tree.squared_norm(updates[0]) / fo.tree.size(params)).sqrt(), torch.tensor(0.1, dtype=torch.float64))


def test_every_leaf_keeps_its_dtype():
    params = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(3, dtype=torch.float64), "c": torch.ones(1, dtype=torch.complex64)}
    updates, state = fo.flatten(fo.trace(0.5)).update(params, fo.flatten(fo.trace(0.5)).init(params), params)
    assert [x.dtype for x in fo.tree.leaves(updates)] == [torch.bfloat16, torch.float64, torch.complex64]
    assert state.trace.shape == (6,)


def test_words_pass():
    assert list(fo.read_signals(fo.flatten(fo.sgd(0.1)).init(small_params()))) == ["lr"]
