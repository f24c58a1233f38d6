"""Saving and resuming: any state as a flat mapping from paths to tensors.

    saved = state_dict(state)                  {"0.mu.w": tensor(...), ...}
    state = load_state_dict(tx.init(params), saved)

    save("run.pt", {"params": params, "state": state})           or "run.safetensors"
    run = load("run.pt", {"params": params, "state": tx.init(params)})

The mapping holds tensors only, so that `torch.load(..., weights_only=True)` reads it,
which a NamedTuple class does not survive. A resumed run continues bit for bit.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcopt.core import tree

__all__ = ["load", "load_state_dict", "migrate", "save", "state_dict"]

FORMAT = "funcopt.format"  # the entry that tells in which form the others are
VERSION = 1
# Version n -> what makes of a mapping of that form one of form n + 1. Tests read a file of every form that there was.
MIGRATIONS: dict[int, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {}

Migration = Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | Mapping[str, str | None]


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
        saved[path] = leaf.detach().clone()  # keeps the order in memory, on which the last digits of a matrix product depend
    return saved


def load_state_dict(state: Any, saved: Mapping[str, Tensor], strict: bool = True, *, migration: Migration | None = None) -> Any:
    """A state like `state` with the saved tensors; `state` itself stays as it is.

    Args:
        state: what the transformation gives now, from `tx.init(params)`: says structure,
            shapes, dtypes and devices.
        saved: what `state_dict` gave.
        strict: every leaf must be there in shape and dtype and nothing else. Otherwise
            what fits is taken (and cast), and the rest of `state` is kept.
        migration: for what was saved by an older version of your program, as in `migrate`.

    Raises:
        ValueError: something is missing, unexpected or of another shape or dtype; lists it all.
            Or the form is of a newer funcopt.

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
    known = {*paths, FORMAT}
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

    Example:
        >>> old = fo.checkpoint.state_dict(fo.trace(0.9).init({"w": torch.zeros(2)}))
        >>> list(fo.checkpoint.migrate(old, {"trace": "0.trace"}))  # the link has become the first of a chain
        ['funcopt.format', '0.trace.w']
    """
    if callable(migration):
        return dict(migration(dict(saved)))
    moved: dict[str, Tensor] = {}
    for path, value in saved.items():
        old = max((old for old in migration if path == old or path.startswith(f"{old}.")), key=len, default=None)
        new = path if old is None else migration[old]
        if new is None:
            continue
        new = new if old is None else new + path[len(old) :]
        if new in moved:
            raise ValueError(f"checkpoint.migrate: two entries become '{new}'; the second was '{path}'")
        moved[new] = value
    return moved


def _of_this_version(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    version = int(saved[FORMAT]) if FORMAT in saved else VERSION
    if version > VERSION:
        raise ValueError(f"checkpoint.load_state_dict: the form must be at most {VERSION}, got {version}; it was saved by a newer funcopt")
    saved = dict(saved)
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


def save(path: str | os.PathLike, state: Any) -> None:
    """Writes `state_dict(state)` to a file; a save that is killed leaves the old file whole.

    The tensors go to a file beside it (hidden, and left behind by a save that is killed),
    which takes its place when all is on the disk.

    Args:
        path: the file; its folder must exist. One whose name ends in ".safetensors" is
            written by safetensors, which forgets the order of a tensor in memory (of a
            transposed matrix, of channels last), any other by `torch.save`.
        state: a tree of tensors, for instance `{"params": params, "state": state}`.

    Raises:
        ImportError: safetensors is not installed.
    """
    path = Path(path)
    saved = state_dict(state)
    library = _safetensors() if path.suffix == ".safetensors" else None
    unfinished = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with open(unfinished, "xb") as file:
            if library is None:
                torch.save(saved, file)
            else:
                mode = os.fstat(file.fileno()).st_mode
                library.save_file({name: value.contiguous() for name, value in saved.items()}, unfinished)
                os.chmod(unfinished, mode)  # it makes files that nobody else may read
        with open(unfinished, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _write_folder(path.parent)


def _write_folder(folder: Path) -> None:
    """Has the new name of a file on the disk, too, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path: str | os.PathLike, state: Any, strict: bool = True, *, migration: Migration | None = None) -> Any:
    """A state like `state` with the tensors of a file that `save` wrote; arguments as in `load_state_dict`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was cut off or is none of ours; or as in `load_state_dict`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint.load: there is no file {path}")
    try:
        saved = _safetensors().load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except Exception as error:  # each library and version has classes of its own for this
        raise ValueError(f"checkpoint.load: {path} must be a whole file of checkpoint.save, but cannot be read; take an older one ({error})") from error
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise ValueError(f"checkpoint.load: {path} must be a file of checkpoint.save, got one that holds a {type(saved).__name__}")
    return load_state_dict(state, saved, strict, migration=migration)


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("checkpoint: a file that ends in .safetensors needs safetensors; pip install 'funcopt[integrations]'") from error
    return safetensors.torch
