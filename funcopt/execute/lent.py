"""Who still holds what a donated step writes into.

Views that the step has handed out (`step.params`, `step.state`) are remembered weakly: whoever holds one at the next
step is told once. With `donate="checked"` a step works on copies, fills what it was given with NaN and marks it, so that
what was kept shows itself, and what is given again is refused.
"""

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import compiling

__all__ = ["CHECKED", "Lent", "refuse_spent", "spend"]

CHECKED = "checked"
SPENT = "_funcopt_spent"


class Lent:
    """Views that a step has handed out."""

    def __init__(self):
        self.views: list[weakref.ref[Tensor]] = []
        self.told = False

    def out(self, views: Any, *, fresh: bool) -> Any:
        """The same tree, remembered; `fresh`: its tensors are nobody else's."""
        if self.told or compiling():
            return views
        if not fresh:
            views = tree.map_until(Tensor, lambda x: x.detach(), views)
        self.views += [weakref.ref(x) for x in tree.leaves(views) if isinstance(x, Tensor)]
        return views

    def written(self) -> None:
        """Tells whoever still holds one; called before they are written into."""
        held = any(view() is not None for view in self.views)
        self.views.clear()
        if held:
            self.told = True
            warnings.warn(
                "make_step: what step.params or step.state gave is still held, and a donated step writes into it, so that it becomes "
                "the new values; keep fo.tree.clone(step.params(params)) of what is to stay",
                stacklevel=3,
            )


def refuse_spent(held: Any) -> None:
    """ValueError where a leaf was donated to a step before."""
    for path, leaf in zip(tree.paths(held), tree.leaves(held), strict=True):
        if getattr(leaf, SPENT, False):
            raise ValueError(
                f"make_step: '{path}' of (params, state) was donated to an earlier step and is used up; "
                "go on with what that step returned, or keep fo.tree.clone(...) of what you come back to"
            )


def spend(held: Any) -> None:
    """Fills floating tensors with NaN and marks all."""
    for leaf in tree.leaves(held):
        if leaf.is_floating_point() or leaf.is_complex():
            with torch.no_grad():
                leaf.fill_(float("nan"))
        setattr(leaf, SPENT, True)
