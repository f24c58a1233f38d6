"""Scion: momentum, of which every leaf takes the step that a norm made for it calls steepest.

    d_t = (1 - alpha) d_{t-1} + alpha g_t
    u_t = rho * lmo(d_t)
    p  <- p - lr * (u_t + weight_decay * p)

    "spectral"   matrices: sqrt(out / in) U V^T;   kernels, of rank 3 and more: the same over the volume of the kernel
    "sign"       sign(d) / in
    "col"        columns of RMS 1:   d / rms of d over the outputs
    "row"        rows of length 1 / sqrt(in):   d / (sqrt(in) ||d|| of every row)
    "bias"       d / rms(d)

U V^T by Newton-Schulz (newton_schulz.py). With weight_decay = 1, the constrained form, params stay within rho in their
norm (a step of Frank and Wolfe), so that rho is the size of the layer and the rate that of the step; with 0 they are
free (the unconstrained form). Since norms speak of operators, rates carry over from narrow to wide networks.

Source: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs", 2025. Reference:
pytorch_optimizer.SCION (4.1), the authors' code, whose iterations run in bfloat16.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.core.math.lengths import length
from funcopt.optimizers.newton_schulz import COEFFICIENTS, orthogonalized
from funcopt.transforms.groups import entries_of
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["ScaleByScionState", "scale_by_scion", "scion"]

NOTHING = 1e-30  # beside the length of a matrix that is not zero
NORMS = ("auto", "spectral", "sign", "col", "row", "bias")
Norms = TensorTree | Callable[..., Any] | str


class ScaleByScionState(NamedTuple):
    d: TensorTree  # running mean of g; like params


def scale_by_scion(
    alpha: Scalar = 0.1,
    norms: Norms = "auto",
    rho: Scalar = 1.0,
    *,
    ns_steps: int = 5,
    eps: Scalar = 1e-8,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation[ScaleByScionState]:
    """Averages the gradient and gives the longest step downhill within a ball, leaf by leaf.

    Args:
        alpha: share of the new gradient in the mean, in (0, 1].
        norms: one of the norms at the head of this file; "auto": "bias" up to rank 1, else "spectral". Or a tree of
            norms, or of pairs (norm, rho of that leaf), or a function that gives one, such as
            `by_path({"head.weight": ("sign", 3000.0), "*": ("auto", 50.0)})`.
        rho: size of the ball, > 0, where `norms` does not say it.
        ns_steps: iterations of Newton-Schulz, >= 1.
        eps: added to the lengths of "col", "row" and "bias", >= 0.
        ns_dtype: dtype of the iterations; None: that of the gradient.

    Returns:
        A transform from gradients to directions, in the shapes and dtypes it is given. Holds one tree like `params`.

    After a NaN:
        That entry of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range, a norm is unknown; at `init`, a leaf has no such norm.

    Example:
        >>> tx = fo.scale_by_scion(norms="sign")
        >>> tx.update(torch.tensor([[3.0, -0.5]]), tx.init(torch.zeros(1, 2)))[0]
        tensor([[ 0.5000, -0.5000]])
    """
    where = "scale_by_scion"
    check.positive(where, "alpha", alpha)
    check.within(where, "alpha", alpha, 0, 1)
    check.positive(where, "rho", rho)
    check.integer(where, "ns_steps", ns_steps, 1)
    check.nonnegative(where, "eps", eps)
    check.dtype(where, "ns_dtype", ns_dtype)
    single = isinstance(norms, str)
    if single:
        check.choice(where, "norms", norms, NORMS)

    def chosen(values: TensorTree) -> list[tuple[str, Scalar]]:
        """The norm and the size of every leaf."""
        entries: list[Any] = [norms] * len(tree.leaves(values)) if single else entries_of(norms, values, where, "norms")
        found: list[tuple[str, Scalar]] = []
        for entry, x, path in zip(entries, tree.leaves(values), tree.paths(values), strict=True):
            pair: tuple[Any, Any] = entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, rho)
            norm, size = pair
            check.choice(where, f"the norm of '{path}'", norm, NORMS)
            check.positive(where, f"rho of '{path}'", size)
            if norm in ("spectral", "sign", "col", "row") and x.dim() < 2:
                raise ValueError(
                    f"{where}: the norm {norm!r} must be of a leaf with two axes or more, got '{path}' of rank {x.dim()}; "
                    "'bias' is for those"
                )
            if norm == "auto":
                norm = "bias" if x.dim() < 2 else "spectral"
            found.append((str(norm), size))
        return found

    def lmo(d: Tensor, norm: str) -> Tensor:
        if d.numel() == 0:
            return d
        if norm == "bias":
            return d / (length(d) / math.sqrt(d.numel()) + eps)
        matrix = d.reshape(d.shape[0], -1)
        outputs, inputs = matrix.shape
        if norm == "sign":
            return moments.sign(d) / inputs
        if norm == "col":
            return (matrix / (length(matrix, 0, keepdim=True) / math.sqrt(outputs) + eps)).reshape(d.shape)
        if norm == "row":
            return (matrix / (length(matrix, 1, keepdim=True) * math.sqrt(inputs) + eps)).reshape(d.shape)
        o = orthogonalized(matrix if ns_dtype is None else matrix.to(ns_dtype), [COEFFICIENTS["standard"]] * ns_steps, NOTHING, "frobenius")
        volume = math.prod(d.shape[2:])
        return (math.sqrt(outputs / d.shape[1]) / volume) * o.to(d.dtype).reshape(d.shape)

    def init(params: TensorTree) -> ScaleByScionState:
        chosen(params)
        return ScaleByScionState(d=tree.zeros_like(params))

    def update(updates: TensorTree, state: ScaleByScionState, params: TensorTree | None = None, **extra: Any):
        d = moments.update_moment(updates, state.d, 1 - alpha)
        steps: list[Tensor] = []
        for g, mean, (norm, size) in zip(tree.leaves(updates), tree.leaves(d), chosen(updates), strict=True):
            steps.append((size * lmo(sharded.replicated(mean), norm)).to(g.dtype))
        return tree.unflatten(updates, steps), ScaleByScionState(d=d)

    return GradientTransformation(init, update, name=where, per_leaf=single, turns=False)


def scion(
    lr: ScalarOrSchedule | None,
    alpha: Scalar = 0.1,
    norms: Norms = "auto",
    rho: Scalar = 1.0,
    weight_decay: ScalarOrSchedule = 1.0,
    weight_decay_mask: TensorTree | None = None,
    *,
    ns_steps: int = 5,
    eps: Scalar = 1e-8,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """Scion: `scale_by_scion`, the pull of the constraint, then a step of size `lr` (None: the `base_lr` it hears) downhill.

    Args:
        lr: the rate, in [0, 1] where constrained: the share of the way to the edge of the ball that a step goes.
        alpha, norms, rho, ns_steps, eps, ns_dtype: as in `scale_by_scion`.
        weight_decay: 1 keeps params within `rho`; 0: they are free. >= 0.
        weight_decay_mask: which leaves are kept, as `masked` takes it; None: all.

    Returns:
        A transformation from gradients to updates, downhill and in units of the params. Its state is that of its links.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`.

    Raises:
        ValueError: a number is out of range; at `update`, no params are given where they decay.

    Example:
        >>> tx = fo.scion(0.1, norms="sign", rho=10.0)
        >>> params = torch.tensor([[4.0, 4.0]])
        >>> tx.update(torch.tensor([[3.0, -0.5]]), tx.init(params), params)[0]  # -(5 + 4) / 10 and (5 - 4) / 10
        tensor([[-0.9000,  0.1000]])
    """
    direction = scale_by_scion(alpha, norms, rho, ns_steps=ns_steps, eps=eps, ns_dtype=ns_dtype)
    return chain(direction, add_decayed_weights(weight_decay, weight_decay_mask), lr_scale(lr))
