"""Trains a classifier of handwritten digits on what one wants of it: accuracy, which has no gradient.

    python examples/es_digits_accuracy.py

The objective counts how many digits of a batch are read correctly. `fo.es.grad` turns it into a direction for all weights, which
feeds Adam like any gradient. Needs scikit-learn for the data.
"""

import argparse

import torch
from sklearn.datasets import load_digits

import funcopt as fo


def digits():
    """Images and labels; every fourth row is for testing. Pixels have mean 0 and deviation 1: all weights are perturbed alike."""
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    test = torch.arange(len(y)) % 4 == 0
    x = (x - x[~test].mean(0)) / x[~test].std(0).clamp(min=1)
    return (x[~test], y[~test]), (x[test], y[test])


def network(key, hidden: int) -> dict:
    weights = fo.tree.random_like(key, {"hidden": torch.zeros(64, hidden), "out": torch.zeros(hidden, 10)})
    return {
        "hidden": {"weight": weights["hidden"] / 8, "bias": torch.zeros(hidden)},
        "out": {"weight": weights["out"] / hidden**0.5, "bias": torch.zeros(10)},
    }


def accuracy(params, x, y):
    hidden = torch.relu(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
    return ((hidden @ params["out"]["weight"] + params["out"]["bias"]).argmax(-1) == y).float().mean()


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--popsize", type=int, default=256, help="members in a generation, even")
    parser.add_argument("--sigma", type=float, default=0.2, help="size of the perturbations")
    parser.add_argument("--hidden", type=int, default=32, help="units of the network")
    parser.add_argument("--batch", type=int, default=256, help="digits that all members of a generation read")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    (x, y), test = digits()
    init_key, noise_key, batch_key = fo.random.split(fo.random.key(options.seed), 3)
    params = network(init_key, options.hidden)
    grad = fo.es.grad(accuracy, popsize=options.popsize, sigma=options.sigma, maximize=True)
    tx = fo.adam(fo.schedules.cosine_decay_schedule(options.lr, options.generations))
    state = tx.init(params)
    with fo.race.Progress("digits", options.generations, unit="generation") as progress:
        for generation in range(options.generations):
            rows = fo.random.randint(fo.random.fold_in(batch_key, generation), options.batch, 0, len(y))
            grads, info = grad(params, x[rows], y[rows], key=fo.random.fold_in(noise_key, generation))
            updates, state = tx.update(grads, state, params)
            params = fo.apply_updates(params, updates)
            progress.at(generation + 1, f"copies read {info.mean:.1%}")
    reached = float(accuracy(params, *test))
    print(f"test accuracy {reached:.1%}, trained on accuracy itself")
    return reached


if __name__ == "__main__":
    main()
