"""The examples with trainers run, and end where their readers are told."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lightning_pilot(capsys):
    pytest.importorskip("lightning")
    pytest.importorskip("sklearn")
    found = example("lightning_pilot").main(["--epochs", "3"])
    assert found["pilot"] > 0.8
    printed = capsys.readouterr().out.splitlines()
    assert "effective lr" in printed[0] and len(printed) == 1 + 3 + len(found)


def test_trainer_optiroulette(capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    rows = example("trainer_optiroulette").main(["--epochs", "4"])
    assert len({drawn for drawn, _, _ in rows}) > 1
    assert rows[-1][2] > 0.8
    assert len(capsys.readouterr().out.splitlines()) == 5
