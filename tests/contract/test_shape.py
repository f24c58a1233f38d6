"""Every row of the zoo: structure and dtypes kept, pure, deaf to what it does not know, and content with any tree."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, rollout, small_params
from tests.zoo import ROWS

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
def test_a_state_holds_tensors_only(row):
    for path, leaf in zip(fo.tree.paths(row.make().init(small_params())), fo.tree.leaves(row.make().init(small_params())), strict=True):
        assert isinstance(leaf, torch.Tensor), f"{path} is {leaf!r}"


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


@EVERY_ROW
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_narrow_dtypes_are_kept_and_follow_float64(row, dtype):
    tx = row.make()
    wide, _, _ = rollout(tx, fo.tree.cast(small_params(dtype), torch.float64), 2, row.extra)
    narrow, _, _ = rollout(tx, small_params(dtype), 2, row.extra)
    for updates in narrow:
        assert ({x.dtype for x in fo.tree.leaves(updates)} == {dtype}) != ("dtype" in row.cannot)
    if "noise" in row.cannot:
        return  # draws differ between dtypes
    rough = {torch.float32: 1e-3, torch.bfloat16: 0.1}[dtype]
    assert_trees_close(fo.tree.cast(narrow[0], torch.float64), wide[0], rtol=rough, atol=rough)


@EVERY_ROW
@pytest.mark.parametrize("tree", [{}, {"none": torch.zeros(0, 3), "scalar": torch.ones(())}], ids=["no leaves", "empty and 0-dim leaves"])
def test_empty_trees_and_leaves_are_legal(row, tree):
    if "empty" in row.cannot:
        with pytest.raises((ValueError, TypeError), match=row.cannot["empty"]):
            rollout(row.make(), tree, 1, row.extra)
        return
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


@pytest.mark.parametrize("row", [row for row in ROWS if row.descends], ids=[row.id for row in ROWS if row.descends])
def test_goes_down_a_bowl(row):
    tx = row.make()
    target = small_params(shift=1.0)
    params = small_params()

    def bowl(params):
        return 0.5 * fo.tree.squared_norm(fo.tree.sub(params, target))

    state, start = tx.init(params), bowl(params)
    for step in range(300):
        gradients, loss = torch.func.grad_and_value(bowl)(params)
        updates, state = tx.update(gradients, state, params, **{"loss": loss, **row.extra(step)})
        params = fo.apply_updates(params, updates)
    assert bowl(params) < 0.3 * start
