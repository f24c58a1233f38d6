"""Vectors that take up several tensors at every step, in memory that stays."""

import torch
from torch import Tensor

__all__ = ["Scratch", "flattened", "unflattened"]

flattened = torch._C._nn.flatten_dense_tensors  # one call, in place of one for every leaf
unflattened = torch._C._nn.unflatten_dense_tensors


class Scratch:
    """A vector with the entries of several tensors, used at every step."""

    def __init__(self, like: list[Tensor], dtype: torch.dtype):
        self.vector = torch.empty(sum(x.numel() for x in like), dtype=dtype, device=like[0].device)
        self.parts = list(unflattened(self.vector, like))
        self.lines = all(x.dim() == 1 for x in like)

    def filled(self, tensors: list[Tensor]) -> Tensor:
        if self.lines and all(x.dtype == self.vector.dtype and x.is_contiguous() for x in tensors):
            torch.cat(tensors, out=self.vector)
        else:
            torch._foreach_copy_(self.parts, tensors)
        return self.vector

    def emptied(self, vector: Tensor, tensors: list[Tensor]) -> None:
        """Copies a vector, this one or another, into tensors."""
        torch._foreach_copy_(tensors, self.parts if vector is self.vector else unflattened(vector, tensors))
