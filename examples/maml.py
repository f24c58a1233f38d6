"""Meta-learning (MAML): initial weights from which five steps on ten points are enough to learn a sine curve.

    python examples/maml.py
    python examples/maml.py --rounds 50

Every task is a sine of random amplitude and phase. The outer loop differentiates through the inner steps of gradient descent,
for all tasks of a batch side by side under `vmap`. A network of the same form, trained on all tasks without thinking of what comes
after, learns the mean of all sines, which is about zero, and adapts badly.

Source: Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section 5.1.
"""

import argparse

import torch
from torch.func import grad, grad_and_value, vmap

import funcopt as fo

TASKS, POINTS = 25, 10
INNER = fo.sgd(0.02)


def network(key, width=40):
    keys = fo.random.split(key, 3)
    shapes = [(1, width), (width, width), (width, 1)]
    return [
        {"w": fo.random.normal(k, shape) * (2 / shape[0]) ** 0.5, "b": torch.zeros(shape[1])} for k, shape in zip(keys, shapes, strict=True)
    ]


def predict(params, x):
    *hidden, last = params
    x = x / 2
    for layer in hidden:
        x = torch.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def loss_fn(params, x, y):
    return (predict(params, x) - y).square().mean()


def tasks(key, count):
    """Points to adapt on and points to judge by, of `count` sines: [count, POINTS, 1] each."""
    u = fo.random.uniform(key, (count, 2 + 2 * POINTS, 1))
    amplitude, phase, x = 0.1 + 4.9 * u[:, :1], torch.pi * u[:, 1:2], 10 * u[:, 2:] - 5
    y = amplitude * torch.sin(x + phase)
    return (x[:, :POINTS], y[:, :POINTS]), (x[:, POINTS:], y[:, POINTS:])


def adapted(params, x, y, steps):
    """The params after some steps on the points of one task."""

    def step(carry, _):
        params, state = carry
        updates, state = INNER.update(grad(loss_fn)(params, x, y), state, params)
        return (fo.apply_updates(params, updates), state), None

    (params, _), _ = fo.unroll(step, (params, INNER.init(params)), steps=steps)
    return params


def meta_trained(params, rounds, inner_steps):
    """Minimises the mean loss that tasks have after `inner_steps` steps of their own; none is plain training on all tasks."""

    def meta_loss(params, learn_from, judge_by):
        return vmap(lambda a, b: loss_fn(adapted(params, *a, inner_steps), *b))(learn_from, judge_by).mean()

    outer = fo.adam(2e-3)
    state = outer.init(params)
    for turn in range(rounds):
        gradients, _ = grad_and_value(meta_loss)(params, *tasks(fo.random.fold_in(fo.random.key(1), turn), TASKS))
        updates, state = outer.update(gradients, state, params)
        params = fo.apply_updates(params, updates)
    return params


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=800, help="batches of 25 tasks")
    parser.add_argument("--inner-steps", type=int, default=3, help="through which is differentiated")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    learn_from, judge_by = tasks(fo.random.key(2), 400)  # new ones
    counts = (0, 1, 5, 10)
    print(f"mean squared error on 400 new tasks after steps on {POINTS} points: " + "".join(f"{count:>8}" for count in counts))
    found = {}
    for name, inner_steps in (("trained on all tasks", 0), ("meta-trained", options.inner_steps)):
        params = meta_trained(network(fo.random.key(0)), options.rounds, inner_steps)
        found[name] = [vmap(lambda a, b, n=n, p=params: loss_fn(adapted(p, *a, n), *b))(learn_from, judge_by).mean().item() for n in counts]
        print(f"{name:<60}" + "".join(f"{error:>8.3f}" for error in found[name]))
    return found


if __name__ == "__main__":
    main()
