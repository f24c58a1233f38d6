"""What is no tree of tensors, or no state of this transformation, and what was probably meant.

Looked at where something is refused or has failed; a step that goes well asks nothing of this file.
"""

import numbers
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.door.shown import shown
from funcopt.core.versions import trouble_of_the_compiler

__all__ = ["as_made", "dense", "difference", "explain", "explain_step", "in_one_piece", "leaf", "outlines"]

SENTENCE = re.compile(r"[\w.]+( [\w.]+)?: ")
NAMED = "dict(model.named_parameters())"


def leaf(value: Any, path: str) -> str:
    """What stands in place of a tensor: `got ...; write ...`."""
    where = f" at '{path}'" if path else ""
    if isinstance(value, (torch.nn.Module, torch.optim.Optimizer)):
        return f"got {shown(value)}{where}; write {NAMED}"
    if isinstance(value, Iterator):
        return f"got a {type(value).__name__}{where}, as model.parameters() gives; write {NAMED}"
    if isinstance(value, str):
        return f"got the string {value!r}{where}, as in a list of model.named_parameters(); write {NAMED}"
    if type(value).__module__ == "numpy" or isinstance(value, (bool, numbers.Number)):
        return f"got {shown(value)}{where}; write torch.as_tensor(...)"
    return f"got {type(value).__name__}{where}"


def in_one_piece(where: str, params: Any) -> None:
    """Refuses leaves that ranks hold together: for methods whose matrices or draws are those of a whole leaf.

    Raises:
        ValueError: one is sharded; names it.
    """
    for path, x in zip(tree.paths(params), tree.leaves(params), strict=True):
        if hasattr(x, "full_tensor"):
            raise ValueError(
                f"{where}: params must lie in one piece on every rank, and '{path}' is sharded; keep the model whole on every rank "
                "(DistributedDataParallel), or take a method that works entry by entry, such as adamw"
            )


def dense(where: str, what: str, leaves: list[Any], paths: Callable[[], list[str]]) -> None:
    """Raises a TypeError for sparse tensors, and for dtypes that only store."""
    for index, x in enumerate(leaves):
        if not isinstance(x, Tensor):
            raise TypeError(f"{where}: {what} must be a tree of tensors, {leaf(x, paths()[index])}")
        if x.layout is not torch.strided:
            kind = str(x.layout).removeprefix("torch.")
            raise TypeError(
                f"{where}: {what} must be dense, got a {kind} tensor at '{paths()[index]}'; "
                "call .to_dense(), or build the layer with sparse=False"
            )
        if x.dtype.is_floating_point and x.dtype.itemsize == 1:
            kind = str(x.dtype).removeprefix("torch.")
            raise TypeError(
                f"{where}: {what} must be of a dtype that computes, got {kind} at '{paths()[index]}'; keep a bfloat16 or float32 copy"
            )


def _kind(node: Any) -> str:
    if isinstance(node, Tensor):
        return f"a tensor of shape {tuple(node.shape)}"
    if node is None:
        return "None"
    if hasattr(node, "_fields"):
        return type(node).__name__
    if isinstance(node, dict):
        return f"a dict of {', '.join(map(str, sorted(node, key=str)[:6])) or 'nothing'}"
    if isinstance(node, (tuple, list)):
        return f"a {type(node).__name__} of {len(node)}"
    return shown(node)


def difference(ours: Any, wanted: Any, path: str = "") -> str | None:
    """A sentence on the first place at which a state is of another make than it should be; None where it is alike."""
    unlike = f"at '{path}' it is {_kind(ours)} in place of {_kind(wanted)}" if path else f"it is {_kind(ours)} in place of {_kind(wanted)}"
    if isinstance(wanted, Tensor):
        return None if isinstance(ours, Tensor) and ours.shape == wanted.shape else unlike
    if isinstance(wanted, dict):
        if isinstance(ours, dict) and not wanted:
            return None  # the first step fills it
        if not isinstance(ours, dict) or set(ours) != set(wanted):
            return unlike
        pairs = [(str(key), ours[key], wanted[key]) for key in wanted]
    elif isinstance(wanted, (tuple, list)):
        if not isinstance(ours, (tuple, list)) or type(ours).__name__ != type(wanted).__name__ or len(ours) != len(wanted):
            return unlike
        names = getattr(wanted, "_fields", None) or range(len(wanted))
        pairs = [(str(name), left, right) for name, left, right in zip(names, ours, wanted, strict=True)]
    else:
        return None if type(ours) is type(wanted) else unlike
    for name, left, right in pairs:
        found = difference(left, right, f"{path}.{name}" if path else name)
        if found is not None:
            return found
    return None


def explain(where: str, init: Callable[..., Any], updates: Any, state: Any, params: Any, error: Exception) -> None:
    """After an update has failed: raises the sentence for it, if what it was given says why."""
    if (
        isinstance(error, (TypeError, ValueError))
        and SENTENCE.match(str(error))
        and not str(error).startswith(("tree.", "moments", "numerics.", "projections."))
    ):
        return
    dense(where, "updates", tree.leaves(updates), lambda: tree.paths(updates))
    if params is not None:
        dense(where, "params", tree.leaves(params), lambda: tree.paths(params))
    try:
        with torch.no_grad():
            fresh = init(updates if params is None else params)
    except Exception:
        return
    if (found := difference(state, fresh)) is not None:
        raise ValueError(
            f"{where}: the state must be what its own init gives, but {found}; it is the state of another transformation or tree"
        ) from error


def outlines(values: Any) -> Any:
    """Trees of tensors as their make alone, for a later `difference`."""
    return tree.map_until(Tensor, lambda x: torch.empty(x.shape, device="meta"), values)


def as_made(made: tuple[Any, Any] | None, error: Exception | None = None, **held: Any) -> None:
    """Raises a ValueError where `params=` or `state=` is not in the form that the `init` of a step made."""
    if made is None:
        raise ValueError("make_step: init must come first; write params, state = step.init(params)") from error
    ((name, given),) = held.items()
    if (found := difference(given, made[name == "state"])) is not None:
        raise ValueError(
            f"make_step: {name} must be in the form that step.init gives, but {found}; begin with params, state = step.init(params)"
        ) from error


def explain_step(step: Any, params: Any, state: Any, batch: tuple[Any, ...], error: Exception) -> None:
    """After a step of `make_step` has failed: raises the sentence for it, if what it was given says why."""
    dense("make_step", "params", tree.leaves(params), lambda: tree.paths(params))
    as_made(step.made, error, params=params)
    as_made(step.made, error, state=state)
    if step.compile and isinstance(error, trouble_of_the_compiler()):
        try:
            step._gradients(params, batch)
        except (TypeError, ValueError) as plain:
            if str(plain).startswith("make_step: "):
                raise plain from None
        except Exception:  # what went wrong in the graph says more
            return
