"""Trees that become the same on two ranks, and ranks that are told where they differ. The ranks are launched once."""

import json
from types import SimpleNamespace

import pytest
import torch

import funcopt as fo
from funcopt.core.ranks import fingerprint, team_of
from tests.helpers import launch


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    status, output = launch("tests.distributed.programs", 2, folder)
    assert status == 0, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_broadcast_gives_what_one_rank_has(found):
    for answers in found:
        assert answers["broadcast"] == [[[1.0] * 3] * 2, 1.5, [True, True], [1, 0], 1.0, None]


def test_mean_averages_real_numbers_alone(found):
    for rank, answers in enumerate(found):
        assert answers["mean"] == [[[0.5] * 3] * 2, 1.0, [rank == 1, True], (0.1 + 1.1) / 2, rank]
        assert answers["mean of many"] == [0.5 + n for n in range(40)]
        assert answers["dtypes"] == ["torch.float32", "torch.float64", "torch.float64"]


def test_ranks_that_differ_are_told_where(found):
    for answers in found:
        assert answers["same"] == ""
        assert answers["sign of zero"].startswith("assert_in_sync: ranks differ at 'mu' (and at 0 more of 2); broadcast it from one rank")
        assert answers["count"] == "assert_in_sync: ranks must keep the same tensors, got 1 on one and 2 on another"


LATER = ["mean of others later", "mean of many others later", "broadcast of others later"]


@pytest.mark.parametrize("call", ["mean of others", "mean of fewer", "broadcast of others", "broadcast of another dtype", *LATER])
def test_trees_of_other_shapes_are_told_before_they_meet(found, call):
    for answers in found:
        assert answers[call].startswith(
            f"distributed.{call.split()[0]}: all ranks must hand in trees of the same shapes and dtypes, got others elsewhere"
        )


def test_an_optimizer_averages_what_it_is_told(found):
    for answers in found:
        together, apart = answers["shim"]
        assert together == ""
        assert apart.startswith("assert_in_sync: ranks differ at") and "was each told its own loss? Leave process_group=None" in apart


def test_alone_everything_stays_as_it_is():
    tree = {"loss": 2.0, "w": torch.ones(2)}
    assert fo.distributed.mean(tree) is tree and fo.distributed.broadcast(tree) is tree
    fo.distributed.assert_in_sync({"w": torch.ones(2)})


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.int8, torch.bool, torch.int64], ids=str
)
def test_a_fingerprint_sees_every_bit_and_place(dtype):
    x = (torch.arange(12) % 2).to(dtype).reshape(3, 4)
    seen = {int(fingerprint(x))}
    for place in range(12):
        for value in (2, -1, 0, 1) if dtype != torch.bool else (False, True):
            other = x.clone().reshape(-1)
            other[place] = value
            if not torch.equal(other.reshape(3, 4), x):
                seen.add(int(fingerprint(other)))
    count = 12 if dtype == torch.bool else 36
    assert len(seen) == 1 + count
    assert fingerprint(x.t().contiguous().t()) == fingerprint(x) and fingerprint(x[:0]) == 0
    swapped = x.flip(1)
    assert fingerprint(swapped) != fingerprint(x)


def test_two_signs_of_doubles_do_not_cancel():
    x = torch.ones(8, dtype=torch.float64)
    flipped = [torch.where(torch.arange(8) == a, -x, x) * torch.where(torch.arange(8) == b, -x, x) for a in range(8) for b in range(a)]
    assert len({int(fingerprint(y)) for y in [x, *flipped]}) == 29


def test_a_group_needs_ranks():
    with pytest.raises(ValueError, match="es.grad: process_group needs ranks that know each other; start with torchrun"):
        team_of(True, "es.grad")


def test_a_mesh_has_at_most_two_axes(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    mesh = SimpleNamespace(mesh_dim_names=("a", "b", "c"), ndim=3)
    with pytest.raises(
        ValueError, match=r"es.grad: a mesh must have the axes \(population\) or \(population, model\), got 3; take a part of it"
    ):
        team_of(mesh, "es.grad")
