"""Numbers on their way between devices: a copy from the host need not be waited for, one to the host must be.

What is copied to the host without blocking may be read before it has arrived: another number, and no word said.
"""

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(x: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """`x` on the device, in `dtype` where one is given; waits for nothing that comes from the host."""
    return x.to(device=device, dtype=dtype or x.dtype, non_blocking=x.device.type == "cpu")
