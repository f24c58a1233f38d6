"""Saving and resuming: any state as a flat mapping from paths to tensors.

    saved = state_dict(state)                  {"0.mu.w": tensor(...), ...}
    state = load_state_dict(tx.init(params), saved)

The mapping holds tensors only, so that `torch.load(..., weights_only=True)` reads it,
which a NamedTuple class does not survive. A resumed run continues bit for bit.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["load", "load_state_dict", "save", "state_dict"]

FORMAT = "funcopt.format"  # the entry that tells in which form the others are
VERSION = 1


def state_dict(state: Any) -> dict[str, Tensor]:
    """The leaves of a state, or of any tree, by their paths; copies.

    Args:
        state: a tree of tensors.

    Returns:
        A dict from paths ("0.mu.w": link 0, field mu, parameter w) to tensors, and the
        entry "funcopt.format", a 0-dim int64 tensor with the version of the form.

    Raises:
        ValueError: two leaves have the same path (a dict key with a dot in it against a nested one).
        TypeError: a leaf is not a tensor.

    Example:
        >>> state = fo.trace(0.9).init({"w": torch.zeros(2)})
        >>> list(fo.checkpoint.state_dict(state))
        ['funcopt.format', 'trace.w']
    """
    saved: dict[str, Tensor] = {FORMAT: torch.tensor(VERSION)}
    for path, leaf in zip(tree.paths(state), tree.leaves(state), strict=True):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"checkpoint.state_dict: every leaf must be a tensor, got {type(leaf).__name__} at '{path}'")
        if path in saved:
            raise ValueError(f"checkpoint.state_dict: two leaves have the path '{path}'; rename a key of the params that contains a dot")
        saved[path] = leaf.detach().clone(memory_format=torch.contiguous_format)
    return saved


def load_state_dict(state: Any, saved: Mapping[str, Tensor], strict: bool = True) -> Any:
    """A state like `state` with the saved tensors; `state` itself stays as it is.

    Args:
        state: what the transformation gives now, from `tx.init(params)`: says structure,
            shapes, dtypes and devices.
        saved: what `state_dict` gave.
        strict: every leaf must be there in shape and dtype and nothing else. Otherwise
            what fits is taken (and cast), and the rest of `state` is kept.

    Raises:
        ValueError: something is missing, unexpected or of another shape or dtype; lists it all.

    Example:
        >>> tx = fo.trace(0.9)
        >>> _, state = tx.update(torch.ones(2), tx.init(torch.zeros(2)))
        >>> fo.checkpoint.load_state_dict(tx.init(torch.zeros(2)), fo.checkpoint.state_dict(state))
        TraceState(trace=tensor([1., 1.]))
    """
    version = int(saved[FORMAT]) if FORMAT in saved else VERSION
    if version > VERSION:
        raise ValueError(f"checkpoint.load_state_dict: the form must be at most {VERSION}, got {version}; it was saved by a newer funcopt")
    paths, leaves = tree.paths(state), tree.leaves(state)
    wrong: list[str] = []
    loaded: list[Tensor] = []
    for path, leaf in zip(paths, leaves, strict=True):
        given = saved.get(path)
        loaded.append(leaf)
        if given is None:
            wrong.append(f"missing: {path} {tuple(leaf.shape)}")
        elif given.shape != leaf.shape:
            wrong.append(f"of other shape: {path} is {tuple(leaf.shape)}, saved {tuple(given.shape)}")
        elif strict and given.dtype != leaf.dtype:
            wrong.append(f"of other dtype: {path} is {leaf.dtype}, saved {given.dtype}")
        else:
            loaded[-1] = given.detach().to(device=leaf.device, dtype=leaf.dtype, copy=True)
    wrong += [f"unexpected: {path} {tuple(value.shape)}" for path, value in saved.items() if path not in set(paths) and path != FORMAT]
    if strict and wrong:
        raise ValueError(
            "checkpoint.load_state_dict: the saved tensors must fit the state, but\n  " + "\n  ".join(wrong) + "\npass strict=False to take what fits"
        )
    return tree.unflatten(state, loaded)


def save(path: str | os.PathLike, state: Any) -> None:
    """Writes `state_dict(state)` to a file; a save that is killed leaves the old file whole.

    Args:
        path: the file; its folder must exist.
        state: a tree of tensors, for instance `{"params": params, "state": state}`.
    """
    path = Path(path)
    saved = state_dict(state)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike, state: Any, strict: bool = True) -> Any:
    """A state like `state` with the tensors of a file that `save` wrote; arguments as in `load_state_dict`."""
    return load_state_dict(state, torch.load(path, map_location="cpu", weights_only=True), strict)
