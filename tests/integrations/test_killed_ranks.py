"""A rank is killed; a new launch goes on from the last whole checkpoint and ends where the uninterrupted run ends, bit for bit (D6)."""

import re
import sys

import pytest
import torch

from funcopt.core.versions import TORCH
from tests.integrations.launches import WORKERS, launch

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform != "linux" or TORCH < (2, 6), reason="needs gloo, SIGKILL"
)

EVERY = 3  # steps from one checkpoint to the next


def run(folder, steps, kill=-1):
    """One launch: the exit code, and the step at which it took up the run."""
    code, output = launch(WORKERS / "killed.py", folder, steps, kill, folder=folder)
    resumed = re.search(r"resumed at (\d+)", output)
    assert resumed, output[-3000:]
    assert (code != 0) == (kill >= 0), output[-3000:]
    return int(resumed.group(1))


def interrupted(folder, steps, kills):
    """One run that dies at each of these steps, in a launch of its own, beside one that lives."""
    for before, kill in zip([0, *kills], kills, strict=False):
        assert run(folder, steps, kill) == before // EVERY * EVERY
    assert run(folder, steps) == kills[-1] // EVERY * EVERY
    found = torch.load(folder / "end.pt", weights_only=True)
    ours, theirs = found["cut"], found["uninterrupted"]
    for x, y in zip(ours["params"], theirs["params"], strict=True):
        assert torch.equal(x, y)
    for word, value in theirs["words"].items():
        assert torch.equal(ours["words"][word], value), word


def test_killed_once(tmp_path):
    # At the end of an episode, one step after a checkpoint.
    interrupted(tmp_path, 13, [10])


@pytest.mark.long
def test_killed_at_twenty_steps(tmp_path):
    interrupted(tmp_path, 50, [0, 2, 4, 5, 6, 8, 11, 13, 14, 18, 19, 22, 25, 29, 30, 33, 37, 41, 46, 49])
