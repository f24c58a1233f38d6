"""inject_hyperparams: hyperparameters that live in the state, where they can be read, changed and scheduled.

    h_t      = schedule(count) where one is given, else what the state holds
    u_t, s_t = factory(h_t).update(g_t, s_{t-1}, p_{t-1})

What a hyperparameter is, is read from the annotations of the factory: parameters that
are `Scalar` or `ScalarOrSchedule` (or None). Masks, functions, ints, bools and dtypes
stay as they are, and float64 keeps b2 = 0.999 from becoming 1 in a bfloat16 model.

Reference: optax.inject_hyperparams (0.2.8), which takes every callable for a schedule
(a mask function then switches weight decay off) and every int for a hyperparameter.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, Schedule, TensorTree, moments, read_signals, tree
from funcopt.core.keys import seeds_drawn, seeds_repeated

__all__ = ["InjectStatefulHyperparamsState", "WrappedScheduleState", "inject_hyperparams"]

NUMBERS = (set(get_args(Scalar)), set(get_args(ScalarOrSchedule)))
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class WrappedScheduleState(NamedTuple):
    count: Tensor  # steps taken


class InjectStatefulHyperparamsState(NamedTuple):
    count: Tensor  # steps taken
    hyperparams: dict[str, Tensor]  # as used in the last step
    hyperparams_states: dict[str, WrappedScheduleState]  # of those with a schedule
    inner_state: Any

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def signature(where: str, factory: Callable) -> inspect.Signature:
    """The parameters of a factory, with annotations that are objects where they can be found."""
    if isinstance(factory, GradientTransformation) or not callable(factory):
        hint = ", not what it returns" if isinstance(factory, GradientTransformation) else ""
        raise TypeError(f"{where}: factory must be the function that makes a transformation{hint}, got {factory!r}")
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError:  # an annotation in quotes whose name is not there
        return inspect.signature(factory)


def is_number(annotation: Any) -> bool | None:
    """Whether a parameter so annotated is a hyperparameter; None where it is not annotated."""
    if annotation is inspect.Parameter.empty:
        return None
    if get_origin(annotation) is Callable:  # whose arguments are a list, which no set can hold
        return False
    return set(get_args(annotation)) - {type(None)} in NUMBERS


def _takes_functions(annotation: Any) -> bool:
    parts = get_args(annotation) if get_origin(annotation) is not Callable else (annotation,)
    return any(part is Any or part is Callable or get_origin(part) is Callable for part in (annotation, *parts))


def _kind(where: str, name: str, annotation: Any, value: Any, given: bool) -> str:
    """number, schedule or static."""
    number = is_number(annotation)
    function = callable(value) and not isinstance(value, Tensor)
    if function and number:
        return "schedule"
    if function and given and not _takes_functions(annotation):
        raise TypeError(
            f"{where}: cannot tell whether {name} is a schedule or a function to be left alone, since the factory does not say; "
            f"annotate it as ScalarOrSchedule (or as a Callable), or name it in static_args, got {value!r}"
        )
    if function or value is None or isinstance(value, bool):
        return "static"
    if not given and number and Schedule in get_args(annotation) and not isinstance(value, Tensor) and value == 0:
        return "static"  # weight_decay=0: the link is not there unless somebody asks for it
    if number is None:  # not annotated: what is a float, is a number
        return "number" if isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 0) else "static"
    return "number" if number else "static"


def rebuilt(where: str, make: Callable[[Mapping], GradientTransformation], values: Mapping[str, Scalar]) -> tuple[GradientTransformation, Callable]:
    """What `make` makes of these values, and a function that makes it again of others, with the seeds that it drew the first time."""
    with seeds_drawn() as seeds:
        template = make(values)
    if not isinstance(template, GradientTransformation):
        raise TypeError(f"{where}: the factory must return a GradientTransformation, got {template!r}")

    def remake(values: Mapping[str, Tensor]) -> GradientTransformation:
        if not seeds:
            return make(values)
        with seeds_repeated(seeds):
            return make(values)

    return template, remake


def inject_hyperparams(
    factory: Callable[..., GradientTransformation], static_args: str | Sequence[str] = (), hyperparam_dtype: torch.dtype | None = None
) -> Callable[..., GradientTransformation]:
    """Keeps the hyperparameters of an optimizer in its state.

    Args:
        factory: makes a transformation, for instance `fo.adamw`. Parameters annotated as
            `Scalar` or `ScalarOrSchedule` (or None) are hyperparameters; of those without
            annotation, the ones that are given a float.
        static_args: names of parameters to leave alone.
        hyperparam_dtype: of the hyperparameters; None: float64 where the device has it.

    Returns:
        A function with the parameters of `factory`, in which every hyperparameter may be
        a number, a 0-dim tensor or a schedule. The transformation it returns rebuilds the
        inner one at every step from `state.hyperparams`, a dict from names to 0-dim
        tensors: to change a number, replace its entry. An entry with a schedule is
        written anew at every step.

    Raises:
        TypeError: a function is given for a parameter of which the factory does not say
            whether it takes a schedule; `factory` is not a function.
        ValueError: `static_args` names what the factory does not take.

    Example:
        >>> tx = fo.inject_hyperparams(fo.sgd)(lr=lambda count: 0.5 / (count + 1))
        >>> state = tx.init(torch.zeros(1))
        >>> for _ in range(2):
        ...     updates, state = tx.update(torch.tensor([2.0]), state)
        >>> updates, state.hyperparams["lr"]
        (tensor([-0.5000]), tensor(0.2500, dtype=torch.float64))
    """
    where = "inject_hyperparams"
    parameters = signature(where, factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.parameters.values())
    strangers = [] if open_ended else sorted(static - set(parameters.parameters))
    if strangers:
        raise ValueError(f"{where}: static_args must name parameters of the factory, got {', '.join(strangers)}; it takes {', '.join(parameters.parameters)}")

    def injected(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = parameters.bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        positional, keywords, kinds = [], {}, {}
        for name, value in bound.arguments.items():
            parameter = parameters.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                positional.extend((None, part) for part in value)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                for word, part in value.items():
                    keywords[word] = part
                    kinds[word] = "static" if word in static else _kind(where, word, parameter.annotation, part, True)
            else:
                if parameter.kind in POSITIONAL:
                    positional.append((name, value))
                else:
                    keywords[name] = value
                kinds[name] = "static" if name in static else _kind(where, name, parameter.annotation, value, name in given)
        return _injected(factory, positional, keywords, kinds, hyperparam_dtype)

    return injected


def _injected(factory, positional: list, keywords: dict, kinds: dict, dtype: torch.dtype | None) -> GradientTransformation:
    given = {name: value for name, value in positional if name is not None} | keywords
    constants = {name: given[name] for name, kind in kinds.items() if kind == "number"}
    schedules: dict[str, Schedule] = {name: given[name] for name, kind in kinds.items() if kind == "schedule"}

    def make(values: Mapping[str, Scalar]) -> GradientTransformation:
        arguments = [values.get(name, value) for name, value in positional]
        return factory(*arguments, **{name: values.get(name, value) for name, value in keywords.items()})

    first = {name: schedule(torch.zeros((), dtype=torch.int64)) for name, schedule in schedules.items()}
    template, remake = rebuilt("inject_hyperparams", make, first)  # sees the numbers, and so checks their ranges

    def scalar(value: Scalar, like: TensorTree) -> Tensor:
        value = tree.scalar(value, like)
        return value if dtype is None else value.to(dtype)

    def init(params: TensorTree) -> InjectStatefulHyperparamsState:
        count = torch.zeros((), dtype=torch.int64, device=tree.device(params))
        values = {name: scalar(value, params).clone() for name, value in constants.items()}
        values |= {name: scalar(schedule(count), params).clone() for name, schedule in schedules.items()}
        return InjectStatefulHyperparamsState(
            count=count,
            hyperparams=values,
            hyperparams_states={name: WrappedScheduleState(count=count.clone()) for name in schedules},
            inner_state=remake(values).init(params),
        )

    def update(updates: TensorTree, state: InjectStatefulHyperparamsState, params=None, *, signals=None, **extra):
        values = dict(state.hyperparams)
        for name, schedule in schedules.items():
            values[name] = scalar(schedule(state.hyperparams_states[name].count), state.count)
        updates, inner_state = remake(values).update(updates, state.inner_state, params, signals=signals, **extra)
        return updates, InjectStatefulHyperparamsState(
            count=moments.increment(state.count),
            hyperparams={name: value.clone() for name, value in values.items()},  # the inner state may keep the others
            hyperparams_states={name: WrappedScheduleState(count=moments.increment(part.count)) for name, part in state.hyperparams_states.items()},
            inner_state=inner_state,
        )

    def plan(state: InjectStatefulHyperparamsState, **extra):
        return remake(state.hyperparams).plan(state.inner_state, **extra)

    return GradientTransformation(
        init,
        update,
        name=f"inject_hyperparams {template.name}",
        hears=template.hears,
        must_be_heard=template.must_be_heard,
        leafwise=template.leafwise,
        leaves="any",
        alike=template.alike,
        plan=plan if template.plan else None,
    )
