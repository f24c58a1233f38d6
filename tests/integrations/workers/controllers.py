"""Controllers in step under DDP, told the losses of their ranks; what happens otherwise, and that it is caught (D3)."""

import torch
from torch.nn.parallel import DistributedDataParallel

import funcopt as fo
from tests.integrations.workers.common import assert_equal, check, controllers, losses, main, model, over_ranks, rank, refusal, whole


def everybody():
    """All that listens to more than gradients, or draws."""
    pool = {"adam": {"lr": 0.01}, "sgd": {"lr": 0.02, "momentum": 0.9}, "lion": {"lr": 0.002}}
    return {
        **controllers(),
        "optiroulette": lambda p: fo.torch_optim.optiroulette(p, pool, seed=0),
        "plateau": lambda p: fo.torch_optim.Optimizer(
            p, fo.chain(fo.scale_by_adam(), fo.reduce_on_plateau(factor=0.5, patience=3), fo.lr_scale(0.05))
        ),
        "momo": lambda p: fo.torch_optim.momo(p, lr=0.1),
        "noise": lambda p: fo.torch_optim.noisy_sgd(p, lr=0.01),
    }


def extras(net, steps):
    """What this rank has to say of each step, whose gradients are there."""
    for step, loss in enumerate(losses(net, steps)):
        number = float(loss.detach())
        yield {"loss": loss, "metric": number, "reward": -number, "epoch": step // 10}


@check
def controllers_stay_equal_under_ddp():
    for name, make in everybody().items():
        net = DistributedDataParallel(model())
        opt = make(net.parameters())
        for told in extras(net, 100):
            opt.step(**told)
        opt.assert_in_sync()
        for index, param in enumerate(whole(net)):
            first, second = over_ranks(param)
            assert torch.equal(first, second), f"{name}, parameter {index}"
        assert len({float(value) for value in over_ranks(told["loss"].detach())}) == 2  # each was told another


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
def a_step_inside_a_graph_hears_the_mean():
    found = []
    for compiled in (False, True):
        net = DistributedDataParallel(model())
        opt = controllers()["roulette"](net.parameters())
        step = torch.compile(opt.step, backend="eager") if compiled else opt.step
        for loss in losses(net, 12):
            step(loss=loss.detach())
        opt.assert_in_sync()
        found.append(whole(net))
    assert_equal(*found)


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


if __name__ == "__main__":
    main()
