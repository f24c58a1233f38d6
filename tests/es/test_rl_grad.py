"""Rollouts under `es.grad`: common starts for both of a pair, the same numbers whatever evaluates them."""

import pytest
import torch

import funcopt as fo

KEY = fo.random.key(11)


def falls(params, obs):
    return (obs @ params > 0).long()


def start_of(params, *, key):
    """The first observation of the episode that a member plays, in place of its return."""
    seen = fo.es.trajectory(falls, fo.es.cartpole(), 1)(params, key=key)
    return seen.reward.sum(), seen.obs[0]


@pytest.mark.parametrize("shared", [True, "pairs", False])
def test_who_starts_where(shared):
    grad = fo.es.grad(start_of, popsize=6, sigma=0.1, has_aux=True, common_random_numbers=shared)
    _, info = grad(torch.zeros(4), key=KEY)
    starts = {tuple(start.tolist()) for start in info.user_aux}
    assert len(starts) == {True: 1, "pairs": 3, False: 6}[shared]
    if shared == "pairs":
        assert torch.equal(info.user_aux[:3], info.user_aux[3:])


@pytest.mark.parametrize("options", [{"chunk_size": 2}, {"vectorize": "loop"}, {"memory": "regenerate"}], ids=str)
def test_same_returns_whatever_evaluates_them(options):
    objective = fo.es.rollout(falls, fo.es.cartpole(dtype=torch.float64), 60, episodes=2)
    params = torch.tensor([0.0, 0.1, 1.0, 0.2], dtype=torch.float64)
    grads, info = fo.es.grad(objective, popsize=8, sigma=0.3, maximize=True)(params, key=KEY)
    others, other_info = fo.es.grad(objective, popsize=8, sigma=0.3, maximize=True, **options)(params, key=KEY)
    assert torch.equal(info.fitness, other_info.fitness) and info.std > 0
    torch.testing.assert_close(grads, others)


def test_a_module_and_statistics_of_what_was_seen():
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    params = {name: p.detach() for name, p in module.named_parameters()}

    def policy(params, obs):
        return torch.func.functional_call(module, params, (obs,)).argmax(-1)

    objective = fo.es.rollout(policy, fo.es.cartpole(), 50, episodes=2, normalize=True)
    grad = fo.es.grad(objective, popsize=4, sigma=0.1, maximize=True, has_aux=True)
    stats = fo.es.observation_stats(torch.zeros(4))
    for generation in range(2):
        grads, info = grad(params, stats, key=fo.random.fold_in(KEY, generation))
        before, stats = stats, fo.es.merge_observations(stats, info.user_aux)
        assert stats.count == before.count + 2 * info.fitness.sum()
    assert {name: g.shape for name, g in grads.items()} == {name: p.shape for name, p in params.items()}


def test_cartpole_improves():
    grad = fo.es.grad(fo.es.rollout(falls, fo.es.cartpole(), 150, episodes=2), popsize=16, sigma=0.5, maximize=True)
    params, tx = torch.zeros(4), fo.sgd(2.0)
    state = tx.init(params)
    means = []
    for generation in range(6):
        grads, info = grad(params, key=fo.random.fold_in(KEY, generation))
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)
        means.append(info.mean.item())
    assert means[-1] > 2 * means[0]
