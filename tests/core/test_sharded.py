"""Parts of tensors, as any rank of any number holds them: entries are drawn by their place, sums stay in parts until they are asked for.

The ranks are pretended (a process group that talks to nobody); what needs two that talk is in tests/integrations/test_distributed.py.
"""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.core import sharded

fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
tensors = pytest.importorskip("torch.distributed.tensor")
pytest.importorskip("torch.distributed.device_mesh")  # since torch 2.2
pytestmark = pytest.mark.skipif(not hasattr(tensors, "DTensor"), reason="DTensor is public from torch 2.5 on")


def as_rank(rank, ranks, f):
    """What `f(mesh)` gives on one of so many ranks."""
    dist.init_process_group("fake", store=fake.FakeStore(), rank=rank, world_size=ranks)
    try:
        return f(dist.device_mesh.init_device_mesh("cpu", (ranks,)))
    finally:
        dist.destroy_process_group()


def numbers(start, count):
    return torch.arange(start, start + count)


@given(shape=st.lists(st.integers(0, 5), max_size=3), ranks=st.integers(1, 4), axis=st.integers(0, 2))
@settings(max_examples=30)
def test_the_parts_together_are_the_whole(shape, ranks, axis):
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    cut = axis < len(shape)
    parts = torch.chunk(whole, ranks, axis) if cut else [whole] * ranks
    for rank in range(ranks):

        def part(mesh, rank=rank):
            placement = tensors.Shard(axis) if cut else tensors.Replicate()
            mine = parts[rank] if rank < len(parts) else whole.narrow(axis, 0, 0)
            like = tensors.DTensor.from_local(mine, mesh, [placement], run_check=False, shape=whole.shape, stride=whole.stride())
            return sharded.drawn(numbers, like).to_local(), mine

        found, expected = as_rank(rank, ranks, part)
        assert torch.equal(found, expected)


def test_leaves_that_are_split_alike_share_a_sum():
    def local_totals(mesh):
        cut = [tensors.DTensor.from_local(torch.full((2,), value), mesh, [tensors.Shard(0)]) for value in (1.0, 10.0)]
        parts = [sharded.sum_of(x) for x in (*cut, torch.tensor([100.0]))]
        assert [part.placements[0].is_partial() for part in parts[:2]] == [True, True]
        return sharded.totals(parts)

    # Nobody answers, so that the sum over the ranks is that of this one: 2 * 1 + 2 * 10.
    assert [float(total) for total in as_rank(0, 2, local_totals)] == [100.0, 22.0]


def test_what_is_not_sharded_passes_through():
    x = torch.tensor([1.0, 2.0])
    assert not sharded.is_sharded(x) and not sharded.is_sharded(torch.nn.Parameter(x))
    assert sharded.whole(x) is x and sharded.replicated(x) is x and sharded.laid_out(x, x) is x
    assert sharded.extreme(torch.max, x, torch.maximum, -torch.inf) == 2.0
    assert torch.equal(sharded.zeros([3], x), torch.zeros(3))
    assert sharded.sum_of(x) == 3.0


def test_a_state_keeps_the_layout_it_began_with():
    def look(mesh):
        like = tensors.DTensor.from_local(torch.zeros(2, 3), mesh, [tensors.Shard(0)])
        other = tensors.DTensor.from_local(torch.ones(4, 3), mesh, [tensors.Replicate()])
        state = fo.scale_by_factored_rms(min_dim_size_to_factor=2).init({"w": like})
        return sharded.laid_out(other, like).placements, type(sharded.laid_out(other, torch.zeros(1))), state.v_col["w"]

    placements, kind, column = as_rank(1, 2, look)
    assert placements == (tensors.Shard(0),) and kind is torch.Tensor
    assert column.placements == (tensors.Replicate(),) and torch.equal(column.to_local(), torch.zeros(4))
