"""Matrices by one method and the rest by AdamW, and matrices that get back their size: what Muon and its kin are made of."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, TensorTree, check, read_signals, sharded, tree
from funcopt.core.math.lengths import length
from funcopt.core.protocol import Grouping
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers, as_matrices, dimensions_of, the_same
from funcopt.transforms.groups import Labels, mask_function
from funcopt.transforms.partition import PartitionState, partition

__all__ = ["MuonPartitionState"]


class MuonPartitionState(NamedTuple):
    """The states of both parts; the rate of the matrices stands for the whole."""

    inner_states: dict[Hashable, Any]  # "muon" and "adam"

    def signals(self) -> dict[str, Tensor]:
        words = read_signals(PartitionState(inner_states=self.inner_states))
        return {"lr": words["muon/lr"], **words}


def beside_adam(
    where: str, matrices: Callable[[Any, Any], GradientTransformation], rest: GradientTransformation, numbers: Any, weight_decay_mask: Any
) -> GradientTransformation[MuonPartitionState]:
    """Gives the leaves that have dimension numbers to one transformation and the others to another.

    Args:
        where: who speaks in errors.
        matrices: makes that of the matrices from their dimension numbers (one for all, or labels) and the mask of their
            decay (labels, or None).
        rest: that of the others.
        numbers, weight_decay_mask: as `muon` takes them.
    """
    dimensions = dimensions_of(where, "muon_weight_dimension_numbers", numbers)
    decays = None if weight_decay_mask is None else mask_function(where, weight_decay_mask)

    def parts(numbers: list[MuonDimensionNumbers | None], decaying: list[bool] | None) -> GradientTransformation:
        found = [n for n in numbers if n is not None]
        inner = found[0] if len(set(found)) == 1 else Labels(lambda matrices: found)
        kept = None if decaying is None else [keep for keep, n in zip(decaying, numbers, strict=True) if n is not None]
        groups: dict[Hashable, GradientTransformation] = {
            "muon": matrices(inner, None if kept is None else Labels(lambda matrices: kept)),
            "adam": rest,
        }
        return partition(groups, Labels(lambda values: ["adam" if n is None else "muon" for n in numbers]))

    def groups_of(values: TensorTree) -> GradientTransformation:
        """What concerns single leaves is found on the whole tree and handed on as lists: a part sees the leaves of its group only."""
        return parts(dimensions(values), None if decays is None else decays(values))

    def stated(groups: GradientTransformation, **declared: Any) -> GradientTransformation:
        def init(params: TensorTree) -> MuonPartitionState:
            return MuonPartitionState(inner_states=groups.init(params).inner_states)

        def update(updates: TensorTree, state: MuonPartitionState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
            updates, inner = groups.update(updates, PartitionState(inner_states=state.inner_states), params, signals=signals, **extra)
            return updates, MuonPartitionState(inner_states=inner.inner_states)

        return GradientTransformation(init, update, name=where, hears=groups.hears, leaves="any", **declared)

    def grouping(params: TensorTree) -> Grouping:
        groups = groups_of(params)
        assert groups.grouping is not None  # a partition has one
        labels, links, remade = groups.grouping(params)

        def again(links: Mapping[Hashable, GradientTransformation], labels: Callable[[TensorTree], list[Any]]) -> GradientTransformation:
            return stated(remade(links, labels))

        return Grouping(labels, links, again)

    def init(params: TensorTree) -> MuonPartitionState:
        return stated(groups_of(params)).init(params)

    def update(updates: TensorTree, state: MuonPartitionState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        return stated(groups_of(updates)).update(updates, state, params, signals=signals, **extra)

    # Made once without leaves, so that a number out of range is told of now.
    whole = parts([], None)
    # A tree of numbers or of decays is one of all leaves; what is found from a leaf is found of each by itself.
    by_leaf = all(isinstance(given, MuonDimensionNumbers) or given is None or callable(given) for given in (numbers, weight_decay_mask))
    return GradientTransformation(
        init, update, name=where, hears=whole.hears, grouping=grouping, per_leaf=by_leaf, turns=True, house=whole.house
    )


def scaled_by_rms(
    where: str, stated: Callable[[TensorTree], Any], each: bool, b2: Scalar, eps: Scalar, consistent_rms: Scalar | None, numbers: Any
) -> GradientTransformation[Any]:
    """Divides matrices by the running RMS of their entries, or of what goes to an output, and gives each its size.

    Args:
        where: who speaks in errors.
        stated: makes the state from its one field, `v`.
        each: one number for each entry (else for each output).
        b2, eps, consistent_rms, numbers: as `scale_by_neuron_rms` takes them.
    """
    check.half_open(where, "b2", b2, 0, 1)
    check.positive(where, "eps", eps)
    if consistent_rms is not None:
        check.positive(where, "consistent_rms", consistent_rms)
    dimensions = dimensions_of(where, "weight_dimension_numbers", numbers)

    def held(p: Tensor, numbers: MuonDimensionNumbers | None) -> Tensor:
        if numbers is None:
            return sharded.zeros([1], p)
        shape = list(as_matrices(p, numbers)[0].shape)
        return sharded.zeros(shape if each else [*shape[:-2], shape[-1]], p)

    def init(params: TensorTree) -> Any:
        return stated(tree.unflatten(params, [held(*of) for of in zip(tree.leaves(params), dimensions(params), strict=True)]))

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        results: list[Tensor] = []
        means: list[Tensor] = []
        for x, v, numbers in zip(tree.leaves(updates), tree.leaves(state.v), dimensions(updates), strict=True):
            if numbers is None or x.numel() == 0:
                results.append(x)
                means.append(v)
                continue
            o, back = as_matrices(sharded.replicated(x), numbers)
            squares = o.square() if each else o.square().mean(-2)
            v = (b2 * v + (1 - b2) * squares).to(v.dtype)
            roots = v.sqrt() + eps
            u = o / (roots if each else roots.unsqueeze(-2))
            after = length(u, (-2, -1), keepdim=True) + eps
            inputs, outputs = o.shape[-2:]
            if consistent_rms is None:
                size = max(1.0, outputs / inputs) ** 0.5 * length(o, (-2, -1), keepdim=True)
            else:
                size = consistent_rms * (inputs * outputs) ** 0.5
            results.append(back((size * (u / after)).to(x.dtype)))
            means.append(v)
        return tree.unflatten(updates, results), stated(tree.unflatten(updates, means))

    return GradientTransformation(init, update, name=where, per_leaf=the_same(numbers), turns=False)
