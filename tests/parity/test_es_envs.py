"""The environments against recorded transitions of gymnasium: one step from each recorded state, and whole episodes."""

import json

import pytest
import torch

import funcopt as fo
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir

RECORDED = json.loads((golden_dir("es") / "envs.json").read_text(encoding="utf-8"))
NO_KEY = torch.zeros(2, dtype=torch.int64)


def replay(env, state, actions):
    """States, observations, rewards and dones of one episode under these actions."""
    steps = []
    for action in actions:
        state, obs, reward, done = env.step(state, torch.tensor(action, dtype=torch.float64), NO_KEY)
        steps.append((*state, *obs, reward, done))
    return [torch.stack([step[i].double() for step in steps]) for i in range(len(steps[0]))]


def recorded(name, columns):
    for trace in RECORDED[name]:
        only_keys(f"envs.json, {name}", trace, {"state0", "columns", "rows"})
        assert trace["columns"] == columns
    return pytest.mark.parametrize("trace", RECORDED[name], ids=range(len(RECORDED[name])))


def columns_of(trace):
    return {name: torch.tensor(values, dtype=torch.float64) for name, *values in zip(trace["columns"], *trace["rows"], strict=True)}


def state_of(state_type, trace, dtype):
    return state_type(*torch.tensor(trace["state0"], dtype=dtype).unbind())


def test_knows_everything_that_was_recorded():
    only_keys("envs.json", RECORDED, {"doc", "gymnasium", "cartpole", "pendulum", "mountain_car_continuous"})


@recorded("cartpole", ["action", "x", "x_dot", "theta", "theta_dot", "reward", "terminated"])
def test_cartpole(trace):
    rows = columns_of(trace)
    env = fo.es.cartpole(dtype=torch.float64)
    *ours, reward, done = replay(env, state_of(fo.es.CartPoleState, trace, torch.float64), rows["action"].tolist())
    for i, name in enumerate(["x", "x_dot", "theta", "theta_dot"]):
        torch.testing.assert_close(ours[i], rows[name], rtol=0, atol=1e-10)
        assert torch.equal(ours[4 + i], ours[i])
    assert torch.equal(reward, rows["reward"]) and torch.equal(done, rows["terminated"])


@recorded("pendulum", ["torque_before_clip", "theta", "theta_dot", "cos", "sin", "theta_dot_obs", "reward"])
def test_pendulum(trace):
    rows = columns_of(trace)
    env = fo.es.pendulum(dtype=torch.float64)
    *ours, reward, done = replay(env, state_of(fo.es.PendulumState, trace, torch.float64), rows["torque_before_clip"].tolist())
    for i, name in enumerate(["theta", "theta_dot", "cos", "sin", "theta_dot_obs"]):
        # gymnasium rounds observations to float32.
        torch.testing.assert_close(ours[i], rows[name], rtol=0, atol=1e-10 if i < 2 else 1e-6)
    torch.testing.assert_close(reward, rows["reward"], rtol=0, atol=1e-6)
    assert not done.any()


@recorded("mountain_car_continuous", ["action_before_clip", "position", "velocity", "reward", "terminated"])
def test_mountain_car(trace):
    rows = columns_of(trace)
    position, velocity, *obs, reward, done = replay(
        fo.es.mountain_car(), state_of(fo.es.MountainCarState, trace, torch.float32), rows["action_before_clip"].tolist()
    )
    torch.testing.assert_close(position, rows["position"], rtol=0, atol=2e-6)
    torch.testing.assert_close(velocity, rows["velocity"], rtol=0, atol=2e-6)
    assert torch.equal(obs[0], position) and torch.equal(obs[1], velocity)
    # Rewards near 100 are float32 numbers: 100 2^-24 is 6e-6.
    torch.testing.assert_close(reward, rows["reward"], rtol=1e-7, atol=2e-6)
    assert torch.equal(done, rows["terminated"])
