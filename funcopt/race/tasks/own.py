"""`race.task`: a task out of a model, a loss and tensors of one's own."""

import inspect
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from funcopt.race.tasks.parts import Data, Task, evaluation

__all__ = ["task"]


def task(
    model: nn.Module | Callable,
    loss: Callable[..., Tensor] = F.cross_entropy,
    *,
    train: Sequence[Tensor],
    test: Sequence[Tensor],
    validation: Sequence[Tensor] | None = None,
    init: Callable[[Tensor], dict[str, Tensor]] | None = None,
    name: str = "yours",
    steps: int = 600,
    batch_size: int = 64,
) -> Task:
    """Something of yours to race on.

    Args:
        model: a function without arguments that makes an `nn.Module`, called once a seed, so that every seed has initial
            parameters of its own; or a module, from whose parameters all seeds start; or, with `init`, a function
            `(params, inputs) -> outputs`. It runs under `torch.func.vmap`.
        loss: `(outputs, targets) -> 0-dim`, a mean over the rows.
        train, validation, test: `(inputs, targets)`, each with one row per example. `validation` is for choosing rates and
            steps. Where the targets are classes (int64) and the outputs have one axis more, accuracy is told as well.
        init: from a key (int64 of shape (2,)) to a dict of params, where `model` is a function of params.
        name: what tables call it.
        steps, batch_size: where the race is not told others.

    Returns:
        A `Task`, as `race.run` takes it.

    Raises:
        TypeError: `model` or `loss` is none of these; a split is no pair of tensors.
        ValueError: a split's tensors differ in length; the module keeps statistics while it trains
            (batch norm) or draws (dropout), which copies that train in one step cannot.

    Example:
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> mine = fo.race.task(lambda: torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, train=(x, 2 * x), test=(x, 2 * x))
        >>> race = fo.race.run(mine, {"free": fo.rate_free()}, seeds=2, steps=400, batch_size=16, out=None, progress=False)
        >>> race.runs["free"].final("test_loss").max() < 0.01
        tensor(True)
    """
    where = "race.task"
    if not callable(loss):
        raise TypeError(f"{where}: loss must be a function of outputs and targets, got {loss!r}")
    given = {"train": train, "validation": validation, "test": test}
    data: Data = {split: _pair(where, split, pair) for split, pair in given.items() if pair is not None}
    start, answer = _functions(where, model, init)

    def of_batch(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return loss(answer(params, inputs), targets)

    def measure(params: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | Tensor:
        inputs, targets = rows
        outputs = answer(params, inputs)
        value = loss(outputs, targets)
        if targets.dtype == torch.int64 and outputs.dim() == targets.dim() + 1:
            return value, (outputs.argmax(1) == targets).to(value.dtype).mean()
        return value

    return Task(name, start, of_batch, evaluation(name, data, measure), data, steps, batch_size)


def _functions(where: str, model: nn.Module | Callable, init: Callable | None) -> tuple[Callable, Callable]:
    """`init(key) -> params` and `(params, inputs) -> outputs`."""
    if init is not None:
        if isinstance(model, nn.Module) or not callable(model):
            raise TypeError(f"{where}: with init, model must be a function of params and inputs, got {model!r}; a module needs no init")
        return init, model
    if not isinstance(model, nn.Module) and (not callable(model) or _needed(model)):
        raise TypeError(
            f"{where}: model must be a module, a function without arguments that makes one, or, with init=, one of params and inputs, "
            f"got {model!r}"
        )
    outline = model if isinstance(model, nn.Module) else model()
    if not isinstance(outline, nn.Module):
        raise TypeError(f"{where}: model must make a torch.nn.Module, got {outline!r}; a function of params needs init=")
    for path, part in outline.named_modules():
        if getattr(part, "track_running_stats", False) or (isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0):
            raise ValueError(
                f"{where}: model must neither draw nor keep statistics while it trains, got {part} at '{path}'; "
                "GroupNorm or LayerNorm does not"
            )
    buffers = {path: value.detach() for path, value in outline.named_buffers()}

    def params_of(module: nn.Module) -> dict[str, Tensor]:
        return {path: value.detach().clone() for path, value in module.named_parameters()}

    def start(key: Tensor) -> dict[str, Tensor]:
        if model is outline:
            return params_of(outline)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(key[0] ^ key[1]) & (2**63 - 1))
            return params_of(model())

    return start, lambda params, inputs: functional_call(outline, {**params, **buffers}, (inputs,))


def _needed(model: Callable) -> bool:
    """Whether it cannot be called without arguments."""
    try:
        parameters = inspect.signature(model).parameters.values()
    except ValueError:  # what is built in tells nothing
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)


def _pair(where: str, split: str, pair: Sequence[Tensor]) -> tuple[Tensor, ...]:
    pair = tuple(pair) if isinstance(pair, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) and part.dim() for part in pair):
        raise TypeError(f"{where}: {split} must be (inputs, targets), two tensors with one row per example")
    if len(pair[0]) != len(pair[1]) or not len(pair[0]):
        raise ValueError(
            f"{where}: {split} must have as many targets as inputs, at least one, got {len(pair[0])} inputs and {len(pair[1])} targets"
        )
    return pair
