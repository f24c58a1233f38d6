"""Two equal models, one with torch.optim and one with ours, trained alike."""

import io
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


def train(
    net: nn.Module, opt: torch.optim.Optimizer, steps: int, start: int = 0, after: Callable | None = None, **told
) -> list[torch.Tensor]:
    """Some steps; returns copies of the parameters."""
    for step in range(start, start + steps):
        loss = gradients(net, step)
        opt.step(**{name: value(loss) if callable(value) else value for name, value in told.items()})
        if after is not None:
            after(step)
    return copies(net)


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def step(params: list[nn.Parameter], opt: torch.optim.Optimizer, number: int, live: Iterable[int] | None = None) -> None:
    """A step from made-up gradients of the parameters that are `live` (None: of all), told a loss that falls."""
    for index, p in enumerate(params):
        wave = torch.sin(torch.arange(p.numel(), dtype=p.dtype) + 7 * index + number).reshape(p.shape)
        p.grad = wave if live is None or index in live else None
    opt.step(loss=torch.tensor(1.0 / (1 + number), dtype=torch.float64))


def through_a_file(saved: dict) -> dict:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def copies(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def assert_close(ours, theirs, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)


def assert_equal(ours, theirs) -> None:
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y), f"{x} is not {y}"
