"""control: the functions of a controller, wherever in a transformation it stands."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal

PARAMS = {"a": torch.zeros(2), "b": torch.zeros(3)}
GRADS = fo.tree.ones_like(PARAMS)


def bandit(**settings):
    return fo.aees(fo.sgd(0.1), (0.5, 1.0), episode_length=10, seed=0, **settings)


AROUND = {
    "apply_if_finite": lambda tx: fo.apply_if_finite(tx, 2),
    "scoped": lambda tx: fo.scoped("slow", tx),
    "masked": lambda tx: fo.masked(tx, {"a": True, "b": False}),
    "multi_steps": lambda tx: fo.multi_steps(tx, 1),
    "lookahead": lambda tx: fo.lookahead(tx, 5, 0.5),
    "partition": lambda tx: fo.partition({"a": tx, "b": fo.adam(0.1)}, by="path"),
    "chain in chain": lambda tx: fo.chain(fo.clip(1.0), fo.chain(fo.identity(), tx)),
    "named_chain": lambda tx: fo.named_chain(("clip", fo.clip(1.0)), ("bandit", tx)),
    "schedule_free": lambda tx: fo.schedule_free(tx, lr=0.1),
    "conditionally_mask": lambda tx: fo.conditionally_mask(tx, lambda step: step >= 0),
    "flatten": lambda tx: fo.flatten(tx),
    "split_real_and_imaginary": lambda tx: fo.split_real_and_imaginary(tx),
    "only_selected": lambda tx: fo.es.only_selected(tx),
    "inject_hyperparams": lambda tx: fo.inject_hyperparams(lambda factor=1.0: fo.chain(tx, fo.scale(factor)))(),
    "adaptive": lambda tx: fo.adaptive(lambda lr=1.0: fo.chain(tx, fo.scale(lr))),
    "member of a pool": lambda tx: fo.chain(fo.roulette({"bandit": fo.Member(tx)}, seed=0), fo.lr_scale()),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=list(AROUND))
def test_an_episode_is_closed_inside_any_wrapper(around):
    tx = around(bandit())
    state = tx.init(PARAMS)
    for step in range(3):
        _, state = tx.update(GRADS, state, PARAMS, loss=torch.tensor(1.0 / (step + 1)))
    closed = fo.control(tx, state, "finalize")
    assert fo.find(state, "episode") == 0 and fo.find(closed, "episode") == 1
    assert_trees_equal(tx.finalize(state), closed)  # the old way, of any transformation
    assert fo.tree.structure(closed) == fo.tree.structure(state)


def test_the_functions_of_a_roulette_are_found_in_a_chain_in_a_wrapper():
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sign": fo.Member(fo.scale_by_lion(), lr=0.01)}
    roulette = fo.roulette(pool, seed=0)
    tx = fo.apply_if_finite(fo.chain(roulette, fo.lr_scale()), 1)
    state = tx.init(PARAMS)
    locked = fo.control(tx, state, "lock", "sign")
    alone = roulette.lock(roulette.init(PARAMS), "sign")
    assert_trees_equal(fo.find(locked, fo.RouletteState), alone)
    assert_trees_equal(fo.control(tx, state, "set_lr", "adam", lr=0.5), tx.set_lr(state, "adam", 0.5))


def test_observing_is_a_function_for_the_loop_too():
    tx = fo.adaptive(fo.sgd, lr=fo.rules.trend(0.5), name="lr")
    state = tx.init(PARAMS)
    assert_trees_equal(fo.control(fo.chain(tx), (state,), "observe_loss", 2.0), (tx.observe_loss(state, 2.0),))


def test_of_several_links_all_are_called_and_a_label_names_one():
    tx = fo.partition({"a": bandit(), "b": bandit()}, by="path")
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(GRADS, state, PARAMS, loss=1.0)
    episodes = lambda state: [int(part.episode) for _, part in fo.find_all(state, fo.UcbEpisodesState)]  # noqa: E731
    assert episodes(fo.control(tx, state, "finalize")) == [1, 1]
    assert episodes(fo.control(tx, state, "b/finalize")) == [0, 1]
    named = fo.scoped("slow", bandit())
    assert set(named.hooks) == {"finalize", "slow/finalize"}


@pytest.mark.parametrize("word", ["relink", "init", "plan", "run", "nothing", "__class__", 3])
def test_internals_and_unknown_words_are_refused_with_those_that_there_are(word):
    tx = fo.chain(bandit())
    with pytest.raises(ValueError, match=f"control: chain has no function {word!r} for the loop; it has finalize"):
        fo.control(tx, tx.init(PARAMS), word)
    with pytest.raises(ValueError, match="control: chain has no function 'finalize' for the loop; it has none"):
        fo.control(fo.sgd(0.1), fo.sgd(0.1).init(PARAMS), "finalize")


def test_hooks_of_a_link_of_ones_own_are_found_too():
    def update(updates, state, params=None, **extra):
        return updates, {"count": state["count"] + 1}

    mine = fo.GradientTransformation(
        lambda params: {"count": torch.zeros(())}, update, name="mine", hooks={"reset": lambda state, to=0.0: {"count": torch.full((), to)}}
    )
    tx = fo.lookahead(fo.chain(mine, fo.sgd(0.1)), 2, 0.5)
    _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert fo.control(tx, state, "reset", to=7.0).fast_state[0]["count"] == 7
    with pytest.raises(TypeError, match="mine: hooks must map names to functions"):
        fo.GradientTransformation(lambda params: (), update, name="mine", hooks={"reset": 3})


def test_a_population_is_controlled_under_vmap():
    tx = fo.apply_if_finite(bandit(), 1)
    lanes = torch.func.vmap(tx.init)(torch.zeros(3, 2))
    grads, losses = torch.ones(3, 2), torch.tensor([1.0, 2.0, 3.0])
    _, lanes = torch.func.vmap(lambda g, s, p, loss: tx.update(g, s, p, loss=loss))(grads, lanes, torch.zeros(3, 2), losses)
    closed = torch.func.vmap(lambda state: fo.control(tx, state, "finalize"))(lanes)
    assert fo.find(closed, "episode").tolist() == [1, 1, 1]
