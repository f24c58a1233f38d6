"""The examples of populations and meta-gradients, in short: they run, and show what they say."""

import importlib.util
from pathlib import Path

import pytest
import torch

from funcopt.core.versions import TORCH

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(TORCH < (2, 4), reason="the example times a fused AdamW on a CPU")
def test_population(capsys):
    accuracies = example("population").main(["--copies", "10", "--rounds", "3", "--eager"])
    assert min(accuracies.values()) > 0.5
    assert "population-based training" in capsys.readouterr().out


def test_hypergradient(capsys):
    losses, error = example("hypergradient").main(["--steps", "6", "--rounds", "6"])
    assert error < 1e-5
    assert losses[-1] < losses[0]
    assert "by finite differences" in capsys.readouterr().out


def test_maml(capsys):
    found = example("maml").main(["--rounds", "40", "--inner-steps", "1"])
    plain, meta = found["trained on all tasks"], found["meta-trained"]
    assert meta[1] < plain[1] and meta[1] < meta[0]
    assert "meta-trained" in capsys.readouterr().out
