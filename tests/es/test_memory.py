"""Noise that is drawn again costs no memory that grows with the population."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import funcopt as fo


def peak(popsize):
    """Bytes alive at once beyond those before: of torch's tensors, for what the heap keeps of its own depends on its history."""
    params = {"w": torch.zeros(400, 500), "b": torch.zeros(500)}
    objective = lambda p: p["w"][0].sum() + p["b"].sum()  # noqa: E731
    grad_fn = fo.es.grad(objective, popsize=popsize, sigma=0.1, memory="regenerate", chunk_size=64, noise="rademacher", vectorize="vmap")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        grad_fn(params, key=0)
    alive = highest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            highest = max(highest, alive)
    return highest


@pytest.mark.long
def test_peak_memory_is_flat_in_the_population():
    assert peak(16384) < 1.1 * peak(256)
