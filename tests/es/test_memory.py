"""Noise that is drawn again costs no memory that grows with the population."""

import subprocess
import sys

import pytest

PEAK = """
import resource
import torch
import funcopt as fo

params = {"w": torch.zeros(400, 500), "b": torch.zeros(500)}
grad_fn = fo.es.grad(lambda p: p["w"][0].sum() + p["b"].sum(), popsize=POPSIZE, sigma=0.1, memory="regenerate", chunk_size=64, noise="rademacher")
grad_fn(params, key=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_peak_memory_is_flat_in_the_population():
    def peak(popsize):
        answer = subprocess.run([sys.executable, "-c", PEAK.replace("POPSIZE", str(popsize))], capture_output=True, text=True, check=True)
        return int(answer.stdout)

    assert peak(4096) < 1.1 * peak(256)
