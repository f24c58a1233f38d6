"""Refusals for tools that show each rank pieces of parameters in the form of ordinary tensors.

Of a `DTensor` (FSDP2, tensor parallelism) it is known what it is a part of; of the flattened
pieces of FSDP1, and of the parameters that ZeroRedundancyOptimizer deals out, it is not. A norm
over them would be that of the part, without an error.
"""

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from funcopt.core.protocol import GradientTransformation

__all__ = ["refuse_dealt", "refuse_flattened"]

DEEP = 16  # frames between a class below ours and whoever constructs it
INSTEAD = "use fully_shard (FSDP2), under which sums go over all ranks"


def refuse_dealt(where: str, per_leaf: bool) -> None:
    """Raises a ValueError where ZeroRedundancyOptimizer constructs an optimizer that sees all parameters as one."""
    if per_leaf or "torch.distributed.optim.zero_redundancy_optimizer" not in sys.modules:
        return
    frame: Any = sys._getframe(1)
    for _ in range(DEEP):
        frame = frame.f_back
        if frame is None:
            return
        if frame.f_globals.get("__name__") == "torch.distributed.optim.zero_redundancy_optimizer":
            raise ValueError(f"{where}: sees all parameters as one, and ZeroRedundancyOptimizer deals them out to the ranks; {INSTEAD}")


def refuse_flattened(tx: GradientTransformation, per_leaf: bool, params: Sequence[Tensor]) -> None:
    """Raises a ValueError where parameters are flattened pieces (FSDP1) and the transformation looks at more than entries."""
    if tx.flattenable and per_leaf:
        return
    if any(getattr(p, "_fsdp_flattened", False) and p.dim() == 1 for p in params) and not any(p.dim() > 1 for p in params):
        sees = "looks at whole parameters" if per_leaf else "sees all parameters as one"
        raise ValueError(f"torch_optim: {tx.name} {sees}, and FSDP1 shows each rank flattened pieces of them; {INSTEAD}")
