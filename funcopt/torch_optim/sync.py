"""assert_in_sync: whether every rank of a data-parallel run has the same words, counters and parameters.

Controllers decide by the loss. Fed with the loss of its own rank, each decides for
itself, and parameters drift apart without an error.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["assert_in_sync"]

PRIMES = (2654435761, 40503)  # of Knuth's multiplicative hash, and a small one, so that places count


def assert_in_sync(opt: Any, process_group: Any = None) -> None:
    """Compares fingerprints over the ranks; all must call it.

    Args:
        opt: an `Optimizer`.
        process_group: the ranks; None: all.

    Raises:
        ValueError: something differs; names the first path.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(process_group) == 1:
        return
    named = list(everything(opt))
    mine = torch.tensor([fingerprint(value) for _, value in named], dtype=torch.int64)
    if dist.get_backend(process_group) == "nccl":
        mine = mine.cuda()
    low, high = mine.clone(), mine.clone()
    count = torch.tensor([len(named), -len(named)], device=mine.device)
    dist.all_reduce(count, op=dist.ReduceOp.MAX, group=process_group)
    if int(count[0]) != -int(count[1]):
        raise ValueError(f"assert_in_sync: ranks must keep the same tensors, got {-int(count[1])} on one and {int(count[0])} on another")
    dist.all_reduce(low, op=dist.ReduceOp.MIN, group=process_group)
    dist.all_reduce(high, op=dist.ReduceOp.MAX, group=process_group)
    differing = (low != high).nonzero().flatten().tolist()
    if differing:
        name = named[differing[0]][0]
        raise ValueError(
            f"assert_in_sync: ranks differ at {name} (and at {len(differing) - 1} more of {len(named)}); "
            "was each told its own loss? Leave process_group=None, or average the loss first"
        )


def everything(opt: Any):
    """Words, shared leaves, leaves of parameters and parameters, by path; of sharded tensors nothing, since shards differ."""
    for word, value in opt.signals().items():
        yield f"word '{word}'", value
    for unit in opt._engine.units:
        for place, name, leaf in zip(unit.places, unit.names, unit.leaves, strict=True):
            if not hasattr(leaf, "full_tensor"):
                yield f"state '{name}'" + ("" if place.owner is None else f" of '{place.owner}'"), leaf
    for index, param in enumerate(p for group in opt.param_groups for p in group["params"]):
        if not hasattr(param, "full_tensor"):
            yield f"parameter {index}", param


def fingerprint(value: Tensor) -> int:
    """A number made of all bits of a tensor."""
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).to(torch.int64)
    if raw.numel() == 0:
        return 0
    place = torch.arange(1, raw.numel() + 1, dtype=torch.int64)
    return int(((raw + 1) * (place * PRIMES[0] + PRIMES[1])).sum())  # modulo 2**64
