"""What runs in every step has no front door. Where it fails, whoever called it from outside is told why in a sentence.

A link reaches `norm` through `funcopt.core.tree`, a user through `fo.tree`: the same function, behind which a raw error
is asked for its reason. An argument that the annotation rules out, a word that is not taken, a leaf that is no tensor
are told as a front door tells them; what a function of the caller's raises passes as it is.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from funcopt.core import tree
from funcopt.core.check import OWN_WORDS
from funcopt.core.door.front import arguments_fit, looked_at, refuse, signature
from funcopt.core.door.kinds import kind
from funcopt.core.unfit import dense
from funcopt.core.versions import compiling

__all__ = ["retold"]

RAW = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
OF_SHAPES = re.compile(r"\b(sizes?|shapes?|dimensions?|expand(ed)?|unpack|index|indices)\b")
P = inspect.Parameter


def retold(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    """The function, of which raw errors say who refuses, the argument, the rule and what was given.

    Args:
        function: of which the signature says what it takes.
        where: who speaks in errors.
    """
    parameters = list(signature(function).parameters.values())

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except RAW as error:
            if not OWN_WORDS.match(str(error.args[0] if error.args else "")):  # the text of a KeyError stands in quotes
                reason(where, parameters, args, kwargs, error)
            raise

    called.__retold__ = True  # pyright: ignore[reportAttributeAccessIssue]
    return called


def reason(where: str, parameters: list[inspect.Parameter], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> None:
    """Raises the sentence that says why a call has failed, if one does."""
    try:
        arguments_fit(where, parameters, args, kwargs)
        given = list(_given(parameters, args, kwargs))
        for parameter, value in given:
            found = kind(parameter.annotation) if parameter.kind is P.VAR_POSITIONAL else looked_at(where, parameter)
            if found is not None and not found.holds(value):
                refuse(where, parameter.name, value, found)
        if not _raised_by_the_caller(error):
            trees = [(p.name, x) for p, x in given if kind(p.annotation) is None and not (x is None and p.default is None)]
            for name, value in trees:
                _tensors(where, name, value)
            for name, value in trees[1:]:
                if difference := tree.first_difference(trees[0][1], value, (trees[0][0], name)):
                    raise ValueError(f"{where}: {trees[0][0]} and {name} must be alike, but {difference}")
            if type(error) in (RuntimeError, ValueError, IndexError) and OF_SHAPES.search(str(error)):
                shapes = ", ".join(f"{p.name} of shape {tuple(x.shape)}" for p, x in given if isinstance(x, Tensor))
                raise ValueError(f"{where}: the arguments must fit each other, got {shapes or 'no tensors'} ({str(error).splitlines()[0]})")
    except (TypeError, ValueError) as sentence:
        raise sentence from error


def _given(parameters: list[inspect.Parameter], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Each value with its parameter; of `*rest` one after the other."""
    bound = inspect.Signature(parameters).bind(*args, **kwargs).arguments
    for parameter in parameters:
        if parameter.name in bound and parameter.kind is not P.VAR_KEYWORD:
            value = bound[parameter.name]
            yield from ((parameter, x) for x in (value if parameter.kind is P.VAR_POSITIONAL else (value,)))


def _raised_by_the_caller(error: Exception) -> bool:
    """Whether the error comes out of a function that was passed in."""
    trace, ours = error.__traceback__, False
    while trace is not None:
        home = trace.tb_frame.f_globals.get("__name__", "")
        if ours and not home.startswith(("funcopt.", "torch.", "optree.")):
            return True
        ours, trace = ours or home.startswith("funcopt."), trace.tb_next
    return False


def _tensors(where: str, name: str, value: Any) -> None:
    if value is None:
        raise TypeError(f"{where}: {name} must be a tree of tensors, got None")
    dense(where, name, tree.leaves(value), lambda: tree.paths(value))
