"""Signals: the seven rules of who hears whom, each with the sentence of its violation."""

from typing import NamedTuple

import pytest
import torch

import funcopt as fo
from funcopt.core import signals as words


class SpeakerState(NamedTuple):
    word: torch.Tensor

    def signals(self):
        return {"pace": self.word}


def speaker(start=1.0, hears=(), must_be_heard=(), name="speaker"):
    """Says `pace`, one more at each step."""

    def init(params):
        return SpeakerState(word=torch.tensor(start))

    def update(updates, state, params=None, **extra):
        return updates, SpeakerState(word=state.word + 1)

    return fo.GradientTransformation(init, update, name=name, hears=hears, must_be_heard=must_be_heard, flattenable=True, leaves="any")


class ListenerState(NamedTuple):
    fresh: torch.Tensor
    last: torch.Tensor


def listener(how="if said", word="pace"):
    """Writes down what it hears of this step and of the last; -1 where nothing was said."""

    def init(params):
        return ListenerState(fresh=torch.tensor(0.0), last=torch.tensor(0.0))

    def update(updates, state, params=None, *, signals=None, **extra):
        nothing = torch.tensor(-1.0)
        return updates, ListenerState(fresh=words.hear(signals, word, nothing), last=words.hear_last(signals, word, nothing))

    return fo.GradientTransformation(init, update, name="listener", hears={word: how}, flattenable=True, leaves="any")


def steps(tx, count, **extra):
    params = torch.zeros(2)
    state = tx.init(params)
    for _ in range(count):
        _, state = tx.update(params, state, params, **extra)
    return state


# --- rule 1: this step from the left, the last step from anywhere


def test_words_of_this_step_come_from_the_left_and_of_the_last_step_from_anywhere():
    before, _, after = steps(fo.chain(listener(), speaker(), listener()), 3)
    assert after.fresh == 4  # said in this step: 1 at init, then 2, 3, 4
    assert before.fresh == -1
    assert before.last == after.last == 3


def test_a_fresh_word_that_is_only_said_further_right_is_refused():
    with pytest.raises(
        ValueError, match="listener: needs 'pace' of this step, which speaker says only further right; put speaker to the left of listener"
    ):
        fo.chain(listener("needed"), speaker()).init(torch.zeros(2))


# --- rule 2: who must hear and be heard


def test_a_needed_word_that_nobody_says_is_refused_at_init():
    with pytest.raises(ValueError, match="listener: no link says 'pace'; said so far: lr. Put a link that says it to the left of listener"):
        fo.chain(fo.lr_scale(0.1), listener("needed")).init(torch.zeros(2))


def test_a_word_of_the_last_step_may_come_from_the_right_but_somebody_must_say_it():
    fo.chain(listener("last"), speaker()).init(torch.zeros(2))
    with pytest.raises(ValueError, match="no link says 'pace'; said so far: nothing"):
        fo.chain(listener("last"), fo.clip(1.0)).init(torch.zeros(2))


def test_alternatives_are_separated_by_a_bar():
    fo.chain(listener("last", "lr|pace"), speaker()).init(torch.zeros(2))
    with pytest.raises(ValueError, match="no link says 'lr' or 'pace'.*Put lr_scale\\(\\) in the chain or pass lr="):
        fo.chain(listener("last", "lr|pace"), fo.clip(1.0)).init(torch.zeros(2))


def test_a_word_that_must_be_heard_needs_a_listener_to_its_right():
    bandit = speaker(must_be_heard=("pace",), name="bandit")
    fo.chain(bandit, listener()).init(torch.zeros(2))
    with pytest.raises(ValueError, match="bandit: says 'pace' and nobody to its right hears it"):
        fo.chain(listener(), bandit).init(torch.zeros(2))


def test_who_only_takes_note_is_no_listener():
    bandit = speaker(must_be_heard=("pace",), name="bandit")
    fo.chain(bandit, listener("in passing"), listener()).init(torch.zeros(2))
    with pytest.raises(ValueError, match="bandit: says 'pace' and nobody to its right hears it"):
        fo.chain(bandit, listener("in passing")).init(torch.zeros(2))
    with pytest.raises(ValueError, match="says 'lr_multiplier' and nobody to its right hears it"):
        fo.chain(fo.ucb_episodes(), fo.agreement_policy(lr=0.1), fo.scale(-0.1)).init(torch.zeros(2))


def test_base_lr_alone_may_come_from_the_loop_and_its_absence_is_an_error_at_the_first_update():
    tx = fo.adam(None)
    params = torch.zeros(2)
    state = tx.init(params)
    with pytest.raises(ValueError, match="lr_scale: needs 'base_lr' and nobody to its left says it; pass lr="):
        tx.update(params, state, params)
    _, state = tx.update(params, state, params, signals={"base_lr": torch.tensor(0.5)})
    assert fo.read_signals(state)["lr"] == 0.5


# --- rule 3: once per scope


def test_a_word_is_said_once():
    with pytest.raises(ValueError, match="'pace' is said twice, by slow and by fast.*give one of them a name="):
        fo.chain(speaker(name="slow"), speaker(name="fast")).init(torch.zeros(2))


def test_a_step_is_sized_once():
    with pytest.raises(ValueError, match="'lr' is said twice.*a step is sized once"):
        fo.chain(fo.adam(1e-3), fo.lr_scale(0.1)).init(torch.zeros(2))


def test_two_of_a_kind_stand_side_by_side_under_names():
    state = steps(fo.chain(fo.scoped("slow", speaker(1.0)), fo.scoped("fast", speaker(10.0))), 1)
    assert {word: float(value) for word, value in fo.read_signals(state).items()} == {"slow/pace": 2.0, "fast/pace": 11.0}


def test_inside_a_scope_words_are_heard_without_the_prefix_and_outside_with_it():
    tx = fo.chain(fo.scoped("slow", fo.chain(speaker(), listener("needed"))), listener("needed", "slow/pace"), listener())
    (scoped, with_prefix, without) = steps(tx, 2)
    assert scoped.inner["slow"][1].fresh == 3
    assert with_prefix.fresh == 3
    assert without.fresh == -1


def test_words_from_outside_are_heard_inside_a_scope():
    (_, scoped) = steps(fo.chain(speaker(), fo.scoped("slow", fo.chain(listener("needed")))), 2)
    assert scoped.inner["slow"][0].fresh == 3


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_scopes_have_proper_names(name):
    with pytest.raises(ValueError, match="scoped: name must be a non-empty string without '/'"):
        fo.scoped(name, fo.clip(1.0))


# --- rule 4: wrappers forward, the outermost chain remembers


@pytest.mark.parametrize(
    "wrap",
    [lambda tx: fo.masked(tx, True), lambda tx: fo.chain(fo.chain(tx)), lambda tx: fo.named_chain(("only", tx))],
    ids=["masked", "chain", "named"],
)
def test_wrappers_forward_what_is_said_inside(wrap):
    (_, after) = steps(fo.chain(wrap(speaker()), listener("needed")), 2)
    assert after.fresh == 3
    assert fo.read_signals(steps(wrap(speaker()), 1))["pace"] == 2


def test_words_said_outside_reach_inner_chains_and_the_outermost_chain_remembers():
    (_, inner, _) = steps(fo.chain(speaker(), fo.chain(fo.masked(fo.chain(listener()), True)), fo.lr_scale(0.1)), 3)
    assert inner[0].inner_state[0].fresh == 4
    assert inner[0].inner_state[0].last == 3


def test_the_checks_look_through_nested_chains():
    fo.chain(speaker(), fo.chain(fo.chain(listener("needed")))).init(torch.zeros(2))
    fo.chain(fo.chain(listener("last", "lr")), fo.chain(fo.adam(0.1))).init(torch.zeros(2))
    with pytest.raises(ValueError, match="needs 'pace' of this step"):
        fo.chain(fo.chain(listener("needed")), fo.chain(speaker())).init(torch.zeros(2))


# --- rule 5: pools


def test_what_is_initialised_in_isolation_neither_hears_nor_disturbs_the_outer_chain():
    def init(params):
        with words.isolated():
            return fo.chain(speaker()).init(params)

    pool = fo.GradientTransformation(
        lambda params: (init(params), fo.EmptyState())[1], lambda updates, state, params=None, **extra: (updates, state), name="pool"
    )
    fo.chain(speaker(), pool).init(torch.zeros(2))  # 'pace' is not said twice
    with pytest.raises(ValueError, match="no link says 'pace'"), words.isolated():
        fo.chain(listener("needed")).init(torch.zeros(2))


def test_an_error_in_one_init_does_not_reach_the_next():
    with pytest.raises(ValueError, match="said twice"):
        fo.chain(speaker(), speaker()).init(torch.zeros(2))
    fo.chain(speaker()).init(torch.zeros(2))


# --- rule 7: the loop


def test_the_loop_is_the_link_to_the_left_of_the_first_and_its_dict_stays_as_it_is():
    given = {"pace": torch.tensor(7.0)}
    (state, _) = steps(fo.chain(listener(), speaker()), 1, signals=given)
    assert state.fresh == 7
    assert list(given) == ["pace"]


def test_a_link_alone_hears_the_loop():
    tx = fo.lr_scale()
    _, state = tx.update(torch.ones(2), tx.init(torch.ones(2)), signals={"base_lr": torch.tensor(0.5), "lr_multiplier": torch.tensor(2.0)})
    assert state.lr == 1.0


def test_hears_knows_four_ways():
    with pytest.raises(ValueError, match="hears must say one of in passing, if said, last, needed for each word, got 'loud'"):
        listener("loud")
