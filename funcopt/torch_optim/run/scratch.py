"""Memory that stays: vectors that take up several tensors at every step, and leaves that lie where a cache has room for them."""

import torch
from torch import Tensor

from funcopt.core.versions import flattened, foreach_copy_, unflattened
from funcopt.execute.donation import write

__all__ = ["Scratch", "flattened", "spread", "unflattened"]

PAGE = 4096  # bytes; what lies a multiple of it apart shares a few lines of the first cache
LINE = 64
LARGE = 2**18  # bytes, of leaves that have pages of their own


class Scratch:
    """A vector with the entries of several tensors, used at every step."""

    def __init__(self, like: list[Tensor], dtype: torch.dtype):
        self.vector = torch.empty(sum(x.numel() for x in like), dtype=dtype, device=like[0].device)
        self.parts = list(unflattened(self.vector, like))
        self.lines = all(x.dim() == 1 for x in like)

    def filled(self, tensors: list[Tensor]) -> Tensor:
        if self.lines:
            torch.cat(tensors, out=self.vector)  # of any dtype and stride
        else:
            foreach_copy_(self.parts, tensors)
        return self.vector

    def emptied(self, vector: Tensor, tensors: list[Tensor]) -> None:
        """Copies a vector, this one or another, into tensors."""
        write(tensors, self.parts if vector is self.vector else unflattened(vector, tensors))


def spread(leaf: Tensor, place: int) -> Tensor:
    """A large leaf on a CPU anew, at another line of its first page for each place; any other as it is.

    The system's allocator begins all large tensors at one and the same line of a page. A loop over several of them at
    once then asks for more than its share of a few lines of the cache, and takes a tenth longer.

    Example:
        >>> from funcopt.torch_optim.run.scratch import spread
        >>> [spread(torch.zeros(2**16), place).data_ptr() % 4096 for place in (0, 1, 2)]
        [0, 1088, 2176]
    """
    size = leaf.element_size()
    if type(leaf) is not Tensor or leaf.device.type != "cpu" or leaf.numel() * size < LARGE or not leaf.is_contiguous():
        return leaf
    memory = torch.empty(leaf.numel() + PAGE // size, dtype=leaf.dtype, device="cpu")
    begin = (place * 17 * LINE - memory.data_ptr()) % PAGE // size
    return memory[begin : begin + leaf.numel()].view(leaf.shape).copy_(leaf)
