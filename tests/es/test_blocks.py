"""Blocks of a model in turn, and chains that leave the other blocks alone."""

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal

PARAMS = {"gain": torch.ones(1), "body.0.w": torch.ones(2), "body.2.w": torch.ones(3), "arm.w": torch.ones(2)}
NESTED = {"gain": torch.ones(1), "body": [{"w": torch.ones(2)}, None, {"w": torch.ones(3)}], "arm": {"w": torch.ones(2)}}


def chosen(mask):
    return [path for path, kept in zip(fo.tree.paths(mask), fo.tree.leaves(mask), strict=True) if kept]


@pytest.mark.parametrize("params", [PARAMS, NESTED], ids=["names", "nested"])
def test_groups_come_in_the_order_in_which_params_names_them(params):
    assert list(fo.es.group_paths(params)) == ["gain", "body", "arm"]
    assert list(fo.es.group_paths(params, depth=2)) == ["gain", "body.0", "body.2", "arm.w"]
    assert fo.es.group_paths(params, lambda path: path[-1]) == {
        "n": ["gain"],
        "w": [path for path in fo.es.group_paths(params, lambda path: path) if path != "gain"],
    }
    assert list(fo.es.group_paths(params, {"ends": ["gain", "arm*"], "middle": "body.*"})) == ["ends", "middle"]


def test_strategies_are_functions_of_the_step():
    names = ["gain", "body", "arm"]
    for step in range(7):
        assert chosen(fo.es.layers("all")(step, PARAMS)) == fo.tree.paths(PARAMS)
        for strategy, group in (
            ("bottom_up", names[step % 3]),
            ("top_down", names[2 - step % 3]),
            (lambda step: names[step % 2], names[step % 2]),
        ):
            assert sorted(chosen(fo.es.layers(strategy)(step, PARAMS))) == sorted(path for path in PARAMS if path.split(".")[0] == group)
    random = fo.es.layers("random", key=7)
    drawn = [tuple(chosen(random(step, PARAMS))) for step in range(40)]
    assert len(set(drawn)) == 3 and drawn == [tuple(chosen(random(step, PARAMS))) for step in range(40)]
    assert drawn != [tuple(chosen(random(step, PARAMS, key=8))) for step in range(40)]


@pytest.mark.parametrize("strategy", ["bottom_up", "top_down", "random"])
def test_a_step_that_is_a_tensor_gives_masks_that_are(strategy):
    blocks = fo.es.layers(strategy, key=1)
    for step in range(4):
        mask = torch.func.vmap(lambda t: blocks(t, PARAMS))(torch.tensor([step]))
        assert_trees_equal(fo.tree.map_plain(lambda x: x[0], mask), fo.tree.map_plain(torch.tensor, blocks(step, PARAMS)))


def test_layerwise_is_grad_with_the_mask_of_the_step():
    def objective(params):
        return -sum(leaf.square().sum() for leaf in params.values())

    settings = {"popsize": 6, "sigma": 0.1}
    layerwise = fo.es.layerwise(objective, strategy="bottom_up", **settings)
    for step in range(3):
        grads, _ = layerwise(PARAMS, key=4, step=step)
        mask = fo.es.layers("bottom_up")(step)
        expected, _ = fo.es.grad(objective, maximize=True, mask=mask, **settings)(PARAMS, key=4)
        assert_trees_equal(grads, expected)
        assert chosen(fo.tree.map_plain(lambda g: bool((g != 0).any()), grads)) == chosen(mask(PARAMS))
    minimized, _ = fo.es.layerwise(objective, strategy="all", maximize=False, **settings)(PARAMS, key=4)
    assert_trees_equal(minimized, fo.es.grad(objective, **settings)(PARAMS, key=4)[0])
    first = [
        chosen(fo.tree.map_plain(lambda g: bool((g != 0).any()), fo.es.layerwise(objective, **settings)(PARAMS, key=4, step=t)[0]))
        for t in range(20)
    ]
    assert len({tuple(paths) for paths in first}) == 3


def test_only_selected_holds_the_other_blocks_still():
    inner = fo.chain(fo.add_decayed_weights(0.1), fo.adam(0.1, b1=0.5))
    tx, params = fo.es.only_selected(inner), {"a": torch.ones(2), "b": torch.ones(3)}
    state = tx.init(params)
    ones = fo.tree.ones_like(params)
    updates, state = tx.update(ones, state, params)
    before = fo.find(state, "mu")
    updates, state = tx.update({"a": ones["a"], "b": torch.zeros(3)}, state, params)
    assert torch.equal(updates["b"], torch.zeros(3)) and updates["a"].abs().min() > 0
    assert torch.equal(fo.find(state, "mu")["b"], before["b"]) and not torch.equal(fo.find(state, "mu")["a"], before["a"])
    assert fo.find(state, "count") == 2


def test_only_selected_changes_nothing_where_all_are_selected():
    params = {"a": torch.ones(2), "b": torch.ones(3)}
    inner, wrapped = fo.adam(0.1), fo.es.only_selected(fo.adam(0.1))
    ours, theirs = wrapped.init(params), inner.init(params)
    for step in range(3):
        grads = fo.tree.map(lambda p, step=step: p * (step + 1.0), params)
        mine, ours = wrapped.update(grads, ours, params)
        plain, theirs = inner.update(grads, theirs, params)
        assert_trees_equal(mine, plain)
    assert_trees_equal(ours.inner_state, theirs)
    mapped, _ = torch.func.vmap(lambda g: wrapped.update({"a": g, "b": torch.zeros(3)}, wrapped.init(params), params))(torch.ones(4, 2))
    assert_trees_close(fo.tree.map(lambda u: u[1], mapped)["a"], torch.full((2,), -0.1), rtol=1e-4)
    assert fo.read_signals(ours)["lr"] == 0.1


def test_odd_populations_of_compat_divide_by_the_odd_number():
    def objective(p):
        return -p.square().sum()

    p = torch.tensor([1.0, -2.0])
    even, _ = fo.es.compat.grad(objective, n_samples=6, sigma=0.1, strategy="all")(p, key=0)
    odd, info = fo.es.compat.grad(objective, n_samples=7, sigma=0.1, strategy="all")(p, key=0)
    torch.testing.assert_close(odd, even * 6 / 7)
    assert len(info.fitness) == 6


def test_layer_groups_of_a_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    assert fo.es.compat.layer_groups(model) == {"0": ["0.weight", "0.bias"], "2": ["2.0.weight", "2.0.bias", "2.1.weight", "2.1.bias"]}
    assert list(fo.es.compat.layer_groups(model, depth=2)) == ["0.weight", "0.bias", "2.0", "2.1"]


def test_shared_ranks_off_the_cpu_path():
    fitness = torch.tensor([3.0, 1.0, 1.0, 2.0, 0.0])
    mapped = torch.func.vmap(fo.es.compat.centered_rank_shared_ties)(fitness[None])[0]
    assert torch.equal(mapped, fo.es.compat.centered_rank_shared_ties(fitness))


@pytest.mark.parametrize(
    "act, error, message",
    [
        (
            lambda: fo.es.layers("upwards"),
            ValueError,
            "es.layers: strategy must be one of 'all', 'bottom_up', 'top_down', 'random', got 'upwards'",
        ),
        (lambda: fo.es.layers("random", depth=0), ValueError, "es.layers: depth must be >= 1, got 0"),
        (
            lambda: fo.es.layers("random")(0, PARAMS),
            ValueError,
            r"es.layers: strategy='random' needs a key; pass layers\('random', key=...\)",
        ),
        (
            lambda: fo.es.layers(lambda step: "leg")(0, PARAMS),
            ValueError,
            "es.layers: what strategy returns must be one of 'gain', 'body', 'arm', got 'leg'",
        ),
        (
            lambda: fo.es.group_paths(PARAMS, {"body": "body.*"}),
            ValueError,
            "es.layers: groups has no pattern that matches 'gain'; add a group for it",
        ),
        (
            lambda: fo.es.group_paths(PARAMS, {"all": "*", "leg": "leg.*"}),
            ValueError,
            "es.layers: group 'leg' matches none of the paths gain, body.0.w",
        ),
        (
            lambda: fo.es.layerwise(len, popsize=4, sigma=0.1)(PARAMS, key=0),
            TypeError,
            "es.layerwise: needs the step, which decides on the block; pass step=",
        ),
        (
            lambda: fo.es.layerwise(len, popsize=4, sigma=0.1)(PARAMS, step=0),
            TypeError,
            "es.layerwise: needs a key for the noise of this call",
        ),
        (lambda: fo.es.layerwise(len, popsize=4, sigma=0.1, mask="w"), ValueError, "es.layerwise: the block of the step is the mask"),
        (lambda: fo.es.layerwise(len, popsize=3, sigma=0.1), ValueError, "es.layerwise: popsize must be even with antithetic=True"),
    ],
)
def test_says_what_is_wrong(act, error, message):
    with pytest.raises(error, match=message):
        act()
