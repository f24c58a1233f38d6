"""chain, stateless, and what the protocol refuses."""

import pickle

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at, rollout, small_params


def test_a_transformation_is_a_tuple_of_two_functions():
    init, update = fo.scale(2.0)
    assert torch.equal(update(torch.ones(2), init(torch.ones(2)))[0], torch.tensor([2.0, 2.0]))


def test_nested_chains_do_what_the_flat_chain_does():
    links = (fo.clip(0.5), fo.trace(0.9), fo.scale_by_adam(), fo.lr_scale(0.1))
    flat, _, _ = rollout(fo.chain(*links), small_params(), 3)
    nested, _, _ = rollout(fo.chain(links[0], fo.chain(links[1], fo.chain(links[2])), links[3]), small_params(), 3)
    assert_trees_equal(nested, flat)


def test_an_empty_chain_is_the_identity():
    tx = fo.chain()
    params = small_params()
    updates, state = tx.update(gradients_at(0, params), tx.init(params), params)
    assert_trees_equal(updates, gradients_at(0, params))
    assert state == ()


@pytest.mark.parametrize("link, message", [(fo.adam, "got the function adam; call it: adam\\(...\\)"), (3, "got 3")])
def test_links_must_be_transformations(link, message):
    with pytest.raises(TypeError, match=f"chain: every link must be a GradientTransformation, {message}"):
        fo.chain(fo.clip(1.0), link)


def test_the_state_of_another_chain_is_refused():
    params = torch.zeros(2)
    with pytest.raises(ValueError, match="chain: the state must have one part for each of the 2 links, got 3"):
        fo.chain(fo.clip(1.0), fo.scale(1.0)).update(params, fo.adam(0.1).init(params), params)
    with pytest.raises(ValueError, match="named_chain: the state must have the parts a, got b"):
        fo.named_chain(("a", fo.clip(1.0))).update(params, fo.named_chain(("b", fo.clip(1.0))).init(params), params)


def test_names_stand_once():
    with pytest.raises(ValueError, match="named_chain: each name must stand once, got 'a' 2 times"):
        fo.named_chain(("a", fo.clip(1.0)), ("a", fo.scale(1.0)))


def test_stateless_takes_a_function():
    with pytest.raises(TypeError, match="stateless: f must be a function"):
        fo.stateless(3.0)


@pytest.mark.parametrize(
    "updates, difference",
    [
        ({"w": torch.zeros(3), "b": torch.zeros(1)}, r"at 'w' updates has shape \(3,\) and params \(2,\)"),
        ({"w": torch.zeros(1), "b": torch.zeros(1)}, r"at 'w' updates has shape \(1,\) and params \(2,\)"),
        ({"w": torch.zeros(2)}, "at 'b' params has a leaf and updates has none"),
        ({"w": torch.zeros(2), "b": {"c": torch.zeros(1)}}, "at 'b' params has a leaf and updates has none"),
        ({"w": torch.zeros(2, device="meta"), "b": torch.zeros(1)}, "at 'w' updates is on meta and params on cpu"),
    ],
)
def test_a_tree_that_does_not_match_names_the_path(updates, difference):
    params = {"w": torch.zeros(2), "b": torch.zeros(1)}
    for tx, name in ((fo.adam(0.1), "chain"), (fo.trace(0.9), "trace")):
        with pytest.raises(ValueError, match=f"{name}: updates and params must be alike, but {difference}"):
            tx.update(updates, tx.init(params), params)


def test_a_structure_that_does_not_match_the_state_names_the_path():
    tx = fo.trace(0.9)
    with pytest.raises(ValueError, match="at 'trace' it is a dict of b, w in place of a dict of w"):
        tx.update({"w": torch.zeros(2)}, tx.init({"w": torch.zeros(2), "b": torch.zeros(1)}))


def test_missing_params_name_who_needs_them():
    tx = fo.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match=r"add_decayed_weights: needs the params; call update\(updates, state, params\)"):
        tx.update(torch.zeros(2), tx.init(torch.zeros(2)))


def test_integer_and_complex_leaves_are_refused_at_init_with_their_path():
    with pytest.raises(TypeError, match="scale_by_adam: needs floating point leaves, got int64 at 'n'; mask it out"):
        fo.adam(0.1).init({"n": torch.arange(3), "w": torch.zeros(2)})
    with pytest.raises(TypeError, match="clip: needs floating point leaves, got complex64 at 'z'; wrap it in split_real_and_imaginary"):
        fo.clip(1.0).init({"z": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(TypeError, match="params must be a tree of tensors, got 0.1 at 'lr'; write torch.as_tensor"):
        fo.adam(0.1).init({"lr": 0.1})


def test_none_in_a_tree_is_structure():
    tx = fo.adam(0.1)
    params = {"w": torch.ones(2), "absent": None}
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["absent"] is None


def test_a_transformation_says_why_it_cannot_be_pickled():
    with pytest.raises(TypeError, match="chain: a transformation is made of functions and cannot be pickled; save its state"):
        pickle.dumps(fo.adam(0.1))


def test_a_zero_dim_parameter_keeps_its_dtype():
    params = {"s": torch.tensor(1.0), "h": torch.tensor(1.0, dtype=torch.bfloat16)}
    history, params, _ = rollout(fo.adamw(0.1), params, 3)
    assert [x.dtype for x in fo.tree.leaves(history[-1])] == [torch.bfloat16, torch.float32]
    assert [x.dtype for x in fo.tree.leaves(params)] == [torch.bfloat16, torch.float32]


def test_apply_updates_refuses_what_would_broadcast():
    with pytest.raises(
        ValueError, match=r"apply_updates: updates and params must be alike, but at the root updates has shape \(3, 4\) and params \(1, 4\)"
    ):
        fo.apply_updates(torch.zeros(1, 4), torch.zeros(3, 4))


def test_find_names_the_candidates():
    state = fo.chain(fo.scale_by_adam(), fo.scale_by_lion(), fo.lr_scale(0.1)).init(torch.zeros(2))
    with pytest.raises(KeyError, match="'mu' must stand for one part of the state, got 2: 0.mu, 1.mu"):
        fo.find(state, "mu")
    assert fo.find(state, fo.ScaleByAdamState) is state[0]
    assert fo.find_all(state, "count") == [("0.count", state[0].count), ("1.count", state[1].count)]
    with pytest.raises(KeyError, match="no part of the state is called 'nothing'"):
        fo.replace(state, "nothing", 0)
    replaced = fo.replace(state, "ScaleByLionState", lambda part: part._replace(mu=torch.ones(2)))
    assert replaced[1].mu.sum() == 2
