"""Muon: momentum whose matrices are orthogonalised, so that every direction in them moves equally far.

    mu_t = beta * mu_{t-1} + (1 - beta) * g_t
    m = mu_t / (1 - beta^t);   Nesterov: beta * mu_t / (1 - beta^(t+1)) + (1 - beta) * g_t / (1 - beta^t)
    O = Newton-Schulz(m),   times sum(m * O) if adaptive         (newton_schulz.py)
    u_t = sqrt(max(1, out / in)) * O,   or consistent_rms * sqrt(max(in, out)) * O

Matrices only; AdamW (Nesterov's too, unless told otherwise) takes the rest.

Source: Jordan et al. 2024. Reference: optax.contrib.muon (0.2.8), but for the layout: torch's weights are
(out, in). With bias_correction=False and ns_dtype=torch.bfloat16 torch.optim.Muon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, ScalarOrSchedule, TensorTree, chain, check, moments, read_signals, sharded, tree
from funcopt.core.protocol import Grouping
from funcopt.optimizers.adamw import adamw
from funcopt.optimizers.newton_schulz import COEFFICIENTS, PRECONDITIONINGS, orthogonalized
from funcopt.transforms.groups import Labels, entries_of, mask_function
from funcopt.transforms.lr_scale import lr_scale
from funcopt.transforms.partition import PartitionState, partition
from funcopt.transforms.weight_decay import add_decayed_weights

__all__ = ["MuonDimensionNumbers", "MuonPartitionState", "MuonState", "muon", "scale_by_muon", "scale_by_shape"]

Axes = int | Sequence[int]
Coefficients = str | Sequence[float] | Sequence[Sequence[float]] | Tensor


@dataclass(frozen=True)
class MuonDimensionNumbers:
    """Which axes of a leaf make its matrix; all others are batches of matrices.

    Args:
        reduction_axis: the axis or axes that the layer sums over (its inputs).
        output_axis: the axis or axes of its outputs.

    The default is torch's layout of `nn.Linear`; a convolution, (out, in, height, width),
    is `MuonDimensionNumbers(reduction_axis=(1, 2, 3), output_axis=0)`.
    """

    reduction_axis: Axes = 1
    output_axis: Axes = 0


class MuonState(NamedTuple):
    count: Tensor  # steps taken
    mu: TensorTree  # running mean of g; like params
    ns_coeffs: Tensor  # [3], or [steps, 3]


class MuonPartitionState(NamedTuple):
    """The states of both parts; the rate of the matrices stands for the whole."""

    inner_states: dict[str, Any]  # "muon" and "adam"

    def signals(self) -> dict[str, Tensor]:
        words = read_signals(PartitionState(inner_states=self.inner_states))
        return {"lr": words["muon/lr"], **words}


def _axes(axes: Axes, rank: int) -> list[int]:
    return [axis % rank for axis in ((axes,) if isinstance(axes, int) else axes)]


def _size(x: Tensor, axes: list[int]) -> int:
    size = 1
    for axis in axes:
        size *= x.shape[axis]
    return size


def _dimensions(where: str, name: str, given: Any) -> Callable[[TensorTree], list[MuonDimensionNumbers | None]]:
    """From what the user says, a function that gives the numbers of every leaf (None: not for Muon)."""

    asks = callable(given)

    def entries(values: TensorTree) -> list:
        if given is None:
            return [MuonDimensionNumbers() if leaf.dim() == 2 else None for leaf in tree.leaves(values)]
        if isinstance(given, Labels):
            return entries_of(given, values, where, name)
        return tree.entries_at(given(values) if asks else given, values, where, name)

    def checked(values: TensorTree) -> list:
        found = entries(values)
        for index, (numbers, leaf) in enumerate(zip(found, tree.leaves(values), strict=True)):
            if numbers is None:
                continue
            if not isinstance(numbers, MuonDimensionNumbers):
                raise TypeError(f"{where}: {name} must hold MuonDimensionNumbers or None, got {numbers!r} at '{tree.paths(values)[index]}'")
            ours = (numbers.reduction_axis, numbers.output_axis)
            axes = [axis for part in ours for axis in ((part,) if isinstance(part, int) else part)]
            if not all(-leaf.dim() <= axis < leaf.dim() for axis in axes) or len({axis % leaf.dim() for axis in axes}) != len(axes):
                raise ValueError(
                    f"{where}: {name} must name different axes of each leaf, got {ours[0]} and {ours[1]} at '{tree.paths(values)[index]}' of rank {leaf.dim()}"
                )
        return found

    return checked


def _the_same(given: Any) -> bool:
    """Whether all leaves have the same numbers, and so need not be told apart."""
    return given is None or isinstance(given, MuonDimensionNumbers)


def _coefficients(where: str, given: Coefficients, steps: int) -> tuple[Tensor, int]:
    if isinstance(given, str):
        check.choice(where, "ns_coeffs", given, COEFFICIENTS)
        given = COEFFICIENTS[given]
    rows = given if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float64)
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
    preconditioning: str = "frobenius",
    weight_dimension_numbers: TensorTree | Callable | MuonDimensionNumbers | None = None,
    bias_correction: bool = True,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation:
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

    Returns:
        A transform from gradients to matrices with singular values near 1, in the shapes
        and dtypes it is given. Holds one tree like `params`.

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
    check.choice(where, "preconditioning", preconditioning, PRECONDITIONINGS)
    rows, steps = _coefficients(where, ns_coeffs, ns_steps)
    dimensions = _dimensions(where, "weight_dimension_numbers", weight_dimension_numbers)

    def init(params: TensorTree) -> MuonState:
        for index, numbers in enumerate(dimensions(params)):
            if numbers is None:
                raise ValueError(f"{where}: every leaf must be a matrix or have weight_dimension_numbers, got '{tree.paths(params)[index]}' without; use muon")
        return MuonState(count=moments.zero_count(params), mu=tree.zeros_like(params, mu_dtype), ns_coeffs=rows.to(tree.device(params)).clone())

    def orthogonal(x: Tensor, numbers: MuonDimensionNumbers, coefficients: list) -> Tensor:
        reduction, output = _axes(numbers.reduction_axis, x.dim()), _axes(numbers.output_axis, x.dim())
        order = [axis for axis in range(x.dim()) if axis not in (*reduction, *output)]
        batch = [x.shape[axis] for axis in order]
        order += reduction + output
        turned = x.permute(order)
        matrices = turned.reshape([*batch, _size(x, reduction), _size(x, output)])
        result = orthogonalized(matrices if ns_dtype is None else matrices.to(ns_dtype), coefficients, eps, preconditioning)
        return result.to(x.dtype).reshape(turned.shape).permute([order.index(axis) for axis in range(x.dim())])

    def update(updates: TensorTree, state: MuonState, params=None, **extra):
        count = moments.increment(state.count)
        mu = moments.update_moment(updates, state.mu, beta)
        if bias_correction:
            mean, _ = moments.corrected(count, beta, beta, nesterov)
        elif nesterov:

            def mean(g: Tensor, mu: Tensor) -> Tensor:
                return (1 - beta) * g + beta * mu

        else:

            def mean(g: Tensor, mu: Tensor) -> Tensor:
                return mu

        row = state.ns_coeffs if state.ns_coeffs.dim() == 2 else state.ns_coeffs.expand(steps, 3)
        coefficients = [(row[i, 0], row[i, 1], row[i, 2]) for i in range(steps)]

        results = []
        for g, m, numbers in zip(tree.leaves(updates), tree.leaves(mu), dimensions(updates), strict=True):
            m = sharded.replicated(mean(g, m).to(g.dtype))
            o = orthogonal(m, numbers, coefficients)
            results.append((m * o).sum() * o if adaptive else o)
        return tree.unflatten(updates, results), MuonState(count=count, mu=mu, ns_coeffs=state.ns_coeffs)

    return GradientTransformation(init, update, name=where, apart=_the_same(weight_dimension_numbers))


def scale_by_shape(
    weight_dimension_numbers: TensorTree | Callable | MuonDimensionNumbers | None = None, consistent_rms: Scalar | None = None
) -> GradientTransformation:
    """Multiplies orthogonal matrices by what makes them suit layers of any shape.

    Args:
        weight_dimension_numbers: as in `scale_by_muon`; leaves without pass unchanged.
        consistent_rms: None for sqrt(max(1, out / in)), of Muon's authors; a number, usually
            0.2, for that times sqrt(max(in, out)), after which entries have the RMS of
            Adam's steps whatever the shape, and Adam's rates fit.

    Example:
        >>> wide = fo.scale_by_shape()
        >>> wide.update(torch.ones(4, 1), wide.init(torch.ones(4, 1)))[0].mT
        tensor([[2., 2., 2., 2.]])
    """
    if consistent_rms is not None:
        check.nonnegative("scale_by_shape", "consistent_rms", consistent_rms)
    dimensions = _dimensions("scale_by_shape", "weight_dimension_numbers", weight_dimension_numbers)

    def sized(x: Tensor, numbers: MuonDimensionNumbers | None) -> Tensor:
        if numbers is None or x.numel() == 0:
            return x
        inputs, outputs = _size(x, _axes(numbers.reduction_axis, x.dim())), _size(x, _axes(numbers.output_axis, x.dim()))
        if consistent_rms is None:
            return max(1.0, outputs / inputs) ** 0.5 * x
        return consistent_rms * max(inputs, outputs) ** 0.5 * x

    def update(updates: TensorTree, state: EmptyState, params=None, **extra):
        return tree.unflatten(updates, [sized(x, numbers) for x, numbers in zip(tree.leaves(updates), dimensions(updates), strict=True)]), state

    return GradientTransformation(lambda params: EmptyState(), update, name="scale_by_shape", apart=_the_same(weight_dimension_numbers))


def muon(
    lr: ScalarOrSchedule | None,
    ns_coeffs: Coefficients = "standard",
    ns_steps: int = 5,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: TensorTree | Callable | None = None,
    mu_dtype: torch.dtype | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Scalar = 0.9,
    adam_b2: Scalar = 0.999,
    adam_eps_root: Scalar = 0.0,
    adam_weight_decay: ScalarOrSchedule = 0.0,
    adam_lr: ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: TensorTree | Callable | MuonDimensionNumbers | None = None,
    consistent_rms: Scalar | None = None,
    bias_correction: bool = True,
    ns_dtype: torch.dtype | None = None,
) -> GradientTransformation:
    """Muon on matrices (`scale_by_muon`, `scale_by_shape`, decoupled decay, a step of size `lr` downhill), AdamW on the rest.

    Args:
        lr: the rate, >= 0; a number, a 0-dim tensor or a schedule; None: the `base_lr` it hears.
        ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning, bias_correction, ns_dtype: as in `scale_by_muon`;
            AdamW shares `eps`, `mu_dtype` and `nesterov`.
        weight_decay, weight_decay_mask: of the matrices; multiplied by `lr` alone.
        adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of AdamW, on the rest.
        adam_lr: its rate; None: `lr`.
        muon_weight_dimension_numbers: which leaves are matrices, and which of their axes: a tree of
            `MuonDimensionNumbers` with None for AdamW's leaves, a prefix of one, or a function
            that gives one, for instance `by_path`; None: leaves of rank 2, laid out (out, in).
            Embeddings and heads have rank 2 and are better left to AdamW.
        consistent_rms: as in `scale_by_shape`.

    Signals:
        says the rate of the matrices as `lr`, and each part's as `muon/lr` and `adam/lr`.

    Example:
        >>> linear = fo.MuonDimensionNumbers()
        >>> tx = fo.muon(0.02, muon_weight_dimension_numbers=fo.by_path({"embedding.*": None, "*.weight": linear, "*": None}))
        >>> params = {"embedding": {"weight": torch.ones(5, 2)}, "layer": {"weight": torch.ones(2, 2), "bias": torch.ones(2)}}
        >>> state = tx.init(params)
        >>> fo.tree.paths(state.inner_states["muon"].inner_state[0].mu)
        ['layer.weight']
    """
    dimensions = _dimensions("muon", "muon_weight_dimension_numbers", muon_weight_dimension_numbers)
    decays = None if weight_decay_mask is None else mask_function("muon", weight_decay_mask)

    def parts(numbers: list[MuonDimensionNumbers | None], decaying: list[bool] | None) -> GradientTransformation:
        found = [n for n in numbers if n is not None]
        inner = found[0] if len(set(found)) == 1 else Labels(lambda matrices: found)
        kept = None if decaying is None else [keep for keep, n in zip(decaying, numbers, strict=True) if n is not None]
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
        decay = add_decayed_weights(weight_decay, None if kept is None else Labels(lambda matrices: kept))
        matrices = chain(orthogonal, scale_by_shape(inner, consistent_rms), decay, lr_scale(lr))
        rest = adamw(lr if adam_lr is None else adam_lr, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=nesterov)
        return partition({"muon": matrices, "adam": rest}, Labels(lambda values: ["adam" if n is None else "muon" for n in numbers]))

    def parts_of(values: TensorTree) -> GradientTransformation:
        """What concerns single leaves is found on the whole tree and handed on as lists: inside its group a part sees its own leaves only."""
        return parts(dimensions(values), None if decays is None else decays(values))

    def stated(groups: GradientTransformation, **declared: Any) -> GradientTransformation:
        def init(params: TensorTree) -> MuonPartitionState:
            return MuonPartitionState(inner_states=groups.init(params).inner_states)

        def update(updates: TensorTree, state: MuonPartitionState, params=None, *, signals=None, **extra):
            updates, inner = groups.update(updates, PartitionState(inner_states=state.inner_states), params, signals=signals, **extra)
            return updates, MuonPartitionState(inner_states=inner.inner_states)

        return GradientTransformation(init, update, name="muon", hears=groups.hears, leaves="any", **declared)

    def grouping(params: TensorTree) -> Grouping:
        labels, links, remade = parts_of(params).grouping(params)
        return Grouping(labels, links, lambda links, labels: stated(remade(links, labels)))

    def init(params: TensorTree) -> MuonPartitionState:
        return stated(parts_of(params)).init(params)

    def update(updates: TensorTree, state: MuonPartitionState, params=None, *, signals=None, **extra):
        return stated(parts_of(updates)).update(updates, state, params, signals=signals, **extra)

    # Made once without leaves, so that a number out of range is told of now.
    return GradientTransformation(init, update, name="muon", hears=parts([], None).hears, grouping=grouping)
