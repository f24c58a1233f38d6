"""The check sum of a file: CRC-32 over every name, dtype, shape and number of a mapping.

It is taken of what the tensors say, and not of the bytes of the file, so that it holds in
any form of file and finds a changed bit wherever it sits: in a number, a stride, a name.
A CRC finds every change of up to 32 neighbouring bits.
"""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from funcopt.checkpoint.mapping import CHECKSUM

__all__ = ["fit", "of"]


def of(saved: Mapping[str, Tensor]) -> Tensor:
    """0-dim int64; the entry for the sum itself does not count."""
    total = 0
    for name in sorted(saved.keys() - {CHECKSUM}):
        value = saved[name]
        total = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), total)
        plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        total = zlib.crc32(plain.view(torch.uint8).numpy().data, total)
    return torch.tensor(total, device="cpu")


def fit(saved: Mapping[str, Tensor]) -> bool:
    """Whether the numbers are those of which the sum was taken."""
    said = saved[CHECKSUM]
    return said.dtype == torch.int64 and said.dim() == 0 and torch.equal(of(saved), said)
