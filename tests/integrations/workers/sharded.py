"""FSDP2, tensor parallelism and both on two ranks: steps are those of torch and of one process on whole tensors (D1)."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import funcopt as fo
from tests.integrations.workers.common import (
    METHODS,
    assert_close,
    check,
    full,
    losses,
    main,
    mesh,
    model,
    split,
    train,
    whole,
)


def compare(make_net, name, atol=1e-6, **where):
    """Ours on parts beside torch's on parts where it has the method, and beside ours in one process."""
    ours, theirs = METHODS[name]
    net = make_net()
    opt = ours(net.parameters())
    found = train(net, opt, **where)
    if theirs is not None:
        other = make_net()
        assert_close(found, train(other, theirs(other.parameters()), **where), f"{name} beside torch", atol)
    return net, opt, found


@check
def fsdp2_steps_like_torch_and_like_one_process():
    for name, (ours, _) in METHODS.items():
        net, opt, found = compare(lambda: split(model()), name)
        alone = model()
        assert_close(found, train(alone, ours(alone.parameters()), share=False), f"{name} in one process")
        for param in net.parameters():
            assert isinstance(param, DTensor)
            for path, leaf in opt.state[param].items():
                assert isinstance(leaf, DTensor) and leaf.placements == param.placements, f"{name}: {path} is {type(leaf).__name__}"
        opt.assert_in_sync()


@check
def fsdp2_in_bfloat16_steps_like_torch_and_like_one_process():
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for name, (ours, _) in METHODS.items():
        compare(lambda: split(model(), mp_policy=policy), name)
        # Half precision makes other gradients than one process, so one process is given these.
        net, alone = split(model(), mp_policy=policy), model()
        opt, one = ours(net.parameters()), ours(alone.parameters())
        for _ in losses(net, 6):
            for p, q in zip(net.parameters(), alone.parameters(), strict=True):
                q.grad = full(p.grad)
            opt.step()
            one.step()
        assert_close(whole(net), whole(alone), f"{name} in one process")


@check
def pilot_sees_the_whole_model():
    net, alone = split(model()), model()
    opt, one = fo.torch_optim.pilot(net.parameters(), lr=0.01), fo.torch_optim.pilot(alone.parameters(), lr=0.01)
    train(net, opt)
    train(alone, one, share=False)
    ours, theirs = fo.policy_diagnostics(opt.functional()), fo.policy_diagnostics(one.functional())
    for name, value in ours.items():
        assert type(value) is torch.Tensor, f"{name} is a {type(value).__name__}"
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert abs(float(ours["rho"])) > 0.01


@check
def every_class_steps_like_one_process():
    told = {"momo", "momo_adam", "polyak_sgd", "aees", "adaptive", "optiroulette"}
    left_out = {"adahessian", "sophia", "optiroulette"}  # want a Hessian; its members have tests of their own
    in_one_piece = {"adamp", "galore", "gravity", "psgd", "shampoo", "soap", "splus"}
    seen = 0
    for name in sorted(vars(fo.torch_optim)):
        kind = getattr(fo.torch_optim, name)
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or name in left_out or kind is fo.torch_optim.Optimizer:
            continue
        options = {"aees": {"seed": 0}, "noisy_sgd": {"key": 0}}.get(name, {}) | {"start" if name == "rate_free" else "lr": 0.01}

        def only(net, name=name):
            return [p for p in net.parameters() if p.dim() == 2] if name == "muon" else net.parameters()

        def extras(loss, name=name):
            return {"loss": loss} if name in told else {}

        alone, net = model(), split(model())
        if name in in_one_piece:
            with pytest.raises(ValueError, match="params must lie in one piece on every rank, and .* is sharded"):
                train(net, kind(only(net), **options), 1, told=extras)
            continue
        expected = train(alone, kind(only(alone), **options), 2, share=False, told=extras)
        opt = kind(only(net), **options)
        assert_close(train(net, opt, 2, told=extras), expected, name)
        for param, kept in opt.state.items():
            for path, leaf in kept.items():
                assert not isinstance(leaf, DTensor) or not any(p.is_partial() for p in leaf.placements), (
                    f"{name}: {path} of {tuple(param.shape)} in parts"
                )
        for path, leaf in opt.param_groups[0].get("funcopt", {"state": {}})["state"].items():
            assert type(leaf) is torch.Tensor, f"{name}: {path} is a {type(leaf).__name__}"
        seen += 1
    assert seen > 40


@check
def tensor_parallel_steps_like_torch_and_like_one_process():
    def parallel():
        return parallelize_module(model(sizes=(4, 6, 2)), mesh(), {"0": ColwiseParallel(), "2": RowwiseParallel()})

    for name, (ours, _) in METHODS.items():
        net, opt, found = compare(parallel, name, share=False, width=4)
        alone = model(sizes=(4, 6, 2))
        assert_close(found, train(alone, ours(alone.parameters()), share=False, width=4), f"{name} in one process")
        opt.assert_in_sync()
        placements = {p.placements for p in net.parameters() if isinstance(p, DTensor)}
        assert {(Shard(0),), (Shard(1),), (Replicate(),)} <= placements, placements


@check
def fsdp2_over_tensor_parallel_steps_like_one_process():
    for shape in ((1, 2), (2, 1)):
        grid = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))

        def both(grid=grid):
            net = parallelize_module(model(sizes=(4, 6, 2)), grid["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
            return fully_shard(net, mesh=grid["dp"])

        share = shape[0] == 2  # ranks of one tensor parallel group see the same rows
        for name in ("adamw", "pilot", "clipped"):
            ours, alone, net = METHODS[name][0], model(sizes=(4, 6, 2)), both()
            opt = ours(net.parameters())
            found = train(net, opt, share=share, width=4)
            assert_close(found, train(alone, ours(alone.parameters()), share=False, width=4), f"{name} on {shape}")
            opt.assert_in_sync()
        net = both()
        like = {str(index): param.detach() for index, param in enumerate(net.parameters())}
        expected = fo.tree.random_like(fo.random.key(5), {key: full(x) for key, x in like.items()})
        for key, x in fo.tree.random_like(fo.random.key(5), like).items():
            assert torch.equal(full(x), expected[key]) and x.placements == like[key].placements, (
                f"noise of {key} on {shape}: {like[key].placements}"
            )


if __name__ == "__main__":
    main()
