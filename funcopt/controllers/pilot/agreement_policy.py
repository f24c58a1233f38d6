"""The link of PILOT: Adam with three knobs, which a small policy turns as successive gradients agree.

    r_t   = <g_t, g_{t-1}> / (|g_t| |g_{t-1}|)                        agreement of the whole tree, 0 where the norms are tiny
    rho_t = gamma * rho_{t-1} + (1 - gamma) * r_t
    p_m = sigma(f_m(rho_t)),  p_v = sigma(f_v(rho_t)) / 2,  p_s = sigma(f_s(rho_t)),   f_k a polynomial with coefficients phi_k
    mu_t = b1 * mu_{t-1} + (1 - b1) * g_t,   nu_t = b2 * nu_{t-1} + (1 - b2) * g_t^2
    m = mu_t / (1 - b1^t),   v = nu_t / (1 - b2^t),   n = p_m * m + (1 - p_m) * g_t
    u_t = sign(n) * |n|^(1 - p_s) / (v^p_v + eps)

The coefficients are trained while the model trains. With primes for what the step before
used and kappa for the size of the step, the loss fell by <g, kappa u'>, so that

    dL/dp'  = -kappa * <g, du'/dp'>
    M       = dL/dp' * dp/dphi at (phi, rho')
    phi_t   = phi_{t-1} - lr_phi * min(1, meta_clip / |M|) * M

Source and reference: pilot-optimizer 0.1.0.post3, which keeps three trees more: they are
functions of mu, nu and the last gradient. All powers are exp(c ln x), so that they share
their logarithms; |n| is held above 1e-12, v above the smallest normal number. Deviations:
|g| and |g'| are two roots and not the root of a product, which overflows; half precision
is computed in float32; a meta-gradient that is not finite leaves phi as it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from funcopt.controllers.pilot.policy import FLOOR, KNOBS, agreement, meta_gradient, policy, scales, sweep, variance, working
from funcopt.controllers.pilot.small_leaves import map_entries
from funcopt.core import (
    GradientTransformation,
    Scalar,
    ScalarOrSchedule,
    TensorTree,
    check,
    moments,
    scoped,
    signals as words,
    tree,
)
from funcopt.core.math import entrywise
from funcopt.core.math.lengths import length

__all__ = ["AgreementPolicyState", "agreement_policy"]

LrOf = Literal["this step", "last step"]
MetaStep = Literal["clipped", "normalized"]
Start = Literal["identity", "published"]

STARTS: dict[Start, tuple[tuple[float, float, float], MetaStep]] = {
    "identity": ((-6.0, -6.0, -6.0), "normalized"),
    "published": ((1.4, 3.0, -2.0), "clipped"),
}  # bias, meta-step


class AgreementPolicyState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    nu: TensorTree  # running mean of g^2; like params
    last_grad: TensorTree  # g of the step before; like params
    last_square: Tensor  # <last_grad, last_grad>
    r: Tensor  # agreement of the last two gradients, in [-1, 1]
    rho: Tensor  # its running mean
    momentum_trust: Tensor  # p_m in [0, 1], as used by the last step
    variance_power: Tensor  # p_v in [0, 1/2]
    sign_compression: Tensor  # p_s in [0, 1]
    phi: Tensor  # [3, degree + 1], rows m, v, s, highest power first
    meta_norm: Tensor  # |M|
    last_lr: Tensor  # kappa of the last step; [leaves] with a tree of rates

    def signals(self) -> dict[str, Tensor]:
        return {
            "agreement": self.rho,
            "momentum_trust": self.momentum_trust,
            "variance_power": self.variance_power,
            "sign_compression": self.sign_compression,
        }


def agreement_policy(
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    gamma: Scalar = 0.95,
    lr_phi: Scalar = 0.01,
    degree: int = 2,
    *,
    pin: Mapping[str, Scalar] | None = None,
    lr: ScalarOrSchedule | TensorTree | None = None,
    lr_of: LrOf = "this step",
    meta_eps: Scalar = 1e-8,
    meta_clip: Scalar = 1.0,
    meta_step: MetaStep | None = None,
    bias: Sequence[float] | None = None,
    eps_root: Scalar = 0.0,
    mu_dtype: torch.dtype | None = None,
    nu_dtype: torch.dtype | None = None,
    last_grad_dtype: torch.dtype | None = None,
    start: Start = "identity",
    name: str | None = None,
) -> GradientTransformation:
    """Shapes the gradient by how far successive gradients agree, and learns how while the model trains.

    It stands to the left of a direction (a pool, `scale_by_adam`), so it begins as the identity:
    what is preconditioned on both sides is preconditioned twice. `start="published"` is the
    direction itself, that of `pilot`, with nothing but the size of the step to its right.

    Args:
        b1: share of the past in the mean of the gradient, in [0, 1).
        b2: share of the past in the mean of its square, in [0, 1).
        eps: added to the power of the mean square, >= 0.
        gamma: share of the past in the smoothed agreement, in [0, 1); 0.85 to 0.99 are useful.
        lr_phi: rate of the policy, >= 0; 5e-4 to 5e-2 are useful, 0 holds the policy.
        degree: of the policy's polynomials in the agreement, an int >= 1.
        pin: holds knobs at values: "pm" (momentum trust, in [0, 1]), "pv" (variance
            power, in [0, 1/2]), "ps" (sign compression, in [0, 1]). All three at
            1, 1/2, 0 make Adam, "pv" and "ps" at 0, 1 the sign of the blend.
        lr: size of the step that follows, >= 0, for the meta-gradient alone: a number, a
            0-dim tensor, a schedule (the same as for `lr_scale`), or a tree of these, like
            params or a prefix, where leaves are sized differently. A wrong one is a wrong
            `lr_phi` and, while `meta_clip` is at work, nothing; with a tree it also
            weighs the leaves. None: what is said, see Signals.
        lr_of: "this step", as the reference has it, or "last step", whose effect is
            what is measured; they differ where the rate moves.
        meta_eps: in place of `eps` in the meta-gradient, > 0.
        meta_clip: longest step of the policy in units of `lr_phi`, > 0; `math.inf`: no limit.
        meta_step: "clipped", as published: lr_phi * min(1, meta_clip / |M|) * M; or "normalized":
            lr_phi * M / |M|, of one length however small M is. M is in units of the loss and is
            mostly far below 1, so that the published policy hardly moves. None: by `start`.
        bias: where the polynomials of p_m, p_v and p_s start, finite. None: by `start`.
        eps_root: added to the mean square, >= 0; > 0 where somebody differentiates through it.
        mu_dtype, nu_dtype, last_grad_dtype: of the three trees; None: that of the params,
            for float16 params float32.
        start: "identity" has bias -6 thrice, with which no knob is above 0.0025, and the meta-step
            "normalized", without which a policy so far out would stay there; "published" has
            (1.4, 3, -2) and "clipped".
        name: prefix of its words, where two stand in one chain.

    Returns:
        A transformation from gradients to directions in the shapes and dtypes it is
        given; as published of order one per entry at the start, though not as independent of
        the scale of the gradient as Adam. Holds three trees like params; the policy is float32,
        or float64 where a leaf is. An entry that is NaN stays so and holds the policy
        still; an infinite one makes all of them NaN: `apply_if_finite` outside skips such steps.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 that entry stays at 0; clip.

    Signals:
        hears, for the size of the step, with `lr=` and without it `base_lr` where said to
        its left, each times the multipliers said to its left; else the `lr` (or
        `base_lr`) of the step before, from anybody;
        says `agreement` (rho) and the knobs `momentum_trust`, `variance_power`, `sign_compression`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range; at
            `init` of the chain, nobody says `lr`; a tree `lr` does not fit the params.

    Example:
        >>> params = torch.zeros(2)
        >>> shape = fo.agreement_policy(lr=0.1, pin={"pm": 1.0, "pv": 0.5, "ps": 0.0})
        >>> state = shape.init(params)
        >>> shape.update(torch.tensor([3.0, -0.5]), state)[0]
        tensor([ 1.0000, -1.0000])
    """
    where = "agreement_policy"
    check.half_open(where, "b1", b1, 0, 1)
    check.half_open(where, "b2", b2, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.half_open(where, "gamma", gamma, 0, 1)
    check.nonnegative(where, "lr_phi", lr_phi)
    check.integer(where, "degree", degree, 1)
    check.choice(where, "lr_of", lr_of, get_args(LrOf))
    check.positive(where, "meta_eps", meta_eps)
    check.choice(where, "start", start, tuple(STARTS))
    bias, meta_step = (STARTS[start][0] if bias is None else bias), (STARTS[start][1] if meta_step is None else meta_step)
    check.choice(where, "meta_step", meta_step, get_args(MetaStep))
    if isinstance(meta_clip, Tensor) or meta_clip != math.inf:
        check.positive(where, "meta_clip", meta_clip)
    check.nonnegative(where, "eps_root", eps_root)
    for argument, dtype in (("mu_dtype", mu_dtype), ("nu_dtype", nu_dtype), ("last_grad_dtype", last_grad_dtype)):
        check.dtype(where, argument, dtype)
    pin = _checked_pin(where, pin)
    if len(tuple(bias)) != 3:
        raise ValueError(f"{where}: bias must have three numbers, for p_m, p_v and p_s, got {bias!r}")
    for value in bias:
        check.finite(where, "bias", value)
    by_leaf = not (lr is None or callable(lr) or isinstance(lr, (int, float, Tensor)))
    for rate in tree.leaves(lr) if by_leaf else () if lr is None else (lr,):
        check.schedule_or(check.nonnegative, where, "lr", rate)
    frozen = len(pin) == len(KNOBS)  # phi never moves: its gradient need not be known

    def init(params: TensorTree) -> AgreementPolicyState:
        dtype = torch.promote_types(torch.float32, tree.dtype(params, "promote")) if tree.leaves(params) else torch.float32
        zero = torch.zeros((), dtype=dtype, device=tree.device(params))
        constants = torch.stack([tree.scalar(value, zero).to(dtype) for value in bias])
        phi = torch.cat([torch.zeros(3, degree, dtype=dtype, device=zero.device), constants.unsqueeze(1)], dim=1)
        p_m, p_v, p_s = policy(phi, zero, pin)
        steps = tree.scalar(0.0, zero)
        return AgreementPolicyState(
            count=torch.zeros((), dtype=torch.int64, device=zero.device),
            mu=tree.zeros_like(params, mu_dtype),
            nu=tree.zeros_like(params, nu_dtype),
            last_grad=tree.zeros_like(params, last_grad_dtype),
            last_square=zero.clone(),
            r=zero.clone(),
            rho=zero.clone(),
            momentum_trust=p_m,
            variance_power=p_v,
            sign_compression=p_s,
            phi=phi,
            meta_norm=zero.clone(),
            last_lr=steps.expand(len(tree.broadcast_prefix(lr, params, where, "lr"))).clone() if by_leaf else steps,
        )

    def sizes(state: AgreementPolicyState, signals: Any, updates: TensorTree) -> tuple[Tensor, Tensor]:
        """kappa of this step, and the one for the meta-gradient."""
        base = words.hear(signals, "base_lr") if lr is None else lr
        if base is None:
            said = words.hear_last(signals, "lr", words.hear_last(signals, "base_lr"))
            if said is None:
                raise ValueError(f"{where}: no link says 'lr', which the meta-gradient needs; pass lr=, or put lr_scale() in the chain")
            heard = tree.scalar(said, state.last_lr).clone()
            return heard, heard
        given: list[Any] = tree.broadcast_prefix(base, updates, where, "lr") if by_leaf else [base]
        rates = [tree.scalar(check.value_at(where, "lr", rate, state.count), state.last_lr) for rate in given]
        if by_leaf:
            kappa = torch.stack(rates) if rates else state.last_lr
        else:
            kappa = rates[0]
        kappa = (words.multiplier(signals) * kappa).to(state.last_lr.dtype)
        return kappa, kappa if lr_of == "this step" else state.last_lr

    def update(updates: TensorTree, state: AgreementPolicyState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        g = working(updates)
        count = moments.increment(state.count)
        this_lr, kappa = sizes(state, signals, g)

        knobs = state.momentum_trust, state.variance_power, state.sign_compression
        by = scales(g, state.last_grad)
        sums = sweep(
            g, state.last_grad, state.mu, state.nu, state.count, knobs, b1, b2, eps_root, meta_eps, by=by, frozen=frozen, by_leaf=by_leaf
        )
        last_square, r, rho = agreement(sums, state.rho, gamma, by)
        p_m, p_v, p_s = policy(state.phi, rho, pin)

        M = meta_gradient(sums, kappa, state.sign_compression, state.phi, state.rho)
        if pin:
            M = torch.stack([torch.zeros_like(row) if knob in pin else row for knob, row in zip(KNOBS, M.unbind(), strict=True)])
        meta_norm = length(M).to(M.dtype)
        finite = meta_norm.isfinite()
        if meta_step == "normalized":
            moves = meta_norm > 0
            step = torch.where(moves, M / torch.where(moves, meta_norm, 1), 0)
        else:
            step = (meta_clip / (meta_norm + 1e-12)).clamp(max=1) * M
        phi = (state.phi - lr_phi * torch.where(finite, step, 0)).to(state.phi.dtype)

        wide_mu, wide_nu = working(state.mu), working(state.nu)
        mu, nu = moments.update_moment(g, wide_mu, b1), moments.update_moment(g, wide_nu, b2, order=2)
        c1, c2 = moments.bias_factors(count, b1, b2)
        trust, rest, by_v, by_n = entrywise.stacked(p_m, 1 - p_m, p_v, 1 - p_s)

        def direction(g: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
            n = trust * (mu * c1) + rest * g
            v = variance(nu, c2, eps_root)
            power = torch.exp(by_n * n.abs().clamp(min=FLOOR).log())  # |n|^(1 - p_s)
            V = torch.exp(by_v * v.clamp(min=torch.finfo(v.dtype).tiny).log())  # v^p_v, 1 for 0^0
            return n.sign() * power / (V + eps)

        new_state = AgreementPolicyState(
            count=count,
            mu=mu if wide_mu is state.mu else tree.cast_like(mu, state.mu),
            nu=nu if wide_nu is state.nu else tree.cast_like(nu, state.nu),
            last_grad=tree.cast_like(tree.clone(updates), state.last_grad),
            last_square=last_square.to(state.last_square.dtype),
            r=r,
            rho=rho,
            momentum_trust=p_m,
            variance_power=p_v,
            sign_compression=p_s,
            phi=phi,
            meta_norm=meta_norm,
            last_lr=this_lr,
        )
        return tree.cast_like(map_entries(direction, g, mu, nu), updates), new_state

    # In passing: the policy wants to know by how much the step is stretched, it does not stretch it.
    hears = dict.fromkeys(words.MULTIPLIERS, "in passing") | ({"base_lr": "in passing", "lr|base_lr": "last"} if lr is None else {})
    link = GradientTransformation(init, update, name=where, hears=hears, flattenable=not by_leaf, turns=False)
    return link if name is None else scoped(name, link)


def _checked_pin(where: str, pin: Mapping[str, Scalar] | None) -> dict[str, Scalar]:
    if pin is None:
        return {}
    if not isinstance(pin, Mapping):
        raise TypeError(f"{where}: pin must be a mapping from pm, pv, ps to values, got {pin!r}")
    for knob, value in pin.items():
        if knob not in KNOBS:
            raise ValueError(
                f"{where}: pin must have keys out of pm (momentum trust), pv (variance power) and ps (sign compression), got {knob!r}"
            )
        check.within(where, f"pin[{knob!r}]", value, 0, 0.5 if knob == "pv" else 1)
    return dict(pin)
