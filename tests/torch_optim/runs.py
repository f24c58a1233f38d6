"""Two equal models, one with torch.optim and one with ours, trained alike."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


def model(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """Two layers: four parameters, three of them with more than one axis or entry."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1000 + step), dtype=torch.float64).to(dtype)


def gradients(net: nn.Module, step: int, frozen: Iterable[int] = ()) -> torch.Tensor:
    """Fresh gradients of the batch of this step, None for frozen parameters; returns the loss."""
    params = list(net.parameters())
    for p in params:
        p.grad = None
    loss = (net(batch(step, params[0].dtype)) - 0.3).square().mean() * 4
    loss.backward()
    for index in frozen:
        params[index].grad = None
    return loss


def train(net: nn.Module, opt: torch.optim.Optimizer, steps: int, start: int = 0, after: Callable | None = None, **told) -> list[torch.Tensor]:
    """Some steps; returns copies of the parameters."""
    for step in range(start, start + steps):
        loss = gradients(net, step)
        opt.step(**{name: value(loss) if callable(value) else value for name, value in told.items()})
        if after is not None:
            after(step)
    return copies(net)


def copies(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def assert_close(ours, theirs, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)


def assert_equal(ours, theirs) -> None:
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y), f"{x} is not {y}"
