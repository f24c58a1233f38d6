"""Controllers in step under FSDP2, told the losses of their ranks; what happens otherwise, and that it is caught (D3)."""

import torch
from torch.distributed.fsdp import fully_shard

from tests.integrations.workers.common import check, controllers, losses, main, mesh, model, over_ranks, rank, refusal, whole
from tests.integrations.workers.controllers import everybody, extras


@check
def controllers_stay_equal_under_fsdp2():
    for name, make in everybody().items():
        net = fully_shard(model(), mesh=mesh())
        opt = make(net.parameters())
        for told in extras(net, 100):
            opt.step(**told)
        opt.assert_in_sync()
        for word, value in opt.signals().items():
            assert type(value) is torch.Tensor, word
            first, second = over_ranks(value.double())
            assert torch.equal(first, second), f"{name} says {word}: {first} and {second}"
        assert all(torch.isfinite(x).all() for x in whole(net)), name


@check
def controllers_that_hear_the_loss_of_their_rank_are_caught_under_fsdp2():
    for name, make in controllers(process_group=False).items():
        net = fully_shard(model(), mesh=mesh())
        opt = make(net.parameters())
        for loss in losses(net, 30):
            opt.step(loss=loss.detach() + 10 * rank())
        assert "assert_in_sync: ranks differ at word '" in refusal(opt.assert_in_sync), name


if __name__ == "__main__":
    main()
