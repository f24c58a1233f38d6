"""masked: let a transformation see only some of the leaves.

Leaves (and subtrees) that are masked out are replaced by `MaskedNode()`, which has no leaves, so that
the inner transformation keeps no state for them; they pass unchanged.
Reference: optax.masked (0.2.8).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, read_signals, tree
from funcopt.core.masking import hide
from funcopt.core.protocol import Grouping
from funcopt.core.wrap import field, wrapped
from funcopt.transforms.groups import Labels, mask_function

__all__ = ["MaskOrFn", "MaskedState", "masked"]


MaskOrFn = TensorTree | Callable[..., Any] | str | None  # bools, a prefix of them, a function of the tree, or a pattern of paths


class MaskedState(NamedTuple):
    inner_state: Any  # of what it wraps; without masked leaves

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def hide_extras(kept: list[bool], updates: TensorTree, extra: dict[str, Any]) -> dict[str, Any]:
    """Extra arguments that have the structure of the updates, masked like them."""
    structure = tree.structure(updates)
    return {name: hide(kept, value) if tree.structure(value) == structure else value for name, value in extra.items()}


def reveal(kept: list[bool], shown: TensorTree, original: TensorTree) -> TensorTree:
    """The original tree with the leaves of `shown` in the places that are kept."""
    changed = iter(tree.leaves(shown))
    return tree.unflatten(original, [next(changed) if keep else x for x, keep in zip(tree.leaves(original), kept, strict=True)])


def masked(
    inner: GradientTransformation,
    mask: TensorTree | Callable[[TensorTree], TensorTree] | str | Sequence[str],
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """Applies `inner` to the leaves where `mask` is true; the others pass unchanged.

    Args:
        inner: any transformation.
        mask: a tree of bools with the structure of params or a prefix of it (True alone
            is one), or a function from params (in `init`) or updates (in `update`) to
            such a tree; it may depend on structure, shapes and paths only. Or one or
            several patterns of paths such as "*.weight"; `by_path` has more of these.
        mask_compatible_extra_args: whether extra arguments that have the structure of
            the updates are masked too.

    Returns:
        A transformation whose inner state has no entry for masked leaves.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Raises:
        TypeError: `mask` holds something that is not a bool.
        ValueError: `mask` does not fit the params, names the path; a pattern matches nothing.

    Example:
        >>> gradients = {"w": torch.ones(1), "b": torch.ones(1)}
        >>> tx = fo.masked(fo.scale(-1.0), {"w": True, "b": False})
        >>> tx.update(gradients, tx.init(gradients))[0]
        {'w': tensor([-1.]), 'b': tensor([1.])}
        >>> tx = fo.masked(fo.scale(-1.0), "b*")
        >>> tx.update(gradients, tx.init(gradients))[0]
        {'w': tensor([1.]), 'b': tensor([-1.])}
    """
    kept = mask_function("masked", mask)

    def init(params: TensorTree) -> MaskedState:
        return MaskedState(inner_state=inner.init(hide(kept(params), params)))

    def update(updates: TensorTree, state: MaskedState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        keep = kept(updates)
        shown = None if params is None else hide(keep, params)
        if mask_compatible_extra_args:
            extra = hide_extras(keep, updates, extra)
        changed, inner_state = inner.update(hide(keep, updates), state.inner_state, shown, signals=signals, **extra)
        return reveal(keep, changed, updates), MaskedState(inner_state=inner_state)

    def remade(links: Mapping[Hashable, GradientTransformation], labels: Callable[[TensorTree], list[Any]]) -> GradientTransformation:
        return masked(links[True], Labels(labels), mask_compatible_extra_args=mask_compatible_extra_args)

    def grouping(params: TensorTree) -> Grouping:
        labels: list[Hashable] = [*kept(params)]
        return Grouping(labels, {True: inner}, remade)

    # A mask is one of the whole tree, so its leaves cannot be worked out one by one; what is masked out is turned by nobody.
    turns = None if inner.turns else inner.turns
    changed: dict[str, Any] = {"flattenable": False, "per_leaf": False, "turns": turns, "grouping": grouping}
    return wrapped(init, update, inner, field("inner_state"), name=f"masked {inner.name}", **changed)
