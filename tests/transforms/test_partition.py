"""partition: groups that do not know each other, labels by path, scopes for words, and every mistake named."""

import pytest
import torch

import funcopt as fo
from funcopt.transforms.groups import beside
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, rollout, small_params


def by_rank(params):
    return fo.tree.map_plain(lambda p: "matrix" if p.dim() > 1 else "vector", params)


def test_each_group_is_run_as_if_it_were_alone():
    params = small_params()
    grouped, _, _ = rollout(
        fo.partition({"matrix": fo.chain(fo.clip_by_global_norm(0.5), fo.adam(0.1)), "vector": fo.sgd(0.2)}, by_rank), params, 4
    )
    for label, tx in (("matrix", fo.chain(fo.clip_by_global_norm(0.5), fo.adam(0.1))), ("vector", fo.sgd(0.2))):
        mine = [path for path, name in zip(fo.tree.paths(params), fo.tree.leaves(by_rank(params)), strict=True) if name == label]
        flat = dict(zip(fo.tree.paths(params), fo.tree.leaves(params), strict=True))
        alone = {path: flat[path] for path in mine}
        state = tx.init(alone)
        for step in range(4):
            updates, state = tx.update(gradients_at(step, alone), state, alone)
            alone = fo.apply_updates(alone, updates)
            together = dict(zip(fo.tree.paths(grouped[step]), fo.tree.leaves(grouped[step]), strict=True))
            assert_trees_close({path: together[path] for path in mine}, updates)


@pytest.mark.parametrize("mapped", [False, True])
def test_by_leaf_each_leaf_is_run_as_if_it_were_alone(mapped):
    params = small_params()
    tx = fo.partition(fo.chain(fo.clip_by_global_norm(0.5), fo.adam(0.1)), by="leaf")
    state = tx.init(params)
    alone = dict(zip(fo.tree.paths(params), fo.tree.leaves(params), strict=True))
    one = fo.chain(fo.clip_by_global_norm(0.5), fo.adam(0.1))
    states = {path: one.init(leaf) for path, leaf in alone.items()}
    update = tx.update
    if mapped:
        params, state = (fo.tree.map_plain(lambda x: torch.stack([x, x]), value) for value in (params, state))
        update = torch.vmap(tx.update)
    for step in range(4):
        gradients = gradients_at(step, small_params())
        given = fo.tree.map_plain(lambda g: torch.stack([g, 2 * g]), gradients) if mapped else gradients
        updates, state = update(given, state, params)
        for path, g in zip(fo.tree.paths(gradients), fo.tree.leaves(gradients), strict=True):
            expected, states[path] = one.update(g, states[path], alone[path])
            got = dict(zip(fo.tree.paths(updates), fo.tree.leaves(updates), strict=True))[path]
            torch.testing.assert_close(got[0] if mapped else got, expected)
    assert {f"{path}/lr" for path in alone} <= set(fo.read_signals(state))


def test_by_leaf_a_tensor_is_its_only_leaf_and_paths_must_tell_leaves_apart():
    tx = fo.partition(fo.sgd(0.5), by="leaf")
    updates, _ = tx.update(torch.tensor([2.0]), tx.init(torch.tensor([1.0])))
    assert updates.tolist() == [-1.0]
    with pytest.raises(ValueError, match=r"paths of leaves must differ where by='leaf', got 'a.b' twice; rename a key that holds a dot"):
        tx.init({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})
    with pytest.raises(ValueError, match="labels are prefixes of words and hold no '/', got 'a/b'"):
        tx.init({"a/b": torch.ones(1)})


def test_by_leaf_a_hook_is_called_on_every_leaf_and_a_plan_says_what_each_does():
    pool = {"slow": fo.Member(fo.sign(), lr=0.5), "fast": fo.Member(fo.sign(), lr=1.0)}
    tx = fo.partition(fo.chain(fo.roulette(pool, seed=0), fo.lr_scale()), by="leaf")
    params = {"b": torch.ones(2), "a": torch.ones(1)}
    for name, size in (("slow", 0.5), ("fast", 1.0)):
        state = fo.control(tx, tx.init(params), "lock", name)
        plan = tx.plan(state, epoch=1)
        assert len(plan) == 2 and plan[0] == plan[1]
        updates, _ = tx.update(params, state, params, epoch=1, plan=plan)
        assert_trees_equal(updates, {"a": torch.full((1,), -size), "b": torch.full((2,), -size)})


def test_patterns_are_tried_in_order():
    params = {"a": {"bias": torch.ones(1), "weight": torch.ones(2)}, "norm": {"bias": torch.ones(3)}}
    tx = fo.partition({"norm.*": fo.sgd(1.0), "*.bias": fo.sgd(2.0), "*": fo.sgd(3.0)}, by="path")
    updates, _ = tx.update(params, tx.init(params), params)
    assert_trees_equal(
        updates, {"a": {"bias": torch.full((1,), -2.0), "weight": torch.full((2,), -3.0)}, "norm": {"bias": torch.full((3,), -1.0)}}
    )


def test_patterns_may_map_to_labels_and_a_function_may_see_the_leaf():
    params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    groups = {"slow": fo.sgd(0.1), "fast": fo.sgd(1.0)}
    by_pattern = fo.partition(groups, {"b": "fast", "*": "slow"}, by="path")
    by_function = fo.partition(groups, lambda path, leaf: "slow" if leaf.ndim > 1 else "fast", by="path")
    for tx in (by_pattern, by_function):
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["b"][0] == -1.0 and updates["w"][0, 0] == pytest.approx(-0.1)


def test_labels_are_scopes():
    params = {"w": torch.ones(2), "b": torch.ones(1)}
    tx = fo.partition({"w": fo.sgd(0.1), "b": fo.sgd(None)}, by="path")
    state = tx.init(params)
    _, state = tx.update(params, state, params, signals={"b/base_lr": torch.tensor(0.5)})
    assert {word: round(float(value), 6) for word, value in fo.read_signals(state).items()} == {"w/lr": 0.1, "b/lr": 0.5}


def test_a_word_said_to_the_left_is_heard_in_every_group_and_two_controllers_stand_side_by_side():
    params = {"w": torch.ones(2), "b": torch.ones(1)}
    bandit = lambda seed: fo.ucb_episodes(episode_length=2, seed=seed)  # noqa: E731
    outside = fo.chain(bandit(0), fo.partition({"w": fo.sgd(0.1), "b": fo.sgd(0.2)}, by="path"))
    outside.init(params)
    inside = fo.partition({"w": fo.chain(bandit(0), fo.sgd(0.1)), "b": fo.chain(bandit(1), fo.sgd(0.1))}, by="path")
    state = inside.init(params)
    for _ in range(3):
        _, state = inside.update(params, state, params, loss=torch.tensor(1.0))
    assert {"w/lr_multiplier", "b/lr_multiplier", "w/lr"} <= set(fo.read_signals(state))


def test_a_word_that_must_be_heard_in_a_group_is_asked_for_at_init():
    params = {"w": torch.ones(2), "b": torch.ones(1)}
    tx = fo.partition({"w": fo.chain(fo.agreement_policy(), fo.scale(0.1)), "b": fo.sgd(0.1)}, by="path")
    with pytest.raises(ValueError, match="agreement_policy: no link says 'lr'"):
        tx.init(params)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fo.partition({"a": fo.sgd}, {"w": "a"}), "partition: transforms must map labels to transformations"),
        (lambda: fo.partition({"a/b": fo.sgd(0.1)}, {"w": "a/b"}), "partition: labels are prefixes of words and hold no '/'"),
        (lambda: fo.partition({"a": fo.sgd(0.1)}), "partition: needs labels"),
        (lambda: fo.partition({"a": fo.sgd(0.1)}, by="name"), "partition: by must be one of None, 'path'"),
        (
            lambda: fo.partition({"a": fo.sgd(0.1)}, {"w": "c", "b": "a"}),
            r"every label must have a transformation, got 'c' \(first at 'w'\); there are 'a'",
        ),
        (
            lambda: fo.partition({"a": fo.sgd(0.1)}, {"w": "a"}),
            "partition: labels must have the structure of params or a prefix of it, but at 'b'",
        ),
        (
            lambda: fo.partition({"*.bias": fo.sgd(0.1), "*": fo.sgd(0.1)}, by="path"),
            r"no leaf is left for the pattern '\*.bias'; there are 'b', 'w'",
        ),
        (lambda: fo.partition({"w": fo.sgd(0.1)}, by="path"), "no pattern matches 'b'"),
        (lambda: fo.partition({"w": fo.sgd(0.1)}, by="leaf"), "partition: transforms must be one transformation where by='leaf', got {'w'"),
        (lambda: fo.partition(fo.sgd(0.1), by="path"), "partition: transforms must map labels to transformations, unless by='leaf', got"),
        (
            lambda: fo.partition(fo.sgd(0.1), {"w": "a", "b": "a"}, by="leaf"),
            "partition: labels must be left out where by='leaf', since each leaf",
        ),
        (
            lambda: fo.partition(fo.chain(fo.find_rate(), fo.scale(-0.1)), by="leaf"),
            "find_rate: says 'b/rate_multiplier' and nobody to its right hears it",
        ),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make().init({"w": torch.ones(2), "b": torch.ones(1)})


@pytest.mark.long
def test_patterns_trace_with_whole_subtrees_hidden():
    params = {"encoder": {"w": torch.ones(2), "b": torch.ones(1)}, "head": [torch.ones(3), torch.ones(())]}
    tx = fo.partition({"encoder.*": fo.adam(0.1), "*": fo.chain(fo.masked(fo.trace(0.5), "head.0"), fo.sgd(0.1))}, by="path")
    traced = torch.compile(lambda g, s, p: tx.update(g, s, p), backend="eager", fullgraph=True)
    state = tx.init(params)
    for _ in range(2):
        expected = tx.update(params, state, params)
        assert_trees_close(traced(params, state, params), expected, rtol=1e-6, atol=1e-7)
        state = expected[1]


def test_gradients_of_another_shape_are_refused_beside_a_group_that_takes_any():
    """`identity` takes what its neighbours take; with momentum a gradient of one entry would go to all three."""
    tx, params = fo.partition({"a": fo.identity(), "b": fo.sgd(0.1, momentum=0.9)}, by="path"), {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(
        ValueError, match=r"partition: updates and params must be alike, but at 'b' updates has shape \(1,\) and params \(3,\)"
    ):
        tx.update({"a": torch.ones(2), "b": torch.ones(1)}, tx.init(params), params)


def test_what_passes_beside_other_leaves_is_still_a_mistake_without_them():
    tx, params = fo.partition({"encoder.*": fo.adam(0.1), "*": fo.sgd(0.1)}, by="path"), {"head": torch.ones(2)}
    with beside(frozenset({"encoder.w", "head"})):
        tx.init(params)
    with pytest.raises(ValueError, match=r"no leaf is left for the pattern 'encoder.\*'"):
        tx.init(params)


def test_extra_arguments_like_the_updates_are_cut_on_request():
    seen = []

    def update(updates, state, params=None, *, hessian=None, **extra):
        seen.append(len(fo.tree.leaves(hessian)))
        return updates, state

    spy = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="spy")
    params = {"w": torch.ones(2), "b": torch.ones(1)}
    for cut in (False, True):
        tx = fo.partition({"w": spy, "b": fo.identity()}, by="path", mask_compatible_extra_args=cut)
        tx.update(params, tx.init(params), params, hessian=params)
    assert seen == [2, 1]
