"""PILOT: the direction of `agreement_policy`, decoupled decay, and a step of size `lr`.

    u_t = sign(n) * |n|^(1 - p_s) / (v^p_v + eps)        with knobs p that a policy turns (`agreement_policy.py`)
    p_t = p_{t-1} - lr_t * (u_t + weight_decay * p_{t-1})

Source and reference: pilot-optimizer 0.1.0.post3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from funcopt.controllers.pilot.agreement_policy import AgreementPolicyState, LrOf, MetaStep, agreement_policy
from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, find
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["pilot", "policy_diagnostics"]


def pilot(
    lr: ScalarOrSchedule | None = 1e-3,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    gamma: Scalar = 0.95,
    lr_phi: Scalar = 0.01,
    degree: int = 2,
    *,
    pin: Mapping[str, Scalar] | None = None,
    weight_decay_mask: TensorTree | None = None,
    lr_of: LrOf = "this step",
    meta_eps: Scalar = 1e-8,
    meta_clip: Scalar = 1.0,
    meta_step: MetaStep = "clipped",
    bias: Sequence[float] = (1.4, 3.0, -2.0),
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    last_grad_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """PILOT: `agreement_policy`, decoupled decay, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule. Rates of Adam do not
            carry over one to one: the step grows as gradients shrink.
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the power of the mean square, >= 0.
        weight_decay: >= 0, per unit of `lr`.
        gamma: share of the past in the smoothed agreement, in [0, 1); 0.85 to 0.99 are useful.
        lr_phi: rate of the policy, >= 0; 5e-4 to 5e-2 are useful, 0 holds the policy.
        degree: of the policy's polynomials in the agreement, an int >= 1.
        pin: holds knobs at values: "pm" (momentum trust, in [0, 1]), "pv" (variance power, in [0, 1/2]), "ps" (sign
            compression, in [0, 1]). All three at 1, 1/2, 0 make Adam, "pv" and "ps" at 0, 1 the sign of the blend.
        weight_decay_mask: which leaves decay, as `masked` takes it; None: all.
        lr_of: "this step", as the reference has it, or "last step", whose effect is what is measured; they differ where
            the rate moves.
        meta_eps: in place of `eps` in the meta-gradient, > 0.
        meta_clip: longest step of the policy in units of `lr_phi`, > 0; `math.inf`: no limit.
        meta_step: "clipped", as published: lr_phi * min(1, meta_clip / |M|) * M; or "normalized": lr_phi * M / |M|, of
            one length however small M is. M is in units of the loss and is mostly far below 1, so that the published
            policy hardly moves.
        bias: where the polynomials of p_m, p_v and p_s start, finite.
        eps_root: added to the mean square, >= 0; > 0 where somebody differentiates through it.
        mu_dtype, nu_dtype, last_grad_dtype: of the mean, of the mean square and of the last gradient; None: that of the
            params, for float16 params float32.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds, in their shapes and dtypes. Holds three
        trees like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range, a choice is unknown; at `update`, weights decay and no params are given.

    Example:
        >>> tx = fo.pilot(0.1, weight_decay=0.0)
        >>> updates, state = tx.update(torch.tensor([1.0, -1.0]), tx.init(torch.zeros(2)))
        >>> updates
        tensor([-0.1000,  0.1000])
    """
    shape = agreement_policy(
        *(b1, b2, eps, gamma, lr_phi, degree),
        pin=pin,
        lr=lr,
        lr_of=lr_of,
        meta_eps=meta_eps,
        meta_clip=meta_clip,
        meta_step=meta_step,
        bias=bias,
        eps_root=eps_root,
        mu_dtype=mu_dtype,
        nu_dtype=nu_dtype,
        last_grad_dtype=last_grad_dtype,
    )
    return chain(
        shape,
        add_decayed_weights(weight_decay, weight_decay_mask),
        lr_scale(lr),
    )


def policy_diagnostics(state: Any) -> dict[str, Tensor]:
    """What the policy of a state saw and decided, as 0-dim tensors with readable names.

    Args:
        state: any state with one `AgreementPolicyState` in it.

    Returns:
        "count", "r", "rho", "p_m", "p_v", "p_s" as the last step used them, "meta_norm", and
        the coefficients by power: "phi_m[2]" belongs to rho^2 in the polynomial of p_m.

    Raises:
        KeyError: the state holds none, or several; lists them.

    Example:
        >>> diagnostics = fo.policy_diagnostics(fo.pilot(1e-3).init(torch.zeros(2)))
        >>> diagnostics["p_m"], diagnostics["phi_m[0]"]
        (tensor(0.8022), tensor(1.4000))
    """
    found = find(state, AgreementPolicyState)
    seen = {"count": found.count, "r": found.r, "rho": found.rho}
    seen |= {"p_m": found.momentum_trust, "p_v": found.variance_power, "p_s": found.sign_compression, "meta_norm": found.meta_norm}
    degree = found.phi.shape[-1] - 1
    seen |= {
        f"phi_{knob}[{power}]": found.phi[..., row, degree - power] for row, knob in enumerate("mvs") for power in range(degree, -1, -1)
    }
    return seen
