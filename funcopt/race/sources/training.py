"""One source's setting with one optimizer from one seed: an ordinary loop, a line an epoch, and what came out."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funcopt.race.sources.images import Images
from funcopt.race.sources.networks import network
from funcopt.race.sources.settings import OPTIMIZERS, Setting, schedule

__all__ = ["train"]

PADDING = 4
EVALUATED = 512  # images at a time


def train(setting: Setting, images: Images, name: str, seed: int, device: torch.device, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains; what is evaluated are the averaged params where the optimizer keeps an average (`eval()`).

    Returns:
        Per epoch "train_loss", "validation_accuracy" and "validation_loss", and "test_accuracy" of the last epoch, of the one with the best
        validation accuracy, and the mean of the last ten.
    """
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    (x, y), rest = images.train, images.test
    order = torch.randperm(len(y), generator=draw)
    cut = round(setting.validation * len(y))
    held, used = order[:cut], order[cut:]
    mean, deviation = _scale(x[used])
    model = network(setting.network, x.shape[1], images.classes).to(device)
    batches = max(1, len(used) // setting.batch_size)
    steps = setting.epochs * batches
    optimizer: Any = OPTIMIZERS[name](model.parameters(), setting, seed, steps)
    scheduler = schedule(name, setting, optimizer, steps)
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    splits = {"validation": (x[held], y[held]), "test": rest}
    found: dict[str, Any] = {"train_loss": [], **{f"{split}_{word}": [] for split in splits for word in ("loss", "accuracy")}}
    started = time.perf_counter()
    for epoch in range(setting.epochs):
        _call(optimizer, "on_epoch_start", epoch)
        model.train()
        optimizer.train()
        total = torch.zeros((), device=device)
        for rows in _epoch(used, setting.batch_size, batches, draw):
            inputs = _prepared(x[rows], mean, deviation, draw if setting.augment else None).to(device)
            optimizer.zero_grad()
            with half:
                loss = F.cross_entropy(model(inputs), y[rows].to(device))
            loss.backward()
            if setting.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), setting.clip)
            optimizer.observe(loss=loss.detach(), epoch=epoch)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += loss.detach()
        found["train_loss"].append(float(total) / batches)
        trained = next(model.parameters()).detach().clone()
        optimizer.eval()
        statistics = {path: value.clone() for path, value in model.named_buffers()}
        if not torch.equal(trained, next(model.parameters())):  # the average stands in their place
            _new_statistics(
                model,
                [_prepared(x[rows], mean, deviation, None).to(device) for rows in _epoch(used, setting.batch_size, min(batches, 20), draw)],
            )
        for split, (inputs, labels) in splits.items():
            loss, accuracy = _measured(model, inputs, labels, mean, deviation, device)
            found[f"{split}_loss"].append(loss)
            found[f"{split}_accuracy"].append(accuracy)
        for path, value in model.named_buffers():
            value.copy_(statistics[path])
        _call(optimizer, "on_epoch_end", val_acc=found["validation_accuracy"][-1])
        last = {word: found[word][-1] for word in ("train_loss", "validation_accuracy", "test_accuracy")}
        say(
            f"{name}, seed {seed}, epoch {epoch + 1} of {setting.epochs}: "
            + ", ".join(f"{word} {value:.4f}" for word, value in last.items())
        )
    best = max(range(setting.epochs), key=lambda epoch: found["validation_accuracy"][epoch])
    tested = found["test_accuracy"]
    ends = {"last": tested[-1], "picked": tested[best], "mean of the last ten": sum(tested[-10:]) / len(tested[-10:])}
    return {**found, "test": ends, "picked_epoch": best + 1, "seconds": time.perf_counter() - started}


def _call(optimizer: Any, method: str, *arguments: Any, **named: Any) -> None:
    """What only some optimizers have: the hooks of their sources."""
    found = getattr(optimizer, method, None)
    if found is not None:
        found(*arguments, **named)


def _epoch(rows: Tensor, size: int, batches: int, draw: torch.Generator) -> Iterator[Tensor]:
    order = rows[torch.randperm(len(rows), generator=draw)]
    return iter(order[i * size : (i + 1) * size] for i in range(batches))


def _scale(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, as [1, channels, 1, 1]."""
    values = images[:10_000].float() / 255
    return values.mean((0, 2, 3), keepdim=True), values.std((0, 2, 3), keepdim=True)


def _prepared(images: Tensor, mean: Tensor, deviation: Tensor, draw: torch.Generator | None) -> Tensor:
    """Standardised; with a generator each image flipped by chance, and cut out of itself with a frame of 4."""
    values = (images.float() / 255 - mean) / deviation
    if draw is None:
        return values
    flipped = torch.rand(len(values), generator=draw) < 0.5
    values = torch.where(flipped[:, None, None, None], values.flip(-1), values)
    high, wide = values.shape[-2:]
    framed = F.pad(values, (PADDING,) * 4)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, len(values)), generator=draw)
    rows = (top[:, None] + torch.arange(high))[:, None, :, None]
    columns = (left[:, None] + torch.arange(wide))[:, None, None, :]
    which, channels = torch.arange(len(values))[:, None, None, None], torch.arange(values.shape[1])[None, :, None, None]
    return framed[which, channels, rows, columns]


@torch.no_grad()
def _new_statistics(model: nn.Module, batches: list[Tensor]) -> None:
    """Statistics of batch norm belong to the params that ran: those of the average are taken anew."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [part.momentum for part in norms]
    for part in norms:
        part.reset_running_stats()
        part.momentum = None  # a plain mean
    model.train()
    for batch in batches:
        model(batch)
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum


@torch.no_grad()
def _measured(
    model: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, deviation: Tensor, device: torch.device
) -> tuple[float, float]:
    model.eval()
    loss, right = 0.0, 0.0
    for i in range(0, len(labels), EVALUATED):
        answers = model(_prepared(images[i : i + EVALUATED], mean, deviation, None).to(device)).float()
        theirs = labels[i : i + EVALUATED].to(device)
        loss += float(F.cross_entropy(answers, theirs, reduction="sum"))
        right += float((answers.argmax(1) == theirs).sum())
    return loss / len(labels), right / len(labels)
