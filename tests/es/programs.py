"""Objectives for worker processes, and what a rank does: found by their module."""

import os

import torch

import funcopt as fo
from tests.ranks import join, leave


def bowl(params, target):
    return (params["w"] - target).square().sum()


def moody(params, target, mood):
    """A Python number with something beside it; fails or dies where the first parameter is above zero, if it is in the mood."""
    if mood == "always fails" or (mood == "fails" and params["w"][0] > 0):
        raise ArithmeticError("not here")
    if mood == "dies" and params["w"][0] > 0:
        os._exit(3)
    return float((params["w"] - target).square().sum()), {"half": params["w"] / 2, "process": os.getpid()}


def keyed(params, target, key):
    return params["w"].sum() + key[0].remainder(1000).to(torch.float32)


SHARED = {"popsize": 20, "sigma": 0.1, "chunk_size": 4}


def rank(number, size, store, folder):
    """One rank of an estimate; writes its gradient."""
    torch.set_num_threads(1)
    join(init_method=f"file://{store}", rank=number, world_size=size)
    grads, _ = fo.es.grad(bowl, process_group=True, **SHARED)({"w": torch.linspace(-1, 1, 9000)}, 0.5, key=3)
    torch.save(grads["w"], f"{folder}/{number}.pt")
    leave()


def dropped(params):
    return (torch.nn.functional.dropout(params["w"], 0.5) * torch.arange(64).square()).sum()


with torch.random.fork_rng():
    torch.manual_seed(0)
    power = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 3))


def spectral(params, x):
    """A power iteration in training mode, written into the module."""
    return torch.func.functional_call(power, params, (x,)).square().sum()
