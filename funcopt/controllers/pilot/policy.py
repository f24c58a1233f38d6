"""The policy of PILOT as pure functions: what it sees of the gradients, what it decides, and what it learns from.

Primes stand for what the step before used: m' and v' are its corrected moments, g' its
gradient, p' its knobs, rho' its smoothed agreement, and kappa the size of the step. With

    n' = p_m' m' + (1 - p_m') g',   V = |v'|^p_v',   E = V + meta_eps,   a = sign(n') |n'|^(1 - p_s') / E

the derivatives of the loss by p' are, up to meta_eps in place of eps and a floor under v',

    S_m = -kappa (1 - p_s') <g, |n'|^-p_s' (m' - g') / E>
    S_v =  kappa <g, a (V / E) ln v'>
    S_s =  kappa <g, a ln |n'|>

and M = (S_m w_m R, S_v w_v R, S_s w_s R) with w the slopes of the sigmoids at rho' under
the present phi, and R = (rho'^d, ..., rho', 1). Only sums over all entries enter, so one
sweep over the leaves is enough; all powers share two logarithms per entry.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.controllers.pilot.small_leaves import bucketed
from funcopt.core import Scalar, TensorTree, moments, tree
from funcopt.core.dtypes import HALF, at_least_float32
from funcopt.core.math.lengths import added_squares
from funcopt.core.sharded import totals
from funcopt.core.tree.reductions import range_factor

FLOOR = 1e-12  # of |n|, of v in the meta-gradient, of the product of norms; a constant of the method
KNOBS = ("pm", "pv", "ps")  # momentum trust, variance power, sign compression


class Scales(NamedTuple):
    """Powers of two that multiply gradients in D and A, so that no product overflows or vanishes; None for 1, which float32 always has."""

    g: Tensor | None
    last: Tensor | None


PLAIN = Scales(None, None)


class Sums(NamedTuple):
    """What one sweep adds up, a list with an entry for each leaf or for several small ones: all that the policy ever sees of them."""

    D: Any  # <g, g'>, of both scaled
    A: Any  # <g, g>, of g scaled
    B: Any  # <g', g'>, of g' scaled: the state holds the square in float32, which has none of 1e20
    K_m: Any  # <g, |n'|^-p_s' (m' - g') / E>
    K_v: Any  # <g, a (V / E) ln v'>
    K_s: Any  # <g, a ln |n'|>


def sweep(
    g: TensorTree,
    last_grad: TensorTree,
    mu: TensorTree,
    nu: TensorTree,
    count: Tensor,
    knobs: Sequence[Tensor],
    b1: Scalar,
    b2: Scalar,
    eps_root: Scalar = 0.0,
    meta_eps: Scalar = 1e-8,
    *,
    by: Scales = PLAIN,
    frozen: bool = False,
    by_leaf: bool = False,
) -> Sums:
    """The sums over the leaves; all but `g` is as the step before left it.

    `frozen`: only the sums of the agreement. `by_leaf`: an entry for each leaf.
    """
    c1, c2 = moments.bias_factors(count.clamp(min=1), b1, b2)  # before the first step all below is exactly 0
    p_m, p_v, p_s = knobs
    rest, compression = 1 - p_m, -p_s
    wide = tree.scalar_dtype(count.device)

    def sums(g: Tensor, last: Tensor, mu: Tensor, nu: Tensor) -> Sums:
        x, y = _times(g, by.g).to(wide), _times(last, by.last).to(wide)
        D, A, B = (x * y).sum(), added_squares(x), added_squares(y)
        if frozen:
            return Sums(D, A, B, *(torch.zeros_like(A, dtype=g.dtype) for _ in KNOBS))
        m = mu * c1
        n = p_m * m + rest * last
        magnitude = n.abs().clamp(min=FLOOR)
        ln_n = magnitude.log()
        ln_v = variance(nu, c2, eps_root).clamp(min=FLOOR).log()
        V = torch.exp(p_v * ln_v)
        one_by_E = (V + meta_eps).reciprocal()
        h = g * torch.exp(compression * ln_n) * one_by_E
        a = h * magnitude * n.sign()
        return Sums(D, A, B, (h * (m - last)).sum(), (a * V * one_by_E * ln_v).sum(), (a * ln_n).sum())

    trees = g, working(last_grad), working(mu), working(nu)
    found = tree.leaves(tree.map_plain(sums, *(trees if frozen or by_leaf else bucketed(*trees))))
    return Sums(*(found[index :: len(Sums._fields)] for index in range(len(Sums._fields))))


def scales(g: TensorTree, last_grad: TensorTree) -> Scales:
    """What brings the squares of both into range."""
    return Scales(range_factor(g), range_factor(last_grad))


def agreement(sums: Sums, rho: Tensor, gamma: Scalar, by: Scales) -> tuple[Tensor, Tensor, Tensor]:
    """<g, g>, the agreement r and its running mean after this step; `by` is what the sums were scaled by."""
    wide = tree.scalar_dtype(rho.device)
    D, A, B = (_added(parts).to(wide) for parts in (sums.D, sums.A, sums.B))
    here, there = moments.safe_sqrt(A), moments.safe_sqrt(B)
    q = here * there
    seen = _over(here, by.g) * _over(there, by.last) > FLOOR
    r = torch.where(seen, D / torch.where(seen, q, 1), 0).to(rho.dtype)
    return A if by.g is None else _over(here, by.g).square(), r, (gamma * rho + (1 - gamma) * r).to(rho.dtype)


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _over(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x / factor


def policy(phi: Tensor, rho: Tensor, pin: Mapping[str, Scalar]) -> tuple[Tensor, Tensor, Tensor]:
    """p_m, p_v and p_s at rho; a pinned one is what it is pinned to."""
    f = polynomials(phi, rho)
    values = torch.sigmoid(f[0]), 0.5 * torch.sigmoid(f[1]), torch.sigmoid(f[2])
    p_m, p_v, p_s = (
        tree.scalar(pin[knob], phi).to(phi.dtype).clone() if knob in pin else value for knob, value in zip(KNOBS, values, strict=True)
    )
    return p_m, p_v, p_s


def meta_gradient(sums: Sums, kappa: Tensor, p_s: Tensor, phi: Tensor, rho: Tensor) -> Tensor:
    """M, [3, degree + 1]: the derivative of the loss by phi; `p_s` and `rho` are those of the step before.

    `kappa` is 0-dim, or [leaves] where leaves are sized differently.
    """
    S_m, S_v, S_s = (_weighted(kappa, parts).to(phi.dtype) for parts in (sums.K_m, sums.K_v, sums.K_s))
    S = torch.stack([-(1 - p_s) * S_m, 0.5 * S_v, S_s])  # p_v is half a sigmoid
    sigma = torch.sigmoid(polynomials(phi, rho))
    w = sigma * (1 - sigma)
    powers = [torch.ones_like(rho)]
    for _ in range(phi.shape[-1] - 1):
        powers.append(powers[-1] * rho)
    R = torch.stack(powers[::-1])
    return (S * w).unsqueeze(1) * R


def polynomials(phi: Tensor, rho: Tensor) -> Tensor:
    """f_m, f_v, f_s at rho, by Horner."""
    f = phi[:, 0]
    for power in range(1, phi.shape[-1]):
        f = f * rho + phi[:, power]
    return f


def variance(nu: Tensor, c2: Tensor, eps_root: Scalar) -> Tensor:
    """The corrected mean square."""
    v = nu * c2
    return v if isinstance(eps_root, (int, float)) and eps_root == 0 else v + eps_root


def _weighted(kappa: Tensor, parts: list[Tensor]) -> Tensor:
    """The sum over leaves, each times the size of its step."""
    if kappa.dim() == 0:
        total = _added(parts)
        return kappa.to(total.dtype) * total
    return _added([kappa[index].to(part.dtype) * part for index, part in enumerate(parts)])


def _added(parts: list[Tensor]) -> Tensor:
    """The sum of 0-dim terms, of sharded ones too."""
    return reduce(torch.add, totals(parts)) if parts else tree.sum(parts)


def working(values: TensorTree) -> TensorTree:
    """Half precision as float32."""
    for x in tree.leaves(values):
        if x.dtype in HALF:
            return tree.map(at_least_float32, values)
    return values
