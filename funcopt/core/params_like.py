"""map_params: change what a state keeps for each parameter, and leave its counters alone.

A part of a state belongs to a parameter if its path ends in the path of the parameter
and it has the same shape: "0.mu.layer.weight" belongs to "layer.weight".
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import TensorTree

__all__ = ["map_params"]


def map_params(f: Callable[..., Any], state: Any, params: TensorTree, *rest: TensorTree, transform_non_params: Callable[[Tensor], Any] | None = None) -> Any:
    """`f(part, *rest)` for every part of a state that is kept for a parameter: to move moments to another dtype or device, to shard them as the params are.

    Args:
        f: takes the part and, of each tree in `rest`, the entry of its parameter.
        state: of any transformation.
        params: the tree of tensors that the state was made for.
        rest: trees of anything, with the structure of params or a prefix of it.
        transform_non_params: what to do with the other tensors (counters, rates,
            factored moments, vectors of `flatten`); None: they stay.

    Returns:
        A state of the same structure.

    Raises:
        ValueError: params are a single 0-dim tensor, which nothing tells from a counter.

    Example:
        >>> tx, params = fo.adam(0.1), {"w": torch.zeros(2, 3)}
        >>> state = fo.map_params(lambda x: x.to(torch.bfloat16), tx.init(params), params)
        >>> fo.find(state, "nu")["w"].dtype, fo.find(state, "count").dtype
        (torch.bfloat16, torch.int64)
    """
    if isinstance(params, Tensor) and params.dim() == 0:
        raise ValueError("map_params: a single 0-dim tensor cannot be told from the counters of a state; put it in a dict")
    shapes = [tuple(leaf.shape) for leaf in tree.leaves(params)]
    places = {path: index for index, path in enumerate(tree.paths(params))}
    columns = [tree.broadcast_prefix(other, params, "map_params", "rest") for other in rest]

    def owner(path: str, shape: tuple[int, ...]) -> int | None:
        while True:  # the longest ending first
            index = places.get(path)
            if index is not None and shapes[index] == shape:
                return index
            if not path:
                return None
            path = path.partition(".")[2]

    def changed(path: str, part: Tensor) -> Any:
        index = owner(path, tuple(part.shape))
        if index is not None:
            return f(part, *(column[index] for column in columns))
        return part if transform_non_params is None else transform_non_params(part)

    return tree.map_with_path(changed, state)
