"""The networks of the sources: a small CNN, and ResNets (He et al., 2016) for 32 x 32 pixels: a stem of one 3 x 3 convolution."""

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "network"]


class Block(nn.Module):
    """Two 3 x 3 convolutions beside an identity, or beside a 1 x 1 convolution where shapes differ."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.second, self.norm2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        same = inner == outer and stride == 1
        self.beside = nn.Identity() if same else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(h)) + self.beside(x))


def _resnet(counts: tuple[int, ...], channels: int, classes: int, width: int = 64) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inner = width
    for stage, count in enumerate(counts):
        outer = width * 2**stage
        for i in range(count):
            layers.append(Block(inner, outer, 2 if stage and not i else 1))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, classes))


def _cnn(channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inner, outer in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inner, outer, 3, 1, 1), nn.BatchNorm2d(outer), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, classes))


NETWORKS = {
    "cnn": _cnn,  # the layers of PILOT's are not stated
    "resnet18": lambda channels, classes: _resnet((2, 2, 2, 2), channels, classes),
    "resnet34": lambda channels, classes: _resnet((3, 4, 6, 3), channels, classes),
}


def network(name: str, channels: int, classes: int) -> nn.Module:
    """One of `NETWORKS`, freshly drawn."""
    return NETWORKS[name](channels, classes)
