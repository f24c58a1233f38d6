"""Benchmarks run: each that is over in half a minute, in its shortest form, with the table that it prints."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORTEST = {
    "es_cost_model": "",
    "es_evaluations": "--dims 3 --seeds 1",
    "es_rollout": "--short --rounds 1",
    "memory": "--short",
    "population": "8 --short --rounds 1 --copies 1",
    "step": "tiny --short --rounds 1 --copies 1",
}


@pytest.mark.long
@pytest.mark.parametrize("name", SHORTEST)
def test_a_benchmark_runs(name):
    line = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *SHORTEST[name].split()]
    told = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.strip()
