"""Files of states: written whole or not at all, and read with what they hold checked.

save("run.pt", {"params": params, "state": state})           or "run.safetensors"
run = load("run.pt", {"params": params, "state": tx.init(params)})
"""

import errno
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from funcopt.checkpoint import checksums, unfinished
from funcopt.checkpoint.mapping import CHECKSUM, Migration, load_state_dict, state_dict

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], state: Any, *, checksum: bool = True) -> None:
    """Writes `state_dict(state)` to a file; a save that fails or is killed leaves the old file whole.

    The tensors go to a file beside it (hidden; what a killed save has left is removed by the
    next save of the same file), which takes its place when all is on the disk. A
    symbolic link stays one, and what it points to is replaced; an existing file keeps its
    permissions.

    Args:
        path: the file; its folder must exist. One whose name ends in ".safetensors" is
            written by safetensors, which forgets the order of a tensor in memory (of a
            transposed matrix, of channels last), any other by `torch.save`.
        state: a tree of tensors, for instance `{"params": params, "state": state}`.
        checksum: whether the file gets an entry by which `load` finds a changed bit. It
            takes another pass over the numbers; False for huge files on a disk that is
            trusted.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written (its folder is missing, the disk is full, ...), in
            the class and with the number that the system gave.
        TypeError, ValueError: as in `state_dict`.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.pt"
        >>> fo.checkpoint.save(path, fo.adam(0.1).init(torch.zeros(2)))
        >>> path.is_file()
        True
    """
    saved = state_dict(state)
    for name, value in saved.items():
        if type(value) not in (Tensor, torch.nn.Parameter):
            remedy = (
                "save what its full_tensor() gives, or use torch.distributed.checkpoint"
                if hasattr(value, "full_tensor")
                else "make it a plain tensor"
            )
            raise TypeError(f"checkpoint.save: every leaf must be a plain tensor, got {type(value).__name__} at '{name}'; {remedy}")
    path = _target(path)
    library = _safetensors() if path.suffix == ".safetensors" else None
    if checksum:
        saved[CHECKSUM] = checksums.of(saved)
    try:
        with unfinished.beside(path) as temporary:
            if library is None:
                with open(temporary, "wb") as file:
                    torch.save(saved, file)
            else:
                library.save_file({name: value.contiguous() for name, value in saved.items()}, temporary)
    except OSError as error:
        raise _told(error, path) from error
    except RuntimeError as error:  # torch's writer, when the file behind it fails
        cause = error.__cause__ or error.__context__
        raise (_told(cause, path) if isinstance(cause, OSError) else _unwritten(error, path)) from error
    except Exception as error:
        if not type(error).__module__.startswith("safetensors"):
            raise
        raise _unwritten(error, path) from error


def load(
    path: str | os.PathLike[str], state: Any, strict: bool = True, *, migration: Migration | None = None, checksum: bool = True
) -> Any:
    """A state like `state` with the tensors of a file that `save` wrote.

    Args:
        path: the file.
        state, strict, migration: as in `load_state_dict`.
        checksum: whether the numbers are held against the file's check sum (for a file
            without one that is a zip: against the zip's own). False reads a file that
            is known to be damaged, or a huge one sooner.

    Returns:
        A new state with the structure of `state` and the numbers of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was cut off, a bit of it has changed, or it is none of ours; or as
            in `load_state_dict`.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.pt"
        >>> fo.checkpoint.save(path, {"w": torch.tensor([1.0, 2.0])})
        >>> fo.checkpoint.load(path, {"w": torch.zeros(2)})
        {'w': tensor([1., 2.])}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint.load: there is no file {path}")
    plain = path.suffix == ".safetensors"
    try:
        saved = _safetensors().load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
    except (ImportError, PermissionError):
        raise
    except Exception as error:  # each library and version has classes of its own for this
        raise ValueError(
            f"checkpoint.load: {path} must be a whole file of checkpoint.save, but cannot be read; take an older one ({error})"
        ) from error
    if not isinstance(saved, Mapping) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise ValueError(f"checkpoint.load: {path} must be a file of checkpoint.save, got one that holds a {type(saved).__name__}")
    if checksum and not (checksums.fit(saved) if CHECKSUM in saved else plain or _zip_is_whole(path)):
        raise ValueError(
            f"checkpoint.load: the numbers in {path} must be those that were saved, but its check sum is another: the file is damaged. "
            "Take an older one; checksum=False reads it as it is"
        )
    return load_state_dict(state, saved, strict, migration=migration)


def _target(path: str | os.PathLike[str]) -> Path:
    """What a save replaces: the file itself, at the end of whatever links lead to it."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, f"checkpoint.save: path must name a file, got the folder {target}; say what the file is called, such as 'run.pt'"
        )
    if target.exists() and not target.is_file():
        raise OSError(
            errno.EINVAL,
            f"checkpoint.save: path must name a file, got {target}, which is a device or a pipe; save to a file and copy it there",
        )
    if target.is_symlink():
        raise OSError(
            errno.ELOOP, f"checkpoint.save: path must lead to a file, got {path}, a link that leads back to itself; remove the link"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"checkpoint.save: the folder of the file must exist, got {target}; make {target.parent} first"
        )
    return target


REASONS = {
    errno.ENOSPC: "the disk is full; make room and save again",
    getattr(errno, "EDQUOT", -1): "the quota of the disk is used up; make room and save again",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EACCES: "its folder does not let this user write; change its permissions or save elsewhere",
    errno.EPERM: "the system does not let this user write there; save elsewhere",
    errno.EROFS: "the disk is read-only; save elsewhere",
    errno.ENAMETOOLONG: "the name is too long; take a shorter one",
}


def _told(error: OSError, path: Path) -> OSError:
    """The same error in words that name the file, and not the hidden one beside it."""
    if error.errno is None:
        return _unwritten(error, path)
    reason = REASONS.get(error.errno, error.strerror)
    return type(error)(error.errno, f"checkpoint.save: {path} could not be written: {reason}. What was there before is untouched")


def _unwritten(error: Exception, path: Path) -> OSError:
    return OSError(f"checkpoint.save: {path} could not be written ({error}); is the disk full? What was there before is untouched")


def _zip_is_whole(path: Path) -> bool:
    """Whether the numbers are those that the zip's own sums were made of; files of versions that had no entry for it."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, RuntimeError, ValueError, OSError):
        return not zipfile.is_zipfile(path)  # torch's old form is no zip and has no sums


def _safetensors() -> Any:
    try:
        import safetensors.torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("checkpoint: a file that ends in .safetensors needs safetensors; pip install safetensors") from error
    return safetensors.torch
