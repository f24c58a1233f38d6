"""A device that is not the CPU, for tests on a machine that has none.

`Elsewhere` holds real numbers on the CPU and says that they lie on `THERE`. What is computed
from it is computed on the numbers and lies there too. As on an accelerator, a tensor of one or more
dimensions from here beside one from there is refused, a result must lie where it is written
to, and a 0-dim tensor from here may stand beside anything. `away()` makes factories answer
(`torch.zeros(3, device=THERE)`) and tells what would have made the host wait:

    with away() as watch:
        y = send(torch.ones(3)) + 1     # there
        float(y.sum())                  # works, and watch.waits names the line

The kind of device is one that torch knows the name of and that no branch of it or of
the library asks for. ("meta" would be refused as a device without numbers.)
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo

THERE = torch.device("lazy:0")

# What an accelerator cannot answer before it has worked through its queue: a number, or a shape that hangs on numbers.
WAITS = (
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
)
HERE = Path(__file__).parents[1]
OURS = tuple(f"{HERE / name}{os.sep}" for name in ("funcopt", "tests"))  # an environment may lie beside them


class Elsewhere(Tensor):
    """Numbers that say they lie on `THERE`."""

    @staticmethod
    def __new__(cls, numbers: Tensor):
        form = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype, "layout": numbers.layout}
        return Tensor._make_wrapper_subclass(cls, numbers.shape, **form, device=THERE)

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    def __repr__(self, **formatting):
        return f"Elsewhere({self.numbers!r})"

    def __deepcopy__(self, memo):
        copied = Elsewhere(self.numbers.clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    if fo.core.versions.TORCH < (2, 4):  # which would make one of these anew of every result
        __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        return _run(function, arguments, keywords or {})


class Watch:
    """What happened while away.

    waits: `(operation, file:line of the library)` of each read of a value on the host, and of each copy back to it or there that blocks.
    """

    def __init__(self):
        self.waits: list[tuple[str, str]] = []

    def note(self, name: str) -> None:
        """Adds what waits, with the innermost line of the library."""
        lines, frame = [], sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(OURS) and file != __file__:
                lines.append(f"{Path(file).relative_to(HERE)}:{frame.f_lineno}")
            frame = frame.f_back
        inside = [line for line in lines if line.startswith("funcopt")]
        self.waits.append((name, (inside or lines or ["?"])[0]))


def _run(function, arguments, keywords):
    name = function.__name__.split(".")[0]
    found: list[Tensor] = []

    def seen(x: Any) -> Any:
        if isinstance(x, Tensor):
            found.append(x)
        return x.numbers if isinstance(x, Elsewhere) else x

    given, named = _mapped(seen, arguments), {word: _mapped(seen, x) for word, x in keywords.items()}
    asked = keywords.get("device")
    asked = None if asked is None else torch.device(asked)
    there = [x for x in found if isinstance(x, Elsewhere)]
    here = [x for x in found if not isinstance(x, Elsewhere)]
    away_ = asked.type == THERE.type if asked is not None else bool(there)
    if asked is not None and away_:
        named = {**named, "device": torch.device("cpu")}

    if name == "copy_" and len(found) == 2:
        if not isinstance(found[0], Elsewhere) and isinstance(found[1], Elsewhere):
            _waits("copy back")
    elif there:
        if here and function._schema.is_mutable:
            _check_written(function, arguments, keywords)
        for x in here:
            if x.dim() > 0:
                shapes = f"{tuple(x.shape)} on cpu beside {tuple(there[0].shape)} on {THERE}"
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, got one of {shapes}")
        bools = name in ("index", "index_put", "index_put_") and any(x is not None and x.dtype is torch.bool for x in arguments[1])
        if name in WAITS or bools or (name == "repeat_interleave" and len(found) > 1):
            _waits(name)
        elif asked is not None and asked.type == "cpu":
            _waits("copy back")
    if here and away_ and not keywords.get("non_blocking") and name == "_to_copy":
        _waits("copy there")

    out = function(*given, **named)
    if not away_:
        return out
    originals = {id(x.numbers): x for x in there}

    def told(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if (original := originals.get(id(x))) is None:
            return Elsewhere(x)
        if original.shape != x.shape or original.stride() != x.stride():
            raise NotImplementedError(f"{name}: changes the form of a tensor in place, which one that wraps another cannot follow")
        return original

    return _mapped(told, out)


def _mapped(f: Any, x: Any) -> Any:
    return type(x)([_mapped(f, part) for part in x]) if type(x) in (list, tuple) else f(x)


def _check_written(function: Any, arguments: tuple, keywords: dict) -> None:
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written = arguments[place] if place < len(arguments) else keywords.get(argument.name)
            for x in written if isinstance(written, (list, tuple)) else [written]:
                if isinstance(x, Tensor) and not isinstance(x, Elsewhere):
                    raise RuntimeError(f"{function}: a result from {THERE} cannot be written into a tensor on cpu")


_open: list[Watch] = []


def _waits(name: str) -> None:
    for watch in _open[-1:]:
        watch.note(name)


class _Factories(TorchDispatchMode):
    watches_only = True  # for core/random/philox.py: numbers on the CPU may be read as they are outside

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        asked = keywords.get("device")
        if asked is not None and torch.device(asked).type == THERE.type:
            return _run(function, arguments, keywords)
        return function(*arguments, **keywords)


PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)


class _FromNumbers(TorchFunctionMode):
    """`torch.tensor` and `torch.as_tensor` make what they are given on the CPU first, where no dispatch mode sees it."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        asked = keywords.get("device")
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and asked is not None and torch.device(asked).type == THERE.type:
            if isinstance(arguments[0], Elsewhere):
                return function(*arguments, **{**keywords, "device": None})
            _waits("copy there")
            return send(function(*arguments, **{**keywords, "device": "cpu"}))
        if function in PRODUCTS and len(arguments) == 2 and [x.dim() for x in arguments] == [1, 2]:
            return function(arguments[0].unsqueeze(0), arguments[1]).squeeze(0)  # which torch does with a squeeze in place
        return function(*arguments, **keywords)


@contextlib.contextmanager
def away() -> Iterator[Watch]:
    """In it factories make tensors on `THERE` where asked to; the watch that it gives notes what waits.

    Autograd runs on this thread, since another knows of no modes.
    """
    watch = Watch()
    _open.append(watch)
    try:
        with _FromNumbers(), _Factories(), torch.autograd.set_multithreading_enabled(False):
            yield watch
    finally:
        _open.remove(watch)


def send(tree: Any) -> Any:
    """The same tree there: tensors are copied."""

    def one(x: Any) -> Any:
        if isinstance(x, Elsewhere) or not isinstance(x, Tensor):
            return x
        copied = Elsewhere(x.detach().clone())
        return copied.requires_grad_() if x.requires_grad else copied

    return fo.tree.map_plain(one, tree)


def bring(tree: Any) -> Any:
    """The same tree here, for comparing: nothing is noted."""
    return fo.tree.map_plain(lambda x: x.numbers.clone() if isinstance(x, Elsewhere) else x, tree)
