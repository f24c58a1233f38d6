"""set_to_zero, freeze and selective_transform: leaves that stay as they are.

    u = 0 where frozen

Note the two meanings of True: `masked` transforms what is true, these freeze it.
Reference: optax.set_to_zero, optax.freeze and optax.selective_transform (0.2.8).
"""

from collections.abc import Callable, Sequence
from typing import Any

from funcopt.core import EmptyState, GradientTransformation, TensorTree, tree
from funcopt.transforms.groups import Labels, mask_function
from funcopt.transforms.mask import masked
from funcopt.transforms.partition import partition

__all__ = ["freeze", "selective_transform", "set_to_zero"]

Mask = TensorTree | Callable[[TensorTree], TensorTree] | str | Sequence[str]


def set_to_zero() -> GradientTransformation[EmptyState]:
    """Replaces the updates by zeros.

    Returns:
        A transformation to zeros in the shapes and dtypes it is given, and no state.

    After a NaN:
        This step is finite, the next is clean.

    Example:
        >>> tx = fo.set_to_zero()
        >>> tx.update(torch.ones(2), tx.init(torch.ones(2)))[0]
        tensor([0., 0.])
    """

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.zeros_like(updates), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="set_to_zero", flattenable=True, leaves="any", per_leaf=True, turns=True
    )


def freeze(mask: Mask) -> GradientTransformation:
    """Zeros where `mask` is true; the other updates pass. Put it last.

    Args:
        mask: True means frozen; a tree of bools, a prefix of one, a function that gives
            one, or patterns of paths, as `masked` takes it.

    Returns:
        A transformation that keeps shapes and dtypes.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: at `init`, the mask does not fit the params.

    Example:
        >>> tx = fo.freeze("encoder.*")
        >>> updates = {"encoder": {"w": torch.ones(1)}, "head": torch.ones(1)}
        >>> tx.update(updates, tx.init(updates))[0]
        {'encoder': {'w': tensor([0.])}, 'head': tensor([1.])}
    """
    return masked(set_to_zero(), mask)


def selective_transform(optimizer: GradientTransformation, *, freeze_mask: Mask) -> GradientTransformation:
    """Trains some leaves and freezes the others, for which it keeps no state.

    Args:
        optimizer: what trains.
        freeze_mask: True means frozen; as `freeze` takes it.

    Returns:
        A `partition` with the labels "train" and "freeze".

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

    Signals:
        says the words of `optimizer` as "train/word".

    Raises:
        TypeError: `optimizer` is no transformation.
        ValueError: at `init`, the mask does not fit the params.

    Example:
        >>> params = {"encoder": {"w": torch.ones(1)}, "head": torch.ones(1)}
        >>> tx = fo.selective_transform(fo.sgd(0.5), freeze_mask="encoder.*")
        >>> tx.update(params, tx.init(params), params)[0]
        {'encoder': {'w': tensor([0.])}, 'head': tensor([-0.5000])}
    """
    frozen = mask_function("selective_transform", freeze_mask)

    labels = Labels(lambda values: ["freeze" if stays else "train" for stays in frozen(values)])
    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)
