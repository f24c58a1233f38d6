"""Applying what a transformation gives: `params + updates`, in the dtype of the parameter."""

import torch
from torch import Tensor

from funcopt.core import check, tree
from funcopt.core.dtypes import kept_as
from funcopt.core.parameters import is_trained, moved_parameter, numbers
from funcopt.core.protocol import Scalar, TensorTree
from funcopt.core.unfit import dense
from funcopt.core.versions import compiling

__all__ = ["apply_updates", "incremental_update", "periodic_update"]


def apply_updates(params: TensorTree, updates: TensorTree) -> TensorTree:
    """`params + updates`, summed in the wider dtype of the two and cast to that of the parameter.

    An `nn.Parameter` that requires grad comes back as a new one without a past, and a
    warning says so: the graphs of all steps would be kept otherwise. What is differentiated
    through the step is no parameter: `p.clone()`, or an argument of `torch.func.grad`.

    Args:
        params: tree of tensors.
        updates: what the last `update` returned; a tree like `params`.

    Returns:
        The params after the step: a new tree in the shapes and dtypes of `params`.

    Raises:
        ValueError: the trees differ; names the first path.

    Example:
        >>> fo.apply_updates({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-0.5, 0.25])})
        {'w': tensor([0.5000, 2.2500])}
    """
    if compiling():
        return tree.map_plain(lambda p, u: (p + u).to(kept_as("apply_updates", u, p.dtype)), numbers(params), updates)

    def moved(p: Tensor, u: Tensor) -> Tensor:
        if p.shape != u.shape or p.device != u.device:
            tree.assert_alike("apply_updates", updates, params)
        parameter = p.requires_grad and torch.is_grad_enabled() and is_trained(p)
        result = (p.detach() if parameter else p) + u
        result = result if result.dtype == p.dtype else result.to(kept_as("apply_updates", result, p.dtype))
        return moved_parameter("apply_updates", p, result) if parameter else result

    try:
        return tree.map_plain(moved, params, updates)
    except (TypeError, ValueError, AttributeError):
        for what, values in (("params", params), ("updates", updates)):
            dense("apply_updates", what, tree.leaves(values), lambda values=values: tree.paths(values))
        tree.assert_alike("apply_updates", updates, params)
        raise


def incremental_update(new: TensorTree, old: TensorTree, step_size: Scalar) -> TensorTree:
    """`step_size * new + (1 - step_size) * old`: one step of an average of params.

    Args:
        new, old: trees of one structure.
        step_size: share of the new, in [0, 1].

    Returns:
        A tree like `old`.

    Raises:
        ValueError: the trees differ in structure, shape or device; names the first path.

    Example:
        >>> fo.incremental_update(torch.tensor(4.0), torch.tensor(0.0), 0.25)
        tensor(1.)
    """
    check.within("incremental_update", "step_size", step_size, 0, 1)
    if not compiling():
        tree.assert_alike("incremental_update", new, old, ("new", "old"))
    return tree.map(lambda x, y: step_size * x + (1 - step_size) * y, numbers(new), numbers(old))


def periodic_update(new: TensorTree, old: TensorTree, steps: int | Tensor, update_period: int) -> TensorTree:
    """`new` where `steps` is a multiple of `update_period` (so at step 0), else `old`: a target network that is replaced now and then.

    Args:
        new, old: trees of one structure.
        steps: steps taken; an int or a 0-dim int64 tensor, at which nothing looks.
        update_period: >= 1.

    Returns:
        A tree like `old`.

    Raises:
        ValueError: the trees differ in structure, shape or device; names the first path.

    Example:
        >>> fo.periodic_update(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(6), update_period=3)
        tensor(1.)
    """
    check.integer("periodic_update", "update_period", update_period, 1)
    if not compiling():
        tree.assert_alike("periodic_update", new, old, ("new", "old"))
    due = steps % update_period == 0
    return tree.where(due if isinstance(due, bool) else due.to(tree.device(new)), numbers(new), numbers(old))
