"""The front door: what every public function looks at before it begins, read off its own signature.

A word that it does not take is answered with the one that it does. A value that its annotation rules out is
refused: a flag takes True or False, a transformation is one and not the function that makes it. Ranges, and
whatever else only the method knows, stay with the method. Nothing of this happens in a step.
"""

import functools
import inspect
import numbers
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, get_origin

import torch
from torch import Tensor

from funcopt.core import protocol
from funcopt.core.check import OWN_WORDS
from funcopt.core.door.kinds import Kind, is_function, kind, returns_transformation, stranger
from funcopt.core.door.shown import shown
from funcopt.core.door.words import told
from funcopt.core.dtypes import HALF
from funcopt.core.protocol import GradientTransformation, Schedule
from funcopt.core.versions import compiling, transforming

__all__ = ["arguments_fit", "behind", "looked_at", "looked_through", "opened", "refuse", "signature", "unknown"]

P = inspect.Parameter
BY_PLACE = (P.POSITIONAL_ONLY, P.POSITIONAL_OR_KEYWORD)
ACTS = ("checkpoint.save", "distributed.", "race.", "viz.")  # what these are called for is more than a value
FLAG = "True or False"
PLAINLY = (FLAG, "a GradientTransformation", "a GradientTransformation or None")  # of which the door says more than the function would
ABSENT = object()


GROUP = Kind("None, False or a group of torch.distributed", lambda value: value is None or value is False or _may_be_a_group(value))
ANY_GROUP = Kind("None, True, False or a group of torch.distributed", lambda value: isinstance(value, bool) or GROUP.holds(value))


def _may_be_a_group(value: Any) -> bool:
    return (
        not (callable(value) or inspect.isclass(value) or isinstance(value, (str, numbers.Number, Tensor, list, tuple, dict)))
        and type(value) is not object
    )


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """With annotations that are objects where they can be found."""
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # an annotation in quotes whose name is not there
        return inspect.signature(function)


def opened(function: Callable[..., Any], where: str, skip: int = 0, settings: bool = False) -> Callable[..., Any]:
    """The function behind a front door.

    Args:
        function: of which the signature says what it takes.
        where: who speaks in errors.
        skip: how many leading parameters nobody passes (`self`, `cls`).
        settings: it is the constructor of settings, which may be called twice.
    """
    parameters = list(signature(function).parameters.values())[skip:]
    by_place = [p.name for p in parameters if p.kind in BY_PLACE]
    kinds = [
        (p.name, by_place.index(p.name) if p.name in by_place else -1, found)
        for p in parameters
        if (found := looked_at(where, p)) is not None
    ]
    endless = next((p for p in parameters if p.kind is P.VAR_POSITIONAL), None)
    each = None if endless is None else kind(endless.annotation)
    kinds.sort(key=lambda entry: entry[2].says != FLAG)  # flags first: what is refused for one is refused whatever else is given

    builds = not skip and not where.startswith(ACTS)
    makes = settings or (not skip and _made(signature(function).return_annotation))

    @functools.wraps(function)
    def front(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return function(*args, **kwargs)
        given = args[skip:] if skip else args
        arguments_fit(where, parameters, given, kwargs)
        looked = [(name, given[at] if 0 <= at < len(given) else kwargs.get(name, ABSENT), found) for name, at, found in kinds]
        if endless is not None and each is not None:
            looked += [(endless.name, value, each) for value in given[len(by_place) :]]
        for name, value, found in looked:
            if value is not ABSENT and not found.holds(value):
                if builds and (found is each or found.says not in PLAINLY):
                    _in_its_own_words(function, args, kwargs)
                refuse(where, name, value, found)
        if makes and any([isinstance(value, Tensor) for value in (*args, *kwargs.values())]):
            args, kwargs = tuple(map(_wide, args)), {name: _wide(value) for name, value in kwargs.items()}
            if not (transforming() or _in_a_step()):
                _as_numbers(function, args, kwargs)
        return function(*args, **kwargs)

    front.__front__ = True  # pyright: ignore[reportAttributeAccessIssue]
    return front


def _made(returns: Any) -> bool:
    """Whether who returns this makes something for later, of numbers whose ranges it checks: a transformation, a schedule, a rule."""
    if returns == Schedule or returns_transformation(returns) or is_function(returns):
        return True
    returns = get_origin(returns) or returns  # `Search`, of whatever state
    if not inspect.isclass(returns) or not returns.__module__.startswith(("funcopt.es.", "funcopt.rules.", "funcopt.schedules.")):
        return False
    fields = inspect.get_annotations(returns, eval_str=True).values() if issubclass(returns, tuple) else ()
    return not issubclass(returns, tuple) or any(map(is_function, fields))


def arguments_fit(where: str, parameters: Sequence[inspect.Parameter], given: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raises a TypeError for words that are not taken, for too many arguments and for too few."""
    kinds = {p.kind for p in parameters}
    by_place = [p.name for p in parameters if p.kind in BY_PLACE]
    takes = [p.name for p in parameters if p.kind in (P.POSITIONAL_OR_KEYWORD, P.KEYWORD_ONLY)]
    if P.VAR_KEYWORD not in kinds and (strangers := [word for word in kwargs if word not in takes]):
        unknown(where, strangers, [p.name for p in parameters])
    if len(given) > len(by_place) and P.VAR_POSITIONAL not in kinds:
        names = f": {', '.join(by_place)}" if by_place else ""
        raise TypeError(f"{where}: takes {len(by_place)} arguments without a name{names}, got {len(given)}; name the others")
    there = {*by_place[: len(given)], *kwargs}
    missing = [p.name for p in parameters if p.default is P.empty and p.kind in (*BY_PLACE, P.KEYWORD_ONLY) and p.name not in there]
    if missing:
        raise TypeError(f"{where}: needs {' and '.join(missing)}, got nothing for it; {_call(where, parameters)}")


def looked_at(where: str, parameter: inspect.Parameter) -> Kind | None:
    """What a door looks at of a parameter; None where it does not."""
    if parameter.kind in (P.VAR_KEYWORD, P.VAR_POSITIONAL):
        return None
    if parameter.name == "process_group":  # in es True is all ranks, and None this one alone
        return ANY_GROUP if where.startswith("es.") else GROUP
    if parameter.annotation is P.empty and type(parameter.default) is bool:
        return kind(bool)
    return kind(
        parameter.annotation | None if parameter.default is None and inspect.isclass(parameter.annotation) else parameter.annotation
    )


def _in_its_own_words(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Lets a function that builds something refuse what it is given itself, where it has a sentence for it."""
    try:
        function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        if OWN_WORDS.match(str(error)):
            raise
    except Exception:  # a raw error says less than what follows
        return


def _wide(value: Any) -> Any:
    """A hyperparameter in half precision as float32: of `1 - decay` half precision keeps two or three digits."""
    return value.float() if isinstance(value, Tensor) and value.dim() == 0 and value.dtype in HALF else value


def _in_a_step() -> bool:
    """Whether an `init` or an `update` is what calls: what injects numbers makes its transformation anew in each step."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != protocol.__name__:
        frame = frame.f_back
    return frame is not None


def _as_numbers(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Lets a factory check the ranges of numbers that came as tensors, where reading them keeps no device waiting.

    A b2 of 0.999 is 1 in bfloat16, and what follows NaN. Made in a step a transformation takes them on trust.
    """

    def number(value: Any) -> Any:
        return value.item() if type(value) is Tensor and value.dim() == 0 and value.is_cpu and value.dtype is not torch.bool else value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the call that follows says them
        try:
            function(*map(number, args), **{name: number(value) for name, value in kwargs.items()})
        except ValueError:
            raise
        except Exception:  # what wants a tensor
            return


def refuse(where: str, name: str, value: Any, wanted: Kind) -> None:
    """Raises the TypeError for a value that is not of the kind that is wanted."""
    if "GradientTransformation" in wanted.says:
        raise TypeError(f"{where}: {name} must be {wanted.says}, {stranger(value)}")
    remedy = ""
    if FLAG in wanted.says and (type(value).__name__ == "bool" or (wanted.says == FLAG and isinstance(value, int))):
        remedy = "; write bool(...) where that is what is meant"
    elif isinstance(value, GradientTransformation) and "function" in wanted.says:
        remedy = "; pass the function that makes it, not what it returns"
    elif isinstance(value, str) and "torch.dtype" in wanted.says:
        remedy = f"; write torch.{value.removeprefix('torch.')}"
    raise TypeError(f"{where}: {name} must be {wanted.says}, got {shown(value)}{remedy}")


def unknown(where: str, words: Sequence[str], takes: Sequence[str]) -> None:
    """Raises the TypeError for words that a function does not take, with those that it has for them."""
    hints = [hint for word in words if (hint := told(word, takes))]
    names = ", ".join(repr(word) for word in words)
    raise TypeError(f"{where}: takes no {names}{''.join(f'; {hint}' for hint in hints)}; it takes {', '.join(takes) or 'nothing'}")


def looked_through(where: str, parameters: Sequence[inspect.Parameter], values: dict[str, Any]) -> None:
    """Checks what a constructor that binds its own arguments was given, by the annotations of its parameters."""
    for parameter in parameters:
        found = looked_at(where, parameter)
        if found is not None and parameter.name in values and not found.holds(values[parameter.name]):
            refuse(where, parameter.name, values[parameter.name], found)


def _call(where: str, parameters: Sequence[inspect.Parameter]) -> str:
    written = [p.name if p.default is P.empty else f"{p.name}=..." for p in parameters if p.kind in (*BY_PLACE, P.KEYWORD_ONLY)]
    return f"write {where.rpartition(': ')[2]}({', '.join(written[:6])}{', ...' if len(written) > 6 else ''})"


def behind(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its door, for calls in a step whose arguments are not the user's."""
    return function.__wrapped__ if getattr(function, "__front__", False) else function  # pyright: ignore[reportFunctionMemberAccess]
