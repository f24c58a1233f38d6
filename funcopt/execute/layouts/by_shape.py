"""Leaves of one shape together, for links that work every leaf out by itself.

    u, s = vmap(link)(u, s, p)   over the leaves of one shape, shape after shape

A hundred leaves of three shapes are then three tensors, views of a vector on which they lie side by side:
they cost three calls, and are compiled as three leaves are. What is counted is counted
once and the same for all.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.protocol import GradientTransformation, TensorTree
from funcopt.core.wrap import WHOLE, wrapped
from funcopt.execute.layouts.layout import Flat, Layout, Stacked

__all__ = ["by_stack", "stackable"]


def stackable(tx: GradientTransformation, layout: Layout, params: TensorTree) -> bool:
    """Whether `tx` can run on stacks, and they hold two leaves or more on the average: each costs a call."""
    if not tx.per_leaf or not layout.stacks or len(layout.visible) < 2 * len(layout.stacks) or isinstance(params, Tensor):
        return False
    try:
        _in_stacks(tx.init(params), layout)
    except (RuntimeError, ValueError, TypeError):  # leaves of one shape for which something else is kept
        return False
    return True


def by_stack(tx: GradientTransformation, layout: Layout) -> GradientTransformation:
    """A link that is `per_leaf`, on the stacks of a layout, which it returns; it takes vectors, stacks or leaves."""

    def init(params: Flat) -> Any:
        return _in_stacks(tx.init(layout.unravel(params)), layout)

    def update(updates: TensorTree, state: Any, params: Flat | None = None, *, signals: Any = None, **extra: Any):
        trees = {
            "updates": updates,
            **({} if params is None else {"params": params}),
            **{name: x for name, x in extra.items() if isinstance(x, Flat)},
        }
        trees = {name: layout.stacked(values).stacks for name, values in trees.items()}
        counted_once = tree.map_until(Stacked, lambda part: 0 if isinstance(part, Stacked) else None, state)

        def one(leaves: dict[str, Tensor], own: Any) -> tuple[Tensor, Any]:
            given = {name: {"leaf": x} for name, x in leaves.items()}
            new, own = tx.update(given.pop("updates"), own, given.pop("params", None), signals=signals, **{**extra, **given})
            return new["leaf"], own

        def of_one(leaves: dict[str, Tensor], own: Any) -> tuple[Tensor, Any]:
            """`of_each` without the cost of vmap."""
            x, own = one({word: x[0] for word, x in leaves.items()}, _at(lambda x: x[0], own, state))
            return x[None], _at(lambda x: x[None], own, state)

        of_each = torch.func.vmap(one, in_dims=(0, counted_once), out_dims=(0, counted_once))
        new, owned = {}, []
        for name, members in layout.stacks.items():
            leaves = {word: stacks[name] for word, stacks in trees.items()}
            own = tree.map_until(Stacked, lambda part, name=name: {"leaf": part.stacks[name]} if isinstance(part, Stacked) else part, state)
            new[name], own = (of_each if len(members) > 1 else of_one)(leaves, own)
            owned.append(own)

        def together(part: Any, *parts: Any) -> Any:
            return (
                Stacked({name: own["leaf"] for name, own in zip(layout.stacks, parts, strict=True)})
                if isinstance(part, Stacked)
                else parts[-1]
            )

        return Stacked(new), tree.map_until(Stacked, together, state, *owned)

    return wrapped(init, update, tx, WHOLE, alike=False)


def _at(f: Callable[[Tensor], Tensor], own: Any, state: Any) -> Any:
    """`f` on what stands in the place of stacks."""
    return tree.map_until(Stacked, lambda part, x: tree.map_plain(f, x) if isinstance(part, Stacked) else x, state, own)


def _in_stacks(state: Any, layout: Layout) -> Any:
    """A leafwise state with what stands in the form of params stacked."""
    if isinstance(state, Tensor):
        return state
    try:
        return layout.stack(state)
    except ValueError:  # not in the form of params: look inside
        pass
    if hasattr(state, "_fields"):
        return type(state)(*(_in_stacks(part, layout) for part in state))
    if isinstance(state, dict):
        return type(state)((name, _in_stacks(part, layout)) for name, part in state.items())
    if isinstance(state, (list, tuple)):
        return type(state)(_in_stacks(part, layout) for part in state)
    return state
