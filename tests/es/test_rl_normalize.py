"""Running statistics of observations: equal to those of all at once, in any grouping."""

import torch
from hypothesis import given, settings, strategies as st
from torch.func import vmap

import funcopt as fo


def seen(observations):
    stats = fo.es.observation_stats(torch.zeros(observations.shape[1:]))
    for obs in observations:
        stats = fo.es.push_observation(stats, obs)
    return stats


def assert_equal_to_all_at_once(stats, observations):
    x = observations.double()
    torch.testing.assert_close(stats.count, torch.tensor(float(len(x)), dtype=torch.float64))
    torch.testing.assert_close(stats.mean, x.mean(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(stats.m2, (x - x.mean(0)).square().sum(0), rtol=1e-8, atol=1e-8)


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 12), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_merges_in_any_grouping(cuts, seed):
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed)) * 5 + 100
    first, second = sorted(cuts)
    parts = [seen(part) for part in (x[:first], x[first:second], x[second:])]
    merge = fo.es.merge_observations
    for stats in (merge(*parts), merge(merge(*parts[:2]), parts[2]), merge(parts[0], merge(*parts[1:])), merge(*reversed(parts)), seen(x)):
        assert_equal_to_all_at_once(stats, x)


def test_merges_what_vmap_stacked():
    x = torch.randn(4, 2, 6, 3)
    one = fo.es.observation_stats(torch.zeros(3))

    def episode(observations):
        stats = one
        for obs in observations:
            stats = fo.es.push_observation(stats, obs)
        return stats

    stacked = vmap(vmap(episode))(x)
    assert_equal_to_all_at_once(fo.es.merge_observations(stacked), x.reshape(-1, 3))
    before = torch.randn(5, 3)
    assert_equal_to_all_at_once(fo.es.merge_observations(seen(before), stacked), torch.cat([before, x.reshape(-1, 3)]))


def test_counts_what_is_live_whatever_the_rest_holds():
    stats = seen(torch.tensor([[1.0], [5.0]]))
    after = fo.es.push_observation(stats, torch.tensor([float("inf")]), torch.tensor(False))
    assert fo.tree.allclose(after, stats)


def test_nothing_and_one_observation_leave_the_input_alone():
    obs = torch.tensor([3.0, -2.0])
    none = fo.es.observation_stats(obs)
    assert torch.equal(fo.es.normalize_observation(none, obs), obs)
    assert torch.equal(fo.es.normalize_observation(fo.es.push_observation(none, obs), obs), obs)
    assert fo.tree.allclose(fo.es.merge_observations(none, none), none)


def test_clips_and_keeps_the_dtype():
    stats = seen(torch.tensor([[0.0, 7.0], [2.0, 7.0]]))
    # Means 1 and 7, deviations 1 and none.
    assert fo.es.normalize_observation(stats, torch.tensor([3.0, 7.0])).tolist() == [2, 0]
    assert fo.es.normalize_observation(stats, torch.tensor([99.0, 8.0], dtype=torch.float16), 5.0).tolist() == [5, 5]
    assert fo.es.normalize_observation(stats, torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_rollout_keeps_what_it_is_given_frozen_and_returns_what_was_live():
    env = fo.es.cartpole()
    given_stats = seen(torch.randn(50, 4))

    def policy(params, obs):
        return (obs @ params > 0).long()

    objective = fo.es.rollout(policy, env, 100, episodes=3, normalize=True)
    params, key = torch.tensor([0.0, 0.1, 1.0, 0.5]), fo.random.key(0)
    fitness, stats = objective(params, given_stats, key=key)
    assert stats.count == 3 * fitness  # one reward for each live step
    plays = [fo.es.trajectory(lambda p, o: policy(p, fo.es.normalize_observation(given_stats, o)), env, 100)]
    first = plays[0](params, key=key)
    alone, alone_stats = fo.es.rollout(policy, env, 100, normalize=True)(params, given_stats, key=key)
    assert alone == first.live.sum()
    assert_equal_to_all_at_once(alone_stats, first.obs[first.live])


def test_members_merge_under_vmap():
    objective = fo.es.rollout(lambda p, o: (o @ p > 0).long(), fo.es.cartpole(), 40, episodes=2, normalize=True)
    none = fo.es.observation_stats(torch.zeros(4))
    params = torch.randn(5, 4)
    fitness, stacked = vmap(lambda p: objective(p, none, key=fo.random.key(1)))(params)
    parts = [objective(p, none, key=fo.random.key(1)) for p in params]
    assert fitness.tolist() == [part[0].item() for part in parts]
    merged, by_loop = fo.es.merge_observations(stacked), fo.es.merge_observations(*[part[1] for part in parts])
    assert fo.tree.allclose(merged, by_loop)
    assert merged.count == 2 * fitness.sum()
