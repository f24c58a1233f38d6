"""The environments beside gymnasium's, step by step, and rollouts in gymnasium's own."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

import funcopt as fo

gymnasium = pytest.importorskip("gymnasium")

KEY = fo.random.key(5)


def falls(params, obs):
    return (obs @ params > 0).long()


def members(count):
    """Policies of CartPole that last for different times."""
    return torch.tensor([[0.1, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 0.0]])[:count]


def compare(name, ours, state_of, action_of, seed, tolerances):
    """One episode of gymnasium's under random actions; ours takes the same step from each of its states."""
    theirs = gymnasium.make(name)
    theirs.reset(seed=seed)
    theirs.action_space.seed(seed)
    steps, ended = 0, False
    while not ended:
        action = action_of(theirs.action_space.sample(), steps)
        before = np.array(theirs.unwrapped.state)
        seen, reward, terminated, truncated, _ = theirs.step(action)
        state, obs, our_reward, done = ours.step(state_of(before), torch.as_tensor(action), KEY)
        after = torch.as_tensor(np.array(theirs.unwrapped.state), dtype=torch.float64)
        torch.testing.assert_close(torch.stack(tuple(state)).double(), after, rtol=0, atol=tolerances[0])
        torch.testing.assert_close(obs.double(), torch.as_tensor(seen).double(), rtol=0, atol=tolerances[1])
        torch.testing.assert_close(our_reward.double(), torch.tensor(float(reward), dtype=torch.float64), rtol=1e-7, atol=tolerances[2])
        assert bool(done) == terminated
        steps, ended = steps + 1, terminated or truncated
    assert terminated or steps == ours.horizon
    return steps


@pytest.mark.parametrize("seed", range(5))
def test_cartpole_step_by_step(seed):
    env = fo.es.cartpole(dtype=torch.float64)
    compare("CartPole-v1", env, lambda s: fo.es.CartPoleState(*torch.tensor(s)), lambda a, t: int(a), seed, (1e-13, 1e-6, 0))


@pytest.mark.parametrize("seed", range(3))
def test_pendulum_step_by_step(seed):
    env = fo.es.pendulum(dtype=torch.float64)
    # Twice the torque, to see it clipped.
    steps = compare(
        "Pendulum-v1", env, lambda s: fo.es.PendulumState(*torch.tensor(s)), lambda a, t: 2.0 * a.astype(float), seed, (1e-12, 1e-6, 1e-12)
    )
    assert steps == 200


@pytest.mark.parametrize("seed", range(3))
def test_mountain_car_step_by_step(seed):
    env = fo.es.mountain_car()

    def swing(action, t):
        return 1.5 * action if seed == 0 else np.array([(1.3, -1.3)[t // 40 % 2]], dtype=np.float32)

    compare(
        "MountainCarContinuous-v0",
        env,
        lambda s: fo.es.MountainCarState(*torch.tensor(s, dtype=torch.float32)),
        swing,
        seed,
        (2e-6, 2e-6, 2e-6),
    )


def test_starts_lie_where_gymnasium_puts_them():
    keys = fo.random.split(KEY, 2000)
    cart = torch.stack(tuple(vmap(fo.es.cartpole().reset)(keys)))
    assert cart.abs().max() <= 0.05 and cart.abs().max() > 0.0499
    swing = vmap(fo.es.pendulum().reset)(keys)
    assert 3.1 < swing.theta.abs().max() <= torch.pi and 0.99 < swing.theta_dot.abs().max() <= 1
    car = vmap(fo.es.mountain_car().reset)(keys)
    assert -0.6 <= car.position.min() < -0.599 and -0.401 < car.position.max() <= -0.4 and not car.velocity.any()
    assert fo.es.cartpole().horizon == gymnasium.spec("CartPole-v1").max_episode_steps
    assert fo.es.pendulum().horizon == gymnasium.spec("Pendulum-v1").max_episode_steps
    assert fo.es.mountain_car().horizon == gymnasium.spec("MountainCarContinuous-v0").max_episode_steps


def by_hand(params, key, episodes, horizon=500):
    """Returns of one member, with one environment."""
    env, returns = gymnasium.make("CartPole-v1"), []
    for one in fo.random.split(key, episodes):
        obs, _ = env.reset(seed=int(fo.random.bits(one, 1)[0]) >> 1)
        total, ended, steps = 0.0, False, 0
        while not ended and steps < horizon:
            obs, reward, terminated, truncated, _ = env.step(int(falls(params, torch.as_tensor(obs))))
            total, ended, steps = total + float(reward), terminated or truncated, steps + 1
        returns.append(total)
    return returns


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("horizon", [None, 15])
def test_equals_a_loop_by_hand_whatever_the_copies_do_after_their_end(side_by_side, horizon):
    params = members(4)[1:] if horizon is None else members(4)  # the best one stands for 500 steps
    with fo.es.gymnasium_rollout(falls, "CartPole-v1", horizon, episodes=3, side_by_side=side_by_side) as objective:
        together = objective(params, key=KEY)
        again = objective(params, key=KEY)
        one_each = objective(params, key=fo.random.split(KEY, len(params)))
        fewer = objective(params[:2], key=KEY)
    expected = [by_hand(p, KEY, 3, horizon or 500) for p in params]
    assert together.tolist() == pytest.approx([sum(r) / 3 for r in expected])
    assert len({*together.tolist()}) > 1
    assert torch.equal(together, again) and torch.equal(fewer, together[:2])
    assert one_each.tolist() == pytest.approx(
        [sum(by_hand(p, key, 3, horizon or 500)) / 3 for p, key in zip(params, fo.random.split(KEY, len(params)), strict=True)]
    )


def test_processes_give_the_same():
    params = members(2)
    with (
        fo.es.gymnasium_rollout(falls, "CartPole-v1", 20, copies="async") as processes,
        fo.es.gymnasium_rollout(falls, "CartPole-v1", 20) as here,
    ):
        assert torch.equal(processes(params, key=KEY), here(params, key=KEY))


def test_one_member_at_a_time():
    params = members(3)
    with (
        fo.es.gymnasium_rollout(falls, "CartPole-v1", episodes=2) as stacked,
        fo.es.gymnasium_rollout(falls, "CartPole-v1", episodes=2, stacked=False) as one,
    ):
        assert stacked(params, key=KEY).tolist() == [one(p, key=KEY).item() for p in params]
        sent = pickle.loads(pickle.dumps(one))  # as to a process that evaluates it
        assert sent(params[0], key=KEY) == one(params[0], key=KEY)
        sent.close()


def test_continuous_actions_and_modules():
    policies = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)) for _ in range(3)]
    params, _ = stack_module_state(policies)
    params = fo.tree.map(lambda p: p.detach(), params)

    def policy(params, obs):
        return functional_call(policies[0], params, (obs,))

    with fo.es.gymnasium_rollout(policy, "Pendulum-v1", 30) as objective:
        theirs = objective(params, key=KEY)
    assert theirs.shape == (3,) and (theirs < 0).all() and theirs.unique().numel() == 3


def test_observations_are_counted_while_live():
    params, none = members(3), fo.es.observation_stats(torch.zeros(4))
    with fo.es.gymnasium_rollout(falls, "CartPole-v1", episodes=2, normalize=True) as objective:
        fitness, stats = objective(params, none, key=KEY)
        one = objective(params[1:2], none, key=KEY)[1]
    assert torch.equal(stats.count.float(), 2 * fitness)
    torch.testing.assert_close(fo.tree.map(lambda s: s[1:2], stats), one)
    assert fo.es.merge_observations(stats).count == 2 * fitness.sum()


def test_memory_and_keys_reach_the_policy():
    def policy(params, obs, memory, key):
        return ((memory + fo.random.uniform(key)) * params > 1).long(), memory + 0.1

    with fo.es.gymnasium_rollout(policy, "CartPole-v1", 20, memory=torch.zeros(())) as objective:
        returns = objective(torch.tensor([0.0, 1.0, 2.0]), key=KEY)
    assert 8 <= returns[0] <= 10  # always to the left
    assert (returns[1:] > returns[0]).all()


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="gymnasium_rollout: copies must be one of 'sync', 'async', got 'fork'"):
        fo.es.gymnasium_rollout(falls, "CartPole-v1", copies="fork")
    with pytest.raises(ValueError, match="gymnasium_rollout: needs a horizon, as the environment says no max_episode_steps"):
        fo.es.gymnasium_rollout(falls, gymnasium.envs.classic_control.CartPoleEnv)(members(2), key=KEY)
    with pytest.raises(TypeError, match="gymnasium_rollout: normalize=True needs the statistics"):
        fo.es.gymnasium_rollout(falls, "CartPole-v1", normalize=True)(members(2), key=KEY)


@pytest.mark.parametrize("shared", [True, "pairs"])
def test_gives_gradients(shared):
    params = torch.tensor([0.0, 0.0, 1.0, 0.1])
    with fo.es.gymnasium_rollout(falls, "CartPole-v1", 100, episodes=2) as stacked:
        options = {"popsize": 6, "sigma": 0.3, "maximize": True, "common_random_numbers": shared}
        grads, info = fo.es.grad(stacked, vectorize="external", **options)(params, key=KEY)
        some, some_info = fo.es.grad(stacked, vectorize="external", chunk_size=2, **options)(params, key=KEY)
    assert torch.equal(info.fitness, some_info.fitness)
    torch.testing.assert_close(grads, some)
    with fo.es.gymnasium_rollout(falls, "CartPole-v1", 100, episodes=2, stacked=False) as one:
        _, loop_info = fo.es.grad(one, vectorize="loop", **options)(params, key=KEY)
    assert torch.equal(info.fitness, loop_info.fitness) and info.std > 0


def test_the_block_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "es-rl.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "Acrobot-v1" in block]
    names = {"fo": fo, "torch": torch}
    exec(compile(block, "docs/es-rl.md", "exec"), names)
    assert names["grads"].shape == (3, 6) and names["info"].fitness.shape == (32,)
