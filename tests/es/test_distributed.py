"""Ranks as processes under gloo: 1, 2 and 4 of them give the same bits, and one that is killed changes nothing."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.es import ranks
from tests.helpers import assert_trees_equal, launch


def assert_all_have(folder, count, expected):
    """Every rank wrote down what is expected, bit for bit."""
    expected = fo.checkpoint.state_dict(expected)
    for rank in range(count):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype and torch.equal(found[name], value), f"rank {rank} of {count}: {name}"


@pytest.mark.parametrize("count", [4, pytest.param(2, marks=pytest.mark.long)])
def test_any_number_of_ranks_gives_the_bits_of_one(count, tmp_path):
    status, output = launch("tests.es.ranks", count, tmp_path, "estimates")
    assert status == 0, output
    alone = ranks.estimates(None)
    assert alone["merged"].count == 80  # 20 members, 4 observations each
    if count == 4 and hasattr(torch.distributed, "init_device_mesh"):
        alone["mesh"] = ranks.members_of_two_ranks(None)
        alone["line"] = alone["sharded"]
    assert_all_have(tmp_path, count, alone)


def survives(folder, before, after, dies_in, where, generations):
    """A run on `before` ranks of which one dies, and its continuation on `after`: the bits of the uninterrupted run."""
    whole = folder / "whole"
    whole.mkdir()
    expected = ranks.evolve(whole, generations)
    status, output = launch("tests.es.ranks", before, folder, "evolve", str(generations), str(dies_in), where)
    assert status != 0 and "Signal 9 (SIGKILL)" in output and not (folder / "0.pt").exists(), output
    if after == 1:
        assert_trees_equal(ranks.evolve(folder, generations), expected)
        return
    status, output = launch("tests.es.ranks", after, folder, "evolve", str(generations), "-1", "between")
    assert status == 0, output
    assert_all_have(folder, after, expected)


def test_a_killed_rank_changes_nothing(tmp_path):
    survives(tmp_path, before=2, after=1, dies_in=4, where="evaluation", generations=6)


@pytest.mark.long
@pytest.mark.parametrize("trial", range(20))
def test_twenty_killed_ranks_change_nothing(trial, tmp_path):
    choose = random.Random(trial)
    where = ("between", "evaluation", "saving")[trial % 3]
    survives(
        tmp_path, before=choose.choice([2, 3, 4]), after=choose.choice([1, 2, 3]), dies_in=choose.randrange(12), where=where, generations=12
    )


@pytest.mark.long
def test_the_example_says_that_all_agree():
    root = Path(__file__).parents[2]
    line = [sys.executable, str(root / "examples" / "es_distributed.py"), "--check"]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all agree bitwise: the killed rank changed nothing"
