"""Controllers in step under DDP and FSDP2, told the losses of their ranks; what happens otherwise, and that it is caught (D3)."""

import torch
from torch.nn.parallel import DistributedDataParallel

import funcopt as fo
from tests.integrations.workers.common import assert_equal, check, controllers, losses, main, model, over_ranks, rank, refusal, split, whole


@check
def controllers_stay_equal_under_ddp():
    for name, make in controllers().items():
        net = DistributedDataParallel(model())
        opt = make(net.parameters())
        for loss in losses(net, 100):
            opt.step(loss=loss)
        opt.assert_in_sync()
        for index, param in enumerate(whole(net)):
            first, second = over_ranks(param)
            assert torch.equal(first, second), f"{name}, parameter {index}"
        assert len({float(value) for value in over_ranks(loss.detach())}) == 2  # each was told another


@check
def what_is_observed_is_averaged():
    net, other = DistributedDataParallel(model()), DistributedDataParallel(model())
    opt, plain = (controllers()["aees"](m.parameters()) for m in (net, other))
    for loss, same in zip(losses(net, 20), losses(other, 20), strict=True):
        opt.observe(loss=loss)
        opt.step()
        mean = torch.stack(over_ranks(same.detach().double())).mean()
        plain._engine.options.process_group = False
        plain.step(loss=mean)
    assert_equal(whole(net), whole(other))


@check
def controllers_that_hear_the_loss_of_their_rank_are_caught():
    apart = {}
    for name, make in controllers(process_group=False).items():
        net = DistributedDataParallel(model())
        opt = make(net.parameters())
        for loss in losses(net, 100):
            opt.step(loss=loss)
        text = refusal(opt.assert_in_sync)
        assert "assert_in_sync: ranks differ at word '" in text, text
        assert "was each told its own loss?" in text, text
        apart[name] = max(float((first - second).abs().max()) for first, second in map(over_ranks, whole(net)))
    assert apart["aees"] > 1e-3, apart  # and nobody had complained


@check
def seeds_that_nobody_gave_are_those_of_the_first_rank():
    def unseeded():
        net = DistributedDataParallel(model())
        torch.manual_seed(rank())  # as people do for dropout
        opt = fo.torch_optim.aees(net.parameters(), lr=0.01, lr_candidates=(0.5, 2.0), noise_candidates=(0.01, 0.05), episode_length=2)
        return net, opt

    net, opt = unseeded()
    for loss in losses(net, 20):
        opt.step(loss=loss)
    opt.assert_in_sync()


@check
def controllers_stay_equal_under_fsdp2():
    for name, make in controllers().items():
        net = split(model())
        opt = make(net.parameters())
        for loss in losses(net, 100):
            opt.step(loss=loss.detach())
        opt.assert_in_sync()
        for word, value in opt.signals().items():
            assert type(value) is torch.Tensor, word
            first, second = over_ranks(value.double())
            assert torch.equal(first, second), f"{name} says {word}: {first} and {second}"
        assert all(torch.isfinite(x).all() for x in whole(net)), name


@check
def controllers_that_hear_the_loss_of_their_rank_are_caught_under_fsdp2():
    for name, make in controllers(process_group=False).items():
        net = split(model())
        opt = make(net.parameters())
        for loss in losses(net, 30):
            opt.step(loss=loss.detach() + 10 * rank())
        assert "assert_in_sync: ranks differ at word '" in refusal(opt.assert_in_sync), name


if __name__ == "__main__":
    main()
