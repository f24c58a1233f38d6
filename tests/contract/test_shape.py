"""Every row of the zoo: structure and dtypes kept, pure, deaf to what it does not know, and content with any tree."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, rollout, small_params
from tests.zoo import ROWS, every

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
STEPS = 4


def described(tree):
    return [(path, tuple(x.shape), x.dtype) for path, x in zip(fo.tree.paths(tree), fo.tree.leaves(tree), strict=True)]


@EVERY_ROW
def test_updates_keep_structure_shapes_and_dtypes_and_states_keep_their_form(row):
    params, tx = small_params(), row.make()
    first = tx.init(params)
    history, _, last = rollout(tx, params, STEPS, row.extra)
    for updates in history:
        assert described(updates) == described(params)
    assert fo.tree.structure(first) == fo.tree.structure(last)
    assert described(first) == described(last)


@EVERY_ROW
def test_a_state_holds_tensors_only_and_each_once(row):
    """A graph that is recorded with one tensor in two places takes it for a rule, and is recorded again as soon as they part."""
    state, places = row.make().init(small_params()), {}
    for path, leaf in zip(fo.tree.paths(state), fo.tree.leaves(state), strict=True):
        assert isinstance(leaf, torch.Tensor), f"{path} is {leaf!r}"
        assert places.setdefault(id(leaf), path) == path, f"{path} is the tensor of {places[id(leaf)]}"


@EVERY_ROW
def test_the_same_arguments_give_the_same_result_and_stay_as_they_are(row):
    params, tx = small_params(), row.make()
    _, params, state = rollout(tx, params, 2, row.extra)
    gradients, extra = gradients_at(2, params), row.extra(2)
    before = fo.tree.clone((gradients, state, params))
    once = fo.tree.clone(tx.update(gradients, state, params, **extra))
    again = tx.update(gradients, state, params, **extra)
    assert_trees_equal((gradients, state, params), before)
    assert_trees_equal(again, once)


@EVERY_ROW
def test_what_a_state_keeps_of_its_arguments_is_its_own(row):
    params, tx = small_params(), row.make()
    gradients = gradients_at(0, params)
    _, state = tx.update(gradients, tx.init(params), params, **row.extra(0))
    before = fo.tree.clone(state)
    for leaf in fo.tree.leaves((gradients, params)):
        leaf.zero_()
    assert_trees_equal(state, before)


@EVERY_ROW
def test_unknown_extras_are_ignored(row):
    params, tx = small_params(), row.make()
    state, gradients, extra = tx.init(params), gradients_at(0, params), row.extra(0)
    plain = tx.update(gradients, state, params, **extra)
    assert_trees_equal(tx.update(gradients, state, params, **extra, something_else=3), plain)


@every()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_narrow_dtypes_are_kept_and_follow_float64(row, dtype):
    tx = row.make()
    wide, _, _ = rollout(tx, fo.tree.cast(small_params(dtype), torch.float64), 2, row.extra)
    narrow, _, _ = rollout(tx, small_params(dtype), 2, row.extra)
    for updates in narrow:
        found = {x.dtype for x in fo.tree.leaves(updates)}
        if "dtype" in row.cannot:
            assert dtype not in found or dtype == torch.float32
            assert all(torch.promote_types(x, dtype) == x for x in found)
        else:
            assert found == {dtype}
    if "noise" in row.cannot:
        return  # draws differ between dtypes
    rough = {torch.float32: 1e-3, torch.bfloat16: 0.1}[dtype]
    assert_trees_close(fo.tree.cast(narrow[0], torch.float64), wide[0], rtol=rough, atol=rough)


@EVERY_ROW
def test_empty_trees_and_leaves_are_legal(row):
    for tree in ({}, {"none": torch.zeros(0, 3), "scalar": torch.ones(())}):
        if "empty" in row.cannot:
            with pytest.raises((ValueError, TypeError), match=row.cannot["empty"]):
                rollout(row.make(), tree, 1, row.extra)
            continue
        tree = fo.tree.cast(tree, torch.float64 if "dtype" in row.cannot else None)
        history, params, _ = rollout(row.make(), tree, 2, row.extra)
        assert described(history[-1]) == described(tree) == described(params)


@EVERY_ROW
def test_integer_leaves_are_refused_or_passed_on(row):
    tx, params = row.make(), {"n": torch.arange(3)}
    try:
        state = tx.init(params)
    except TypeError as error:
        assert "'n'" in str(error)
        return
    updates, _ = tx.update(params, state, params, **row.extra(0))
    assert updates["n"].shape == (3,)


def down_a_bowl(row, steps):
    """The loss of every step, as a share of the first."""
    tx, params, target = row.make(), small_params(), small_params(shift=1.0)
    state, first = tx.init(params), None
    for step in range(steps):
        gradients = fo.tree.sub(params, target)
        loss = 0.5 * fo.tree.squared_norm(gradients)
        first = loss if first is None else first
        yield loss / first
        updates, state = tx.update(gradients, state, params, **{"loss": loss, **row.extra(step)})
        params = fo.apply_updates(params, updates)


DESCENDING = [row for row in ROWS if row.descends]


@every(DESCENDING)
def test_goes_down_a_bowl(row):
    assert any(share < 0.3 for share in down_a_bowl(row, 301))


@pytest.mark.long
@pytest.mark.parametrize("row", DESCENDING, ids=[row.id for row in DESCENDING])
def test_is_down_the_bowl_after_300_steps(row):
    *_, last = down_a_bowl(row, 301)
    assert last < 0.3
