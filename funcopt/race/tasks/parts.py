"""What a task is: a few pure functions of a dict of parameters, and tensors with a row for every example.

Any number of copies of it, one per seed and rate, trains in one vmapped step.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import funcopt as fo

__all__ = ["Task", "classification", "evaluation", "initial", "linear", "regression"]

Data = dict[str, tuple[Tensor, ...]]
MOST = 2048  # rows of "train" that are looked at


class Task(NamedTuple):
    """Something to train, as pure functions of a dict of parameters.

    `loss` and `evaluate` must work under `torch.func.vmap` over parameters; `init` is called once a seed.
    """

    name: str  # in tables and pictures
    init: Callable[[Tensor], dict[str, Tensor]]  # key -> params
    loss: Callable[..., Tensor]  # (params, (inputs, labels)) -> 0-dim mean loss of the batch
    evaluate: Callable[..., tuple[Tensor, Tensor] | Tensor]  # (params, split) -> loss and accuracy, or the loss alone; 0-dim
    data: Data  # "train", "test" and, where rates are to be chosen, "validation" -> one row per example; batches are rows of "train"
    steps: int = 600  # where nobody says how many
    batch_size: int = 64  # likewise
    measure: str = "loss"  # what its results are told in: "loss", or "error", 1 - accuracy


def initial(key: Tensor, shapes: Mapping[str, tuple[int, ...]], gain: float = 2.0) -> dict[str, Tensor]:
    """A weight `[out, in, ...]` of the variance gain / in and a bias `[out]` of zeros for each layer.

    He et al., 2015: the gain of 2 keeps the scale of activations through ReLU; 1 keeps it through what is linear near 0.
    """
    params = {}
    for i, (layer, shape) in enumerate(shapes.items()):
        bound = (3.0 * gain / torch.Size(shape[1:]).numel()) ** 0.5  # uniform on +-b has the variance b^2 / 3
        params[f"{layer}.weight"] = bound * (2.0 * fo.random.uniform(fo.random.fold_in(key, i), shape) - 1.0)
        params[f"{layer}.bias"] = torch.zeros(shape[0], device=key.device)
    return params


def linear(params: dict[str, Tensor], layer: str, inputs: Tensor) -> Tensor:
    return F.linear(inputs, params[f"{layer}.weight"], params[f"{layer}.bias"])


def evaluation(
    name: str, data: Data, measure: Callable[..., tuple[Tensor, Tensor] | Tensor], most: int = MOST
) -> Callable[..., tuple[Tensor, Tensor] | Tensor]:
    """`evaluate` of a task: `measure(params, rows)` on a split that there is; of "train" at most so many rows, spread over all."""
    inputs, targets = data["train"]
    spread = torch.linspace(0, len(inputs) - 1, min(most, len(inputs)), device=inputs.device).round().long()
    looked_at = {**data, "train": (inputs[spread], targets[spread]) if len(inputs) > most else data["train"]}

    def evaluate(params: dict[str, Tensor], split: str) -> tuple[Tensor, Tensor] | Tensor:
        if split not in data:
            raise ValueError(f"{name}: no split {split!r}; there are {', '.join(data)}")
        return measure(params, looked_at[split])

    return evaluate


def classification(name: str, init: Callable, logits: Callable, data: Data, *, most: int = MOST, **settings) -> Task:
    """The task of telling the classes of `data`: `logits(params, inputs)` are [..., classes], labels [...]."""

    def loss(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(logits(params, inputs).flatten(0, -2), labels.flatten())

    def measure(params: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, labels = rows
        answers = logits(params, inputs)
        return F.cross_entropy(answers.flatten(0, -2), labels.flatten()), (answers.argmax(-1) == labels).to(answers.dtype).mean()

    return Task(name=name, init=init, loss=loss, evaluate=evaluation(name, data, measure, most), data=data, **settings)


def regression(name: str, init: Callable, outputs: Callable, data: Data, **settings) -> Task:
    """The task of least squares: mean of (outputs(params, inputs) - targets)^2 over rows and columns."""

    def measure(params: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = rows
        return (outputs(params, inputs) - targets).square().mean()

    return Task(name=name, init=init, loss=measure, evaluate=evaluation(name, data, measure), data=data, **settings)
