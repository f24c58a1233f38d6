"""The examples do what they say: short runs always, whole ones among the long tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name, *arguments):
    line = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_cartpole_plays_two_generations_and_says_that_it_is_not_solved():
    done = run("es_cartpole.py", "--generations", "2", "--popsize", "8", "--episodes", "2")
    assert done.returncode == 1, done.stderr
    assert "cartpole: 2 of 2 generations in " in done.stderr and done.stdout.splitlines()[-1].startswith("not solved: mean return")


def test_digits_trains_for_two_generations():
    done = run("es_digits_accuracy.py", "--generations", "2", "--popsize", "8")
    assert done.returncode == 0, done.stderr
    assert "digits: 2 of 2 generations in " in done.stderr and "trained on accuracy itself" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_cartpole_is_solved(seed):
    done = run("es_cartpole.py", "--seed", str(seed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("solved: mean return")


@pytest.mark.long
def test_digits_reaches_its_accuracy():
    done = run("es_digits_accuracy.py")
    reached = float(done.stdout.splitlines()[-1].split()[2].rstrip("%,"))
    assert reached > 90, done.stdout
