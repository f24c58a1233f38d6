"""What groups say before a step: looked at again where it has changed, and refused before anything is written.

torch.optim looks at hyperparameters once, at construction; a rate of NaN or a beta of 2 that comes later it takes. Here
whatever has changed passes the checks of the factory once more. What has not is compared, object by object.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

from funcopt.torch_optim.groups import check_rate, same

__all__ = ["Reading", "as_before", "check_direction"]


class Reading:
    """The hyperparameters of all groups, as of the last step.

    Args:
        recipe: knows which keys of a group are hyperparameters, and what may stand there.
    """

    def __init__(self, recipe: Any):
        self.recipe = recipe
        self.known: list[tuple] = []
        self.changes = 0  # how often something has changed

    def __call__(self, groups: Sequence[dict]) -> list[tuple]:
        """The hyperparameters of each group.

        Raises:
            ValueError, TypeError: in the words of the factory; or groups differ where the method sees all parameters as one.
        """
        said = [self.recipe.of(group) for group in groups]
        for group in groups:
            lr = group["lr"]
            if not (type(lr) is float and 0.0 <= lr < math.inf):
                check_rate(lr)
            if type(group.get("maximize", False)) is not bool:
                check_direction(group)
        if len(said) != len(self.known) or not all(map(as_before, said, self.known)):
            for number, (group, values) in enumerate(zip(groups, said, strict=True)):
                if number >= len(self.known) or not as_before(values, self.known[number]) or not self.recipe.by_group:
                    self.recipe.check(group, groups[:number])
            self.known, self.changes = said, self.changes + 1
        return said


def check_direction(group: dict) -> None:
    uphill = group.get("maximize", False)
    if uphill is not False and uphill is not True:
        raise TypeError(f"torch_optim: maximize must be True or False, got {uphill!r}")


def as_before(values: tuple, before: tuple) -> bool:
    """Whether the hyperparameters of a group are what they were; mostly they are the same objects."""
    return all(map(operator.is_, values, before)) or same(values, before)
