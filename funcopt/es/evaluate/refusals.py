"""What vmap or a loop will not do with an objective, said so that the caller knows what to change."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from funcopt.core import versions
from funcopt.es.evaluate.watch import refuse_sharing, refuse_torchs_generator
from funcopt.es.options import Settings

__all__ = ["Refused", "drawn_for_all", "keyed", "refusal", "shared_memory", "watched"]


class Refused(ValueError):
    """vmap does not take the objective; a loop would. `operation` says what stood in the way."""

    def __init__(self, message: str, operation: str):
        super().__init__(message)
        self.operation = operation


# What torch says inside vmap, and of what.
BELOW_VMAP = {
    "requires_grad_()": "torch.autograd (backward, autograd.grad, requires_grad_), where torch.func.grad works",
    "data` under vmap": "reading or writing .data",
    "BatchedTensorImpl": "an operation that needs the memory of a tensor",
    "detach views in-place": "detaching in place (detach_, torch.tensor of a weight)",
    "setup_context": "an autograd.Function without setup_context and a rule for vmap",
    "escaped from inside a function being vmapped": "a tensor that another thread reads",
}
NORMALIZATION = "batch norm (or instance norm) in training mode, which writes its running statistics into the module"


def refusal(settings: Settings, error: Exception) -> Exception:
    """The error to raise in place of what torch said; that itself, where we have no better sentence."""
    text, where = str(error), settings.where
    if isinstance(error, (Refused, ValueError, TypeError, KeyError)) and text.startswith(where):
        return error
    if "randomness" in text and "vmap" in text.lower():
        if settings.execution.randomness in ("keyed", "error"):
            return ValueError(random_objective(where))
        return drawn_for_all(settings)
    if "Batch norm got a batched tensor" in text or "running_mean" in text or "running_var" in text or "num_batches_tracked" in text:
        return ValueError(training_norm(where))
    if "inplace arithmetic" in text or "doesn't match the broadcast shape" in text or "in-place" in text.lower() and "vmap" in text:
        return ValueError(
            f"{where}: the objective writes into a tensor that is the same for all members ({_first_line(text)}); "
            f"if that is a {NORMALIZATION}, "
            "pass its buffers as an argument and say buffers='per_member', or call model.eval(); else write x = x + 1 in place of x += 1"
        )
    operation = _operation(text)
    if operation:
        return Refused(
            f"{where}: vmap does not take {operation} in the objective ({_first_line(text)}); pass vectorize='loop', or 'processes'",
            operation,
        )
    return error


def drawn_for_all(settings: Settings) -> Refused:
    """Of draws that vmap makes for no member by itself."""
    operation = f"these draws of random numbers with randomness={settings.execution.randomness!r}"
    told = "in place, from perturbed numbers, or from Python's or numpy's generator"
    return Refused(
        f"{settings.where}: vmap does not take {operation} ({told}) in the objective; pass vectorize='loop', or 'processes'", operation
    )


def random_objective(where: str) -> str:
    return (
        f"{where}: the objective draws random numbers from torch's generator, which would differ with the size of the chunks; "
        "give it an argument `key` and "
        "draw from it (fo.random.normal(key, ...)), the same numbers for all members, or pass randomness='same' or 'different'"
    )


def training_norm(where: str) -> str:
    return (
        f"{where}: the objective runs {NORMALIZATION}; call model.eval(), or pass the buffers as an argument after params "
        "(torch.func.functional_call(model, (params, buffers), x)) and say buffers='per_member' (each member its own, "
        "thrown away) or buffers='center'"
    )


def _operation(text: str) -> str | None:
    if ".item()" in text or "_local_scalar_dense" in text:
        return "reading a number of a tensor (.item(), float(), int())"
    if "data-dependent control flow" in text or "Boolean value of Tensor" in text:
        return "a Python branch on the value of a tensor (if, while, bool())"
    if "not possible" in text and ".numpy" in text or "Can't call numpy()" in text or "numpy" in text and "BatchedTensor" in text:
        return "numpy in the objective"
    for said, operation in BELOW_VMAP.items():
        if said in text:
            return operation
    found = re.search(r"aten::([\w.]+)", text)
    if found and ("atching rule" in text or "vmap" in text or "fallback" in text):
        return f"the operation {found.group(1).split('.')[0]}"
    if "Batching rule not implemented" in text or "functorch" in text or "vmap" in text and ("support" in text or "not possible" in text):
        return f"an operation ({_first_line(text)})"
    if "Cannot access data pointer" in text or "doesn't have storage" in text or "storage" in text and "unsupported" in text:
        return "an operation that needs the memory of a tensor"
    return None


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else line[:157] + "..."


class _TrainingNorms(TorchFunctionMode):
    """Refuses, in a loop, norms in training mode, which would change the caller's modules."""

    def __init__(self, where: str):
        super().__init__()
        self.where = where

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.nn.functional.batch_norm, torch.nn.functional.instance_norm):
            flag = "training" if func is torch.nn.functional.batch_norm else "use_input_stats"
            mean = args[1] if len(args) > 1 else kwargs.get("running_mean")
            training = kwargs.get(flag, args[5] if len(args) > 5 else flag == "use_input_stats")
            if training and mean is not None:
                raise ValueError(training_norm(self.where))
        return func(*args, **kwargs)


def watched(settings: Settings, evaluate: Callable[[], Any], other: Callable[[], Any], device: torch.device) -> Any:
    """A loop's first member, `other` being another: watched for writes into what all share, and for torch's generator."""
    if versions.transforming():
        return evaluate()

    def guarded() -> Any:
        with _TrainingNorms(settings.where) if settings.execution.buffers == "frozen" else contextlib.nullcontext():
            return refuse_sharing(evaluate, other, lambda answer: answer.fitness, lambda writer: shared_memory(settings.where, writer))

    return keyed(settings, guarded, device)


def keyed(settings: Settings, evaluate: Callable[[], Any], device: torch.device) -> Any:
    """`evaluate()`, which may draw from torch's generators only if the settings say so."""
    if settings.execution.randomness in ("keyed", "error"):
        return refuse_torchs_generator(evaluate, device, random_objective(settings.where))
    return evaluate()


def shared_memory(where: str, writer: str) -> str:
    return (
        f"{where}: the objective writes into a tensor that is the same for all members ({writer}), and reads it, "
        "so that each sees what those before it left: "
        "the power iteration of a spectral norm in training mode, running statistics, a cache; "
        "call model.eval(), or write into a copy (es.grad: pass the "
        "buffers as an argument after params, torch.func.functional_call(model, (params, buffers), x), and say buffers='per_member')"
    )
