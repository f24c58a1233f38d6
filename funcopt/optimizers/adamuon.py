"""AdaMuon: Muon whose entries move equally far over time: each is divided by its own running RMS, as Adam does it.

    O    = Newton-Schulz(m),   or of sign(m)                                   (muon.py)
    v_t  = b2 v_{t-1} + (1 - b2) O^2                                           (one number for each entry)
    O'   = O / (sqrt(v_t) + eps)
    u_t  = consistent_rms sqrt(in out) O' / |O'|,   or sqrt(max(1, out / in)) |O| O' / |O'|

Source: Si, Zhang and Shen, "AdaMuon: Adaptive Muon optimizer", 2025. Reference: pytorch_optimizer.AdaMuon (4.1), whose
iterations run in bfloat16 and which divides v_t by 1 - b2^t; of that the norm leaves nothing, but beside eps. The paper's last
version orthogonalizes signs (signs=True).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain
from funcopt.optimizers.adamw import adamw
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers
from funcopt.optimizers.matrices import MuonPartitionState, beside_adam, scaled_by_rms
from funcopt.optimizers.muon import scale_by_muon
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByEntryRmsState", "adamuon", "scale_by_entry_rms"]

Numbers = TensorTree | Callable[..., Any] | MuonDimensionNumbers | None


class ScaleByEntryRmsState(NamedTuple):
    v: TensorTree  # running mean square of every entry, [..., in, out]; zeros(1) where there is no matrix


def scale_by_entry_rms(
    b2: Scalar = 0.95, eps: Scalar = 1e-8, consistent_rms: Scalar | None = 0.2, *, weight_dimension_numbers: Numbers = None
) -> GradientTransformation[ScaleByEntryRmsState]:
    """Divides every entry by its running RMS, and gives every matrix its size.

    Args:
        b2: share of the past in the mean square, in [0, 1).
        eps: added to the root and to the norm, > 0.
        consistent_rms: RMS of the result, usually 0.2, so that Adam's rates fit; None: the norm that arrives, times
            sqrt(max(1, out / in)).
        weight_dimension_numbers: as in `scale_by_muon`; leaves without pass.

    Returns:
        A transform for orthogonal matrices, to stand right of `scale_by_muon`. Holds one tree like the matrices.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After an infinity or 1e30 that entry stays at 0; clip.

    Raises:
        ValueError: a number is out of range; the dimension numbers do not fit.

    Example:
        >>> tx = fo.scale_by_entry_rms(b2=0.75, consistent_rms=1.0)
        >>> tx.update(torch.tensor([[0.6, -0.8], [0.0, 0.1]]), tx.init(torch.zeros(2, 2)))[0]  # signs, three of four
        tensor([[ 1.1547, -1.1547],
                [ 0.0000,  1.1547]])
    """
    return scaled_by_rms("scale_by_entry_rms", lambda v: ScaleByEntryRmsState(v=v), True, b2, eps, consistent_rms, weight_dimension_numbers)


def adamuon(
    lr: ScalarOrSchedule | None,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
    *,
    nesterov: bool = False,
    signs: bool = False,
    ns_steps: int = 5,
    consistent_rms: Scalar | None = 0.2,
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_lr: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Numbers = None,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation[MuonPartitionState]:
    """AdaMuon on matrices (`scale_by_muon`, `scale_by_entry_rms`, decoupled decay, a step of size `lr` downhill), AdamW on the rest.

    Args:
        lr: the rate, >= 0, as AdamW's: a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        b1: share of the past in the mean, in [0, 1).
        b2: share of the past in the mean squares of entries, in [0, 1).
        eps: keeps divisions finite, > 0; AdamW's too.
        weight_decay: of the matrices, times `lr`; >= 0.
        weight_decay_mask: which of the matrices decay, as `masked` takes it; None: all.
        nesterov: look one step ahead.
        signs: orthogonalise the signs of the mean, as the paper's last version does.
        ns_steps: iterations of Newton-Schulz, >= 1.
        consistent_rms: as in `scale_by_entry_rms`.
        adam_b1: share of the past in Adam's mean, in [0, 1).
        adam_b2: share of the past in Adam's mean square, in [0, 1).
        adam_weight_decay: of the rest, times its rate; >= 0.
        adam_lr: the rate of the rest; None: `lr`.
        muon_weight_dimension_numbers: which leaves are matrices, and which of their axes, as in `muon`.
        ns_dtype: dtype of the iterations; None: that of the gradient.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Holds two trees like the params.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range; the dimension numbers do not fit.

    Example:
        >>> tx = fo.adamuon(0.1, b2=0.0)
        >>> params = torch.zeros(2, 2)
        >>> updates, state = tx.update(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), tx.init(params), params)
        >>> updates  # an RMS of 0.1 * 0.2, in two of four entries
        tensor([[-0.0283, -0.0000],
                [-0.0000, -0.0283]])
    """

    def matrices(inner: Any, kept: Any) -> GradientTransformation:
        orthogonal = scale_by_muon(
            beta=b1,
            eps=eps,
            ns_steps=ns_steps,
            nesterov=nesterov,
            weight_dimension_numbers=inner,
            bias_correction=False,
            ns_dtype=ns_dtype,
            signs=signs,
        )
        entries = scale_by_entry_rms(b2, eps, consistent_rms, weight_dimension_numbers=inner)
        return chain(orthogonal, entries, add_decayed_weights(weight_decay, kept), lr_scale(lr))

    rest = adamw(lr if adam_lr is None else adam_lr, adam_b1, adam_b2, eps, weight_decay=adam_weight_decay)
    return beside_adam("adamuon", matrices, rest, muon_weight_dimension_numbers, weight_decay_mask)
