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
from functools import partial
from typing import Any, NamedTuple, Protocol, get_args, get_origin, runtime_checkable

import torch
from torch import Tensor

from funcopt.core import GradientTransformation, Scalar, ScalarOrSchedule, Schedule, TensorTree, check, moments, read_signals, tree
from funcopt.core.door import front
from funcopt.core.random.keys import seeds_drawn, seeds_repeated
from funcopt.core.wrap import Kind, field, wrapped

__all__ = ["InjectStatefulHyperparamsState", "StatefulSchedule", "WrappedSchedule", "WrappedScheduleState", "inject_hyperparams"]

WHERE = "inject_hyperparams"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class WrappedScheduleState(NamedTuple):
    count: Tensor  # steps taken


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a memory, which is kept in `hyperparams_states` and told what `update` is told."""

    def init(self) -> Any:
        """The first state, tensors."""
        ...

    def update(self, state: Any, **extra: Any) -> Any:
        """The state after a step."""
        ...

    def __call__(self, state: Any, **extra: Any) -> Scalar:
        """The value of a step, from the state before it."""
        ...


class WrappedSchedule:
    """A schedule of the count of steps as one with a memory, which is the count.

    Args:
        schedule_fn: from the count of completed steps, 0-dim int64, to a value.

    Example:
        >>> schedule = fo.WrappedSchedule(lambda count: 1 / (count + 1.0))
        >>> state = schedule.update(schedule.init())
        >>> schedule(state)
        tensor(0.5000)
    """

    def __init__(self, schedule_fn: Schedule):
        if not callable(schedule_fn):
            raise TypeError(f"WrappedSchedule: schedule_fn must be a function of the count of steps, got {schedule_fn!r}")
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        return WrappedScheduleState(count=torch.zeros((), dtype=torch.int64, device="cpu"))

    def update(self, state: WrappedScheduleState, **extra: Any) -> WrappedScheduleState:
        return WrappedScheduleState(count=moments.increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra: Any) -> Scalar:
        return self.schedule_fn(state.count)


class InjectStatefulHyperparamsState(NamedTuple):
    count: Tensor  # steps taken
    hyperparams: dict[str, Tensor]  # as used in the last step
    hyperparams_states: dict[str, Any]  # of those with a schedule
    inner_state: Any  # of what the factory makes

    def signals(self) -> dict[str, Tensor]:
        return read_signals(self.inner_state)


def signature(where: str, factory: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a factory, with annotations that are objects where they can be found."""
    if isinstance(factory, GradientTransformation) or not callable(factory):
        hint = ", not what it returns" if isinstance(factory, GradientTransformation) else ""
        raise TypeError(f"{where}: factory must be the function that makes a transformation{hint}, got {factory!r}")
    try:
        return front.signature(factory)
    except ValueError:
        raise TypeError(
            f"{where}: factory must be a function whose parameters can be read, got {factory!r}; write lambda lr: ..."
        ) from None


def is_number(annotation: Any) -> bool | None:
    """Whether a parameter so annotated is a hyperparameter; None where it is not annotated."""
    if annotation is inspect.Parameter.empty:
        return None
    if get_origin(annotation) is Callable:  # whose arguments are a list, which no set can hold
        return False
    parts = _parts(annotation)
    return any(len(parts) == len(kinds) and all(part in kinds for part in parts) for kinds in NUMBERS)


def _parts(annotation: Any) -> list[Any]:
    """What a union is of, None apart; functions as pairs of what they take and give, which a compiler can compare."""
    return [get_args(part) if get_origin(part) is Callable else part for part in get_args(annotation) if part is not type(None)]


NUMBERS = (_parts(Scalar), _parts(ScalarOrSchedule))


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
    if not given and number and _takes_functions(annotation) and not isinstance(value, Tensor) and value == 0:
        return "static"  # weight_decay=0: the link is not there unless somebody asks for it
    if number is None:  # not annotated: what is a float, is a number
        return (
            "number"
            if isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 0)
            else "static"
        )
    return "number" if number else "static"


def rebuilt(
    where: str,
    factory: Callable[..., Any],
    build: Callable[[Callable[..., Any], Mapping[str, Any]], GradientTransformation],
    values: Mapping[str, Scalar],
) -> tuple[GradientTransformation, Callable[..., Any]]:
    """What `build(factory, values)` gives, and a function of other values that gives it again, with the seeds drawn the first time."""
    with seeds_drawn() as seeds:
        template = build(factory, values)
    make = partial(build, front.behind(factory))  # once is enough to look at what does not change
    if not isinstance(template, GradientTransformation):
        raise TypeError(f"{where}: the factory must return a GradientTransformation, got {template!r}")

    def remake(values: Mapping[str, Tensor]) -> GradientTransformation:
        if not seeds:
            return make(values)
        with seeds_repeated(seeds):
            return make(values)

    return template, remake


def rebuilding(
    init: Callable[..., Any],
    update: Callable[..., Any],
    template: GradientTransformation,
    remake: Callable[..., Any],
    *,
    kind: type[Kind] = GradientTransformation,  # pyright: ignore[reportArgumentType] (a default for a type variable)
    **changed: Any,
) -> Kind:
    """A transformation around one that is made anew from `state.hyperparams`, whose functions then are those of that one."""

    def plan(state: Any, **extra: Any):
        return remake(state.hyperparams).plan(state.inner_state, **extra)

    def plans(state: Any):
        return remake(state.hyperparams).plans(state.inner_state)

    def hook(word: str) -> Callable[..., Any]:
        def made_anew(state: Any, *arguments: Any, **named: Any) -> Any:
            return state._replace(inner_state=remake(state.hyperparams).hooks[word](state.inner_state, *arguments, **named))

        return made_anew

    hooks = {word: hook(word) for word in template.hooks} | changed.pop("hooks", {})
    return wrapped(
        init,
        update,
        template,
        field("inner_state"),
        kind=kind,
        plan=plan if template.plan else None,
        plans=plans if template.plans else None,
        hooks=hooks,
        **changed,
    )


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
        a number, a 0-dim tensor, a schedule or a `StatefulSchedule`. The transformation it returns rebuilds the
        inner one at every step from `state.hyperparams`, a dict from names to 0-dim
        tensors: to change a number, replace its entry. An entry with a schedule is
        written anew at every step.

    After a NaN:
        What it is given decides; docs/when-numbers-go-bad.md has each.

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
    check.dtype(WHERE, "hyperparam_dtype", hyperparam_dtype)
    parameters = signature(WHERE, factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.parameters.values())
    strangers = [] if open_ended else sorted(static - set(parameters.parameters))
    if strangers:
        raise ValueError(
            f"{WHERE}: static_args must name parameters of the factory, got {', '.join(strangers)}; "
            f"it takes {', '.join(parameters.parameters)}"
        )

    def injected(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = parameters.bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        positional: list[tuple[str | None, Any]] = []
        keywords: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        for name, value in bound.arguments.items():
            parameter = parameters.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                positional.extend((None, part) for part in value)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                for word, part in value.items():
                    keywords[word] = part
                    kinds[word] = "static" if word in static else _kind(WHERE, word, parameter.annotation, part, True)
            else:
                if parameter.kind in POSITIONAL:
                    positional.append((name, value))
                else:
                    keywords[name] = value
                kinds[name] = "static" if name in static else _kind(WHERE, name, parameter.annotation, value, name in given)
        return _injected(factory, positional, keywords, kinds, hyperparam_dtype)

    return injected


def _remembering(schedule: Any) -> StatefulSchedule:
    return schedule if isinstance(schedule, StatefulSchedule) else WrappedSchedule(schedule)


def _injected(
    factory: Callable[..., GradientTransformation],
    positional: list[tuple[str | None, Any]],
    keywords: dict[str, Any],
    kinds: dict[str, str],
    dtype: torch.dtype | None,
) -> GradientTransformation:
    given = {name: value for name, value in positional if name is not None} | keywords
    constants = {name: given[name] for name, kind in kinds.items() if kind == "number"}
    schedules = {name: _remembering(given[name]) for name, kind in kinds.items() if kind == "schedule"}

    def build(factory: Callable[..., Any], values: Mapping[str, Scalar]) -> GradientTransformation:
        arguments = [value if name is None else values.get(name, value) for name, value in positional]
        return factory(*arguments, **{name: values.get(name, value) for name, value in keywords.items()})

    first = {name: check.given(WHERE, name, schedule(schedule.init())) for name, schedule in schedules.items()}
    template, remake = rebuilt(WHERE, factory, build, first)  # sees the numbers, and so checks their ranges

    def scalar(value: Scalar, like: TensorTree) -> Tensor:
        value = tree.scalar(value, like)
        return value if dtype is None else value.to(dtype)

    def init(params: TensorTree) -> InjectStatefulHyperparamsState:
        device = tree.device(params)
        states = {name: tree.map_plain(lambda x: x.to(device, copy=True), schedule.init()) for name, schedule in schedules.items()}
        values = {name: scalar(value, params).clone() for name, value in constants.items()}
        values |= {name: scalar(check.given(WHERE, name, schedules[name](state)), params).clone() for name, state in states.items()}
        return InjectStatefulHyperparamsState(
            count=torch.zeros((), dtype=torch.int64, device=device),
            hyperparams=values,
            hyperparams_states=states,
            inner_state=remake(values).init(params),
        )

    def update(
        updates: TensorTree,
        state: InjectStatefulHyperparamsState,
        params: TensorTree | None = None,
        *,
        signals: Any = None,
        **extra: Any,
    ):
        values, told = dict(state.hyperparams), {word: value for word, value in extra.items() if word != "plan"}
        for name, schedule in schedules.items():
            values[name] = scalar(check.given(WHERE, name, schedule(state.hyperparams_states[name], **told)), state.count)
        updates, inner_state = remake(values).update(updates, state.inner_state, params, signals=signals, **extra)
        return updates, InjectStatefulHyperparamsState(
            count=moments.increment(state.count),
            hyperparams={name: value.clone() for name, value in values.items()},  # the inner state may keep the others
            hyperparams_states={name: schedule.update(state.hyperparams_states[name], **told) for name, schedule in schedules.items()},
            inner_state=inner_state,
        )

    return rebuilding(init, update, template, remake, name=f"inject_hyperparams {template.name}")
