"""Hidden leaves: what stands in a tree for the leaves that a transformation does not see.

It has no leaves itself, so that nothing is worked out or kept for it, and the paths of the others stay.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import TensorTree

__all__ = ["HIDDEN", "MaskedNode", "hide", "map_shown"]


class MaskedNode(NamedTuple):
    """Stands where a leaf is masked out."""


HIDDEN = MaskedNode()


def hide(kept: list[bool], values: TensorTree) -> TensorTree:
    """The tree with `MaskedNode()` in place of every leaf or subtree that is not kept."""
    return tree.prune(values, kept, HIDDEN)


def map_shown(where: str, f: Callable[[Any, Any], Any], shown: TensorTree, params: TensorTree) -> TensorTree:
    """`f(x, p)` for every leaf of `shown`, in which others of `params` are hidden; what is hidden stays as it is in `params`.

    Args:
        where: who speaks in errors.

    Raises:
        ValueError: `shown` is no part of `params`, or of other shapes.
    """
    head = f"{where}: params must be those for which the state was made, but"

    def met(x: Any, p: Any) -> Any:
        if isinstance(x, MaskedNode):
            return p
        if not isinstance(p, MaskedNode) and getattr(p, "shape", None) != x.shape:
            got = f"of shape {tuple(p.shape)}" if isinstance(p, Tensor) else f"a {type(p).__name__}"
            raise TypeError(f"{head} where the state has a leaf of shape {tuple(x.shape)} they have {got}")
        return f(x, p)

    try:
        return tree.map_until(MaskedNode, met, shown, params)
    except TypeError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        raise ValueError(f"{head} they are {tree.structure(params)}, and the state has {tree.structure(shown)}") from None
