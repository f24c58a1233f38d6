"""masked: let a transformation see only some of the leaves.

Leaves that are masked out are replaced by `MaskedNode()`, which has no leaves, so that
the inner transformation keeps no state for them; they pass unchanged.
Reference: optax.masked (0.2.8).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, read_signals, tree

__all__ = ["MaskedNode", "MaskedState", "masked"]


class MaskedNode(NamedTuple):
    """Stands where a leaf is masked out."""


class MaskedState(NamedTuple):
    inner_state: Any

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def _hide(kept: list[bool], values: TensorTree) -> TensorTree:
    return tree.unflatten(values, [x if keep else MaskedNode() for x, keep in zip(tree.leaves(values), kept, strict=True)])


def _reveal(kept: list[bool], shown: TensorTree, original: TensorTree) -> TensorTree:
    changed = iter(tree.leaves(shown))
    return tree.unflatten(original, [next(changed) if keep else x for x, keep in zip(tree.leaves(original), kept, strict=True)])


def masked(inner: GradientTransformation, mask: TensorTree | Callable[[TensorTree], TensorTree]) -> GradientTransformation:
    """Applies `inner` to the leaves where `mask` is true; the others pass unchanged.

    Args:
        inner: any transformation.
        mask: a tree of bools with the structure of params or a prefix of it (True alone
            is one), or a function from params (in `init`) or updates (in `update`) to
            such a tree; it may depend on structure, shapes and paths only.

    Returns:
        A transformation whose inner state has no entry for masked leaves.

    Raises:
        TypeError: `mask` holds something that is not a bool.
        ValueError: `mask` does not fit the params; names the path.

    Example:
        >>> tx = fo.masked(fo.scale(-1.0), {"w": True, "b": False})
        >>> gradients = {"w": torch.ones(1), "b": torch.ones(1)}
        >>> tx.update(gradients, tx.init(gradients))[0]
        {'w': tensor([-1.]), 'b': tensor([1.])}
    """

    def kept(values: TensorTree) -> list[bool]:
        entries = tree.broadcast_prefix(mask(values) if callable(mask) else mask, values, "masked", "mask")
        for entry in entries:
            if isinstance(entry, Tensor) and entry.dim() == 0:
                continue
            if not isinstance(entry, bool):
                raise TypeError(f"masked: mask must hold bools, got {entry!r}")
        return [bool(entry) for entry in entries]

    def init(params: TensorTree) -> MaskedState:
        return MaskedState(inner_state=inner.init(_hide(kept(params), params)))

    def update(updates: TensorTree, state: MaskedState, params=None, *, signals=None, **extra):
        keep = kept(updates)
        shown = None if params is None else _hide(keep, params)
        changed, inner_state = inner.update(_hide(keep, updates), state.inner_state, shown, signals=signals, **extra)
        return _reveal(keep, changed, updates), MaskedState(inner_state=inner_state)

    def plan(state: MaskedState, **extra):
        return inner.plan(state.inner_state, **extra)

    return GradientTransformation(
        init,
        update,
        name=f"masked {inner.name}",
        hears=inner.hears,
        must_be_heard=inner.must_be_heard,
        leaves="any",
        plan=plan if inner.plan else None,
    )
