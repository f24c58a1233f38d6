"""Solves CartPole by evolution: a mean return of 475 or more over 100 fresh episodes.

    python examples/es_cartpole.py
    python examples/es_cartpole.py --seed 3 --popsize 128 --hidden 32

Nothing is differentiated. A generation perturbs the policy in both directions of each random vector, plays a few episodes with
every copy side by side, and moves along the directions whose copies ranked higher. Exit status 0 says solved.
"""

import argparse
import sys
import time

import torch

import funcopt as fo

SOLVED = 475.0  # of at most 500


def network(hidden: int) -> dict:
    """Weights of a policy that cannot tell left from right yet."""
    return {"hidden": torch.zeros(hidden, 4), "out": torch.zeros(2, hidden)}


def policy(params, obs):
    return (params["out"] @ torch.tanh(params["hidden"] @ obs)).argmax(-1)


def main(arguments: list[str] | None = None) -> bool:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generations", type=int, default=100, help="at most")
    parser.add_argument("--popsize", type=int, default=64, help="members in a generation, even")
    parser.add_argument("--episodes", type=int, default=4, help="played by each member")
    parser.add_argument("--sigma", type=float, default=0.5, help="size of the perturbations")
    parser.add_argument("--hidden", type=int, default=16, help="units of the policy")
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    train_key, test_key, init_key = fo.random.split(fo.random.key(options.seed), 3)
    env = fo.es.cartpole()
    mean_return = fo.es.rollout(policy, env, episodes=options.episodes)
    on_fresh_episodes = fo.es.rollout(policy, env, episodes=100)
    grad = fo.es.grad(mean_return, popsize=options.popsize, sigma=options.sigma, maximize=True)

    params = fo.tree.random_like(init_key, network(options.hidden))
    tx = fo.adam(options.lr)
    state = tx.init(params)
    start, final = time.perf_counter(), torch.tensor(0.0)
    with fo.race.Progress("cartpole", options.generations, unit="generation") as progress:
        for generation in range(options.generations):
            grads, info = grad(params, key=fo.random.fold_in(train_key, generation))
            updates, state = tx.update(grads, state, params)
            params = fo.apply_updates(params, updates)
            progress.at(generation + 1, f"mean {info.mean:.1f}, best {info.best:.1f}")
            if info.mean >= SOLVED * 0.9:  # worth a look: the copies are perturbed, the policy itself does better
                final = on_fresh_episodes(params, key=fo.random.fold_in(test_key, generation))
                if final >= SOLVED:
                    break
        else:
            final = on_fresh_episodes(params, key=fo.random.fold_in(test_key, options.generations))
    solved = bool(final >= SOLVED)
    print(f"{'solved' if solved else 'not solved'}: mean return {final:.1f} over 100 fresh episodes, {time.perf_counter() - start:.1f} s")
    return solved


if __name__ == "__main__":
    sys.exit(not main())
