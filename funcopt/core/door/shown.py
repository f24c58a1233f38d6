"""How a value is told in an error."""

import inspect
from typing import Any

import torch
from torch import Tensor

__all__ = ["shown"]


def shown(value: Any) -> str:
    """A value as a sentence shows it: in one short line."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"the module {type(value).__name__}"
    if isinstance(value, torch.optim.Optimizer):
        return f"the optimizer {type(value).__module__.split('.')[0]}.{type(value).__name__}"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = " ".join(repr(value).split())
    if " at 0x" in text:  # an address tells nobody anything
        return f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."
