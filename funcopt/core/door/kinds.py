"""What an annotation says of a value: whether it fits, and in which words.

`bool` is True or False and nothing else: not 1, not "yes", not a NumPy bool, not a tensor. A union
holds what one of its parts holds. What cannot be told from outside (`Any`, trees) holds everything.
"""

import inspect
import numbers
import types
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import torch
from torch import Tensor

from funcopt.core.door.shown import shown
from funcopt.core.protocol import GradientTransformation

__all__ = ["Kind", "is_function", "kind", "returns_transformation", "stranger"]


class Kind(NamedTuple):
    """A set of values: its name in a sentence, and whether a value is in it."""

    says: str
    holds: Callable[[Any], bool]


def _sequence(value: Any) -> bool:
    if isinstance(value, (str, bytes, Mapping, GradientTransformation)) or (isinstance(value, Tensor) and value.dim() == 0):
        return False
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _one_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _a_device(value: Any) -> bool:
    try:
        return isinstance(torch.device(value), torch.device) if isinstance(value, str) else isinstance(value, torch.device)
    except RuntimeError:
        return False


PLAIN: dict[Any, Kind] = {
    bool: Kind("True or False", lambda value: type(value) is bool),
    int: Kind("an int", lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool)),
    float: Kind("a number", lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool) or _one_number(value)),
    str: Kind("a string", lambda value: isinstance(value, str)),
    Tensor: Kind("a tensor", lambda value: isinstance(value, Tensor)),
    torch.device: Kind("a device", _a_device),
    torch.dtype: Kind("a torch.dtype", lambda value: isinstance(value, torch.dtype)),
    type(None): Kind("None", lambda value: value is None),
    Callable: Kind("a function", callable),
    Sequence: Kind("a sequence", _sequence),
    tuple: Kind("a tuple", lambda value: isinstance(value, (tuple, list)) and not isinstance(value, GradientTransformation)),
    dict: Kind("a dict", lambda value: isinstance(value, dict)),
    Mapping: Kind("a mapping", lambda value: isinstance(value, Mapping)),
    Iterable: Kind("iterable", lambda value: isinstance(value, Iterable) and not _one_number(value)),
}
ANYTHING = (Any, object, Hashable, inspect.Parameter.empty)


def kind(annotation: Any) -> Kind | None:
    """The values that an annotation allows; None where it does not say."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    parts = [part for part in parts if part is not str or torch.device not in parts]  # which words name a device, `torch.device` says
    # which words, the function says
    parts = [wide for part in parts for wide in (map(type, get_args(part)) if get_origin(part) is Literal else (part,))]
    found = [_one(part) for part in parts]
    if any(part is None for part in found):
        return None
    said = list(dict.fromkeys(part.says for part in found if part is not None and part.says != "None"))
    said += ["None"] if len(said) < len(found) and any(part is not None and part.says == "None" for part in found) else []
    holds = [part.holds for part in found if part is not None]
    says = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
    return Kind(says, holds[0] if len(holds) == 1 else lambda value: any(test(value) for test in holds))


def _one(annotation: Any) -> Kind | None:
    origin = get_origin(annotation) or annotation
    if origin in ANYTHING or isinstance(annotation, str):
        return None
    if origin in (Sequence, tuple):
        return _filled(PLAIN[origin], get_args(annotation))
    if origin in PLAIN:
        return PLAIN[origin]
    if is_function(origin):
        return PLAIN[Callable]
    if origin is type:
        return Kind("a class", inspect.isclass)
    if not inspect.isclass(origin) or not origin.__module__.startswith(("funcopt", "torch", "pathlib", "os")):
        return None
    article = "an" if origin.__name__[0] in "AEIOU" else "a"
    return Kind(f"{article} {origin.__name__}", lambda value: isinstance(value, origin))


def is_function(annotation: Any) -> bool:
    """Whether what it allows is called: `Callable`, or a protocol of one function."""
    origin = get_origin(annotation) or annotation
    return origin is Callable or (getattr(origin, "_is_protocol", False) and "__call__" in vars(origin))


def _filled(outer: Kind, parts: tuple[Any, ...]) -> Kind:
    """A container by what it holds; what it is to hold at a place, at that place."""
    endless = len(parts) == 1 or parts[-1:] == (...,)
    asked = [kind(part) for part in parts if part is not ...]
    found = [part for part in asked if part is not None]
    if not found or len(found) < len(asked):
        return outer
    if endless:
        return Kind(f"{outer.says}, each {found[0].says}", lambda value: outer.holds(value) and all(map(found[0].holds, value)))
    says = f"{outer.says} of {len(found)}: {', '.join(part.says for part in found)}"

    def holds(value: Any) -> bool:
        return outer.holds(value) and len(value) == len(found) and all(part.holds(x) for part, x in zip(found, value, strict=True))

    return Kind(says, holds)


def returns_transformation(annotation: Any) -> bool:
    """Whether what a function says that it returns is a transformation, of whatever state."""
    kind = getattr(annotation, "__bound__", None) or get_origin(annotation) or annotation
    return inspect.isclass(kind) and issubclass(kind, GradientTransformation)


def stranger(value: Any) -> str:
    """What stands in the place of a transformation, and how one is had of it: `got ...; do ...`."""
    made = value if inspect.isclass(value) else type(value)
    if issubclass(made, torch.optim.Optimizer):
        ours, call = made.__module__.startswith("funcopt"), f"fo.torch_optim.from_torch(torch.optim.{made.__name__}, lr=...)"
        return f"got {shown(value)}; {f'its transformation is fo.{made.__name__}(...)' if ours else f'{call} makes one of it'}"
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, GradientTransformation) for part in value):
        return f"got a {type(value).__name__} of {len(value)} of them; write chain(*links)"
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(callable, value)):
        return f"got a {type(value).__name__} of two functions; write GradientTransformation(init, update)"
    if isinstance(value, torch.nn.Module):
        return f"got {shown(value)}; a model's parameters go to init: tx.init(dict(model.named_parameters()))"
    if callable(value):
        called = getattr(value, "__name__", None) or getattr(getattr(value, "func", None), "__name__", "it")
        return f"got {shown(value)}; call it: {called}(...)"
    return f"got {shown(value)}"
