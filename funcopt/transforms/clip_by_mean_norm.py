"""clip_by_mean_norm: no gradient may be much longer than those of late.

    n_t = ||g_t||,   b_t = ratio m_{t-1}            (the first that is not 0 passes)
    u_t = g_t min(1, b_t / n_t)
    m_t = decay m_{t-1} + (1 - decay) min(n_t, b_t)   (m_1 = n_1; of n_t that are finite and not 0)

Where gradients have faded, as late in a training that fits its data, Adam's second moment has faded
with them, and one long gradient makes a step of many times the length of others; a fixed bound,
right for the first gradients, does not see it.

Source: the form of AdaGC (Wang et al., "AdaGC: Improving Training Stability for Large Language Model
Pretraining", 2025), there for every leaf by itself and after a warm-up, over the whole tree.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, numerics, tree

__all__ = ["ClipByMeanNormState", "clip_by_mean_norm"]


class ClipByMeanNormState(NamedTuple):
    mean: Tensor  # running mean of the lengths that passed; 0-dim


def clip_by_mean_norm(ratio: Scalar = 3.0, decay: Scalar = 0.95) -> GradientTransformation[ClipByMeanNormState]:
    """Shortens an update, taken as one vector, to at most `ratio` times the mean length of those before.

    Args:
        ratio: how much longer than the mean of late one may be, > 1: the mean can grow by a share of
            (1 - decay) (ratio - 1) a step, 10 % unless given. inf bounds nothing.
        decay: share of the past in the mean, in [0, 1): its memory is about 1 / (1 - decay) steps. Where it is far shorter than
            that of a second moment to the right, gradients that vanish and come back are held down beside it.

    Returns:
        A transform that keeps the direction, and units: gradients scaled by c give updates scaled by c.
        It stands to the left of an optimizer, and holds one number.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> tx = fo.clip_by_mean_norm(ratio=2.0)
        >>> updates, state = tx.update(torch.tensor([3.0, 4.0]), tx.init(torch.zeros(2)))
        >>> tx.update(torch.tensor([60.0, 80.0]), state)[0]  # of length 100, where the last was 5
        tensor([6., 8.])
    """
    check.limit("clip_by_mean_norm", "ratio", ratio)
    if isinstance(ratio, (int, float)) and ratio <= 1:
        raise ValueError(
            f"clip_by_mean_norm: ratio must be > 1, got {ratio}; at 1 and below the mean, and with it every update, can only shrink"
        )
    check.half_open("clip_by_mean_norm", "decay", decay, 0, 1)

    def init(params: TensorTree) -> ClipByMeanNormState:
        return ClipByMeanNormState(mean=tree.scalar(0.0, params))

    def update(updates: TensorTree, state: ClipByMeanNormState, params: TensorTree | None = None, **extra: Any):
        n = numerics.wide_norm(updates)
        counts, known = (n > 0) & n.isfinite(), state.mean > 0
        bound = torch.where(counts & known, ratio * torch.where(known, state.mean, 1), n)
        long = n > bound
        mean = torch.where(known, decay * state.mean + (1 - decay) * torch.where(long, bound, n), n)
        u = numerics.divide(updates, torch.where(long, n, 1), torch.where(long, bound, torch.ones_like(n)))
        return u, ClipByMeanNormState(mean=torch.where(counts, mean, state.mean))

    return GradientTransformation(init, update, name="clip_by_mean_norm", flattenable=True, leaves="complex", turns=False)
