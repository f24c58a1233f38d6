"""Eager steps in pieces give the bits of steps in one go, and hold one piece in memory."""

import pytest
import torch

import funcopt as fo
from funcopt.execute import policy
from funcopt.torch_optim.run import in_chunks

METHODS = {
    "adamw": lambda p: fo.torch_optim.adamw(p, lr=0.02),
    "sgd": lambda p: fo.torch_optim.sgd(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "muon": lambda p: fo.torch_optim.Optimizer(p, fo.muon(0.02)),
    "adafactor": lambda p: fo.torch_optim.Optimizer(
        p, fo.chain(fo.scale_by_factored_rms(), fo.scale_by_trust_ratio(), fo.lr_scale()), lr=0.1
    ),
    "clipped": lambda p: fo.torch_optim.Optimizer(p, fo.chain(fo.clip_by_global_norm(0.1), fo.adamw(None)), lr=0.02),
}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in [(8, 5), (5,), (6, 4), (), (3, 7), (2,)]]


def train(make, params, steps=5, skipped=()):
    opt = make(params)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for index, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            if (step, index) in skipped:
                p.grad = None
        opt.step()
    return opt


@pytest.fixture()
def small_caches(monkeypatch):
    monkeypatch.setattr(policy, "CACHED_BYTES", 0)
    monkeypatch.setattr(in_chunks, "PIECE_BYTES", 64)


# muon and adafactor look at rows and columns, which complex numbers as pairs have more of
BY_DTYPE = [(name, dtype) for name in METHODS for dtype in (torch.float32, torch.bfloat16)]
BY_DTYPE += [(name, torch.complex64) for name in METHODS if name not in ("muon", "adafactor")]


@pytest.mark.parametrize("name, dtype", BY_DTYPE, ids=str)
def test_pieces_give_the_bits_of_the_whole(name, dtype, monkeypatch):
    def make(params):
        opt = METHODS[name](params)
        opt._engine.options.flat = False
        return opt

    skipped = {(2, 1), (3, 1), (3, 4)}
    whole, cut = parameters(dtype), parameters(dtype)
    one = train(make, whole, skipped=skipped)
    monkeypatch.setattr(policy, "CACHED_BYTES", 0)
    monkeypatch.setattr(in_chunks, "PIECE_BYTES", 64)
    other = train(make, cut, skipped=skipped)
    assert not any(unit.pieces for unit in one._engine.units)
    assert any(len(unit.pieces) > 1 for unit in other._engine.units) == (name not in ("clipped", "muon"))
    for p, q in zip(whole, cut, strict=True):
        assert torch.equal(p, q)
        assert one.state[p].keys() == other.state[q].keys()
        for path in one.state[p]:
            x, y = one.state[p][path], other.state[q][path]
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    for mine, theirs in zip(one.param_groups, other.param_groups, strict=True):
        assert str(mine["funcopt"]["state"]) == str(theirs["funcopt"]["state"])


def test_a_step_that_lacks_something_writes_nothing(small_caches):
    params = parameters()
    opt = fo.torch_optim.Optimizer(params, fo.chain(fo.trace(0.9), fo.lr_scale()), lr=0.1, flat=False)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    (unit,) = opt._engine.units
    assert len(unit.pieces) > 1
    before, state = [p.detach().clone() for p in params], fo.checkpoint.state_dict(opt.functional())
    unit.tx = fo.chain(fo.trace(0.9), fo.lr_scale(), fo.scale_by_signal("nobody_says_it"))
    with pytest.raises((ValueError, IndexError)):
        opt.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(state.values(), fo.checkpoint.state_dict(opt.functional()).values(), strict=True))


def test_large_parameters_are_stepped_in_pieces_and_nothing_of_their_size_is_made():
    """Beyond parameters, gradients and state a step holds a few pieces, where a step in one go holds three trees."""
    params = [torch.nn.Parameter(torch.zeros(2**18)) for _ in range(16)]
    for p in params:
        p.grad = torch.ones_like(p)
    opt = fo.torch_optim.adamw(params, lr=0.1)
    opt.step()
    assert len(opt._engine.units[0].pieces) == 16
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(3):
            opt.step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":  # what was made before is not counted when it goes
            held += event.nbytes()
            peak = max(peak, held)
    state = 2 * 2**24
    assert state < peak < state + 10 * 2**20  # pieces of 1 MB; a step in one go holds another state and three trees of 16 MB


def test_a_step_with_a_gradient_of_another_shape_writes_nothing(small_caches):
    params = parameters()
    opt = fo.torch_optim.adamw(params, lr=0.1, flat=False)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    params[4].data = torch.ones(2, 7)
    before = [x.clone() for x in [*params, *(x for p in params for x in opt.state[p].values())]]
    with pytest.raises(ValueError, match=r"the gradient of 'param:4' must have the shape of its parameter, \(2, 7\), got \(3, 7\)"):
        opt.step()
    assert all(map(torch.equal, before, [*params, *(x for p in params for x in opt.state[p].values())]))
