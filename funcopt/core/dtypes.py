"""Kinds and widths of dtypes: which compute, which are half precision, and in what sums are taken."""

import torch
from torch import Tensor

__all__ = ["COMPLEX", "FLOATS", "HALF", "at_least_float32", "kept_as", "kind", "real", "steering", "summing"]

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
REAL = {whole: part for part, whole in COMPLEX.items()}


def kind(dtype: torch.dtype) -> str:
    """What numbers of a dtype are; what is saved as one kind and read as another loses what it meant (a fraction, an imaginary part)."""
    return "float" if dtype.is_floating_point else "complex" if dtype.is_complex else "bool" if dtype == torch.bool else "int"


def kept_as(where: str, x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which `x` is about to be kept; a TypeError where a complex one would lose its imaginary part."""
    if x.is_complex() and not dtype.is_complex:
        raise TypeError(f"{where}: what is kept as {dtype} must be real, got {x.dtype}; init with complex leaves, or take the real part")
    return dtype


def real(dtype: torch.dtype) -> torch.dtype:
    """That of the magnitudes."""
    return REAL.get(dtype, dtype)  # dtype.to_real is not traced


def summing(dtype: torch.dtype) -> torch.dtype:
    """In which several numbers of a dtype are added up: half precision loses its last digits at every term."""
    return torch.float32 if dtype in HALF else dtype


def steering(device: torch.device) -> torch.dtype:
    """In which numbers that steer are worked out: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is.

    Example:
        >>> from funcopt.core.dtypes import at_least_float32
        >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.float() if x.dtype in HALF else x
