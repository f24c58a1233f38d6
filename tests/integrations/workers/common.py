"""What the workers share: a small model, batches cut for the ranks, and a runner that writes down what every check found."""

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import funcopt as fo
from tests.ranks import join, leave

ROWS = 8  # of a batch
CHECKS: dict[str, dict[str, Callable[[], None]]] = {}  # by module; a worker may borrow from another


def check(f: Callable[[], None]) -> Callable[[], None]:
    """Marks a function as a check; both ranks run all of them, in the order of the file."""
    CHECKS.setdefault(f.__module__, {})[f.__name__] = f
    return f


def main(*modules: str) -> None:
    """Runs all checks of these modules, by default of the script.

    Writes `{name: traceback or ""}` for this rank after each, so that a rank that hangs leaves its trace.
    """
    results = folder()
    faulthandler.dump_traceback_later(300, exit=True)
    join()
    found: dict[str, str] = {}
    for name, run in [item for module in modules or ("__main__",) for item in CHECKS[module].items()]:
        faulthandler.dump_traceback_later(300, exit=True)  # anew for each check, on machines that are busy
        try:
            run()
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
        (results / f"rank{rank()}.json").write_text(json.dumps(found))
    leave()


def folder() -> Path:
    """Where results go."""
    return Path(sys.argv[1])


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def mesh():
    from torch.distributed.device_mesh import init_device_mesh  # a second of imports, which a run that is killed six times does without

    return init_device_mesh("cpu", (dist.get_world_size(),))


# Five rows do not halve, one row leaves the second rank without any.
def model(seed: int = 0, sizes: Sequence[int] = (3, 5, 1)) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))


def split(net: nn.Sequential, **options) -> nn.Sequential:
    """FSDP2: every layer by itself, and the root."""
    from torch.distributed.fsdp import fully_shard

    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh(), **options)
    fully_shard(net, mesh=mesh(), **options)
    return net


def batch(step: int, width: int = 3, share: bool = True) -> Tensor:
    """The rows of this rank, or all."""
    rows = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(1000 + step))
    return rows.chunk(dist.get_world_size())[rank()] if share else rows


def losses(net: nn.Module, steps: int, *, share: bool = True, width: int = 3, start: int = 0) -> Iterator[Tensor]:
    """The loss of one step after another, with its gradients in place; different on every rank where batches are shared out."""
    for step in range(start, start + steps):
        net.zero_grad()
        x = batch(step, width, share)
        loss = 4 * (net(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        yield loss


def train(net: nn.Module, opt, steps: int = 6, *, told: Callable[[Tensor], dict] = lambda loss: {}, **where) -> list[Tensor]:
    """Trains; returns the parameters, whole."""
    for loss in losses(net, steps, **where):
        opt.step(**told(loss))
    return whole(net)


def whole(net: nn.Module) -> list[Tensor]:
    return [full(p.detach()).clone() for p in net.parameters()]


def full(x: Tensor) -> Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], what: str = "", atol: float = 1e-6) -> None:
    for index, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(x, y, rtol=2e-6, atol=atol, msg=lambda text, index=index: f"{what}, parameter {index}: {text}")


def assert_equal(ours: Sequence[Tensor], theirs: Sequence[Tensor], what: str = "") -> None:
    for index, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(x, y), f"{what}, {index}: {x} is not {y}"


def over_ranks(x: Tensor) -> list[Tensor]:
    found = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(found, x.contiguous())
    return found


def refusal(make: Callable[[], object]) -> str:
    """The sentence with which something is refused."""
    try:
        make()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was refused")


# name -> (ours, and torch's where it has the method)
METHODS = {
    "adamw": (lambda p: fo.torch_optim.adamw(p, lr=0.02), lambda p: torch.optim.AdamW(p, lr=0.02)),
    "sgd": (lambda p: fo.torch_optim.sgd(p, lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "pilot": (lambda p: fo.torch_optim.pilot(p, lr=0.01), None),
    "clipped": (lambda p: fo.torch_optim.Optimizer(p, fo.chain(fo.clip_by_global_norm(0.1), fo.adamw(None)), lr=0.02), None),
}

ROULETTE = {"adam": {"lr": 0.01}, "sgd": {"lr": 0.02, "momentum": 0.9}, "lion": {"lr": 0.002}}


def controllers(**options) -> dict[str, Callable]:
    """Controllers that decide by the loss, each with the loss of its step to be told."""
    return {
        "aees": lambda p: fo.torch_optim.aees(
            p, lr=0.01, lr_candidates=(0.5, 1.0, 2.0), noise_candidates=(0.0, 0.05), episode_length=5, seed=0, **options
        ),
        "adaptive": lambda p: fo.torch_optim.adaptive(p, lr=0.01, **options),
        "roulette": lambda p: fo.torch_optim.Optimizer(
            p,
            fo.chain(
                fo.roulette(
                    {
                        "adam": fo.Member(fo.scale_by_adam(), lr=0.01),
                        "momentum": fo.Member(fo.trace(0.9), lr=0.02),
                        "sign": fo.Member(fo.sign(), lr=0.002),
                    },
                    switch="step",
                    every=7,
                    seed=0,
                ),
                fo.ucb_episodes((0.5, 1.0, 2.0), episode_length=4, seed=1),
                fo.lr_scale(),
            ),
            **options,
        ),
    }
