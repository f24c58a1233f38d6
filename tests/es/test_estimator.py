"""Estimators with a memory: what es.grad gives, told the same by hand."""

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal

PARAMS = {"w": torch.linspace(-1, 1, 6), "b": torch.zeros(2)}


def bowl(params, target=0.5):
    return (params["w"] - target).square().sum() + params["b"].square().sum()


def test_counts_keys_and_follows_a_schedule():
    falling = fo.schedules.exponential_decay(0.5, transition_steps=1, decay_rate=0.5)
    memory = fo.es.estimator(bowl, popsize=8, sigma=falling, shaping="none")
    state = memory.init(PARAMS, 3)
    for t in range(3):
        grads, state, info = memory.estimate(PARAMS, state, 0.7)
        expected, told = fo.es.grad(bowl, popsize=8, sigma=0.5 * 0.5**t, shaping="none")(
            PARAMS, 0.7, key=fo.random.fold_in(fo.random.key(3), t)
        )
        assert_trees_close(grads, expected, rtol=1e-5, atol=1e-6)
        assert info.fitness.shape == told.fitness.shape and state.count == t + 1


@pytest.mark.parametrize("given", [True, False])
def test_remembers_surrogates_or_its_own_estimates(given):
    memory = fo.es.estimator(bowl, popsize=8, sigma=0.1, subspace=2, alpha=0.3, beta=2.0)
    state, surrogates = memory.init(PARAMS, 0), fo.es.surrogates(PARAMS, 2)
    for t in range(4):
        biased = fo.tree.random_like(fo.random.key(50 + t), PARAMS)
        surrogates = fo.es.push_surrogate(surrogates, biased) if given else surrogates
        law = fo.es.guided(surrogates, alpha=0.3, beta=2.0)
        expected, _ = fo.es.grad(bowl, popsize=8, sigma=0.1, noise=law)(PARAMS, key=fo.random.fold_in(fo.random.key(0), t))
        grads, state, _ = memory.estimate(PARAMS, state, surrogate=biased if given else None)
        assert_trees_equal(grads, expected)
        surrogates = surrogates if given else fo.es.push_surrogate(surrogates, grads)
    assert_trees_equal(state.subspace, surrogates)


def test_a_biased_gradient_at_hand_points_few_members_the_right_way():
    x, target = torch.zeros(200), torch.linspace(-1, 1, 200)
    true = 2 * (x - target)
    biased = true + 2 * torch.cos(torch.arange(200.0))

    def cosine(subspace):
        memory = fo.es.estimator(lambda x: (x - target).square().sum(), popsize=4, sigma=0.1, shaping="none", subspace=subspace)
        state, total = memory.init(x, 0), 0.0
        for _ in range(50):
            grads, state, _ = memory.estimate(x, state, surrogate=biased if subspace else None)
            total += float(torch.cosine_similarity(grads, true, dim=0))
        return total / 50

    # two of 200 directions: sqrt(2 / 200) without a surrogate; with one that is at 55 degrees, about its cosine
    assert cosine(0) < 0.15 and cosine(1) > 0.4


def test_is_pure_and_resumes_and_runs_side_by_side(tmp_path):
    memory = fo.es.estimator(bowl, popsize=8, sigma=fo.schedules.linear_schedule(0.5, 0.1, 10), subspace=1, vectorize="vmap")
    state = memory.init(PARAMS, 0)
    _, state, _ = memory.estimate(PARAMS, state)
    fo.checkpoint.save(tmp_path / "memory.pt", state)
    first = memory.estimate(PARAMS, state)
    again = memory.estimate(PARAMS, fo.checkpoint.load(tmp_path / "memory.pt", memory.init(PARAMS, 1)))
    assert_trees_equal(first[0], again[0])
    assert_trees_equal(first[1], again[1])
    states = vmap(lambda key: memory.init(PARAMS, key))(fo.random.split(fo.random.key(9), 3))
    grads, _ = vmap(lambda state: memory.estimate(PARAMS, state)[:2])(states)
    alone = memory.estimate(PARAMS, memory.init(PARAMS, fo.random.split(fo.random.key(9), 3)[1]))[0]
    assert_trees_close(fo.tree.map(lambda g: g[1], grads), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"subspace": -1}, ValueError, "es.estimator: subspace must be >= 0, got -1"),
        ({"subspace": 1, "noise": "normal"}, ValueError, "es.estimator: subspace=1 is a law of perturbations; leave out noise="),
        ({"subspace": 1, "alpha": 2.0}, ValueError, "alpha must be in"),
        ({"subspace": 1, "vectorize": "processes"}, ValueError, "es.estimator: worker processes know one sigma and one law"),
        ({"popsze": 3}, TypeError, "es.estimator: unknown option 'popsze'"),
        ({"sigma": 0.0}, ValueError, "es.estimator: sigma must be > 0, got 0.0"),
    ],
)
def test_says_what_is_wrong(options, error, message):
    with pytest.raises(error, match=message):
        fo.es.estimator(bowl, **{"popsize": 4, "sigma": 0.1, **options})


def test_a_surrogate_needs_room():
    memory = fo.es.estimator(bowl, popsize=4, sigma=0.1)
    with pytest.raises(ValueError, match="es.estimator: surrogate= needs a subspace to be remembered in; say subspace=1 or more"):
        memory.estimate(PARAMS, memory.init(PARAMS, 0), surrogate=PARAMS)
