"""Who gives a step its sign: a warning where nobody does, for whoever turns updates into params.

A chain of directions alone points the way the gradient points, and adding it to params
climbs. Whether a link turns downhill is declared (`turns`); under masks and groups it is asked
for each leaf. What does not declare it is tried on small gradients, and warned of at most.
"""

from funcopt.core import tree
from funcopt.core.door.callers import warn
from funcopt.core.masking import hide
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.traits import joined_turns
from funcopt.execute.probe import measured_turns

__all__ = ["turned", "warn_of_climbing", "warn_of_leaves_that_climb"]

REMEDY = "put lr_scale(lr) last, or a factor below 0, scale(-0.1)"


def warn_of_climbing(where: str, tx: GradientTransformation) -> None:
    """Warns where every link declares that it leaves updates on the side of the gradient."""
    if tx.turns is False:
        warn(f"{where}: nothing in {tx.name} turns downhill, so that each step climbs: updates point the way the gradient points; {REMEDY}")


def warn_of_leaves_that_climb(where: str, tx: GradientTransformation, params: TensorTree) -> None:
    """Warns of leaves that nothing turns (as those that `masked` passes by), and of what declares nothing and is seen to climb."""
    if tx.turns is not None:
        return
    try:
        sides = turned(tx, params)
    except (TypeError, ValueError, KeyError):  # masks or labels that do not fit: `init` says so
        return
    climbing = [path for path, side in zip(tree.paths(params), sides, strict=True) if side is False]
    if climbing:
        more = f" and {len(climbing) - 1} more" if len(climbing) > 1 else ""
        said = f"{where}: nothing in {tx.name} turns the updates of '{climbing[0]}'{more} downhill, so that their steps climb"
        warn(f"{said}; {REMEDY}, or freeze them (selective_transform leaves them as they are)")
    elif None in sides and measured_turns(tx, params) is False:
        said = f"{where}: the updates of {tx.name} were seen to point the way the gradient points, so that each step climbs"
        warn(f"{said}; {REMEDY}; a link of your own that is meant to says turns=True")


def turned(tx: GradientTransformation, params: TensorTree) -> list[bool | None]:
    """For each leaf whether its step is turned downhill; None where that is not declared."""
    if tx.turns is not None:
        return [tx.turns] * len(tree.leaves(params))
    if tx.grouping is not None:
        labels, links, _ = tx.grouping(params)
        sides: list[bool | None] = [False] * len(labels)
        for label, link in links.items():
            keep = [other == label for other in labels]
            if any(keep):
                inside = iter(turned(link, hide(keep, params)))
                sides = [next(inside) if mine else side for mine, side in zip(keep, sides, strict=True)]
        return sides
    if tx.relink is not None:
        return [joined_turns(sides) for sides in zip(*(turned(link, params) for link in tx.links), strict=True)]
    return [None] * len(tree.leaves(params))
