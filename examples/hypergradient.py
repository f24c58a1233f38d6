"""Learns a learning rate and a weight decay by gradient descent through the training they are used in.

    python examples/hypergradient.py
    python examples/hypergradient.py --steps 10 --rounds 3

A small classifier is trained for some steps from few digits; how well it then reads other digits is a function of the two
numbers, and `torch.func.grad` through `fo.unroll` is its derivative: exact, as the comparison with finite differences shows. Only
the square root of the number of steps is held in memory. Needs scikit-learn for the data.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.func import grad, grad_and_value

import funcopt as fo

FEW = 200  # digits to train on: with so few, weight decay matters


def digits():
    data = load_digits()
    x, y = torch.tensor(data.data / 16), torch.tensor(data.target)
    return (x[:FEW], y[:FEW]), (x[FEW:], y[FEW:])


def network(width=16):
    first, second = fo.random.split(fo.random.key(0), 2)
    return {"w": fo.random.normal(first, (64, width), torch.float64) / 8, "v": fo.random.normal(second, (width, 10), torch.float64) / 4}


def loss_fn(params, x, y):
    return F.cross_entropy(torch.tanh(x @ params["w"]) @ params["v"], y)


def optimizer(logs):
    return fo.adamw(lr=logs["lr"].exp(), weight_decay=logs["weight_decay"].exp())


def main(arguments: list[str] | None = None) -> tuple[list[float], float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of training, through which is differentiated")
    parser.add_argument("--rounds", type=int, default=25, help="steps of the two numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train, held_out = digits()
    start = network()

    def step(carry, _, logs):
        params, state = carry
        gradients, loss = grad_and_value(loss_fn)(params, *train)
        updates, state = optimizer(logs).update(gradients, state, params, loss=loss)
        return (fo.apply_updates(params, updates), state), None

    def after_training(logs):
        carry = (start, optimizer(logs).init(start))
        (params, _), _ = fo.unroll(step, carry, None, logs, steps=options.steps, checkpoint_every="sqrt")
        return loss_fn(params, *held_out)

    logs = {"lr": torch.tensor(1e-3, dtype=torch.float64).log(), "weight_decay": torch.tensor(1e-2, dtype=torch.float64).log()}

    slopes, h = grad(after_training)(logs), 1e-5
    error = 0.0
    print(f"derivative of the held-out loss after {options.steps} steps, by the logarithm of")
    for name, slope in slopes.items():
        high, low = (after_training({**logs, name: logs[name] + sign * h}) for sign in (1, -1))
        difference = (high - low) / (2 * h)
        error = max(error, ((slope - difference) / difference).abs().item())
        print(f"  {name:<13} {slope:>14.9f}   by finite differences {difference:>14.9f}")

    outer = fo.adam(fo.schedules.cosine_decay_schedule(0.25, options.rounds + 1))
    state, losses = outer.init(logs), []
    print("round   held-out loss        lr   weight decay")
    for turn in range(options.rounds + 1):
        slopes, loss = grad_and_value(after_training)(logs)
        losses.append(loss.item())
        if turn % max(1, options.rounds // 5) == 0:
            print(f"{turn:>5}   {loss:>13.4f}   {logs['lr'].exp():.5f}   {logs['weight_decay'].exp():>12.5f}")
        updates, state = outer.update(slopes, state, logs)
        logs = fo.apply_updates(logs, updates)
    return losses, error


if __name__ == "__main__":
    main()
