"""Hidden leaves: what stands in a tree for the leaves that a transformation does not see.

It has no leaves itself, so that nothing is worked out or kept for it, and the paths of the others stay.
"""

from typing import NamedTuple

from funcopt.core import tree
from funcopt.core.protocol import TensorTree

__all__ = ["HIDDEN", "MaskedNode", "hide"]


class MaskedNode(NamedTuple):
    """Stands where a leaf is masked out."""


HIDDEN = MaskedNode()


def hide(kept: list[bool], values: TensorTree) -> TensorTree:
    """The tree with `MaskedNode()` in place of every leaf or subtree that is not kept."""
    return tree.prune(values, kept, HIDDEN)
