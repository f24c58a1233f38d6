"""tree_map_params: change what a state keeps for each parameter, and leave its counters alone.

A part of a state belongs to a parameter if its path ends in the path of the parameter, or
has it as the name of a part around it, and it has the same shape: "0.mu.layer.weight" and
"param.layer.weight.exp_avg" belong to "layer.weight". Of several the longest path counts.

Name and order of arguments are optax's (0.2.8), which asks for a transformation where this
asks for params: those also tell apart what a transformation cannot.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import GradientTransformation, TensorTree

__all__ = ["tree_map_params"]


def tree_map_params(
    like: TensorTree | GradientTransformation,
    f: Callable[..., Any],
    state: Any,
    *rest: TensorTree,
    transform_non_params: Callable[[Tensor], Any] | None = None,
) -> Any:
    """`f(part, *rest)` for every part of a state that is kept for a parameter: to move moments to another dtype or device, to shard them.

    Args:
        like: the tree of params that the state was made for; or the transformation, for a
            state that holds one part in the form of all params, such as moments.
        f: takes the part and, of each tree in `rest`, the entry of its parameter.
        state: of any transformation.
        rest: trees of anything, with the structure of params or a prefix of it.
        transform_non_params: what to do with the other tensors (counters, rates,
            factored moments, vectors of `flatten`); None: they stay.

    Returns:
        A state of the same structure.

    Raises:
        ValueError: params are a single 0-dim tensor, which nothing tells from a counter; or
            `like` is a transformation whose state does not show what params look like.

    Example:
        >>> tx, params = fo.adam(0.1), {"w": torch.zeros(2, 3)}
        >>> state = fo.tree_map_params(params, lambda x: x.to(torch.bfloat16), tx.init(params))
        >>> fo.find(state, "nu")["w"].dtype, fo.find(state, "count").dtype
        (torch.bfloat16, torch.int64)
    """
    params = _params_in(state, like) if isinstance(like, GradientTransformation) else like
    if isinstance(params, Tensor) and params.dim() == 0:
        raise ValueError("tree_map_params: a single 0-dim tensor cannot be told from the counters of a state; put it in a dict")
    shapes = [tuple(leaf.shape) for leaf in tree.leaves(params)]
    places = {tuple(path.split(".")) if path else (): index for index, path in enumerate(tree.paths(params))}
    lengths = sorted({len(place) for place in places}, reverse=True)
    columns = [tree.broadcast_prefix(other, params, "tree_map_params", "rest") for other in rest]

    def owner(path: str, shape: tuple[int, ...]) -> int | None:
        parts = tuple(path.split("."))
        for length in lengths:
            for end in range(len(parts), length - 1, -1):  # the end of the path first
                index = places.get(parts[end - length : end])
                if index is not None and shapes[index] == shape:
                    return index
        return None

    def changed(path: str, part: Tensor) -> Any:
        index = owner(path, tuple(part.shape))
        if index is not None:
            return f(part, *(column[index] for column in columns))
        return part if transform_non_params is None else transform_non_params(part)

    return tree.map_with_path(changed, state)


def _params_in(state: Any, tx: GradientTransformation) -> TensorTree:
    """The part of a state from which `tx.init` makes a state of this form: a moment has the form of params."""
    wanted = _form(state)
    for part in _parts(state):
        if not any(leaf.dim() for leaf in tree.leaves(part)):  # counters and rates
            continue
        try:
            if _form(tx.init(part)) == wanted:
                return part
        except (TypeError, ValueError, KeyError):  # these are not the params
            continue
    raise ValueError(
        f"tree_map_params: no part of the state has the form of all params of {tx.name}; give the params in place of the transformation"
    )


def _form(state: Any) -> Any:
    return tree.structure(state), [tuple(leaf.shape) for leaf in tree.leaves(state)]


def _parts(state: Any) -> Iterator[Any]:
    """The trees in a state, from the outermost, then its leaves with dimensions."""
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    for part in inner:
        if not isinstance(part, Tensor):
            yield part
            yield from _parts(part)
        elif part.dim():
            yield part
