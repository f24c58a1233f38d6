"""Muon: momentum whose matrices are orthogonalised, so that every direction in them moves equally far.

    mu_t = beta * mu_{t-1} + (1 - beta) * g_t
    m = mu_t / (1 - beta^t);   Nesterov: beta * mu_t / (1 - beta^(t+1)) + (1 - beta) * g_t / (1 - beta^t)
    O = Newton-Schulz(m),   times sum(m * O) if adaptive         (newton_schulz.py)
    u_t = sqrt(max(1, out / in)) * O,   or consistent_rms * sqrt(max(in, out)) * O,   or sqrt(out / in) * O

Matrices only; AdamW (Nesterov's too, unless told otherwise) takes the rest.

Source: Jordan et al. 2024. Reference: optax.contrib.muon (0.2.8), but for the layout: torch's weights are
(out, in). With bias_correction=False and ns_dtype=torch.bfloat16 torch.optim.Muon.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, sharded, tree
from funcopt.optimizers.adam import corrected
from funcopt.optimizers.adamw import adamw
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers, as_matrices, axes_of, dimensions_of, parts_of, size_along, the_same
from funcopt.optimizers.matrices import MuonPartitionState, beside_adam
from funcopt.optimizers.newton_schulz import (
    COEFFICIENTS,
    PRECONDITIONINGS,
    Coefficients as NamedCoefficients,
    Preconditioning,
    orthogonalized,
)
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["MuonState", "muon", "scale_by_muon", "scale_by_shape"]

Coefficients = NamedCoefficients | Sequence[float] | Sequence[Sequence[float]] | Tensor


class MuonState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    ns_coeffs: Tensor  # [3], or [steps, 3]


def _coefficients(where: str, given: Coefficients, steps: int) -> tuple[Tensor, int]:
    if isinstance(given, str):
        check.choice(where, "ns_coeffs", given, COEFFICIENTS)
        given = COEFFICIENTS[given]
    rows = given if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float64, device="cpu")
    if rows.shape[-1:] != (3,) or rows.dim() > 2:
        raise ValueError(f"{where}: ns_coeffs must be three numbers, or three for each step, got the shape {tuple(rows.shape)}")
    return rows, rows.shape[0] if rows.dim() == 2 else steps


def scale_by_muon(
    ns_coeffs: Coefficients = "standard",
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: TensorTree | Callable[..., Any] | MuonDimensionNumbers | None = None,
    bias_correction: bool = True,
    ns_dtype: torch.dtype | None = None,
    signs: bool = False,
) -> GradientTransformation[MuonState]:
    """Orthogonalises a running mean of the gradient, matrix by matrix.

    Args:
        ns_coeffs: "standard", "dion", three numbers, or three for each step.
        ns_steps: iterations, >= 1; as many as there are rows where `ns_coeffs` has rows.
        beta: share of the past in the mean, in [0, 1).
        eps: keeps the first division finite, >= 0.
        mu_dtype: dtype of the stored mean; None: that of the params.
        nesterov: look one step ahead.
        adaptive: multiply by the inner product of the mean and the result, over the whole leaf.
        preconditioning: how the first iterate is bounded: "frobenius", "spectral", "aol" or "schatten".
        weight_dimension_numbers: `MuonDimensionNumbers` for all leaves, a tree of them (or a
            prefix, or a function of the tree, `by_path(...)` for instance); None: leaves of
            rank 2 as torch lays them out. Every leaf must have some.
        bias_correction: divide the mean by 1 - beta^t (torch: no). It matters for Nesterov's mixture only.
        ns_dtype: dtype of the iterations; None: that of the gradient. torch: bfloat16.
        signs: orthogonalise the signs of the mean (`adamuon`).

    Returns:
        A transform from gradients to matrices with singular values near 1, in the shapes
        and dtypes it is given. Holds one tree like `params`.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Raises:
        ValueError: a number is out of range; at `init`, a leaf has no matrix.

    Example:
        >>> muon = fo.scale_by_muon()
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
        >>> muon.update(gradient, muon.init(gradient))[0]
        tensor([[1.1171, 0.0000],
                [0.0000, 0.6821]])
    """
    where = "scale_by_muon"
    check.integer(where, "ns_steps", ns_steps, 1)
    check.half_open(where, "beta", beta, 0, 1)
    check.nonnegative(where, "eps", eps)
    check.dtype(where, "mu_dtype", mu_dtype)
    check.dtype(where, "ns_dtype", ns_dtype)
    check.choice(where, "preconditioning", preconditioning, PRECONDITIONINGS)
    rows, steps = _coefficients(where, ns_coeffs, ns_steps)
    dimensions = dimensions_of(where, "weight_dimension_numbers", weight_dimension_numbers)

    def init(params: TensorTree) -> MuonState:
        for index, numbers in enumerate(dimensions(params)):
            if numbers is None:
                raise ValueError(
                    f"{where}: every leaf must be a matrix or have weight_dimension_numbers, got '{tree.paths(params)[index]}' without; "
                    "use muon"
                )
        return MuonState(
            count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), ns_coeffs=rows.to(tree.device(params)).clone()
        )

    def orthogonal(x: Tensor, numbers: MuonDimensionNumbers, coefficients: list[Any]) -> Tensor:
        matrices, back = as_matrices(x, numbers)
        parts = matrices.split(parts_of(numbers, matrices.shape[-1]), -1)
        result = [orthogonalized(part if ns_dtype is None else part.to(ns_dtype), coefficients, eps, preconditioning) for part in parts]
        return back((result[0] if len(result) == 1 else torch.cat(result, -1)).to(x.dtype))

    def update(updates: TensorTree, state: MuonState, params: TensorTree | None = None, **extra: Any):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, beta)
        if bias_correction:
            mean, _ = corrected(count, beta, beta, nesterov)
        elif nesterov:

            def mean(g: Tensor, mu: Tensor, /) -> Tensor:
                return (1 - beta) * g + beta * mu

        else:

            def mean(g: Tensor, mu: Tensor, /) -> Tensor:
                return mu

        row = state.ns_coeffs if state.ns_coeffs.dim() == 2 else state.ns_coeffs.expand(steps, 3)
        coefficients = [(row[i, 0], row[i, 1], row[i, 2]) for i in range(steps)]

        results: list[Tensor] = []
        for g, m, numbers in zip(tree.leaves(updates), tree.leaves(mu), dimensions(updates), strict=True):
            m = sharded.replicated(mean(g, m).to(g.dtype))
            m = moments.sign(m) if signs else m
            o = orthogonal(m, numbers, coefficients)
            results.append((m * o).sum() * o if adaptive else o)
        return tree.unflatten(updates, results), MuonState(count=count, mu=mu, ns_coeffs=state.ns_coeffs)

    return GradientTransformation(init, update, name=where, per_leaf=the_same(weight_dimension_numbers), turns=False)


def scale_by_shape(
    weight_dimension_numbers: TensorTree | Callable[..., Any] | MuonDimensionNumbers | None = None,
    consistent_rms: Scalar | None = None,
    *,
    clamped: bool = True,
) -> GradientTransformation[EmptyState]:
    """Multiplies orthogonal matrices by what makes them suit layers of any shape.

    Args:
        weight_dimension_numbers: as in `scale_by_muon`; leaves without pass unchanged.
        consistent_rms: None for sqrt(max(1, out / in)), of Muon's authors; a number, usually
            0.2, for that times sqrt(max(in, out)), after which entries have the RMS of
            Adam's steps whatever the shape, and Adam's rates fit.
        clamped: False: sqrt(out / in) also for wide matrices, torch's "spectral_unclamped"; without `consistent_rms`.

    Returns:
        A transformation that keeps shapes and dtypes, and no state.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        ValueError: `consistent_rms` is negative or given beside `clamped=False`, or the dimension numbers do not fit the params.

    Example:
        >>> wide = fo.scale_by_shape()
        >>> wide.update(torch.ones(4, 1), wide.init(torch.ones(4, 1)))[0].mT
        tensor([[2., 2., 2., 2.]])
    """
    if consistent_rms is not None:
        check.nonnegative("scale_by_shape", "consistent_rms", consistent_rms)
        if not clamped:
            raise ValueError("scale_by_shape: consistent_rms and clamped=False are two sizes; take one")
    dimensions = dimensions_of("scale_by_shape", "weight_dimension_numbers", weight_dimension_numbers)

    def factor(inputs: int, outputs: int) -> Scalar:
        if consistent_rms is None:
            return (max(1.0, outputs / inputs) if clamped else outputs / max(1, inputs)) ** 0.5
        return consistent_rms * max(inputs, outputs) ** 0.5

    def sized(x: Tensor, numbers: MuonDimensionNumbers | None) -> Tensor:
        if numbers is None or x.numel() == 0:
            return x
        inputs, outputs = size_along(x, axes_of(numbers.reduction_axis, x.dim())), size_along(x, axes_of(numbers.output_axis, x.dim()))
        sizes = parts_of(numbers, outputs)
        if len(set(sizes)) == 1:
            return factor(inputs, sizes[0]) * x
        matrices, back = as_matrices(x, numbers)
        return back(torch.cat([factor(inputs, part.shape[-1]) * part for part in matrices.split(sizes, -1)], -1))

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        return tree.unflatten(
            updates, [sized(x, numbers) for x, numbers in zip(tree.leaves(updates), dimensions(updates), strict=True)]
        ), state

    return GradientTransformation(
        lambda params: EmptyState(), update, name="scale_by_shape", per_leaf=the_same(weight_dimension_numbers), turns=False
    )


def muon(
    lr: ScalarOrSchedule | None,
    ns_coeffs: Coefficients = "standard",
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | Callable[..., Any] | None = None,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_lr: ScalarOrSchedule | None = None,
    adam_nesterov: bool | None = None,
    muon_weight_dimension_numbers: TensorTree | Callable[..., Any] | MuonDimensionNumbers | None = None,
    consistent_rms: Scalar | None = None,
    bias_correction: bool = True,
    ns_dtype: torch.dtype | None = None,
    clamped: bool = True,
) -> GradientTransformation[MuonPartitionState]:
    """Muon on matrices (`scale_by_muon`, `scale_by_shape`, decoupled decay, a step of size `lr` downhill), AdamW on the rest.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning, bias_correction, ns_dtype: as in `scale_by_muon`;
            AdamW shares `eps`, `mu_dtype` and `nesterov`.
        weight_decay, weight_decay_mask: of the matrices; multiplied by `lr` alone.
        adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of AdamW, on the rest.
        adam_lr: its rate; None: `lr`.
        adam_nesterov: whether it looks a step ahead; None: as `nesterov` says.
        muon_weight_dimension_numbers: which leaves are matrices, and which of their axes: a tree of
            `MuonDimensionNumbers` with None for AdamW's leaves, a prefix of one, or a function
            that gives one, for instance `by_path`; None: leaves of rank 2, laid out (out, in).
            Embeddings and heads have rank 2 and are better left to AdamW.
        consistent_rms, clamped: as in `scale_by_shape`.

    Returns:
        A transformation from gradients to the updates that `apply_updates` adds. Holds one tree like the matrices and two
        like the rest.

    After a NaN:
        Its leaf of this and every later step is NaN; guard with `apply_if_finite`. After 1e30 its leaf stays at 0; clip.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Raises:
        ValueError: a number is out of range, a choice is unknown, or the dimension numbers do not fit the params.

    Example:
        >>> linear = fo.MuonDimensionNumbers()
        >>> tx = fo.muon(0.02, muon_weight_dimension_numbers=fo.by_path({"embedding.*": None, "*.weight": linear, "*": None}))
        >>> params = {"embedding": {"weight": torch.ones(5, 2)}, "layer": {"weight": torch.ones(2, 2), "bias": torch.ones(2)}}
        >>> state = tx.init(params)
        >>> fo.tree.paths(state.inner_states["muon"].inner_state[0].mu)
        ['layer.weight']
    """

    def matrices(inner: Any, kept: Any) -> GradientTransformation:
        orthogonal = scale_by_muon(
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=inner,
            bias_correction=bias_correction,
            ns_dtype=ns_dtype,
        )
        return chain(
            orthogonal, scale_by_shape(inner, consistent_rms, clamped=clamped), add_decayed_weights(weight_decay, kept), lr_scale(lr)
        )

    ahead = nesterov if adam_nesterov is None else adam_nesterov
    rest = adamw(lr if adam_lr is None else adam_lr, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=ahead)
    return beside_adam("muon", matrices, rest, muon_weight_dimension_numbers, weight_decay_mask)
