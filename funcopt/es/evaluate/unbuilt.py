"""Calls of an objective with weights that are not built (perturbed.py), and again with those built that it reads where they cannot be.

Inside vmap a mark has no numbers below Python. Which weights an objective reads there,
through an inner `torch.func.grad` or a scripted function, is known when it has done so:
it is called again with these built, and in later calls they are built from the beginning.
"""

from collections.abc import Callable
from typing import Any

from funcopt.core import tree, versions
from funcopt.es.noise.lazy_weight import Marked, asked_for, settle

__all__ = ["Builder", "NeedsBuilding"]

SINGLY = 4  # weights that are found one by one; after that all are built


class NeedsBuilding(Exception):
    """Thrown through vmap to whoever can begin anew."""

    def __init__(self, places: set[int], others: set[int]):
        super().__init__("weights are to be built")
        self.places = places  # that were asked for; none: something failed, and nobody knows why
        self.others = others  # all that are not built


class Builder:
    """Which of the perturbed leaves are built, for one objective."""

    def __init__(self):
        self.built: set[int] = set()  # places among the leaves of what is perturbed

    def call(self, objective: Callable, args: list, kwargs: dict, numbers: tuple[int, ...]) -> Any:
        """The objective at these arguments, of which `numbers` are perturbed."""
        placed = tuple(args[number] for number in numbers)
        leaves = tree.leaves(placed)
        marks = {place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, Marked)}
        if versions.compiling() or not marks:
            return objective(*args, **kwargs)
        if self.built & marks.keys():
            leaves = [settle(leaf) if place in self.built else leaf for place, leaf in enumerate(leaves)]
            for number, value in zip(numbers, tree.unflatten(placed, leaves), strict=True):
                args[number] = value
            marks = {place: leaf for place, leaf in marks.items() if place not in self.built}
        try:
            result = objective(*args, **kwargs)
        except (RuntimeError, TypeError) as error:  # as torch's own are
            asked = {place for place, leaf in marks.items() if asked_for(leaf)}
            if marks:
                raise NeedsBuilding(asked, set(marks)) from error
            raise
        asked = {place for place, leaf in marks.items() if asked_for(leaf)}
        if asked:  # the objective caught the error
            raise NeedsBuilding(asked, set(marks))
        return result

    def attempt(self, evaluate: Callable, *given: Any) -> Any:
        """`evaluate(*given)`, which calls the objective through `call`, until no weight is missing."""
        rounds = 0
        while True:
            try:
                return evaluate(*given)
            except NeedsBuilding as needed:
                missing = needed
            rounds += 1
            if not missing.places:
                return self.guess(missing.others, evaluate, given)
            self.built |= missing.places if rounds < SINGLY else missing.others

    def guess(self, others: set[int], evaluate: Callable, given: tuple) -> Any:
        """Something failed, perhaps for want of a weight: if it works with all of them built, that was it."""
        before, self.built = self.built, self.built | others
        try:
            return evaluate(*given)
        except Exception:
            self.built = before
            raise
