"""What differs between versions of torch, guarded in this one place.

Eager runs from torch 2.1 on, compiled runs from 2.10 on (the first whose compiler
traces optree), best effort from 2.6.
"""

import functools
import importlib.util
import re
from collections.abc import Callable

import torch

__all__ = ["TORCH", "announced", "compiler_missing", "compiling", "differentiated", "differentiating", "transforming", "untraced"]

TORCH: tuple[int, int] = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])  # (major, minor)

if hasattr(torch, "compiler") and hasattr(torch.compiler, "is_compiling"):
    compiling = torch.compiler.is_compiling
else:  # torch 2.1 and 2.2
    compiling = torch._dynamo.is_compiling


def transforming() -> bool:
    """True inside `torch.func.vmap`, `grad` and their kin."""
    return torch._C._functorch.maybe_current_level() is not None


def untraced(f: Callable) -> Callable:
    """`f` as the compiler finds it: to be called, not looked into. (torch.compiler.disable loads the compiler at once.)"""
    return torch._disable_dynamo(f)


def announced(x: torch.Tensor) -> torch.Tensor:
    """What a function that is differentiated is given, such that a compiler knows of it.

    To the compiler of torch 2.13 and older the argument of `torch.func.grad` itself has no derivative: an autograd.Function
    that is applied to it loses its backward, without a word (pytorch issue 193279). Of a view it knows.
    """
    return x.view_as(x) if compiling() else x


def differentiating(x: torch.Tensor) -> bool:
    """True where someone may take the derivative of what is computed from `x`: always while compiling, and inside functorch transforms."""
    return compiling() or x.requires_grad or transforming()


def differentiated(x: torch.Tensor) -> bool:
    """Whether a derivative of `x` is being recorded, by autograd or by any of the functorch transforms around."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while not x.requires_grad:
        if not functorch.is_functorch_wrapped_tensor(x):
            return False
        x = functorch.get_unwrapped(x)
    return True


@functools.cache
def compiler_missing(device: torch.device) -> str | None:
    """Why compiled steps cannot run on this machine, or None where they can."""
    if TORCH < (2, 6):
        return f"torch {torch.__version__} is older than 2.6"
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # torch's own class for this has moved between versions
        return f"no C++ compiler: {type(error).__name__}"
    return None
