"""Every row of the zoo, traced whole, donated and flat: the same numbers as its plain eager run."""

import math

import pytest
import torch

import funcopt as fo
from funcopt.execute.donation import write_back, write_late
from funcopt.execute.engines.dynamo import compiled, tensors_for_numbers
from funcopt.execute.layouts.adapt import BY_SEGMENT, forms, laid_out, segmented
from tests.helpers import assert_trees_close, gradients_at, needs_compiler, quartic, rollout, small_params, spiked, tiny_params
from tests.zoo import PART_OF, ROWS, every

TRACED = [row for row in ROWS if "compile" not in row.cannot]
FLATTENABLE = [row for row in ROWS if row.make().flattenable]
GROUP = 8  # rows in one compiled graph: the compiler's start costs more than its work


# These stand for all here; every other row is traced whole in a group below, and here in the long suite.
SPIKED = {
    "adamw",
    "clip_by_global_norm",
    "apply_if_finite",
    "multi_steps",
    "prodigy",
    "muon",
    "adafactor",
    "pilot",
    "aees",
    "roulette",
    "adaptive-everything",
}
SPIKED |= {row.id for row in ROWS if "compile" in row.cannot}


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=[pytest.mark.long] * (row.id not in SPIKED)) for row in ROWS])
def test_traced_whole_equals_eager_with_one_graph_over_20_steps(row):
    tx, params = row.make(), tiny_params()
    traced = torch.compile(lambda g, s, p, extra: tx.update(g, s, p, **extra), backend="eager", fullgraph=True, dynamic=False)
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
    for spike in (1e20, 1e160, 1e300, math.inf, math.nan, 1e-310):  # what overflows, and what comes after it
        plain = mine = last
        for step in (20, 21):
            gradients, extra = spiked(gradients_at(step, params), spike if step == 20 else 1.0), row.extra(step)
            expected, plain = tx.update(gradients, plain, params, **extra)
            updates, mine = traced(gradients, mine, params, tensors_for_numbers(extra))
            assert_trees_close((updates, mine), (expected, plain), rtol=1e-9, atol=1e-11)


def two_leaves():
    """The compiler's work grows with every leaf of every row."""
    return {name: tiny_params()[name] for name in ("w", "s")}


# Dozens of numbers worked out from numbers, a quarter of a minute of compiling each; other rows of their kind are in the quick groups.
SLOW = {
    "compress_state-bf16",
    "compress_state-int8",
    "muon-dion",
    "roulette-select",
    "rate_free-adamw-walk",
    "ucb_episodes-trend",
    "roulette-managed",
    "roulette-finding",
    "optiroulette",
    "scale_by_soap",
    "soap",
    "scale_by_shampoo",
    "shampoo",
    "scale_by_psgd",
    "psgd",
}
# A loss of its own in the graph for every trial, two methods side by side, or a decomposition.
SLOW |= {"lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch", "sam-select", "sam-opaque", "sophia", "galore"}


def in_groups(rows):
    return [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]


# Through Inductor in every run, one of each kind; others go through it in test_ahead.py, and all rows in the long suite. What fails
# in a row alone fails, with few exceptions, in the tracer, which costs a fifth.
FIRST = ("sgd-nesterov", "adafactor", "multi_steps")
NEXT = ("rprop", "prodigy", "momo-adapting", "apply_if_finite", "average_params")
QUICK = in_groups([row for row in TRACED if row.id not in {*SLOW, *PART_OF, *FIRST, *NEXT}])
PARTS = in_groups([row for row in TRACED if row.id in PART_OF])
GROUPS = [*([row for row in TRACED if row.id in ids] for ids in (FIRST, NEXT)), *QUICK, *([row] for row in TRACED if row.id in SLOW)]


def grouped(groups, long):
    """`parametrize` over groups of rows; those from `long` on in the long suite."""
    names = [rows[0].id if len(rows) == 1 else f"{rows[0].id}..{rows[-1].id}" for rows in groups]
    marks = [[pytest.mark.long] * (index >= long) for index in range(len(groups))]
    cases = zip(groups, names, marks, strict=True)
    return pytest.mark.parametrize("rows", [pytest.param(rows, id=name, marks=mark) for rows, name, mark in cases])


@grouped(in_groups([row for row in TRACED if row.id not in {*SLOW, *PART_OF, *SPIKED}]), long=5)
def test_traced_side_by_side_in_one_graph_equals_eager(rows):
    written_back(rows, lambda step: torch.compile(step, backend="eager", fullgraph=True, dynamic=False), rtol=1e-9)


@needs_compiler
@grouped([*GROUPS, *PARTS], long=1)
def test_donated_and_compiled_equals_eager(rows):
    """Inductor, all rows of a group side by side in one donated graph."""
    written_back(rows, lambda step: compiled(step, "the zoo"), rtol=1e-6)


def written_back(rows, compiler, rtol):
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

    graph = compiler(step)
    held = fo.tree.clone({row.id: (two_leaves(), made[row.id].init(two_leaves())) for row in rows})
    plain = fo.tree.clone(held)
    for index in range(6):
        gradients = {row.id: gradients_at(index, two_leaves()) for row in rows}
        with torch._dynamo.config.patch(error_on_recompile=True):
            late = graph(held, gradients, {row.id: tensors_for_numbers(row.extra(index)) for row in rows})
        write_late(late)
        for row in rows:
            params, state = plain[row.id]
            updates, state = made[row.id].update(gradients[row.id], state, params, **row.extra(index))
            plain[row.id] = (fo.apply_updates(params, updates), state)
            assert_trees_close(held[row.id], plain[row.id], rtol=rtol, atol=rtol / 100)


@every(FLATTENABLE)
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


@every()
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
    return not tx.flattenable and any(form != BY_SEGMENT for _, form in forms(tx, laid_out(tx, params), params))


TOGETHER = [row for row in ROWS if cut_otherwise(row)]
# The factor of a vector of four is of rank one at first: three of its eigenvectors are any, in a batch others than alone, and Adam is
# another in each basis. Which leaves are not compared; their twins' state neither.
BASES = {"scale_by_soap": ("b",)}


def determined(tree, without):
    """The leaves of a tree by path, but those of which a part is in `without`."""
    leaves = zip(fo.tree.paths(tree), fo.tree.leaves(tree), strict=True)
    return {path: leaf for path, leaf in leaves if not set(path.split(".")) & set(without)}


@every(TOGETHER)
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
    compared = [determined(tree, BASES.get(row.id, ())) for tree in (trained[True], trained[False])]
    assert_trees_close(*compared, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=[pytest.mark.long] * (row.id != "muon")) for row in TOGETHER])
def test_leaves_of_one_shape_together_are_traced_whole(row):
    tx, params = row.make(), tiny_twins()
    layout = laid_out(tx, params)
    held = layout.ravel(params)
    running = segmented(tx, layout, params)
    state = running.init(held)
    torch._dynamo.reset()
    traced = torch.compile(lambda g, s, p, extra: running.update(g, s, p, **extra), backend="eager", fullgraph=True, dynamic=False)
    eager, _, last = rollout(tx, params, 3, row.extra)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for index, expected in enumerate(eager):
            given = layout.ravel(gradients_at(index, layout.unravel(held)))
            updates, state = traced(given, state, held, tensors_for_numbers(row.extra(index)))
            assert_trees_close(layout.unravel(updates), expected, rtol=1e-8, atol=1e-10)
            held = fo.apply_updates(held, updates)
    assert_trees_close(layout.unravel_state(state), last, rtol=1e-8, atol=1e-10)


@pytest.mark.long
@pytest.mark.parametrize("names", [("lamb", "partition"), ("muon", "adafactor", "sm3")], ids=" ".join)
def test_leaves_of_one_shape_together_compiled_and_donated(names):
    torch._dynamo.reset()
    made = {row.id: row.make() for row in TOGETHER if row.id in names}
    assert len(made) == len(names)
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
            assert_trees_close(
                (layouts[name].unravel(held[name][0]), layouts[name].unravel_state(held[name][1])), plain[name], rtol=1e-6, atol=1e-8
            )
