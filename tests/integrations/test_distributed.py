"""The shim on two ranks of torch.distributed: DDP, ZeRO, FSDP1, FSDP2, tensor parallelism; the checks are in `workers/`, one launch for each file."""

import sys

import pytest
import torch

from funcopt.core.versions import TORCH
from tests.integrations.launches import ROOT, checks_of, found_by, launch

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available() or sys.platform != "linux", reason="needs torch.distributed with gloo, on Linux"),
    pytest.mark.skipif(TORCH < (2, 6), reason="needs public fully_shard, torch 2.6"),
]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Launches a worker once, for all of its checks."""
    known: dict[str, dict[str, str]] = {}

    def look(worker):
        if worker not in known:
            known[worker] = found_by(worker, tmp_path_factory.mktemp(worker.removesuffix(".py")))
        return known[worker]

    return look


WORKERS = ("copies.py", "sharded.py", "reductions.py", "controllers.py", "sharded_controllers.py")


def cases():
    return [pytest.param(worker, name, id=name) for worker in WORKERS for name in checks_of(worker)]


@pytest.mark.parametrize("worker, name", cases())
def test_on_two_ranks(launched, worker, name):
    assert launched(worker)[name] == ""


def test_the_example_agrees_with_one_piece(tmp_path):
    code, output = launch(ROOT / "examples" / "fsdp_pilot.py", "--check", "--steps", 20, folder=tmp_path)
    assert code == 0, output[-3000:]
    assert "they agree" in output
