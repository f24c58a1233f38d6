"""Matrices by one method and the rest by AdamW: what Muon and its kin are made of."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import GradientTransformation, TensorTree, read_signals
from funcopt.core.protocol import Grouping
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers, dimensions_of
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
