"""What a raw error in a function of trees means to whoever called it: asked where something has failed, and nowhere else."""

import sys
from types import FrameType

from torch import Tensor

from funcopt.core.check import OWN_WORDS
from funcopt.core.tree.paths import first_difference, paths
from funcopt.core.tree.structure import Tree, leaves, structure

__all__ = ["RAW", "explained"]

RAW = (AttributeError, TypeError, ValueError, RuntimeError)
SPACES = {"funcopt.core.tree.": "tree", **{f"funcopt.core.math.{name}": name for name in ("moments", "numerics", "projections")}}
ORDINALS = ("the first tree", "the second", "the third", "the fourth")


def explained(error: Exception, *trees: Tree) -> Exception:
    """The error in a sentence where these trees are the reason of it, else the error as it is."""
    if OWN_WORDS.match(str(error)):
        return error
    where, (first, *rest) = _asked(), trees
    for number, other in enumerate(rest, 1):
        if structure(other) != structure(first):
            names = (ORDINALS[0], ORDINALS[min(number, 3)])
            return ValueError(f"{where}: the trees must have one structure, but {first_difference(first, other, names)}")
    for number, one in enumerate(trees):
        for path, leaf in zip(paths(one), leaves(one), strict=True):
            if not isinstance(leaf, Tensor):
                which = ORDINALS[min(number, 3)] if rest else "the tree"
                place = f"at '{path}'" if path else "itself"
                made = "; torch.as_tensor makes one of it" if isinstance(leaf, (bool, int, float)) else ""
                return TypeError(f"{where}: {which} must be a tree of tensors, got {type(leaf).__name__} {place}{made}")
    if isinstance(error, RuntimeError) and "size of tensor" in str(error):
        for other in rest:
            difference = first_difference(first, other, ORDINALS[:2])
            if difference is not None:
                return ValueError(f"{where}: leaves must have shapes that fit, but {difference}")
    return error


def _asked() -> str:
    """The public function that was called from outside: "tree.norm"."""
    frame: FrameType | None = sys._getframe(2)
    asked = "tree.map"
    while frame is not None:
        space = next((name for home, name in SPACES.items() if frame.f_globals.get("__name__", "").startswith(home)), None)
        if space is None:
            return asked
        name = frame.f_code.co_name
        if not name.startswith(("_", "<")) and name in frame.f_globals.get("__all__", ()):
            asked = f"{space}.{name}"
        frame = frame.f_back
    return asked
