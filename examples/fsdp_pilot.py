"""PILOT on a sharded model: every rank holds a part of the parameters, and the policy sees the whole.

    torchrun --nproc-per-node 2 examples/fsdp_pilot.py            trains a small network with fully_shard
    torchrun --nproc-per-node 2 examples/fsdp_pilot.py --check    ... beside the same network in one piece, and compares

PILOT looks at how far successive gradients agree, over all parameters at once, and clipping at their
norm. Both are sums over the whole model, which a rank cannot work out from its part.
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import funcopt as fo

ROWS = 64  # of a batch, over all ranks


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 33), nn.Tanh(), nn.Linear(33, 33), nn.Tanh(), nn.Linear(33, 1))  # 33 rows do not halve


def sharded(net: nn.Sequential) -> nn.Sequential:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    transformation = fo.chain(fo.clip_by_global_norm(1.0), fo.pilot(None, weight_decay=0.01))
    return fo.torch_optim.Optimizer(net.parameters(), transformation, lr=3e-3)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(step))
    return x, (x[:, :1] * x[:, 1:2]).sin() + 0.5 * x[:, 2:3]


def train_step(net: nn.Module, opt: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    opt.zero_grad()
    loss = nn.functional.mse_loss(net(x), y)
    loss.backward()
    opt.step()
    return loss.detach()


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="train the same network in one piece, too, and compare")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    net = sharded(network())
    opt = optimizer(net)
    alone = network() if options.check else None
    opt_alone = optimizer(alone) if alone is not None else None

    say(
        f"{sum(p.numel() for p in net.parameters())} parameters, of which rank 0 of {ranks} holds "
        f"{sum(p.to_local().numel() for p in net.parameters())}"
    )
    apart = 0.0
    for step in range(options.steps):
        x, y = batch(step)
        loss = train_step(net, opt, x.chunk(ranks)[rank], y.chunk(ranks)[rank])
        if alone is not None:
            train_step(alone, opt_alone, x, y)
            apart = max(
                apart, *(float((whole(p) - q).abs().max().detach()) for p, q in zip(net.parameters(), alone.parameters(), strict=True))
            )
        if (step + 1) % 25 == 0:
            dist.all_reduce(loss)
            words = {word: round(float(value), 4) for word, value in opt.signals().items()}
            say(f"step {step + 1:4d}   loss {float(loss) / ranks:.4f}   {words}")

    failed = False
    if alone is not None:
        seen, expected = opt.signals(), opt_alone.signals()
        for word, value in expected.items():
            say(f"{word:17s} sharded {float(seen[word]):+.6f}   in one piece {float(value):+.6f}")
            apart = max(apart, abs(float(seen[word]) - float(value)))
        failed = not apart < 1e-5
        say(
            f"parameters and words differ by at most {apart:.1e} in {options.steps} steps: "
            + ("they do not agree" if failed else "they agree")
        )
    dist.barrier()  # nobody is gone while another still listens
    dist.destroy_process_group()
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
