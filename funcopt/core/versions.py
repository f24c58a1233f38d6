"""What differs between versions of torch, guarded in this one place.

Eager runs from torch 2.1 on, compiled runs from 2.10 on (the first whose compiler
traces optree), best effort from 2.6.
"""

import re

import torch

__all__ = ["TORCH", "compiling", "differentiating", "transforming"]

TORCH: tuple[int, int] = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])  # (major, minor)

if hasattr(torch, "compiler") and hasattr(torch.compiler, "is_compiling"):
    compiling = torch.compiler.is_compiling
else:  # torch 2.1 and 2.2
    compiling = torch._dynamo.is_compiling


def transforming() -> bool:
    """True inside `torch.func.vmap`, `grad` and their kin."""
    return torch._C._functorch.maybe_current_level() is not None


def differentiating(x: torch.Tensor) -> bool:
    """True where someone may take the derivative of what is computed from `x`: always while compiling, and inside functorch transforms."""
    return compiling() or x.requires_grad or transforming()
