"""Comparing results and states with recorded ones, naming the first place that differs.

States are compared by meaning, not by nesting: a chain's tuples are flattened, masks unwrapped and links without content (and the link
that gives the size, which may keep a count or the size itself) left out on both sides; what remains must correspond one to one, and
each of ours must have the fields of optax's.
Integers may be of any width, steering scalars wider than recorded.
"""

from typing import Any, NamedTuple

import torch

from tests.parity.encoding import Named, RandomKey

__all__ = ["Tolerance", "compare_states", "compare_trees", "search"]

SIZES = {"LrScaleState", "ScheduledLrScaleState", "ScaleByPolyakState"}  # the link that gives the size: may differ
SIZE_LINKS = SIZES | {"ScaleByScheduleState"}
NOT_COMPARED = {"GaLoreState"}  # holds singular vectors of arbitrary sign
KEY_ONLY = {"DifferentiallyPrivateAggregateState"}  # optax's holds nothing but a key
NOT_COMPARED_FIELDS = {"rng_key"}  # our keys are not JAX's


class Tolerance(NamedTuple):
    rtol: float
    atol: float
    dtypes: bool = False  # compare the dtypes of leaves with dimensions exactly

    def at_least(self, rtol: float, atol: float) -> "Tolerance":
        return self._replace(rtol=max(self.rtol, rtol), atol=max(self.atol, atol))


def compare_trees(where: str, ours: Any, recorded: Any, tolerance: Tolerance) -> None:
    """Trees of tensors: same structure, shapes and (if asked) dtypes, values within tolerance; nan equals nan."""
    if not _tensors(recorded):
        if _tensors(ours):
            raise AssertionError(f"{where}: recorded no leaves here, we have {_kind(ours)}")
    elif isinstance(recorded, Named):
        fields = ours._asdict() if hasattr(ours, "_asdict") else None
        if fields is None or set(fields) != set(recorded.fields):
            raise AssertionError(f"{where}: recorded {recorded.name}{tuple(recorded.fields)}, we have {_kind(ours)}")
        for name, node in recorded.fields.items():
            compare_trees(f"{where}.{name}", fields[name], node, tolerance)
    elif isinstance(recorded, dict):
        if not isinstance(ours, dict) or set(ours) != set(recorded):
            raise AssertionError(f"{where}: recorded a dict of {sorted(recorded)}, we have {_kind(ours)}")
        for name, node in recorded.items():
            compare_trees(f"{where}.{name}", ours[name], node, tolerance)
    elif isinstance(recorded, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(recorded):
            raise AssertionError(f"{where}: recorded {len(recorded)} parts, we have {_kind(ours)}")
        for index, node in enumerate(recorded):
            compare_trees(f"{where}.{index}", ours[index], node, tolerance)
    else:
        _compare_leaf(where, ours, recorded, tolerance)


def _compare_leaf(where: str, ours: Any, recorded: torch.Tensor, tolerance: Tolerance) -> None:
    if isinstance(ours, (bool, int, float)):
        ours = torch.tensor(ours, dtype=recorded.dtype)
    if not isinstance(ours, torch.Tensor):
        raise AssertionError(f"{where}: recorded a tensor of shape {tuple(recorded.shape)}, we have {_kind(ours)}")
    if ours.dim() == 0 and recorded.shape == (1,):  # optax's layer-wise DoG reshapes 0-dim leaves; a leaf keeps its shape
        recorded = recorded[0]
    if ours.shape != recorded.shape:
        raise AssertionError(f"{where}: recorded the shape {tuple(recorded.shape)}, we have {tuple(ours.shape)}")
    if tolerance.dtypes and recorded.ndim and ours.dtype != recorded.dtype:
        raise AssertionError(f"{where}: recorded {recorded.dtype}, we have {ours.dtype}")
    exact = not (recorded.dtype.is_floating_point or recorded.dtype.is_complex)
    wide = (
        torch.complex128
        if recorded.dtype.is_complex or ours.dtype.is_complex
        else torch.int64
        if exact and not ours.dtype.is_floating_point
        else torch.float64
    )
    try:
        torch.testing.assert_close(
            ours.detach().to(wide),
            recorded.to(wide),
            rtol=0.0 if exact else tolerance.rtol,
            atol=0.0 if exact else tolerance.atol,
            equal_nan=True,
        )
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from None


# -------------------------------------------------------------------------------------------------------------- states


def compare_states(where: str, ours: Any, recorded: Any, tolerance: Tolerance, *, at_init: bool = False) -> None:
    """A state of ours against a recorded one (both whole), as the head of this file says."""
    there, here = _links(recorded, SIZES), _links(ours, SIZES)
    if len(there) != len(here):
        there, here = _links(recorded, SIZE_LINKS), _links(ours, SIZE_LINKS)
    if len(there) != len(here):
        raise AssertionError(f"{where}: recorded {[_kind(link) for link in there]}, we have {[_kind(link) for link in here]}")
    for theirs, link in zip(there, here, strict=True):
        _compare_link(where, link, theirs, tolerance, at_init)


def _compare_link(where: str, ours: Any, recorded: Any, tolerance: Tolerance, at_init: bool) -> None:
    if isinstance(recorded, Named):
        if recorded.name in NOT_COMPARED:
            return
        for field, node in recorded.fields.items():
            if (
                field in NOT_COMPARED_FIELDS
                or isinstance(node, RandomKey)
                or (at_init and recorded.name == "MonitorState" and field == "measurements")
            ):
                continue
            if not hasattr(ours, field):
                raise AssertionError(f"{where}.{recorded.name}: recorded the field {field!r}, we have {_kind(ours)}")
            _compare_field(f"{where}.{recorded.name}.{field}", getattr(ours, field), node, tolerance, at_init)
    elif isinstance(recorded, dict):
        if not isinstance(ours, dict):
            raise AssertionError(f"{where}: recorded a dict of {sorted(recorded)}, we have {_kind(ours)}")
        for name, node in recorded.items():
            name = {"learning_rate": "lr"}.get(name, name) if where.endswith(("hyperparams", "hyperparams_states")) else name
            if name not in ours and not _links(node, SIZE_LINKS):
                continue
            if name not in ours:
                raise AssertionError(f"{where}: recorded {name!r}, we have {sorted(ours)}")
            compare_states(f"{where}.{name}", ours[name], node, tolerance, at_init=at_init)
    else:
        _compare_field(where, ours, recorded, tolerance, at_init)


def _compare_field(where: str, ours: Any, recorded: Any, tolerance: Tolerance, at_init: bool) -> None:
    if _is_state(recorded) or where.endswith("hyperparams") or where.endswith("hyperparams_states"):
        compare_states(where, ours, recorded, tolerance, at_init=at_init)
    else:
        compare_trees(where, ours, _without_placeholders(recorded), tolerance)


PLACEHOLDERS = {"MaskedNode", "EmptyState", "SplitRealAndImaginaryArrays", "LookaheadParams"}


def _is_state(node: Any) -> bool:
    """Whether a recorded field holds a state (some NamedTuple that is not a mere node of a params tree)."""
    if isinstance(node, Named):
        return node.name not in PLACEHOLDERS - {"EmptyState"} or any(_is_state(part) for part in node.fields.values())
    if isinstance(node, dict):
        return any(_is_state(part) for part in node.values())
    if isinstance(node, (list, tuple)) and not isinstance(node, RandomKey):
        return any(_is_state(part) for part in node)
    return False


def _without_placeholders(node: Any) -> Any:
    """Masked places have no leaves: None."""
    if isinstance(node, Named):
        return (
            None
            if node.name in ("MaskedNode", "EmptyState")
            else Named(node.name, {name: _without_placeholders(part) for name, part in node.fields.items()})
        )
    if isinstance(node, dict):
        return {name: _without_placeholders(part) for name, part in node.items()}
    if isinstance(node, RandomKey):
        return None
    if isinstance(node, (list, tuple)):
        return type(node)(_without_placeholders(part) for part in node)
    return node


def _links(node: Any, without: set[str]) -> list[Any]:
    """The links with content, in order: tuples of chains flattened, masks unwrapped, what holds no tensor left out."""
    if not _tensors(node) or _name(node) in without or _name(node) in KEY_ONLY:
        return []
    if _name(node) == "MaskedState":
        return _links(_fields(node)["inner_state"], without)
    if isinstance(node, dict):
        return [node] if any(_links(part, without) for part in node.values()) else []
    if isinstance(node, (list, tuple)) and _fields(node) is None:
        return [link for part in node for link in _links(part, without)]
    return [node]


def _fields(node: Any) -> dict[str, Any] | None:
    """The fields of a named node, recorded or ours; None for anything else."""
    if isinstance(node, Named):
        return node.fields
    return node._asdict() if hasattr(node, "_asdict") else None


def _name(node: Any) -> str:
    return node.name if isinstance(node, Named) else type(node).__name__


# ----------------------------------------------------------------------------------------------------------- searching


def search(state: Any, key: str) -> Any:
    """The one value that a state holds under this name (a field, a key of a dict or a class); optax's `tree.get`."""
    found = []
    _collect(state, key, found)
    if not found and key == "learning_rate":
        _collect(state, "lr", found)
    if len(found) != 1:
        raise AssertionError(f"watch {key!r}: found {len(found)} values under this name in the state, want one")
    return found[0]


def _collect(node: Any, key: str, found: list) -> None:
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        parts = zip(node._fields, node, strict=True)
    elif isinstance(node, dict):
        parts = node.items()
    elif isinstance(node, (list, tuple)):
        parts = ((None, part) for part in node)
    else:
        return
    for name, part in parts:
        if name == key:
            found.append(part)
        else:
            _collect(part, key, found)


def _tensors(node: Any) -> bool:
    if isinstance(node, torch.Tensor):
        return True
    if isinstance(node, Named):
        return _tensors(node.fields)
    if isinstance(node, dict):
        return any(_tensors(part) for part in node.values())
    if isinstance(node, (list, tuple)):
        return any(_tensors(part) for part in node)
    return False


def _kind(node: Any) -> str:
    if isinstance(node, RandomKey):
        return "a random key"
    if isinstance(node, Named):
        return f"{node.name}{tuple(node.fields)}"
    if hasattr(node, "_fields"):
        return f"{type(node).__name__}{node._fields}"
    if isinstance(node, torch.Tensor):
        return f"a tensor of shape {tuple(node.shape)}"
    if isinstance(node, dict):
        return f"a dict of {sorted(node)}"
    if isinstance(node, (list, tuple)):
        return f"{len(node)} parts"
    return repr(node)
