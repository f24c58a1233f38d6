"""Declarations: one place, checked when they are made, carried through wrappers."""

import pytest
import torch

import funcopt as fo
from funcopt.core.wrap import field, wrapped


def mine(**declared):
    def update(updates, state, params=None, **extra):
        return updates, state

    return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="mine", **declared)


WRONG = [
    ({"flatenable": True}, TypeError, "mine: a transformation does not declare flatenable; it declares name, hears"),
    ({"flattenable": "no"}, TypeError, "mine: flattenable must be True or False, got 'no'"),
    ({"per_leaf": 1}, TypeError, "mine: per_leaf must be True or False, got 1"),
    ({"turns": "down"}, TypeError, "mine: turns must be True or False, got 'down'"),
    ({"needs": "loss"}, TypeError, r"mine: needs must be a sequence of words .* write \('loss',\)"),
    ({"needs": {"loss": "sometimes"}}, ValueError, "mine: needs must say one of may hold, always for each word, got 'sometimes'"),
    ({"hears": {"lr": "loudly"}}, ValueError, "mine: hears must say one of in passing, if said, last, needed for each word, got 'loudly'"),
    ({"leaves": "some"}, ValueError, "mine: leaves must be one of real, complex, any, got 'some'"),
]


@pytest.mark.parametrize("declared, error, sentence", WRONG)
def test_a_wrong_declaration_is_refused_when_it_is_made(declared, error, sentence):
    with pytest.raises(error, match=sentence):
        mine(**declared)


def test_declarations_are_attributes_and_one_property():
    tx = mine(flattenable=True, needs=("loss",), hears=("lr",))
    assert tx.flattenable and tx.traits.flattenable and tx.needs == {"loss": "may hold"} and tx.hears == {"lr": "if said"}
    with pytest.raises(AttributeError):
        tx.flattenable = False
    with pytest.raises(AttributeError):
        tx.traits.flattenable = False


AROUND = {
    "scoped": lambda tx: fo.scoped("slow", tx),
    "schedule_free": lambda tx: fo.schedule_free(tx, lr=0.1),
    "lookahead": lambda tx: fo.lookahead(tx, 2, 0.5),
    "multi_steps": lambda tx: fo.multi_steps(tx, 2),
    "conditionally_mask": lambda tx: fo.conditionally_mask(tx, lambda step: step > 0),
    "inject_hyperparams": lambda tx: fo.inject_hyperparams(lambda: tx)(),
    "split_real_and_imaginary": lambda tx: fo.split_real_and_imaginary(tx),
    "chain": lambda tx: fo.chain(fo.identity(), tx),
    "chain in chain": lambda tx: fo.chain(fo.chain(tx), fo.identity()),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=list(AROUND))
def test_wrappers_carry_every_declaration(around):
    declared = {
        "flattenable": True,
        "per_leaf": True,
        "turns": True,
        "needs": {"loss": "always", "epoch": "may hold"},
        "hears": {"pace": "needed"},
    }
    hook = {"again": lambda state: state}
    outer = around(mine(**declared, hooks=hook, must_be_heard=("pace",)))
    assert (outer.flattenable, outer.per_leaf, outer.turns) == (True, True, True)
    assert outer.needs == declared["needs"] and outer.hears == declared["hears"] and "again" in outer.hooks
    assert [word.rpartition("/")[2] for word in outer.must_be_heard] == ["pace"]
    assert not around(mine()).flattenable and not around(mine()).per_leaf and around(mine()).turns is None


def test_what_looks_at_all_leaves_is_not_carried():
    for around in (
        lambda tx: fo.apply_if_finite(tx, 1),
        lambda tx: fo.masked(tx, True),
        lambda tx: fo.partition({"*": tx}, by="path"),
        fo.flatten,
    ):
        assert fo.adam(0.1).per_leaf and not around(fo.adam(0.1)).per_leaf


def test_a_wrapper_says_only_what_it_changes():
    tx = wrapped(
        lambda params: params, lambda updates, state, params=None, **extra: (updates, state), fo.sgd(0.1), field("inner"), flattenable=False
    )
    assert not tx.flattenable and tx.per_leaf and tx.turns and tx.name == fo.sgd(0.1).name and tx.links == ()


def test_what_a_word_asks_for_must_be_done_for_a_link_of_ones_own_too():
    class State(fo.EmptyState):
        def signals(self):
            return {"lr_multiplier": torch.ones(())}

    def update(updates, state, params=None, **extra):
        return updates, state

    pace = fo.GradientTransformation(lambda params: State(), update, name="pace")
    fo.chain(pace, fo.sgd(0.1)).init(torch.zeros(2))
    with pytest.raises(ValueError, match="pace: says 'lr_multiplier' and nobody to its right hears it"):
        fo.chain(pace, fo.scale(-0.1)).init(torch.zeros(2))


def test_a_word_that_a_scope_hides_is_heard_by_nobody_outside():
    bandit = fo.ucb_episodes((0.5, 1.0), seed=0)
    fo.chain(fo.scoped("slow", fo.chain(bandit, fo.sgd(0.1)))).init(torch.zeros(2))
    fo.chain(fo.scoped("slow", bandit), fo.scale_by_adam(), fo.lr_scale(0.1, hear=("slow/lr_multiplier",))).init(torch.zeros(2))
    for hidden in (fo.scoped("slow", bandit), fo.scoped("slow", fo.chain(bandit))):
        with pytest.raises(ValueError, match="says 'slow/lr_multiplier' and nobody to its right hears it"):
            fo.chain(hidden, fo.sgd(0.1)).init(torch.zeros(2))
