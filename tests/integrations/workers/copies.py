"""DDP, ZeroRedundancyOptimizer and FSDP1 on two ranks step as torch's optimizers do, or say why not (D1)."""

import warnings

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import funcopt as fo
from tests.integrations.workers.common import (
    METHODS,
    assert_close,
    assert_equal,
    check,
    losses,
    main,
    model,
    rank,
    refusal,
    train,
    whole,
)

METHOD_CLASSES = {
    "adamw": (fo.torch_optim.adamw, torch.optim.AdamW, {"lr": 0.02}),
    "sgd": (fo.torch_optim.sgd, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
}
PARTS = "fully_shard (FSDP2), under which sums go over all ranks"


@check
def ddp_steps_like_torch_and_like_one_process():
    for name, (ours, theirs) in METHODS.items():
        net, alone = DistributedDataParallel(model()), model()
        opt = ours(net.parameters())
        found = train(net, opt)
        assert_close(found, train(alone, ours(alone.parameters()), share=False), f"{name} in one process")
        if theirs is not None:
            other = DistributedDataParallel(model())
            assert_close(found, train(other, theirs(other.parameters())), f"{name} beside torch")
        opt.assert_in_sync()


@check
def zero_deals_out_parameters():
    for name, (ours, theirs, settings) in METHOD_CLASSES.items():
        found = []
        for kind in (ours, theirs):
            net = DistributedDataParallel(model())
            opt = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=kind, **settings)
            found.append(train(net, opt))
            assert 0 < len(opt.optim.state) < 4  # the rest is the other rank's
        assert_close(*found, name)


@check
def zero_saves_and_loads():
    first, second = DistributedDataParallel(model()), DistributedDataParallel(model())
    opt = ZeroRedundancyOptimizer(first.parameters(), optimizer_class=fo.torch_optim.adamw, lr=0.02)
    train(first, opt, 3)
    expected = train(first, opt, 3, start=3)
    opt = ZeroRedundancyOptimizer(second.parameters(), optimizer_class=fo.torch_optim.adamw, lr=0.02)
    train(second, opt, 3)
    opt.consolidate_state_dict(to=0)
    kept = [opt.state_dict() if rank() == 0 else None]
    dist.broadcast_object_list(kept)
    resumed = ZeroRedundancyOptimizer(second.parameters(), optimizer_class=fo.torch_optim.adamw, lr=0.02)
    resumed.load_state_dict(kept[0])
    assert_equal(train(second, resumed, 3, start=3), expected)


@check
def zero_refuses_what_sees_all_parameters():
    for kind in (fo.torch_optim.pilot, fo.torch_optim.aees, fo.torch_optim.dog):
        text = refusal(lambda kind=kind: ZeroRedundancyOptimizer(model().parameters(), optimizer_class=kind, lr=0.01))
        assert text == f"{kind.__name__}: sees all parameters as one, and ZeroRedundancyOptimizer deals them out to the ranks; use {PARTS}"
    fo.torch_optim.pilot(model().parameters(), lr=0.01)  # outside of it, nothing is said


def pieces():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return FullyShardedDataParallel(model(), use_orig_params=True, device_id=torch.device("cpu"))


def summoned(net):
    with FullyShardedDataParallel.summon_full_params(net):
        return whole(net)


@check
def fsdp1_steps_like_torch():
    for name, (ours, theirs, settings) in METHOD_CLASSES.items():
        found = []
        for kind in (ours, theirs):
            net = pieces()
            train(net, kind(net.parameters(), **settings))
            found.append(summoned(net))
        assert_close(*found, name)


@check
def fsdp1_refuses_what_looks_at_more_than_entries():
    for make, sees in {
        METHODS["pilot"][0]: "sees all parameters as one",
        METHODS["clipped"][0]: "sees all parameters as one",
        lambda p: fo.torch_optim.lamb(p, lr=0.01): "looks at whole parameters",
    }.items():
        net = pieces()
        opt = make(net.parameters())
        next(losses(net, 1))
        text = refusal(opt.step)
        assert sees in text and text.endswith(f"and FSDP1 shows each rank flattened pieces of them; use {PARTS}"), text


if __name__ == "__main__":
    main()
