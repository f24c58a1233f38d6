"""The shim on two ranks of torch.distributed: DDP, ZeRO, FSDP1, FSDP2, tensor parallelism; checks in `workers/`, all in one launch."""

import sys

import pytest
import torch

from funcopt.core.versions import TORCH
from tests.integrations.launches import ROOT, checks_of, found_by, launch

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_available() or sys.platform != "linux", reason="needs torch.distributed with gloo, on Linux"
    ),
    pytest.mark.skipif(TORCH < (2, 6), reason="needs public fully_shard, torch 2.6"),
]


WORKERS = ("copies.py", "sharded.py", "reductions.py", "every_row.py", "controllers.py", "sharded_controllers.py")
CHECKS = [name for worker in WORKERS for name in checks_of(worker)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One launch, for all checks of all workers."""
    return found_by("together.py", tmp_path_factory.mktemp("together"), CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_on_two_ranks(found, name):
    assert found[name] == ""


@pytest.mark.long
def test_the_example_agrees_with_one_piece(tmp_path):
    code, output = launch(ROOT / "examples" / "fsdp_pilot.py", "--check", "--steps", 20, folder=tmp_path)
    assert code == 0, output[-3000:]
    assert "they agree" in output
