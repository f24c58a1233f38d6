"""Any state as a flat mapping from paths to tensors, and back.

    saved = state_dict(state)                  {"0.mu.w": tensor(...), ...}
    state = load_state_dict(tx.init(params), saved)

The mapping holds tensors only, so that `torch.load(..., weights_only=True)` reads it,
which a NamedTuple class does not survive. A resumed run continues bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from funcopt.core import dtypes, tree
from funcopt.core.states.find import children
from funcopt.core.unfit import leaf as unlike

__all__ = ["load_state_dict", "migrate", "state_dict"]

FORMAT = "funcopt.format"  # the entry that tells in which form the others are
CHECKSUM = "funcopt.checksum"  # the entry of a file by which a changed bit is found
RESERVED = (FORMAT, CHECKSUM)
# fields in which states of this library count
COUNTERS = {"count", "counts", "count_m2", "t", "step", "step_count", "mini_step", "gradient_step"}
VERSION = 1
# Version n -> what makes of a mapping of that form one of form n + 1. Tests read a file of every form that there was.
MIGRATIONS: dict[int, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {}

Migration = Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | Mapping[str, str | None]


REMEDIES = {
    "sparse": "save x.to_dense()",
    "nested": "save its parts",
    "quantized": "save x.dequantize()",
    "meta": "it has no numbers: give the tensor a device first",
}


def unreadable(x: Tensor) -> str | None:
    """Why a tensor has no numbers of its own that could be written down or taken over, in a word; None for one that has."""
    if x.is_meta:
        return "meta"
    if getattr(x, "is_quantized", False):
        return "quantized"
    if x.is_nested:
        return "nested"
    return None if x.layout is torch.strided else "sparse"


def state_dict(state: Any) -> dict[str, Tensor]:
    """The leaves of a state, or of any tree, by their paths; copies.

    Args:
        state: a tree of tensors.

    Returns:
        A dict from paths ("0.mu.w": link 0, field mu, parameter w) to tensors, and the
        entry "funcopt.format", a 0-dim int64 tensor with the version of the form.

    Raises:
        ValueError: two leaves have the same path (a dict key with a dot in it against a
            nested one), or a path is one of those that the form itself uses.
        TypeError: a leaf is not a tensor, or one that has no plain numbers: sparse, nested,
            quantized or on the meta device.

    Example:
        >>> state = fo.trace(0.9).init({"w": torch.zeros(2)})
        >>> list(fo.checkpoint.state_dict(state))
        ['funcopt.format', 'trace.w']
    """
    saved: dict[str, Tensor] = {FORMAT: torch.tensor(VERSION, device="cpu")}
    for path, leaf in zip(tree.paths(state), tree.leaves(state), strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"checkpoint.state_dict: every leaf must be a tensor, got {type(leaf).__name__} at '{path}'; make it one: torch.tensor(...)"
            )
        if kind := unreadable(leaf):
            raise TypeError(
                f"checkpoint.state_dict: every leaf must hold its numbers one by one, got a {kind} tensor at '{path}'; {REMEDIES[kind]}"
            )
        if path in RESERVED:
            raise ValueError(f"checkpoint.state_dict: the form uses the path '{path}' itself; rename that key")
        if path in saved:
            raise ValueError(f"checkpoint.state_dict: two leaves have the path '{path}'; rename a key of the params that contains a dot")
        saved[path] = leaf.detach().clone()  # keeps the order in memory, on which the last digits of a matrix product depend
    return saved


def load_state_dict(state: Any, saved: Mapping[str, Tensor], strict: bool = True, *, migration: Migration | None = None) -> Any:
    """A state like `state` with the saved tensors; `state` itself stays as it is.

    Args:
        state: what the transformation gives now, from `tx.init(params)`: says structure,
            shapes, dtypes and devices.
        saved: what `state_dict` gave.
        strict: every leaf must be there in shape and dtype and nothing else. Otherwise
            what fits is taken (and cast to a wider or narrower dtype of the same kind), and
            the rest of `state` is kept.
        migration: for what was saved by an older version of your program, as in `migrate`.

    Returns:
        A new state with the structure of `state` and the saved numbers.

    Raises:
        ValueError: something is missing, unexpected or of another shape or dtype, is sparse,
            quantized or without numbers, or counts steps and is negative; lists it all. Or the form is of a newer funcopt, or
            of none; or a name in `migration` meets nothing.
        TypeError: `state` is no tree of tensors, `saved` is not a mapping from names to tensors, or `migration` is neither a
            mapping nor a function that gives one.

    Example:
        >>> tx = fo.trace(0.9)
        >>> _, state = tx.update(torch.ones(2), tx.init(torch.zeros(2)))
        >>> fo.checkpoint.load_state_dict(tx.init(torch.zeros(2)), fo.checkpoint.state_dict(state))
        TraceState(trace=tensor([1., 1.]))
    """
    saved = _of_this_version(saved)
    if migration is not None:
        saved = migrate(saved, migration)
    state = _in_the_form_of(saved, state, "")
    paths, leaves, counters = tree.paths(state), tree.leaves(state), set(_counters(state, ""))
    wrong: list[str] = []
    loaded: list[Tensor] = []
    for path, leaf in zip(paths, leaves, strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"checkpoint.load_state_dict: state must be a tree of tensors, {unlike(leaf, path)}")
        given = saved.get(path)
        loaded.append(leaf)
        if given is None:
            wrong.append(f"missing: {path} {tuple(leaf.shape)}")
        elif kind := unreadable(given):
            wrong.append(f"without numbers one by one: {path}, saved as a {kind} tensor")
        elif given.shape != leaf.shape:
            wrong.append(f"of other shape: {path} is {tuple(leaf.shape)}, saved {tuple(given.shape)}")
        elif (strict and given.dtype != leaf.dtype and not _widened(given, leaf)) or dtypes.kind(given.dtype) != dtypes.kind(leaf.dtype):
            wrong.append(f"of other dtype: {path} is {leaf.dtype}, saved {given.dtype}")
        elif path in counters and bool((given < 0).any()):
            wrong.append(f"negative: {path} counts, and cannot be {given.tolist()}; the entry was changed by hand or is damaged")
        else:
            loaded[-1] = given.detach().to(device=leaf.device, dtype=leaf.dtype, copy=True)
    known = {*paths, *RESERVED}
    wrong += [f"unexpected: {path} {tuple(value.shape)}" for path, value in saved.items() if path not in known]
    if strict and wrong:
        raise ValueError(
            "checkpoint.load_state_dict: the saved tensors must fit the state, but\n  " + "\n  ".join(wrong) + "\n"
            "pass strict=False to take what fits, or migration= to say what was renamed"
        )
    return tree.unflatten(state, loaded)


def migrate(saved: Mapping[str, Tensor], migration: Migration) -> dict[str, Tensor]:
    """A saved mapping as your program would save it today.

    Args:
        saved: what `state_dict` gave.
        migration: from the beginnings of old paths to what stands there now (None: drop
            what is below), of which the longest that fits counts; or a function from the
            old mapping to the new.

    Returns:
        A new mapping; `saved` stays as it is.

    Raises:
        ValueError: a name in `migration` meets nothing in `saved`, or two entries become one.
        TypeError: `migration` is neither a mapping of names nor a function that gives a mapping
            from names to tensors.

    Example:
        >>> old = fo.checkpoint.state_dict(fo.trace(0.9).init({"w": torch.zeros(2)}))
        >>> list(fo.checkpoint.migrate(old, {"trace": "0.trace"}))  # the link has become the first of a chain
        ['funcopt.format', '0.trace.w']
    """
    where = "checkpoint.migrate"
    if callable(migration):
        made = migration(dict(saved))
        if not isinstance(made, Mapping):
            raise TypeError(
                f"{where}: the function must return a mapping from names to tensors, got {type(made).__name__}; does it end with return?"
            )
        return _entries(where, "what the function returns", made)
    if not isinstance(migration, Mapping):
        raise TypeError(f"{where}: migration must be a mapping from old names to new ones, or a function, got {type(migration).__name__}")
    for old, new in migration.items():
        if not isinstance(old, str) or not (new is None or isinstance(new, str)):
            raise TypeError(f"{where}: migration must say names, or None for what is dropped, got {old!r}: {new!r}")
    moved: dict[str, Tensor] = {}
    met: set[str] = set()
    for path, value in saved.items():
        old = max((old for old in migration if path == old or path.startswith(f"{old}.")), key=len, default=None)
        met |= set() if old is None else {old}
        new = path if old is None else migration[old]
        if new is None:
            continue
        new = new if old is None else new + path[len(old) :]
        if new in moved:
            raise ValueError(f"checkpoint.migrate: two entries become '{new}'; the second was '{path}'")
        moved[new] = value
    unmet = [old for old in migration if old not in met]
    if unmet:
        there = ", ".join(list(saved)[:8]) + (", ..." if len(saved) > 8 else "")
        raise ValueError(
            f"{where}: every old name must be one that was saved, or what one begins with, but {unmet} meet nothing; there are {there}"
        )
    return moved


def _widened(given: Tensor, leaf: Tensor) -> bool:
    """Whether it was saved when this was kept in a narrower dtype, of which nothing is lost.

    Numbers that steer are float64 now, and what is kept for float16 params float32.
    """
    exact = given.is_floating_point() and leaf.is_floating_point() and torch.promote_types(given.dtype, leaf.dtype) == leaf.dtype
    return exact and (leaf.dim() == 0 or given.dtype == torch.float16)


def _counters(part: Any, path: str) -> Iterator[str]:
    """The paths at which states of this library count something."""
    ours = hasattr(part, "_fields") and type(part).__module__.startswith("funcopt.")
    for name, inner in children(part):
        inside = f"{path}.{name}" if path else name
        if ours and name in COUNTERS and isinstance(inner, Tensor):
            yield inside
        yield from _counters(inner, inside)


def _entries(where: str, what: str, saved: Any) -> dict[str, Tensor]:
    if not isinstance(saved, Mapping):
        raise TypeError(f"{where}: {what} must be a mapping from names to tensors, as state_dict gives it, got {type(saved).__name__}")
    for name, value in saved.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"{where}: {what} must be a mapping from names to tensors, got {type(value).__name__} at {name!r}")
    return dict(saved)


def _of_this_version(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    where = "checkpoint.load_state_dict"
    saved = _entries(where, "saved", saved)
    if FORMAT in saved:
        form = saved[FORMAT]
        if form.dim() or dtypes.kind(form.dtype) != "int" or unreadable(form):
            raise ValueError(f"{where}: '{FORMAT}' must be a 0-dim integer, got {form}; the entry is damaged: take an older file")
        version = int(form)
    else:
        version = VERSION
    if version < 1:
        raise ValueError(f"{where}: the form must be at least 1, got {version}; the entry '{FORMAT}' is damaged: take an older file")
    if version > VERSION:
        raise ValueError(f"{where}: the form must be at most {VERSION}, got {version}; it was saved by a newer funcopt")
    for older in range(version, VERSION):
        saved = MIGRATIONS[older](saved)
    return saved


def _in_the_form_of(saved: Mapping[str, Tensor], part: Any, path: str) -> Any:
    """`part` of a state, where what it holds may grow with the run in the size that was saved: it says so by a method `grown`."""
    inside = f"{path}." if path else ""
    if hasattr(part, "grown"):
        return part.grown({name[len(inside) :]: value for name, value in saved.items() if name.startswith(inside)})
    if hasattr(part, "_fields"):
        return type(part)(*(_in_the_form_of(saved, inner, inside + name) for name, inner in zip(part._fields, part, strict=True)))
    if type(part) is dict:
        return {key: _in_the_form_of(saved, inner, f"{inside}{key}") for key, inner in part.items()}
    if type(part) in (tuple, list):
        return type(part)(_in_the_form_of(saved, inner, f"{inside}{index}") for index, inner in enumerate(part))
    return part
