"""snapshot, monitor and measure_with_ema: numbers about what passes, kept where they can be read.

    snapshot:          m_t = measure(g_t)
    monitor:           the same for several, each a function or a transformation with a state of its own
    measure_with_ema:  the running mean of measure(g_t), for monitor

Nothing that passes is changed. Reference: optax, same names (0.2.8), whose monitor has no
measurements before the first update; ours holds zeros.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import EmptyState, GradientTransformation, Scalar, TensorTree, tree
from funcopt.transforms.ema import ema

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]

Measure = Callable[[TensorTree], Any]


def _words(measurements: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in measurements.items() if isinstance(value, Tensor)}


class SnapshotState(NamedTuple):
    measurement: dict[str, Any]  # name -> what was measured last

    def signals(self) -> dict[str, Tensor]:
        return _words(self.measurement)


class MonitorState(NamedTuple):
    measurements: dict[str, Any]  # name -> what was measured last
    measure_states: tuple[Any, ...]  # of those that have one

    def signals(self) -> dict[str, Tensor]:
        return _words(self.measurements)


def _checked(where: str, name: Any) -> None:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"{where}: a name is a non-empty string without '/', got {name!r}")


def snapshot(name: str, measure: Measure) -> GradientTransformation[SnapshotState]:
    """Keeps a measurement of what passes.

    Args:
        name: under which it is found.
        measure: from a tree like params to a tensor or a tree; it is called with the
            params in `init`. A 0-dim tensor makes a good word.

    Returns:
        A transformation that leaves what passes as it is. Holds the measurement.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        says the measurement, if it is a tensor, under its name.

    Raises:
        TypeError: `measure` is not callable.

    Example:
        >>> tx = fo.chain(fo.snapshot("gradient_norm", fo.tree.norm), fo.sgd(0.1))
        >>> _, state = tx.update(torch.tensor([3.0, 4.0]), tx.init(torch.zeros(2)))
        >>> fo.read_signals(state)["gradient_norm"]
        tensor(5.)
    """
    _checked("snapshot", name)
    if not callable(measure):
        raise TypeError(f"snapshot: measure must be a function of the updates, got {measure!r}")

    def init(params: TensorTree) -> SnapshotState:
        return SnapshotState(measurement={name: tree.clone(measure(params))})

    def update(updates: TensorTree, state: SnapshotState, params: TensorTree | None = None, **extra: Any):
        return updates, SnapshotState(measurement=tree.cast_like({name: tree.clone(measure(updates))}, state.measurement))

    return GradientTransformation(init, update, name="snapshot", leaves="any", turns=False)


def monitor(measures: Mapping[str, Measure | GradientTransformation]) -> GradientTransformation[MonitorState]:
    """Keeps several measurements of what passes.

    Args:
        measures: name -> a function of the updates, or a transformation such as
            `measure_with_ema`, whose result is the measurement.

    Returns:
        A transformation that leaves what passes as it is. Holds the measurements.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Signals:
        says each measurement that is a tensor under its name. Zeros before the first update.

    Raises:
        TypeError: a measure is neither a function nor a transformation.

    Example:
        >>> tx = fo.monitor({"norm": fo.tree.norm, "mean_norm": fo.measure_with_ema(fo.tree.norm, 0.9)})
        >>> _, state = tx.update(torch.tensor([3.0, 4.0]), tx.init(torch.zeros(2)))
        >>> fo.read_signals(state)
        {'norm': tensor(5.), 'mean_norm': tensor(5.)}
    """
    measures = dict(measures)
    for name, measure in measures.items():
        _checked("monitor", name)
        if not isinstance(measure, GradientTransformation) and not callable(measure):
            raise TypeError(f"monitor: {name} must be a function of the updates or a transformation, got {measure!r}")

    def measured(
        updates: TensorTree, states: tuple[Any, ...], params: TensorTree, signals: Any, extra: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[Any, ...]]:
        found: dict[str, Any] = {}
        new_states: list[Any] = []
        for (name, measure), state in zip(measures.items(), states, strict=True):
            if isinstance(measure, GradientTransformation):
                value, state = measure.update(updates, state, params, signals=signals, **extra)
            else:
                value = measure(updates)
            found[name] = tree.clone(value)
            new_states.append(state)
        return found, tuple(new_states)

    def init(params: TensorTree) -> MonitorState:
        states = tuple(
            measure.init(params) if isinstance(measure, GradientTransformation) else EmptyState() for measure in measures.values()
        )
        shapes, _ = measured(params, states, params, None, {})
        return MonitorState(measurements=tree.zeros_like(shapes), measure_states=states)

    def update(updates: TensorTree, state: MonitorState, params: TensorTree | None = None, *, signals: Any = None, **extra: Any):
        found, states = measured(updates, state.measure_states, params, signals, extra)
        return updates, MonitorState(measurements=tree.cast_like(found, state.measurements), measure_states=states)

    return GradientTransformation(init, update, name="monitor", leaves="complex", turns=False)


def measure_with_ema(measure: Measure, decay: Scalar, debias: bool = True) -> GradientTransformation:
    """The running mean of a measurement, for `monitor`.

    Args:
        measure: from a tree like params to a tensor or a tree.
        decay: share of the past, in [0, 1).
        debias: as in `ema`.

    Returns:
        A transformation from updates to the measurement's running mean, in place of the updates: for `monitor` alone.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        TypeError: `measure` is not callable.
        ValueError: `decay` is out of range.

    Example:
        >>> norm = fo.measure_with_ema(fo.tree.norm, 0.5)
        >>> norm.update(torch.tensor([3.0, 4.0]), norm.init(torch.zeros(2)))[0]
        tensor(5.)
    """
    if not callable(measure):
        raise TypeError(f"measure_with_ema: measure must be a function of the updates, got {measure!r}")
    mean = ema(decay, debias)

    def init(params: TensorTree):
        return mean.init(measure(params))

    def update(updates: TensorTree, state: Any, params: TensorTree | None = None, **extra: Any):
        return mean.update(measure(updates), state)

    return GradientTransformation(init, update, name="measure_with_ema", leaves="any", alike=False)
