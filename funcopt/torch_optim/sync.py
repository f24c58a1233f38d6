"""assert_in_sync: whether every rank of a data-parallel run has the same words, counters and parameters.

Controllers decide by the loss. Fed with the loss of its own rank, each decides for
itself, and parameters drift apart without an error.
"""

from typing import Any

from torch import Tensor

from funcopt.core import sharded
from funcopt.distributed.sync import assert_same

__all__ = ["assert_in_sync"]


def assert_in_sync(opt: Any, process_group: Any = None) -> None:
    """Compares fingerprints over the ranks; all must call it.

    Args:
        opt: an `Optimizer`.
        process_group: the ranks; None: those over which the optimizer averages, else all.

    Raises:
        ValueError: something differs; names the first path.
    """
    process_group = process_group or opt._engine.options.process_group or None
    assert_same(everything(opt), process_group, "was each told its own loss? Leave process_group=None, or average the loss first")


def everything(opt: Any):
    """Words, shared leaves, leaves of parameters and parameters, by path; of sharded tensors nothing, since parts differ."""
    for word, value in opt.signals().items():
        yield f"word '{word}'", value
    for unit in opt._engine.units:
        for place, name, leaf in zip(unit.places, unit.names, unit.leaves, strict=True):
            if (copy := held_by_all(leaf)) is not None:
                yield f"state '{name}'" + ("" if place.owner is None else f" of '{place.owner}'"), copy
    for index, param in enumerate(p for group in opt.param_groups for p in group["params"]):
        if (copy := held_by_all(param)) is not None:
            yield f"parameter {index}", copy


def held_by_all(x: Any) -> Tensor | None:
    """What every rank of a mesh has a copy of; None for a part."""
    if not sharded.is_sharded(x):
        return x
    return x.to_local() if all(placement.is_replicate() for placement in x.placements) else None
