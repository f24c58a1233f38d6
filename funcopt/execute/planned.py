"""The step of a chain that knows on the host what it does next, its plan: gradients are compiled once, and an update for each plan.

    value, g       = loss and gradient at params, batch         one graph, which all plans share
    params, state <- update(g, state, params; plan)             a small graph for each plan, all of them made before the first step

Where params and state are small (`policy.chooses_in_graph`) or there is but one plan, and the parts of the chain can do so
(`in_one_graph`), there is none: one graph holds all that may happen, and chooses. A large pool of members, an episode on an
accelerator or a factorisation that is due every k steps would otherwise compile the forward and backward pass again for each plan, in
the middle of the training.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from funcopt.core import plans, tree
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.traits import outside_the_graph
from funcopt.execute.policy import chooses_in_graph, sizes
from funcopt.execute.runner import InParts

__all__ = ["MOST", "ahead_of_the_first", "without_plan"]

MOST = 8  # plans; of a larger pool each is compiled when it is drawn, since many members never are


def without_plan(tx: GradientTransformation, params: TensorTree, state: Any) -> GradientTransformation | None:
    """What chooses in one graph what `tx` plans, where that costs less than a graph for each plan; else None."""
    if tx.plan is None:
        return None
    small = chooses_in_graph(sizes(tree.leaves((params, state))), tree.device(params))
    return plans.in_one_graph(tx) if small or len(plans.of_one(tx, state) or ()) == 1 else None


def ahead_of_the_first(
    tx: GradientTransformation,
    state: Any,
    now: Hashable,
    part: Callable[[Hashable], Any],
    params: TensorTree,
    batch: tuple[Any, ...],
    extra: dict[str, Any],
    own: Callable[[Any], Any],
) -> dict[Hashable, Any]:
    """The updates of all plans but that of this step, compiled on copies; none where they are not known or are many.

    Args:
        tx, state: whose plans.
        now: the plan of this step.
        part: the step of a plan, an `InParts`.
        params, batch, extra: of this step.
        own: copies a tree.
    """
    found = plans.of_one(tx, state)
    others = [plan for plan in found or () if plan != now and not outside_the_graph(plan)]
    if not others or len(others) >= MOST:
        return {}
    made: dict[Hashable, InParts] = {plan: part(plan) for plan in others}
    generators = list(dict.fromkeys(x.device for x in tree.leaves(params) if x.device.type == "cuda"))
    with torch.random.fork_rng(devices=generators):  # a loss that draws draws the same numbers in the step itself
        read = next(iter(made.values())).read(params, batch)
        try:
            for step in made.values():
                step.write(own(params), own(state), read, extra)
        except torch.cuda.OutOfMemoryError:
            return {}  # no room for a second state: each is compiled when it comes
    return made
