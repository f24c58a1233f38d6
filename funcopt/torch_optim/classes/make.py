"""Classes of optimizers, made from factories of transformations: what tools want that build optimizers themselves.

`optimizer_class(fo.lamb)` is a class whose constructor is `(params, lr=..., **hyperparameters)`.
Numbers live in the groups, under the names that torch has for them, and are read at
every step; everything else belongs to the optimizer.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from funcopt.core.door.callers import caller
from funcopt.core.door.front import looked_through, signature as read, unknown
from funcopt.core.protocol import GradientTransformation, Scalar
from funcopt.torch_optim.groups import Params
from funcopt.torch_optim.hyperparameters import Made
from funcopt.torch_optim.optimizer import Optimizer
from funcopt.torch_optim.storage import ELSEWHERE
from funcopt.transforms.inject import is_number, signature

__all__ = ["optimizer_class"]

BETAS = ("b1", "b2", "b3")
OPTIONS: dict[str, Any] = {
    "maximize": False,
    "compile": False,
    "flat": "auto",
    "capturable": False,
    "process_group": None,
    "on_missing": "raise",
    "state_dtype": "auto",
    "foreach": None,
    "fused": None,
    "differentiable": False,
}
IN_GROUPS = ("maximize", "capturable")
Kind = TypeVar("Kind", bound="FromFactory")


class FromFactory(Optimizer):
    """An optimizer of a factory; the class knows how to call it."""

    factory: Callable[..., GradientTransformation]
    numbers: tuple[str, ...] = ()
    takes_mask = False
    joined: tuple[str, ...] = ()  # what "betas" stands for
    waits: frozenset[str] = frozenset()  # paths of leaves of an option that stay, as in torch, when it is switched off
    handed_on: tuple[inspect.Parameter, ...] = ()  # what `**given` of a constructor takes, as `also_takes` shows it

    if TYPE_CHECKING:  # every class has a constructor of its own

        def __init__(self, params: Params, *args: Any, **hyperparameters: Any) -> None: ...

    def _open(self, params: Params, given: dict[str, Any]) -> None:
        """What every constructor does: tells numbers of groups from what belongs to the optimizer."""
        cls = type(self)
        lr = given.pop("lr")
        options = {name: given.pop(name) for name in OPTIONS}
        elsewhere = {name: options.pop(name) for name in ELSEWHERE}
        single = [given.pop(name) for name in cls.joined]
        if any(value is not None for value in single):
            given["betas"] = tuple(old if new is None else new for old, new in zip(given["betas"], single, strict=True))
        # A schedule is a function, which belongs to the optimizer; a number belongs to the groups.
        numbers = {name: given.pop(name) for name in cls.numbers if isinstance(given[name], Tensor) or not callable(given[name])}
        recipe = Made(self._kind(), tuple(numbers), given, numbers)
        if not recipe.hears_rate:
            if lr is not None and not (isinstance(lr, (int, float)) and lr == 1.0):
                raise ValueError(f"{cls.__name__}: lr must be left out, since the rate is in its parts")
            lr = 1.0
        defaults = {"lr": lr, **numbers, **{name: options.pop(name) for name in IN_GROUPS}}
        self._begin(params, recipe, defaults, options, elsewhere)

    def _look_through(self, given: dict[str, Any]) -> None:
        """Refuses what is handed on and is not of its kind."""
        looked_through(type(self).__name__, self.handed_on, given)

    @classmethod
    def _kind(cls) -> type:
        """The class that knows the factory, under which pickles find it (wrappers make classes of their own below it)."""
        return cls

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The hyperparameters and their defaults, without the rate."""
        return {}

    @classmethod
    def masks(cls, **statics: Any) -> bool:
        """Whether the factory takes a mask for its decay."""
        return cls.takes_mask

    @classmethod
    def by_group(cls, **statics: Any) -> bool:
        """Whether each group is a tree of its own for a method that sees a whole tree."""
        return False

    @classmethod
    def upgrade(cls, shared: dict[str, Tensor], **statics: Any) -> None:
        """Brings what the parameters of a group share, as an older version saved it, into the form of today."""

    @classmethod
    def late(cls, path: str) -> Tensor | None:
        """The first value of a counter of a link whose other leaves were there before it; None: that of `init`."""

    @classmethod
    def build(cls, **values: Any) -> GradientTransformation:
        """The transformation for these hyperparameters, with the rate left to the loop."""
        if cls.joined and "betas" in values:
            betas = values.pop("betas")
            if not isinstance(betas, (tuple, list)) or len(betas) != len(cls.joined):
                raise TypeError(
                    f"{cls.__name__}: betas must be a tuple of {len(cls.joined)} numbers ({', '.join(cls.joined)}), got {betas!r}"
                )
            values |= dict(zip(cls.joined, betas, strict=True))
        return cls.factory(lr=None, **values)


def options() -> list[inspect.Parameter]:
    """The parameters of `Optimizer` that every class has."""
    return [parameter for name, parameter in inspect.signature(Optimizer).parameters.items() if name in OPTIONS]


def shows(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    """Gives a constructor the signature that an editor shows."""
    function.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    function.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not inspect.Parameter.empty}


def keywords(function: Callable[..., Any], names: Iterable[str], defaults: Mapping[str, Any] | None = None) -> list[inspect.Parameter]:
    """These parameters of a function, with other defaults where a class has others."""
    takes = read(function).parameters
    return [takes[name].replace(default=(defaults or {}).get(name, takes[name].default)) for name in names]


def also_takes(parameters: Iterable[inspect.Parameter] = (), *, any_other: bool = True) -> Callable[[type[Kind]], type[Kind]]:
    """Shows in the signature of a class what its `**given` hands on: these parameters, and those of `Optimizer`.

    Args:
        parameters: of what it is handed to.
        any_other: whether there are others, which depend on a name.
    """

    def shown(kind: type[Kind]) -> type[Kind]:
        *own, rest = inspect.signature(kind.__init__).parameters.values()
        kind.handed_on = tuple(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*parameters, *options()))
        shows(kind.__init__, [*own, *kind.handed_on, *([rest] if any_other else ())])
        return kind

    return shown


def optimizer_class(
    factory: Callable[..., GradientTransformation],
    *,
    name: str | None = None,
    module: str | None = None,
    numbers: Sequence[str] | None = None,
    lr: float | None = None,
) -> type[FromFactory]:
    """A class of torch optimizers from a factory of transformations.

    Args:
        factory: `(lr, **hyperparameters) -> GradientTransformation`, of which `lr=None`
            leaves the rate to the loop, such as `fo.lamb`. Parameters annotated as
            `Scalar` or `ScalarOrSchedule` live in the groups; `b1` and `b2` there as `betas`.
        name: of the class; None: that of the factory.
        module: where the class will be found by that name, for pickles; None: the module
            of the caller.
        numbers: the parameters that live in the groups, where annotations do not say it.
        lr: default of the rate; None: that of the factory, or 1e-3.

    Returns:
        A subclass of `Optimizer`: `(params, lr=..., **hyperparameters, **options)`, the
        options being those of `Optimizer`.

    Raises:
        TypeError: `factory` is no function; of the class, a keyword is unknown.

    Example:
        >>> Lamb = fo.torch_optim.optimizer_class(fo.lamb, name="Lamb")
        >>> opt = Lamb([torch.nn.Parameter(torch.zeros(2))], lr=0.1, betas=(0.8, 0.99))
        >>> opt.param_groups[0]["betas"], opt.param_groups[0]["eps"]
        ((0.8, 0.99), 1e-06)
    """
    said = signature("optimizer_class", factory).parameters
    name = name or str(getattr(factory, "__name__", type(factory).__name__))
    module = module or caller().f_globals.get("__name__", __name__)
    joined = tuple(beta for beta in BETAS if beta in said)
    joined = joined if len(joined) > 1 else ()
    parameters = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Params)]
    rate = said["lr"].default if "lr" in said else None
    first = lr if lr is not None else (1e-3 if rate in (inspect.Parameter.empty, None) else rate)
    parameters.append(inspect.Parameter("lr", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=first, annotation=Scalar))
    living: list[str] = []
    for parameter in said.values():
        if parameter.name == "lr" or parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            continue
        if parameter.name in joined:
            if parameter.name == next(iter(joined)):
                betas = tuple(said[beta].default for beta in joined)
                parameters.append(inspect.Parameter("betas", parameter.kind, default=betas, annotation=tuple[(Scalar,) * len(joined)]))
                living.append("betas")
            continue
        if parameter.default is inspect.Parameter.empty:
            raise TypeError(
                f"optimizer_class: every argument of factory but lr must have a default, got '{parameter.name}' without one; "
                "functools.partial gives it one"
            )
        parameters.append(parameter)
        if (is_number(parameter.annotation) if numbers is None else parameter.name in numbers) or parameter.name == "betas":
            living.append(parameter.name)
    extra = {**dict.fromkeys(joined), **{option: default for option, default in OPTIONS.items() if option not in said}}
    parameters = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY] + [
        p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    kept = {**dict.fromkeys(joined, Scalar | None), **{option.name: option.annotation for option in options()}}
    parameters += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kept[key]) for key, value in extra.items()
    ]
    shown = inspect.Signature(parameters)

    def __init__(self, params, *args, **kwargs):
        if strangers := [key for key in kwargs if key not in shown.parameters]:
            unknown(name, strangers, [key for key in shown.parameters if key != "params"])
        bound = shown.bind(params, *args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        looked_through(name, parameters[1:], given)
        self._open(given.pop("params"), given)

    shows(__init__, [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters])
    source = f"{factory.__module__}.{factory.__name__}"
    body: dict[str, Any] = {
        "__init__": __init__,
        "__doc__": f"`torch.optim.Optimizer` of `{source}`; numbers live in the groups, the options are those of `Optimizer`.\n\n"
        f"{factory.__doc__ or ''}",
        "__module__": module,
        "__qualname__": name,
        "factory": staticmethod(factory),
        "numbers": tuple(living),
        "joined": joined,
        "takes_mask": "weight_decay_mask" in said,
    }
    body["_defaults"] = classmethod(lambda cls: {p.name: p.default for p in parameters[2:] if p.name not in extra})
    body["_kind"] = classmethod(lambda cls: kind)
    kind = type(name, (FromFactory,), body)
    return kind
