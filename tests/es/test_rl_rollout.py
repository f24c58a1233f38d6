"""Rollouts: what counts and what does not, and that members, episodes and the early end change nothing."""

import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from funcopt.es.rl.stop import everywhere

KEY = fo.random.key(7)


class CountState(NamedTuple):
    step: torch.Tensor
    end: torch.Tensor


def counting(end_of, reward_of=lambda step: step, poison=False):
    """Steps 1, 2, 3, ...; done at the step that `end_of(key)` says; with `poison` everything after it is NaN."""

    def reset(key):
        return CountState(step=torch.zeros(()), end=end_of(key))

    def step(state, action, key):
        now = state.step + 1
        after = now > state.end
        now = torch.where(after, float("nan"), now) if poison else now
        return state._replace(step=now), now.reshape(1), torch.where(after, float("nan"), reward_of(now)), now >= state.end

    return fo.es.Environment(reset, step, lambda state: state.step.reshape(1), 20)


def linear(params, obs):
    return (obs @ params > 0).long()


def still(params, obs):
    return params * 0


def test_the_step_that_ends_counts_and_nothing_after_it():
    objective = fo.es.rollout(still, counting(lambda key: torch.tensor(4.0), poison=True))
    assert objective(torch.zeros(()), key=KEY) == 1 + 2 + 3 + 4


def test_the_horizon_cuts_off():
    env = counting(lambda key: torch.tensor(100.0))
    assert fo.es.rollout(still, env)(torch.zeros(()), key=KEY) == 20 * 21 / 2
    assert fo.es.rollout(still, env, horizon=3)(torch.zeros(()), key=KEY) == 6


def test_state_stays_after_the_end():
    seen = fo.es.trajectory(still, counting(lambda key: torch.tensor(3.0)), check_every=100)(torch.zeros(()), key=KEY)
    assert seen.state.step.tolist() == [0, 1, 2] + [3] * 17
    assert seen.live.tolist() == [True] * 3 + [False] * 17
    assert seen.reward.tolist() == [1, 2, 3] + [0] * 17
    assert seen.obs[:, 0].tolist() == seen.state.step.tolist()


def test_ends_when_everybody_is_done_and_not_before():
    lengths = []

    def policy(params, obs):
        lengths[-1] += 1
        return params * 0

    env = counting(lambda key: torch.tensor(5.0))
    for check_every, steps in [(1, 5), (3, 6), (16, 16), (50, 20)]:
        lengths.append(0)
        objective = fo.es.rollout(policy, env, check_every=check_every)
        vmap(lambda p, objective=objective: objective(p, key=KEY))(torch.zeros(3))
        assert lengths[-1] == steps

    def different(key):
        return fo.random.randint(key, (), 2, 15).float()

    lengths.append(0)
    vmap(lambda p, key: fo.es.rollout(policy, counting(different), episodes=2, check_every=1)(p, key=key))(
        torch.zeros(4), fo.random.split(KEY, 4)
    )
    # Keys of the episodes, and what reset gets of them, as rollout says.
    ends = [different(fo.random.split(episode, 3)[0]) for member in fo.random.split(KEY, 4) for episode in fo.random.split(member, 2)]
    assert lengths[-1] == max(int(end) for end in ends)


@pytest.mark.parametrize(
    "env", [fo.es.cartpole(), fo.es.pendulum(horizon=60), fo.es.mountain_car(horizon=60)], ids=["cartpole", "pendulum", "mountain car"]
)
def test_early_end_equals_none(env):
    def policy(params, obs):
        return (obs @ params > 0).long()

    size = env.observe(env.reset(KEY)).numel()
    params = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    early, late = (vmap(lambda p, c=c: fo.es.rollout(policy, env, 60, 3, check_every=c)(p, key=KEY))(params) for c in (1, 1000))
    assert torch.equal(early, late)


def test_vmap_over_members_and_episodes_equals_loops():
    env = fo.es.cartpole(dtype=torch.float64)
    params = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys = fo.random.split(KEY, 6)
    objective = fo.es.rollout(linear, env, 80, episodes=3)
    together = vmap(lambda p, key: objective(p, key=key))(params, keys)
    alone = torch.stack([objective(p, key=key) for p, key in zip(params, keys, strict=True)])
    assert torch.equal(together, alone) and together.std() > 0
    each = fo.es.rollout(linear, env, 80)
    by_hand = []
    for p, key in zip(params, keys, strict=True):
        seen = [fo.es.trajectory(linear, env, 80)(p, key=key).reward.sum()]
        assert seen[0] == each(p, key=key)
        by_hand.append(seen[0])
    # Episode e of three is episode e of any number of episodes.
    first = vmap(lambda p, key: fo.es.rollout(linear, env, 80, 3, reduce=lambda returns: returns[0])(p, key=key))(params, keys)
    assert first.tolist() == [r.item() for r in by_hand]


def test_same_key_same_start_for_everybody():
    env = fo.es.cartpole()
    play = fo.es.trajectory(linear, env, 5)
    starts = vmap(lambda p: play(p, key=KEY).obs[0])(torch.randn(4, 4))
    assert torch.equal(starts, starts[:1].expand(4, 4))
    assert not torch.equal(play(torch.ones(4), key=1).obs[0], play(torch.ones(4), key=2).obs[0])


def test_a_world_without_limits_never_ends():
    far = 100.0
    env = fo.es.cartpole(theta_threshold_radians=math.inf, x_threshold=math.inf, start=far, horizon=20)
    assert fo.es.rollout(linear, env)(torch.ones(4), key=KEY) == 20.0
    assert fo.es.rollout(linear, fo.es.cartpole(start=far))(torch.ones(4), key=KEY) == 1.0
    with pytest.raises(ValueError, match="cartpole: x_threshold must be > 0, got -1"):
        fo.es.cartpole(x_threshold=-1.0)


def test_keys_of_steps_are_fresh_for_environment_and_policy():
    drawn = []

    def policy(params, obs, key):
        drawn.append(("policy", tuple(key.tolist())))
        return params

    def step(state, action, key):
        drawn.append(("env", tuple(key.tolist())))
        return state, state.reshape(1), state * 0.0, state > 1

    env = fo.es.Environment(lambda key: torch.zeros(()), step, lambda state: state.reshape(1), 6)
    fo.es.rollout(policy, env)(torch.zeros(()), key=KEY)
    assert len(set(drawn)) == 12 and len({key for _, key in drawn}) == 12


def test_more_arguments_go_to_the_policy_and_memory_is_carried():
    def policy(params, obs, memory, shift):
        return memory["sum"] + shift, {"sum": memory["sum"] + obs[0]}

    def reward_is_action(state, action, key):
        state = state + 1
        return state, state.reshape(1), action, state > 100

    env = fo.es.Environment(lambda key: torch.zeros(()), reward_is_action, lambda state: state.reshape(1), 4)
    objective = fo.es.rollout(policy, env, memory={"sum": torch.zeros(())})
    # Sums of 0, 1, 2 so far: 0, 0, 1, 3; and ten at each of four steps.
    assert objective(None, torch.tensor(10.0), key=KEY) == 44
    from_params = fo.es.rollout(policy, env, memory=lambda params: {"sum": params})
    assert from_params(torch.tensor(1.0), torch.tensor(10.0), key=KEY) == 48


def test_a_state_that_is_a_tensor_needs_no_observe():
    class Bare:
        horizon = 3

        def reset(self, key):
            return torch.ones(2)

        def step(self, state, action, key):
            return state * 2, state * 2, action, torch.tensor(False)

    assert fo.es.rollout(lambda params, obs: obs.sum(), Bare())(None, key=0) == 2 + 4 + 8


def test_traces_whole():
    objective = fo.es.rollout(linear, fo.es.cartpole(), horizon=2)
    params = torch.randn(4, 4)

    def chunk(params, key):
        return vmap(lambda p: objective(p, key=key))(params)

    compiled = torch.compile(chunk, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(params, KEY), chunk(params, KEY))


def test_worlds_are_vmapped_too():
    def mean_return(mass):
        return fo.es.rollout(linear, fo.es.cartpole(masspole=mass), 40)(torch.tensor([0.1, 0.5, 1.0, 1.0]), key=KEY)

    masses = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    together = vmap(mean_return)(masses)
    assert together.dtype == torch.float32
    assert together.tolist() == [mean_return(mass).item() for mass in masses]


def test_numbers_and_tensors_mix_in_the_constants():
    state = fo.es.MountainCarState(position=torch.tensor(-1.19), velocity=torch.tensor(-0.07))
    for wall in (-1.2, torch.tensor(-1.2, dtype=torch.float64)):
        after, _, _, _ = fo.es.mountain_car(min_position=wall).step(state, torch.tensor(-1.0), KEY)
        # At the wall the car stands still.
        assert after.position.dtype == torch.float32 and after.position == torch.tensor(-1.2) and after.velocity == 0
    spun = fo.es.PendulumState(theta=torch.tensor(0.0), theta_dot=torch.tensor(7.9))
    after, _, _, _ = fo.es.pendulum(max_speed=torch.tensor(7.95)).step(spun, torch.tensor(9.0), KEY)
    assert after.theta_dot == torch.tensor(7.95)


def test_everywhere_sees_all_levels():
    answers = []

    def f(x, y):
        answers.append(everywhere(x + y > 0))
        return x

    x = torch.tensor([1.0, -5.0])
    vmap(vmap(f, in_dims=(None, 0)), in_dims=(0, None))(x, torch.tensor([2.0, 3.0]))
    vmap(vmap(f, in_dims=(None, 0)), in_dims=(0, None))(x.abs(), torch.tensor([2.0, 3.0]))
    with torch.inference_mode():
        vmap(f, in_dims=(0, None))(x.abs(), torch.tensor(1.0))
    torch.func.grad(f)(torch.tensor(1.0), torch.tensor(1.0))
    assert answers == [False, True, True, True]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: fo.es.rollout(linear, fo.es.cartpole(), 0), ValueError, "rollout: horizon must be >= 1, got 0"),
        (lambda: fo.es.rollout(linear, fo.es.cartpole(), episodes=0), ValueError, "rollout: episodes must be >= 1, got 0"),
        (
            lambda: fo.es.rollout(linear, "CartPole-v1"),
            TypeError,
            r"got 'CartPole-v1', which is gymnasium's; es.gymnasium_rollout\(policy, 'CartPole-v1'\) plays those",
        ),
        (
            lambda: fo.es.rollout(linear, SimpleNamespace(reset=print, step=print, observation_space=3)),
            TypeError,
            r"got SimpleNamespace, which is gymnasium's; es.gymnasium_rollout\(policy, ...\) plays those",
        ),
        (
            lambda: fo.es.rollout(linear, object()),
            TypeError,
            "rollout: env must have the functions of es.Environment, got object without 'reset'",
        ),
        (lambda: fo.es.rollout(linear, fo.es.cartpole()._replace(horizon=None)), ValueError, "rollout: needs a horizon"),
        (
            lambda: fo.es.rollout(linear, fo.es.cartpole(), normalize=True)(torch.ones(4), key=0),
            TypeError,
            "normalize=True needs the statistics",
        ),
        (
            lambda: fo.es.rollout(lambda p, o: o, fo.es.cartpole())(torch.ones(4), key=0),
            ValueError,
            r"cartpole: the action must be one number, 0 or 1 .*argmax.*, got a tensor of shape \(4,\)",
        ),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
