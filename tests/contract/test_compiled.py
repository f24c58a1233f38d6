"""Every row of the zoo, traced whole, donated and flat: the same numbers as its plain eager run."""

import pytest
import torch

import funcopt as fo
from funcopt.core.segments import BY_SEGMENT, forms, laid_out, segmented
from funcopt.core.step import compiled, tensors_for_numbers, write_back, write_late
from tests.helpers import assert_trees_close, gradients_at, quartic, rollout, small_params, tiny_params
from tests.zoo import ROWS

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
TRACED = [row for row in ROWS if "compile" not in row.cannot]
LEAFWISE = [row for row in ROWS if row.make().leafwise]
GROUP = 8  # rows in one compiled graph: the compiler's start costs more than its work


@EVERY_ROW
def test_traced_whole_equals_eager_with_one_graph_over_20_steps(row):
    tx, params = row.make(), tiny_params()
    traced = torch.compile(lambda g, s, p, extra: tx.update(g, s, p, **extra), backend="aot_eager", fullgraph=True, dynamic=False)
    state = tx.init(params)
    torch._dynamo.reset()
    if "compile" in row.cannot:
        with pytest.raises(Exception, match=row.cannot["compile"]):
            traced(gradients_at(0, params), state, params, tensors_for_numbers(row.extra(0)))
        return
    eager, _, last = rollout(tx, params, 20, row.extra)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step, expected in enumerate(eager):
            updates, state = traced(gradients_at(step, params), state, params, tensors_for_numbers(row.extra(step)))
            assert_trees_close(updates, expected, rtol=1e-9, atol=1e-11)
            params = fo.apply_updates(params, expected)
    assert_trees_close(state, last, rtol=1e-9, atol=1e-11)


def two_leaves():
    """The compiler's work grows with every leaf of every row."""
    return {name: tiny_params()[name] for name in ("w", "s")}


GROUPS = [TRACED[start : start + GROUP] for start in range(0, len(TRACED), GROUP)]


@pytest.mark.parametrize("rows", GROUPS, ids=[f"{rows[0].id}..{rows[-1].id}" for rows in GROUPS])
def test_donated_and_compiled_equals_eager(rows):
    """Inductor, all rows of a group side by side in one donated graph."""
    torch._dynamo.reset()
    rows = [row for row in rows if "donate" not in row.cannot]
    made = {row.id: row.make() for row in rows}

    def step(held, gradients, extras):
        results = {}
        for row in rows:
            params, state = held[row.id]
            updates, state = made[row.id].update(gradients[row.id], state, params, **extras[row.id])
            results[row.id] = (fo.apply_updates(params, updates), state)
        return write_back(held, results)

    graph = compiled(step, "the zoo")
    held = fo.tree.clone({row.id: (two_leaves(), made[row.id].init(two_leaves())) for row in rows})
    plain = fo.tree.clone(held)
    for index in range(3):
        gradients = {row.id: gradients_at(index, two_leaves()) for row in rows}
        late = graph(held, gradients, {row.id: tensors_for_numbers(row.extra(index)) for row in rows})
        write_late(late)
        for row in rows:
            params, state = plain[row.id]
            updates, state = made[row.id].update(gradients[row.id], state, params, **row.extra(index))
            plain[row.id] = (fo.apply_updates(params, updates), state)
            assert_trees_close(held[row.id], plain[row.id], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("row", LEAFWISE, ids=[row.id for row in LEAFWISE])
def test_flat_equals_leafwise(row):
    tx, params = row.make(), small_params()
    layout = fo.Layout(params)
    held = layout.ravel(params)
    state = tx.init(held)
    leafwise, last_params, last_state = rollout(tx, params, 4, row.extra)
    for step, expected in enumerate(leafwise):
        updates, state = tx.update(layout.ravel(gradients_at(step, params)), state, held, **row.extra(step))
        assert_trees_close(layout.unravel(updates), expected, rtol=1e-9, atol=1e-11)
        held = fo.apply_updates(held, updates)
    assert_trees_close(layout.unravel(held), last_params, rtol=1e-9, atol=1e-11)
    assert_trees_close(layout.unravel_state(state), last_state, rtol=1e-9, atol=1e-11)


@EVERY_ROW
def test_held_flat_on_vectors_or_by_segment_equals_leaf_by_leaf(row):
    trained = {}
    for flat in (False, True):
        step = fo.make_step(quartic, row.make(), flat=flat)
        held, state = step.init(small_params())
        for index in range(4):
            held, state, _ = step(held, state, **row.extra(index))
        trained[flat] = step.params(held), step.state(state)
    assert_trees_close(trained[True], trained[False], rtol=1e-8, atol=1e-10)


def twins():
    """Two leaves of every shape."""
    return {**small_params(), "more": small_params(shift=0.4)}


def tiny_twins():
    return {**two_leaves(), "more": {name: 0.7 * x for name, x in two_leaves().items()}}


def cut_otherwise(row):
    """Whether some link runs on leaves of one shape together, or on the vectors of its labels."""
    tx, params = row.make(), twins()
    return not tx.leafwise and any(form != BY_SEGMENT for _, form in forms(tx, laid_out(tx, params), params))


TOGETHER = [row for row in ROWS if cut_otherwise(row)]
EACH_TOGETHER = pytest.mark.parametrize("row", TOGETHER, ids=[row.id for row in TOGETHER])


@EACH_TOGETHER
def test_leaves_of_one_shape_together_equal_leaf_by_leaf(row):
    trained = {}
    for flat in (False, True):
        step = fo.make_step(quartic, row.make(), flat=flat)
        held, state = step.init(twins())
        for index in range(4):
            held, state, _ = step(held, state, **row.extra(index))
        trained[flat] = step.params(held), step.state(state)
        again = step.init(*trained[flat])[1]  # a leafwise state finds its place
        assert_trees_close(step.state(again), trained[flat][1], rtol=0, atol=0)
    assert_trees_close(trained[True], trained[False], rtol=1e-8, atol=1e-10)


@EACH_TOGETHER
def test_leaves_of_one_shape_together_are_traced_whole(row):
    tx, params = row.make(), tiny_twins()
    layout = laid_out(tx, params)
    held = layout.ravel(params)
    running = segmented(tx, layout, params)
    state = running.init(held)
    torch._dynamo.reset()
    traced = torch.compile(lambda g, s, p, extra: running.update(g, s, p, **extra), backend="aot_eager", fullgraph=True, dynamic=False)
    eager, _, last = rollout(tx, params, 3, row.extra)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for index, expected in enumerate(eager):
            given = layout.ravel(gradients_at(index, layout.unravel(held)))
            updates, state = traced(given, state, held, tensors_for_numbers(row.extra(index)))
            assert_trees_close(layout.unravel(updates), expected, rtol=1e-8, atol=1e-10)
            held = fo.apply_updates(held, updates)
    assert_trees_close(layout.unravel_state(state), last, rtol=1e-8, atol=1e-10)


def test_leaves_of_one_shape_together_compiled_and_donated():
    torch._dynamo.reset()
    made = {row.id: row.make() for row in TOGETHER if row.id in ("muon", "lamb", "adafactor", "sm3", "partition")}
    assert len(made) == 5
    layouts = {name: laid_out(tx, tiny_twins()) for name, tx in made.items()}
    running = {name: segmented(tx, layouts[name], tiny_twins()) for name, tx in made.items()}

    def step(held, gradients):
        results = {}
        for name, tx in running.items():
            params, state = held[name]
            updates, state = tx.update(gradients[name], state, params)
            results[name] = (fo.apply_updates(params, updates), state)
        return write_back(held, results)

    graph = compiled(step, "leaves of one shape together")
    flat = {name: layout.ravel(tiny_twins()) for name, layout in layouts.items()}
    held = fo.tree.map(lambda x: x.detach().clone().contiguous(), {name: (flat[name], running[name].init(flat[name])) for name in made})
    plain = {name: (tiny_twins(), tx.init(tiny_twins())) for name, tx in made.items()}
    for index in range(3):
        gradients = gradients_at(index, tiny_twins())
        write_late(graph(held, {name: layout.ravel(gradients) for name, layout in layouts.items()}))
        for name, tx in made.items():
            params, state = plain[name]
            updates, state = tx.update(gradients, state, params)
            plain[name] = (fo.apply_updates(params, updates), state)
            assert_trees_close((layouts[name].unravel(held[name][0]), layouts[name].unravel_state(held[name][1])), plain[name], rtol=1e-6, atol=1e-8)
