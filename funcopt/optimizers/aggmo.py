"""AggMo: the mean of several momentums, the long ones for speed, the short ones for calm.

    b_k = betas_k * b_k + g_t        for every k
    u_t = (b_1 + ... + b_K) / K

Source: Lucas et al., "Aggregated Momentum: Stability Through Passive Damping", 2019. Reference: pytorch_optimizer's AggMo (4.1), whose
decay is coupled: `chain(add_decayed_weights(weight_decay), scale_by_aggmo(), lr_scale(lr))`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, tree
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["AggMoState", "aggmo", "scale_by_aggmo"]


class AggMoState(NamedTuple):
    b: tuple[TensorTree, ...]  # the sums, one for each beta; like params


def scale_by_aggmo(betas: Sequence[Scalar] = (0.0, 0.9, 0.99)) -> GradientTransformation[AggMoState]:
    """The mean of several decaying sums of gradients.

    Args:
        betas: what is left of each sum after a step, in [0, 1). A constant gradient grows by
            the mean of 1 / (1 - betas), 37 for the default.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given.
        Holds one tree like `params` for each beta.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        TypeError, ValueError: `betas` is no sequence of numbers in [0, 1), or is empty.

    Example:
        >>> aggmo = fo.scale_by_aggmo((0.0, 0.5))
        >>> _, state = aggmo.update(torch.tensor([2.0]), aggmo.init(torch.zeros(1)))
        >>> aggmo.update(torch.tensor([2.0]), state)[0]  # of 2 and 3
        tensor([2.5000])
    """
    where = "scale_by_aggmo"
    if isinstance(betas, (str, Tensor)) or not isinstance(betas, Sequence):
        raise TypeError(f"{where}: betas must be a sequence of numbers in [0, 1), got {betas!r}; write (0.0, 0.9, 0.99)")
    if not betas:
        raise ValueError(f"{where}: betas must hold at least one number, got none")
    for index, beta in enumerate(betas):
        check.half_open(where, f"betas[{index}]", beta, 0, 1)
    share = 1 / len(betas)

    def init(params: TensorTree) -> AggMoState:
        return AggMoState(b=tuple(tree.zeros_like(params) for _ in betas))

    def update(updates: TensorTree, state: AggMoState, params: TensorTree | None = None, **extra: Any):
        sums = tuple(tree.map(lambda g, b, beta=beta: g + beta * b, updates, b) for beta, b in zip(betas, state.b, strict=True))

        def mean(*b: Tensor) -> Tensor:
            return share * sum(b[1:], b[0])

        direction = tree.map(mean, *sums)
        return tree.cast_like(direction, updates), AggMoState(b=tuple(tree.cast_like(b, old) for b, old in zip(sums, state.b, strict=True)))

    return GradientTransformation(init, update, name=where, flattenable=True, leaves="complex", per_leaf=True, turns=False)


def aggmo(
    lr: ScalarOrSchedule | None,
    betas: Sequence[Scalar] = (0.0, 0.9, 0.99),
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | None = None,
) -> GradientTransformation:
    """Aggregated momentum: `scale_by_aggmo`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule.
        betas: as in `scale_by_aggmo`.
        weight_decay: decoupled, >= 0.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.

    Returns:
        A ready-made optimizer, whose state says `lr`. Holds one tree like `params` for each beta.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    Example:
        >>> tx = fo.aggmo(0.1)
        >>> tx.update(torch.tensor([3.0, -0.5]), tx.init(torch.zeros(2)))[0]
        tensor([-0.3000,  0.0500])
    """
    return chain(scale_by_aggmo(betas), add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
