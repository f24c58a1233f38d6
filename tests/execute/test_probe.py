"""check: a declaration that is wrong is not believed, for authors when they ask and for everybody where it decides how a step runs."""

import pytest
import torch

import funcopt as fo
from funcopt.execute.probe import vouch
from tests.zoo import ROWS


def stateless(change, name="mine", **declared):
    def update(updates, state, params=None, **extra):
        return change(updates), state

    return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name=name, **declared)


def signs(updates):
    return fo.tree.map(torch.sign, updates)


def unit_leaves(**declared):
    return stateless(lambda updates: fo.tree.map(lambda g: g / g.norm(), updates), "unit_leaves", **declared)


def unit_tree(**declared):
    return stateless(lambda updates: fo.tree.scale(1 / fo.tree.norm(updates), updates), "unit_tree", **declared)


WRONG = {
    "flattenable": (
        lambda: unit_leaves(flattenable=True),
        "unit_leaves: declares flattenable=True, but its updates on one flat vector differ",
    ),
    "per_leaf": (lambda: unit_tree(per_leaf=True), "unit_tree: declares per_leaf=True, but its updates of a leaf by itself differ"),
    "turns": (lambda: unit_tree(turns=True), "unit_tree: declares turns=True, but its updates point uphill; declare turns=False"),
    "one_length": (
        lambda: unit_tree(one_length=True),
        "unit_tree: declares one_length=True, but the entries of its updates",
    ),
    "in a chain": (lambda: fo.chain(fo.scale_by_adam(), unit_leaves(flattenable=True, per_leaf=True)), "chain: declares flattenable=True"),
}


@pytest.mark.parametrize("make, sentence", WRONG.values(), ids=list(WRONG))
def test_a_wrong_declaration_is_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        fo.check(make())


def test_what_is_measured_is_told_and_what_might_be_declared_as_well():
    assert fo.check(unit_leaves()) == fo.Checked(flattenable=False, per_leaf=True, turns=False, undeclared=("per_leaf", "turns=False"))
    assert fo.check(unit_tree(flattenable=True, turns=False)) == fo.Checked(True, False, False, ())
    assert fo.check(fo.adamw(0.1)) == fo.Checked(True, True, True, ())
    assert fo.check(stateless(signs, turns=False)).undeclared == ("flattenable", "per_leaf", "one_length")
    assert fo.check(fo.signum(0.1)).one_length and fo.check(fo.lion(0.1)).one_length is False  # with its decay


CHECKED = [row for row in ROWS if "signals" not in row.extra(0) and "dtype" not in row.cannot]


@pytest.mark.parametrize("row", CHECKED[:: len(CHECKED) // 20], ids=lambda row: row.id)
def test_transformations_of_the_library_pass(row):
    fo.check(row.make(), extra=row.extra)


def in_place(updates):
    for g in fo.tree.leaves(updates):
        g.mul_(2)
    return updates


def counting():
    calls = []

    def change(updates):
        calls.append(None)
        return fo.tree.scale(len(calls), updates)

    return stateless(change)


def growing():
    def update(updates, state, params=None, **extra):
        return updates, torch.cat([state, state])

    return fo.GradientTransformation(lambda params: torch.zeros(1), update, name="mine")


def widening():
    def update(updates, state, params=None, **extra):
        return updates, state.double()

    return fo.GradientTransformation(lambda params: torch.zeros(1), update, name="mine")


RULES = {
    "in place": (lambda: stateless(in_place), "mine: update writes into its arguments"),
    "memory outside": (counting, "mine: the same arguments give different updates"),
    "randomness outside": (
        lambda: stateless(lambda u: fo.tree.map(lambda g: g + torch.randn_like(g), u)),
        "mine: the same arguments give different updates",
    ),
    "another form": (growing, "mine: an update changes the form of its state"),
    "another dtype": (widening, "mine: an update changes the dtype of its state"),
    "updates of another dtype": (
        lambda: stateless(lambda u: fo.tree.map_plain(lambda g: g.double(), u)),
        "mine: updates must keep the dtype",
    ),
}


@pytest.mark.parametrize("make, sentence", RULES.values(), ids=list(RULES))
def test_the_rules_of_the_protocol_are_held(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        fo.check(make())


def test_what_an_update_must_be_told_is_asked_for():
    def update(updates, state, params=None, *, temperature=None, **extra):
        return fo.tree.scale(temperature, updates), state

    tx = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="mine", flattenable=True)
    with pytest.raises(ValueError, match="check: mine cannot be run as it is: .*; pass params= in the form it takes, and extra="):
        fo.check(tx)
    assert fo.check(tx, extra=lambda step: {"temperature": 2.0}).flattenable
    assert fo.check(fo.chain(fo.ucb_episodes((1.0,), seed=0), fo.reduce_on_plateau())).turns is False  # what is declared is made up
    with pytest.raises(TypeError, match="check: tx must be a GradientTransformation"):
        fo.check(fo.adam)


def test_the_random_numbers_of_a_run_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    fo.check(fo.adam(0.1))
    vouch(stateless(lambda u: fo.tree.map(lambda g: g + 0 * torch.randn_like(g), u), flattenable=True), {"w": torch.zeros(2)})
    assert torch.equal(torch.get_rng_state(), before)


def many(leaves=16):
    return {f"p{index}": torch.full((3,), 0.1 * (index + 1)) for index in range(leaves)}


def test_a_step_on_a_flat_vector_does_not_believe_a_link_that_looks_at_leaves():
    tx = fo.chain(unit_leaves(flattenable=True, turns=False), fo.lr_scale(0.1))
    with pytest.raises(ValueError, match="unit_leaves: declares flattenable=True"):
        fo.make_step(lambda p: sum((x**2).sum() for x in p.values()), tx).init(many())
    beside = fo.chain(fo.scale_by_trust_ratio(), unit_leaves(flattenable=True, turns=False), fo.lr_scale(0.1))
    with pytest.raises(ValueError, match="unit_leaves: declares flattenable=True"):
        fo.make_step(lambda p: sum((x**2).sum() for x in p.values()), beside, flat=True).init(many())


@pytest.mark.parametrize("tx", [unit_leaves(flattenable=True, turns=False), unit_tree(per_leaf=True, turns=False)], ids=lambda tx: tx.name)
def test_the_shim_does_not_believe_it_either(tx):
    with pytest.raises(ValueError, match=f"{tx.name}: declares"):
        fo.torch_optim.Optimizer([torch.nn.Parameter(p) for p in many(2).values()], fo.chain(tx, fo.lr_scale()), lr=0.1)


def test_what_declares_the_update_of_another_transformation_anew_is_asked_too():
    honest = unit_tree()
    for tx in (fo.GradientTransformation(*honest, per_leaf=True), fo.GradientTransformation(*fo.clip_by_global_norm(1.0), per_leaf=True)):
        with pytest.raises(ValueError, match="a transformation: declares per_leaf=True, but its updates of a leaf by itself differ"):
            groups = [{"params": [torch.nn.Parameter(p)]} for p in many(2).values()]
            fo.torch_optim.Optimizer(groups, fo.chain(tx, fo.lr_scale()), lr=0.1)


def test_a_transformation_is_asked_once_and_one_of_the_library_never():
    calls = []
    honest = stateless(lambda updates: calls.append(None) or updates, flattenable=True, turns=False)
    tx = fo.chain(honest, fo.lr_scale(0.1))
    vouch(tx, many())
    asked = len(calls)
    assert asked > 0
    vouch(tx, many())
    vouch(fo.chain(honest, fo.sgd(0.1)), many())
    assert len(calls) == asked
    assert fo.adam(0.1).house


def test_what_cannot_be_tried_is_believed():
    def update(updates, state, params=None, *, temperature, **extra):
        return updates, state

    told = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="told", flattenable=True)
    random = stateless(lambda u: fo.tree.map(lambda g: g + torch.randn_like(g), u), flattenable=True, per_leaf=True)
    for tx in (told, random):
        vouch(tx, many())
    lanes = torch.func.vmap(lambda p: vouch(unit_leaves(flattenable=True), {"w": p}) or p)(torch.zeros(2, 3))  # nor inside transforms
    assert lanes.shape == (2, 3)
