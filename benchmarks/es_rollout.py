"""What a step of CartPole costs, policy included: rollouts under `vmap` beside loops over gymnasium.

    python benchmarks/es_rollout.py                 beside gymnasium, where that is installed
    python benchmarks/es_rollout.py --rounds 25     steadier

Everybody plays the same policy, a perceptron with 16 hidden units, each member with weights of its own. Figures are microseconds of
CPU time for one step of one environment (benchmarks/clock.py); the pole cannot fall in ours, so that every step counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from pathlib import Path

import clock
import numpy as np
import torch
from torch.func import vmap

import funcopt as fo

if importlib.util.find_spec("gymnasium"):
    import gymnasium

MEMBERS = (256, 2048)
LOOP = "gymnasium loop, policy in torch"
STEPS = 50  # of every environment in one measured turn


def weights(members: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {"hidden": torch.randn(members, 16, 4, generator=generator), "out": torch.randn(members, 2, 16, generator=generator)}


def policy(params, obs):
    return (params["out"] @ torch.tanh(params["hidden"] @ obs)).argmax(-1)


def ours(members: int):
    """`es.rollout` as `es.grad` runs it."""
    env = fo.es.cartpole(theta_threshold_radians=math.inf, x_threshold=math.inf)
    objective, params, key = fo.es.rollout(policy, env, STEPS), weights(members), fo.random.key(0)

    @torch.no_grad()
    def run():
        return vmap(lambda p: objective(p, key=key))(params)

    return run


def adapter(members: int):
    """`es.gymnasium_rollout`: copies of gymnasium's environment, one policy call for all."""
    objective, params, key = fo.es.gymnasium_rollout(policy, "CartPole-v1", STEPS), weights(members), fo.random.key(0)

    @torch.no_grad()
    def run():
        return objective(params, key=key)

    return run


def vectorized(members: int):
    """gymnasium's own vectorised CartPole, written in numpy, under the same policy call."""
    env, params, act = gymnasium.make_vec("CartPole-v1", members, vectorization_mode="vector_entry_point"), weights(members), vmap(policy)

    @torch.no_grad()
    def run():
        obs, _ = env.reset(seed=0)
        for _ in range(STEPS):
            obs, *_ = env.step(act(params, torch.as_tensor(obs)).numpy())

    return run


def loop(kind: str):
    """One environment of gymnasium, one member, step by step; the policy in torch or in numpy."""
    env, params = gymnasium.make("CartPole-v1"), {name: w[0] for name, w in weights(1).items()}
    arrays = {name: w.numpy() for name, w in params.items()}

    def in_numpy(obs):
        return int((arrays["out"] @ np.tanh(arrays["hidden"] @ obs)).argmax())

    @torch.no_grad()
    def run():
        obs, _ = env.reset(seed=0)
        for _ in range(STEPS):
            action = in_numpy(obs) if kind == "numpy" else int(policy(params, torch.as_tensor(obs)))
            obs, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                obs, _ = env.reset()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="few rounds")
    parser.add_argument("--rounds", type=int, help="9, or 3 in the short form")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args()
    there = importlib.util.find_spec("gymnasium") is not None
    rows = {LOOP: (lambda: loop("torch"), 1), "gymnasium loop, policy in numpy": (lambda: loop("numpy"), 1)} if there else {}
    for members in MEMBERS:
        if there:
            rows[f"gymnasium vectorised, {members} members"] = (lambda m=members: vectorized(m), members)
        rows[f"es.rollout, {members} members"] = (lambda m=members: ours(m), members)
    if there:
        rows["es.gymnasium_rollout, 256 members"] = (lambda: adapter(256), 256)
    rounds = options.rounds or (3 if options.short else 9)
    times = clock.race({name: make for name, (make, _) in rows.items()}, rounds=rounds, copies=2, warm=1)
    per_step = {name: times.median(name) / STEPS / members * 1e6 for name, (_, members) in rows.items()}
    print(clock.heading())
    print(f"\n| CartPole | us per step | against the loop |\n|{'-' * 42}|{'-' * 13}|{'-' * 18}|")
    for name, value in per_step.items():
        print(f"| {name:40} | {value:11.2f} | {f'{per_step[LOOP] / value:.1f} x' if there else '':>16} |")
    if not there:
        print("not compared: no gymnasium")
    clock.save(options.json, us_per_step=per_step)


if __name__ == "__main__":
    main()
