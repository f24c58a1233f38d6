"""Trains 64 classifiers of handwritten digits at once, each with its own learning rate and weight decay.

    python examples/population.py
    python examples/population.py --copies 16 --rounds 4 --eager

The same population is trained twice: left alone, which is random search, and as population-based training, in which after every
epoch the worst fifth of the copies go on from copies of the best fifth with hyperparameters a little off. All copies step in
one graph. Needs scikit-learn for the data.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import funcopt as fo

BATCH = 32


def digits():
    """Images and labels to train on, to choose by and to test on: 2, 1 and 1 of every 4 rows."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    part = torch.arange(len(y)) % 4
    return [(x[rows], y[rows]) for rows in (part > 1, part == 1, part == 0)]


def network(key, width):
    first, second = fo.random.split(key, 2)
    return {
        "w": fo.random.normal(first, (64, width)) / 8,
        "b": torch.zeros(width),
        "v": fo.random.normal(second, (width, 10)) / width**0.5,
    }


def logits(params, x):
    return torch.relu(x @ params["w"] + params["b"]) @ params["v"]


def loss_fn(params, x, y):
    return F.cross_entropy(logits(params, x), y)


def trained(pop, width, train, choose_by, copies, rounds, exchange):
    """Trains a population; returns its params and state, the losses to choose by, and seconds per step."""
    init, order, rounds_key = (fo.random.key(stream) for stream in range(3))
    params, state = pop.init(lambda key: network(key, width), fo.random.split(init, copies))
    judge = torch.func.vmap(lambda params: loss_fn(params, *choose_by))
    x, y = train
    seconds = []
    for turn in range(rounds):
        shuffled = fo.population.permutations(fo.random.split(order, copies), len(x), turn)
        for rows in shuffled.split(BATCH, dim=1)[: len(x) // BATCH]:
            began = time.perf_counter()
            params, state, _ = pop(params, state, x[rows], y[rows])
            seconds.append(time.perf_counter() - began)
        losses = judge(params)
        if exchange and turn < rounds - 1:
            params, state, _ = fo.population.exploit_explore(fo.random.fold_in(rounds_key, turn), params, state, losses)
    return params, state, losses, sorted(seconds)[len(seconds) // 2]


def loop_seconds(width, copies, train, steps=3):
    """One step of as many modules in turn, each with a fused AdamW."""
    modules = [
        torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10, bias=False)) for _ in range(copies)
    ]
    optimizers = [torch.optim.AdamW(module.parameters(), fused=True) for module in modules]
    x, y = (column[:BATCH] for column in train)
    for _ in range(steps):
        began = time.perf_counter()
        for module, optimizer in zip(modules, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12, help="epochs")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train, choose_by, test = digits()

    exponents = fo.random.uniform(fo.random.key(7), (2, options.copies), torch.float64)
    hyper = {"lr": 10 ** (-5 + 4 * exponents[0]), "weight_decay": 10 ** (-4 + 4 * exponents[1])}  # 1e-5 to 0.1 and 1e-4 to 1
    pop = fo.population.make_step(loss_fn, fo.adamw, hyper=hyper, in_dims=0, compile=not options.eager, donate=True)

    print(
        f"{options.copies} networks 64 - {options.width} - 10, {options.rounds} epochs; "
        "loss on what to choose by, best copy on the test digits"
    )
    print(f"{'':<28}{'best':>8}{'median':>8}{'worst':>8}   {'accuracy':>8}   lr and weight decay of the best")
    accuracies = {}
    for name, exchange in (("left alone", False), ("population-based training", True)):
        params, state, losses, seconds = trained(pop, options.width, train, choose_by, options.copies, options.rounds, exchange)
        best, own = fo.population.best((params, state.hyper), losses)
        accuracy = (logits(best, test[0]).argmax(-1) == test[1]).float().mean().item()
        settings = ", ".join(f"{value:.2g}" for value in own.values())
        print(f"{name:<28}{losses.min():>8.3f}{losses.median():>8.3f}{losses.max():>8.3f}   {100 * accuracy:>7.1f}%   {settings}")
        accuracies[name] = accuracy
    loop = loop_seconds(options.width, options.copies, train)
    print(
        f"a step of all copies: {1e3 * seconds:.2f} ms; a loop over as many modules with a fused AdamW: "
        f"{1e3 * loop:.1f} ms, {loop / seconds:.0f} times as long"
    )
    return accuracies


if __name__ == "__main__":
    main()
