"""CIFAR-10, CIFAR-100, Fashion-MNIST and SVHN from local files, as torchvision leaves them; nothing is downloaded, torchvision not needed.

cifar10   cifar-10-batches-py/data_batch_1 ... 5, test_batch
cifar100  cifar-100-python/train, test
fashion   FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, also .gz
svhn      train_32x32.mat, test_32x32.mat
"""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from funcopt.race.extras import need

__all__ = ["DATA", "Images", "load"]

# What a batch of CIFAR is pickled of; everything else in such a file could run code.
HARMLESS = {(module, name) for module in ("numpy.core.multiarray", "numpy._core.multiarray") for name in ("_reconstruct", "scalar")}
HARMLESS |= {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class Images(NamedTuple):
    train: tuple[Tensor, Tensor]  # uint8 [n, channels, height, width], int64 [n]
    test: tuple[Tensor, Tensor]
    classes: int


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in HARMLESS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"sources: a file of CIFAR must hold arrays, numbers and words, got {module}.{name}")


def _unpickled(path: Path) -> dict:
    with path.open("rb") as file:
        return _Arrays(file, encoding="bytes").load()


def _pair(images: np.ndarray, labels: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.array(images, dtype=np.uint8)), torch.from_numpy(np.array(labels, dtype=np.int64))


def _cifar(folder: Path, train: list[str], test: str, labels: bytes, classes: int) -> Images:
    def part(names: list[str]) -> tuple[Tensor, Tensor]:
        batches = [_unpickled(folder / name) for name in names]
        rows = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return _pair(rows, np.concatenate([np.asarray(batch[labels]) for batch in batches]))

    return Images(part(train), part([test]), classes)


def _cifar10(folder: Path) -> Images:
    return _cifar(folder / "cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], "test_batch", b"labels", 10)


def _cifar100(folder: Path) -> Images:
    return _cifar(folder / "cifar-100-python", ["train"], "test", b"fine_labels", 100)


def _idx(path: Path) -> np.ndarray:
    """LeCun's format: two zeros, the type (8: bytes), the number of axes, their lengths as big-endian int32, the entries."""
    zipped = path.with_name(f"{path.name}.gz")
    raw = gzip.decompress(zipped.read_bytes()) if not path.exists() and zipped.exists() else path.read_bytes()
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"sources: {path.name} must be a file of bytes in the idx format, got {raw[:3]!r} at its head")
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _fashion(folder: Path) -> Images:
    raw = folder / "FashionMNIST" / "raw"

    def part(name: str) -> tuple[Tensor, Tensor]:
        return _pair(_idx(raw / f"{name}-images-idx3-ubyte")[:, None], _idx(raw / f"{name}-labels-idx1-ubyte"))

    return Images(part("train"), part("t10k"), 10)


def _svhn(folder: Path) -> Images:
    def part(name: str) -> tuple[Tensor, Tensor]:
        held = need("scipy.io").loadmat(folder / f"{name}_32x32.mat")
        return _pair(held["X"].transpose(3, 2, 0, 1), held["y"].flatten() % 10)  # the digit 0 is filed as 10

    return Images(part("train"), part("test"), 10)


DATA: dict[str, Callable[[Path], Images]] = {"cifar10": _cifar10, "cifar100": _cifar100, "fashion": _fashion, "svhn": _svhn}


def load(name: str, folder: Path) -> Images:
    """The data of that name from `folder`.

    Raises:
        ValueError: a file is missing, with what is expected where; or is not of its form.
    """
    try:
        return DATA[name](folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"sources: needs {error.filename}; the files of {name} lie where torchvision puts them "
            f"(torchvision.datasets, root={str(folder)!r}, download=True), or are copied there by hand"
        ) from error
