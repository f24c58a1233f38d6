"""What stands in a state in place of a tree of floats that is held in fewer bytes."""

from typing import Any, NamedTuple

import torch

from funcopt.core import tree
from funcopt.core.compression.blocks import decoded
from funcopt.core.compression.correction import corrected
from funcopt.core.protocol import TensorTree

__all__ = ["HELD", "Blocks", "Corrected", "Rounded", "decompress_state", "opened"]


class Rounded(NamedTuple):
    """Two bytes an entry, rounded by chance."""

    value: TensorTree  # bfloat16


class Corrected(NamedTuple):
    """Three bytes an entry."""

    high: TensorTree  # bfloat16
    low: TensorTree  # int8, what is missing, in 1/256 of the last place of `high`


class Blocks(NamedTuple):
    """One byte an entry, and four a block."""

    codes: TensorTree  # uint8
    scales: TensorTree  # [blocks] for each leaf, in its dtype; negative where the map has both signs


HELD = (Rounded, Corrected, Blocks)


def opened(part: Any, dtype: torch.dtype = torch.float32) -> TensorTree:
    """The tree of floats that is held; anything else as it is."""
    if isinstance(part, Rounded):
        return tree.map_plain(lambda x: x.to(dtype), part.value)
    if isinstance(part, Corrected):
        return tree.map_plain(lambda high, low: corrected(high, low, dtype), part.high, part.low)
    if isinstance(part, Blocks):
        return tree.map_plain(lambda c, s: decoded(c, s, dtype), part.codes, part.scales)
    return part


def decompress_state(state: Any) -> Any:
    """A state with trees of float32 wherever `compress_state` holds them in fewer bytes: to look at, to plot, to measure.

    Args:
        state: of any transformation; where nothing is compressed it comes back as it is.

    Returns:
        A state of the same shape; a compressed tree is a tree of float32 in it.

    Example:
        >>> tx = fo.compress_state(fo.trace(0.5), "int8")
        >>> _, state = tx.update(torch.tensor([3.0, -3.0]), tx.init(torch.zeros(2)))
        >>> fo.find(state, "trace").codes
        tensor([255,   0], dtype=torch.uint8)
        >>> fo.find(fo.decompress_state(state), "trace")  # -1 is no number of the map
        tensor([ 3.0000, -2.9789])
    """
    return tree.map_until(HELD, opened, state)
