"""Every row of the zoo is what it declares: cut into other leaves, leaves by themselves, and the side of the gradient, all measured."""

import inspect

import pytest
import torch

import funcopt as fo
from funcopt.execute import probe
from tests.helpers import small_params
from tests.zoo import ROWS

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
ONE = "one decision steers all leaves, so its state is one"
OF_ALL = "its labels or masks are those of the whole tree"
DIAGONAL = "sums over each leaf, which make no difference while the diagonal is below its floor"
THEIRS = "what a user's function does with leaves is not vouched for"

OF_LEAVES = "it is told the loss as a function of the leaves"

# What is not declared though these few leaves do not show otherwise, and why.
NOT_FLATTENABLE = {
    "stateless_with_tree_map": THEIRS,
    "snapshot": THEIRS,
    "monitor": THEIRS,
    "measure_with_ema": THEIRS,
    "project": THEIRS,
    "zero_nans": "its state tells of each leaf whether it held a NaN",
    "flatten": "its state is one vector in the order of the tree",
    **dict.fromkeys(("sam-opaque", "hutchinson_estimator_diag_hessian", "sophia", "lbfgs"), OF_LEAVES),
    **dict.fromkeys(("scale_by_backtracking_linesearch", "backtracking-auto", "scale_by_zoom_linesearch"), OF_LEAVES),
    "scale_by_lbfgs": "its memories have an axis in front of a leaf's",
    "es.only_selected": "a leaf of zeros is left as it is",
    "scale_by_apollo_dqn": DIAGONAL,
    "apollo_dqn": DIAGONAL,
    "torch_optim.from_torch": "what a class does with leaves is not vouched for",
}
NOT_PER_LEAF = {
    "stateless": THEIRS,
    "stateless_with_tree_map": THEIRS,
    "snapshot": THEIRS,
    "monitor": THEIRS,
    "measure_with_ema": THEIRS,
    "torch_optim.from_torch": "what a class does with leaves is not vouched for",
    "partition-by-leaf": "counts and words are kept for each leaf, under its path",
    "multi_steps-skip": "its rule sees all leaves",
    "apply_if_finite": "one entry stops all leaves",
    "cast_params": "chances are drawn for all leaves, in their order, where a leaf is bfloat16",
    "reduce_on_plateau": ONE,
    "ucb_episodes": ONE,
    "ucb_episodes-select": ONE,
    "aees": ONE,
    "adaptive": ONE,
    "adaptive-everything": ONE,
    "roulette": ONE,
    "roulette-select": ONE,
    "roulette-managed": ONE,
    "roulette-finding": "a cosine over all leaves moves the rate by little in few steps",
    "optiroulette": ONE,
    "masked": OF_ALL,
    "partition": OF_ALL,
    "freeze": OF_ALL,
    "selective_transform": OF_ALL,
    "scale_by_muon": OF_ALL,
    "scale_by_scion": OF_ALL,
    "lars": OF_ALL,
    "scale_by_adam_mini": "its blocks are told by the paths of leaves, and a leaf by itself has another",
    **dict.fromkeys(("hutchinson_estimator_diag_hessian", "sophia"), OF_LEAVES),
    **dict.fromkeys(("scale_by_backtracking_linesearch", "backtracking-auto", "scale_by_zoom_linesearch"), OF_LEAVES),
    "scale_by_sophia": "its state tells of all leaves how many entries were cut",
    "scale_by_prodigy": "the distance is that of all leaves, but grows in later steps",
    "prodigy": "the distance is that of all leaves, but grows in later steps",
}
# Of signs, and yet declared otherwise, or declared and yet not measured, and why.
NOT_OF_ONE_LENGTH = {
    "hutchinson_estimator_diag_hessian": "the products with this loss's Hessian are ones; no direction",
    "lion": "declared by its first link, and decay adds a little of the params",
}


def measured(row):
    tx, params = row.make(), probe.some_params()
    told = lambda step, params: {word: value for word, value in row.extra(step).items() if word != "signals"}  # noqa: E731 (it says words)
    together = probe.rollout(tx, params, told)
    flat, alone = (measure(tx, params, told, together) for measure in (probe.flat_alike, probe.alone_alike))
    return tx, flat, alone, probe.side(together), probe.of_one_length(tx, params, told, together)


@EVERY_ROW
def test_what_is_declared_is_what_is_measured(row):
    tx, flat, alone, side, one_length = measured(row)
    assert flat or not tx.flattenable
    assert alone or not tx.per_leaf
    assert tx.flattenable or not flat or row.id in NOT_FLATTENABLE, "declare flattenable=True, or give the reason here"
    assert tx.per_leaf or not alone or row.id in NOT_PER_LEAF, "declare per_leaf=True, or give the reason here"
    assert tx.turns is None or side is None or tx.turns is side
    assert one_length == tx.one_length or row.id in NOT_OF_ONE_LENGTH


@EVERY_ROW
def test_who_makes_a_step_of_its_own_says_that_it_turns_downhill(row):
    assert row.make().turns or not row.descends


def test_reasons_are_given_for_rows_that_there_are():
    ids = {row.id for row in ROWS}
    assert set(NOT_FLATTENABLE) | set(NOT_PER_LEAF) <= ids
    by_id = {row.id: row.make() for row in ROWS if row.id in {*NOT_FLATTENABLE, *NOT_PER_LEAF}}
    assert not any(by_id[name].flattenable for name in NOT_FLATTENABLE)
    assert not any(by_id[name].per_leaf for name in NOT_PER_LEAF)


def test_all_of_the_library_is_of_the_house_and_nothing_else_is():
    ours = [row for row in ROWS if row.name not in ("stateless", "stateless_with_tree_map") and "on_a_" not in inspect.getsource(row.make)]
    assert all(row.make().house for row in ours)
    mine = fo.GradientTransformation(
        lambda params: fo.EmptyState(), lambda updates, state, params=None, **extra: (updates, state), house=True
    )
    assert not mine.house
    for around in (
        fo.chain(mine, fo.sgd(0.1)),
        fo.apply_if_finite(mine, 1),
        fo.partition({"*": mine}, by="path"),
        fo.lookahead(fo.chain(mine), 2, 0.5),
    ):
        assert not around.house


def cut(values):
    return {"a": values["w"][:1].clone(), "b": values["w"][1:].clone()}


FLATTENABLE = [row for row in ROWS if row.make().flattenable]


@pytest.mark.parametrize("row", FLATTENABLE, ids=[row.id for row in FLATTENABLE])
def test_a_leaf_cut_in_two_gives_two_halves_of_the_same_update_where_flattenable_is_declared(row):
    tx, params = row.make(), {"w": small_params()["w"]}
    grads = {"w": torch.linspace(-1, 1, params["w"].numel(), dtype=torch.float64).reshape(params["w"].shape)}
    whole_state, state = tx.init(params), tx.init(cut(params))
    for step in range(2):
        extra = {
            word: {"w": value["w"]} if fo.tree.structure(value) == fo.tree.structure(small_params()) else value
            for word, value in row.extra(step).items()
        }
        whole, whole_state = tx.update(grads, whole_state, params, **extra)
        told = {word: cut(value) if fo.tree.structure(value) == fo.tree.structure(grads) else value for word, value in extra.items()}
        parts, state = tx.update(cut(grads), state, cut(params), **told)
        torch.testing.assert_close(torch.cat([parts["a"], parts["b"]]), whole["w"], rtol=1e-9, atol=1e-11)
