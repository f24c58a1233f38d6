"""What is raced on: small real tasks that train in seconds.

A task is a few pure functions of a dict of parameters, so that any number of
copies, one per seed, trains in one vmapped step. The data are the 1797
handwritten digits (8 x 8 pixels, ten classes) that ship with scikit-learn:
nothing is downloaded.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
UCI Machine Learning Repository, 1998.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import funcopt as fo
from funcopt.race.extras import need

__all__ = ["TASKS", "Task", "digits_cnn", "digits_mlp", "task_named"]

TEST_SHARE = 0.3  # of the 1797 digits: 540 to test on, 1257 to train on
SPLIT_SEED = 0  # the split is part of the task; the seeds of a race do not touch it


class Task(NamedTuple):
    """Something to train, as pure functions of a dict of parameters.

    `init` must work under `torch.func.vmap` over keys, `loss` and `evaluate`
    under `vmap` over parameters.
    """

    name: str
    init: Callable[[Tensor], dict[str, Tensor]]  # key -> params
    loss: Callable[..., Tensor]  # (params, (inputs, labels)) -> 0-dim mean loss of the batch
    evaluate: Callable[..., tuple[Tensor, Tensor]]  # (params, "train" | "test") -> loss, accuracy; 0-dim
    data: dict[str, tuple[Tensor, ...]]  # split -> tensors with one row per example; batches are rows of "train"


def digits_mlp(hidden: int = 64, *, validation: bool = False) -> Task:
    """Handwritten digits, and a perceptron 64 - `hidden` - `hidden` / 2 - 10 with ReLU.

    Args:
        hidden: units of the first hidden layer, >= 2.
        validation: puts the test digits away and tests on 30 % of the training
            digits instead, which are then not trained on: for choosing rates.

    Raises:
        ValueError: `hidden` is below 2.
        ImportError: scikit-learn is not installed.

    Example:
        >>> task = fo.race.digits_mlp(hidden=16)
        >>> params = task.init(fo.random.key(0))
        >>> tuple(params["hidden1.weight"].shape)
        (16, 64)
        >>> {split: len(labels) for split, (inputs, labels) in task.data.items()}
        {'train': 1257, 'test': 540}
    """
    if hidden < 2:
        raise ValueError(f"digits_mlp: hidden must be >= 2, got {hidden}")
    shapes = {"hidden1": (hidden, 64), "hidden2": (hidden // 2, hidden), "out": (10, hidden // 2)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = torch.relu(F.linear(inputs, params["hidden1.weight"], params["hidden1.bias"]))
        h = torch.relu(F.linear(h, params["hidden2.weight"], params["hidden2.bias"]))
        return F.linear(h, params["out.weight"], params["out.bias"])

    return _classification("digits mlp", logits, shapes, _digits(validation))


def digits_cnn(channels: int = 8, *, validation: bool = False) -> Task:
    """Handwritten digits, and two 3 x 3 convolutions, each with ReLU and 2 x 2 max-pooling, then a linear layer.

    Args:
        channels: of the first convolution, >= 1; the second has twice as many.
        validation: as for `digits_mlp`.

    Raises:
        ValueError: `channels` is below 1.
        ImportError: scikit-learn is not installed.
    """
    if channels < 1:
        raise ValueError(f"digits_cnn: channels must be >= 1, got {channels}")
    shapes = {"conv1": (channels, 1, 3, 3), "conv2": (2 * channels, channels, 3, 3), "out": (10, 8 * channels)}

    def logits(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        h = inputs.reshape(-1, 1, 8, 8)
        for layer in ("conv1", "conv2"):
            h = F.conv2d(h, params[f"{layer}.weight"], params[f"{layer}.bias"], padding=1)
            h = F.max_pool2d(torch.relu(h), 2)
        return F.linear(h.flatten(1), params["out.weight"], params["out.bias"])

    return _classification("digits cnn", logits, shapes, _digits(validation))


TASKS: dict[str, Callable[..., Task]] = {"mlp": digits_mlp, "cnn": digits_cnn}


def task_named(name: str, **settings) -> Task:
    """The task of that name (see `TASKS`), made with these settings.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"race: no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name](**settings)


def _classification(name: str, logits: Callable, shapes: dict[str, tuple[int, ...]], data: dict[str, tuple[Tensor, ...]]) -> Task:
    """The task of classifying `data` by a network with a weight `[out, in, ...]` and a bias `[out]` per layer."""

    def init(key: Tensor) -> dict[str, Tensor]:
        params = {}
        for i, (layer, shape) in enumerate(shapes.items()):
            # He et al., 2015: variance 2 / fan_in keeps the scale of activations through ReLU; uniform on +-b has b^2 / 3.
            bound = (6.0 / torch.Size(shape[1:]).numel()) ** 0.5
            params[f"{layer}.weight"] = bound * (2.0 * fo.random.uniform(fo.random.fold_in(key, i), shape) - 1.0)
            params[f"{layer}.bias"] = torch.zeros(shape[0], device=key.device)
        return params

    def loss(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(logits(params, inputs), labels)

    def evaluate(params: dict[str, Tensor], split: str) -> tuple[Tensor, Tensor]:
        if split not in data:
            raise ValueError(f"{name}: no split {split!r}; there are {', '.join(data)}")
        inputs, labels = data[split]
        answers = logits(params, inputs)
        return F.cross_entropy(answers, labels), (answers.argmax(-1) == labels).to(answers.dtype).mean()

    return Task(name=name, init=init, loss=loss, evaluate=evaluate, data=data)


def _digits(validation: bool) -> dict[str, tuple[Tensor, ...]]:
    """The digits, split by class with a fixed seed, standardised by what the training part shows."""
    images, labels = need("sklearn.datasets", "scikit-learn").load_digits(return_X_y=True)
    split = need("sklearn.model_selection", "scikit-learn").train_test_split
    for _ in range(2 if validation else 1):
        images, test_images, labels, test_labels = split(images, labels, test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=labels)
    # One mean and one deviation for all pixels: those in the corners are constant.
    mean, deviation = images.mean(), images.std()

    def tensors(images, labels) -> tuple[Tensor, Tensor]:
        inputs = torch.tensor((images - mean) / deviation, dtype=torch.float32)
        return inputs, torch.tensor(labels, dtype=torch.int64)

    return {"train": tensors(images, labels), "test": tensors(test_images, test_labels)}
