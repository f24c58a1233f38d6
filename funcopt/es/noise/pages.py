"""Fresh memory in large pages.

Stored noise is hundreds of megabytes that come from the system in every call and go back at its end. In pages of
4 kB the first touch of them costs as much as drawing half of the numbers (345 MB: 148 ms; in pages of
2 MB 35 ms). Linux gives large pages to those who ask.
"""

import ctypes
import functools
import mmap
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["fresh"]

LARGE = 4 << 20  # bytes, from which on numpy asks for large pages too


def fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`torch.empty`, in large pages where it is large and the system has them.

    Example:
        >>> from funcopt.es.noise.pages import fresh
        >>> fresh((2, 3), torch.float32, torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    block = torch.empty(shape, dtype=dtype, device=device)
    size, ask = block.numel() * block.element_size(), _madvise()
    if device.type == "cpu" and size >= LARGE and ask is not None:
        begin = -(-block.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        ask(begin, block.data_ptr() + size - begin, mmap.MADV_HUGEPAGE)  # a wish: whatever comes back, the memory is as good as before
    return block


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The function of the C library; None: not Linux."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return madvise
