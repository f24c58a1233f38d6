"""The protocol: an optimizer is a pair of pure functions over trees of tensors.

    state          = tx.init(params)
    updates, state = tx.update(updates, state, params, loss=loss)
    params         = apply_updates(params, updates)

The same arguments give the same result; nothing is written into; the state is a
NamedTuple of tensors and trees of tensors. After optax (0.2.8), with one protocol in
place of two: every `update` takes `signals` and any extra keyword and ignores what it
does not know.
"""

from collections.abc import Callable, Hashable, Mapping
from inspect import CO_VARKEYWORDS, signature
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.arrival import arrived
from funcopt.core.autocast import autocasting, outside_autocast
from funcopt.core.door.renamed import renamed
from funcopt.core.halves import holds_halves, narrowed, widened
from funcopt.core.parameters import is_trained, numbers, without_graphs, without_stray_graphs
from funcopt.core.shared import refuse_shared
from funcopt.core.traits import HEARING, NAMES, Traits, declared
from funcopt.core.versions import compiling

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    State = TypeVarWithDefault("State", default=Any)  # so that a bare `GradientTransformation` has any state
else:
    State = TypeVar("State")

__all__ = [
    "HEARING",
    "EmptyState",
    "GradientTransformation",
    "Grouping",
    "Init",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "TensorTree",
    "TransformInitFn",
    "TransformUpdateFn",
    "Update",
    "init_empty_state",
]

TensorTree = Any  # a dict, list, tuple, NamedTuple or registered dataclass of tensors, or a tensor
Schedule = Callable[[Tensor], Tensor]  # from the count of steps taken, 0-dim int64, to a 0-dim value
Scalar = float | Tensor  # a number or a 0-dim tensor, which may require grad
ScalarOrSchedule = float | Tensor | Schedule

Tree = TypeVar("Tree")
Made = TypeVar("Made", covariant=True)
Kept = TypeVar("Kept")


class Init(Protocol[Made]):
    """The first state, for a tree of parameters."""

    def __call__(self, params: TensorTree) -> Made: ...


class Update(Protocol[Kept]):
    """Updates, in the tree in which they came, and the next state."""

    def __call__(
        self, updates: Tree, state: Kept, params: TensorTree | None = None, *, signals: Any = None, **extra: Any
    ) -> tuple[Tree, Kept]: ...


TransformInitFn = Init
TransformUpdateFn = Update

MISSING = object()
OF_TORCH = (
    "; a transformation is a pair of functions: updates, state = tx.update(grads, state, params), then params = fo.apply_updates(params, "
    "updates); "
    "or fo.torch_optim.Optimizer(model.parameters(), tx), which is one of torch's"
)


class EmptyState(NamedTuple):
    """The state of a link that remembers nothing."""


def init_empty_state(params: TensorTree) -> EmptyState:
    """The `init` of a link that remembers nothing.

    Args:
        params: a tree of tensors, at which nothing looks.

    Returns:
        An `EmptyState`.

    Example:
        >>> fo.init_empty_state({"w": torch.ones(2)})
        EmptyState()
    """
    return EmptyState()


class GradientTransformation(tuple[Init[State], Update[State]]):
    """A pair of pure functions, `init` and `update`, and what they declare about themselves.

    It is a tuple: `init, update = tx` works. The declarations are `tx.traits`, each also
    an attribute of its own; all are given by keyword and have a default that is safe.

    Args:
        init: `params -> state`.
        update: `(updates, state, params=None, *, signals=None, **extra) -> (updates, state)`.
        name: who speaks in errors.
        hears: the words that this listens to, as a sequence (each "if said") or as a
            mapping from a word, or several joined by "|", to "if said", "needed"
            (in this step, from the left), "last" (from anywhere, one step late) or "in
            passing" (if said, but without acting on it for others).
        must_be_heard: words said here that make no sense unless somebody to the right
            hears them.
        needs: extra arguments without which an update cannot be, such as "loss", as a
            sequence or as a mapping from a word, or several of which one is enough joined by
            "|", to "may hold" (told NaN in its place, or the last epoch, this stays as it
            is) or "always" (nothing can stand in for it).
        flattenable: the result does not depend on how the tree is cut into leaves, so
            that it may run on one flat vector. False for what looks at a leaf as a whole,
            as a norm of each leaf does: on one vector it would see another whole.
        per_leaf: every leaf is worked out by itself, wherever it stands, but for what is
            counted; so that leaves of one shape may be worked out together, and groups of
            leaves by themselves. False for what sees all of them, as a global norm does.
        turns: whether the step gets its sign here: True for what turns a direction
            downhill (or decides the step otherwise), False for what leaves it on the side
            of the gradient, None where that is not known.
        one_length: all entries of its updates have one size, whatever the gradient, as signs have,
            so that no step tells by its angle to the next gradient whether it was too long: what finds
            a rate refuses it.
        own_rate: it finds by itself how long a step has to be, so that nobody else has to look for a rate.
        rounds: params in half precision are widened and rounded here, so that whoever runs this
            hands them on as they are.
        hooks: `{name: function}`, what a loop may do to the state between updates, each
            `(state, ...) -> state`. `control(tx, state, name, ...)` finds them in chains,
            wrappers and groups.
        leaves: which leaves `init` accepts: "real" floating ones, "complex" ones too,
            or "any" (for wrappers, whose inner links decide).
        alike: updates look like params; False where they carry a batch axis or pairs, None
            for what takes whatever its neighbours in a chain take.
        plan: `(state, **extra) -> hashable`, the host value on which the work of the
            next call depends (the pick of a pool), or None. It comes back to `update`
            as `plan=`. "eager" runs that one step of a compiled `make_step` outside the graph.
        plans: `(state) -> sequence`, all that `plan` may ever give but "eager", so that their graphs are made before
            the first step; None, or the answer None, where that is not known.
        in_one_graph: `() -> transformation`, the same without a plan: its update chooses in the graph what `plan` tells
            on the host, for the price of all that it chooses from; None, or the answer None, where that cannot be.
        links: what a chain is made of.
        relink: from other links to the same chain of them; None for what is no chain.
        grouping: `params -> Grouping`, for what gives groups of leaves to transformations
            of their own; None for what does not.
        leafwise, apart: former names of `flattenable` and `per_leaf`.

    Raises:
        TypeError, ValueError: a declaration is unknown or out of its range.

    Example:
        >>> def update(updates, state, params=None, **extra):
        ...     return fo.tree.scale(2.0, updates), state
        >>> says = {"flattenable": True, "per_leaf": True, "turns": False}
        >>> double = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="double", **says)
        >>> init, update = double
        >>> update(torch.ones(2), init(torch.ones(2)))
        (tensor([2., 2.]), EmptyState())
        >>> fo.check(double)
        Checked(flattenable=True, per_leaf=True, turns=False, undeclared=(), one_length=False)
    """

    traits: Traits
    name: str
    hears: Mapping[str, str]
    must_be_heard: tuple[str, ...]
    needs: Mapping[str, str]
    flattenable: bool
    per_leaf: bool
    turns: bool | None
    one_length: bool
    own_rate: bool
    rounds: bool
    hooks: Mapping[str, Callable[..., Any]]
    leaves: str
    alike: bool | None
    plan: Callable[..., Any] | None
    plans: Callable[..., Any] | None
    in_one_graph: Callable[[], "GradientTransformation | None"] | None
    links: tuple["GradientTransformation", ...]
    relink: Callable[[list["GradientTransformation"]], "GradientTransformation"] | None
    grouping: Callable[[TensorTree], "Grouping"] | None
    house: bool

    def __new__(
        cls,
        init: Callable[[TensorTree], State],
        update: Callable[..., tuple[TensorTree, State]],
        *,
        name: str = "",
        leafwise: bool | None = None,
        apart: bool | None = None,
        **given: Any,
    ):
        if not isinstance(name, str):
            raise TypeError(f"GradientTransformation: name must be a string, got {name!r}")
        made_in = getattr(update, "__module__", None) or ""
        again = made_in == __name__  # the update of another transformation, of which something is declared anew
        name = name or ("a transformation" if again else getattr(update, "__qualname__", "a transformation").split(".")[0])
        if leafwise is not None:
            renamed(name, "leafwise=", "flattenable=")
            given["flattenable"] = leafwise
        if apart is not None:
            renamed(name, "apart=", "per_leaf=")
            given["per_leaf"] = apart
        ours = made_in.startswith("funcopt.") and not again
        if not ours:
            _functions(name, init, update, **{word: given.get(word) for word in ("plan", "plans", "in_one_graph", "relink", "grouping")})
            links = given.get("links", ())
            if isinstance(links, GradientTransformation) or not all(isinstance(link, GradientTransformation) for link in links):
                raise TypeError(f"{name}: links must be a sequence of transformations, got {links!r}")
        traits = declared(name, {**given, "house": ours and given.get("house", True)})
        self = super().__new__(cls, (_guarded_init(init, name, traits.leaves), _guarded_update(init, update, name, traits.alike)))
        self.traits = traits
        return self

    def __init__(self, init: Callable[[TensorTree], State], update: Callable[..., tuple[TensorTree, State]], **given: Any):
        super().__init__()

    @property
    def init(self) -> Init[State]:
        return self[0]

    @property
    def update(self) -> Update[State]:
        return self[1]

    @property
    def leafwise(self) -> bool:
        """Former name of `flattenable`."""
        renamed(self.name, "the attribute leafwise", "flattenable")
        return self.flattenable

    @property
    def apart(self) -> bool:
        """Former name of `per_leaf`."""
        renamed(self.name, "the attribute apart", "per_leaf")
        return self.per_leaf

    def __getattr__(self, name: str) -> Any:
        traits = self.__dict__.get("traits")
        if traits is not None and name in traits.hooks:  # tx.finalize(state), as a controller's own
            return traits.hooks[name]
        remedy = OF_TORCH if name in ("step", "zero_grad", "param_groups", "minimize", "apply", "apply_gradients", "apply_updates") else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{remedy}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def __copy__(self) -> "GradientTransformation":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradientTransformation":
        return self  # functions and constants: there is nothing to copy

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self.name}: a transformation is made of functions and cannot be pickled; "
            "save its state with funcopt.checkpoint and make it again"
        )


def _of_traits(trait: str) -> property:
    return property(lambda self: getattr(self.traits, trait), doc=f"The trait `{trait}`.")


for _trait in NAMES:
    setattr(GradientTransformation, _trait, _of_traits(_trait))


def _functions(name: str, init: Any, update: Any, **maybe: Any) -> None:
    """Raises where a step could not call these."""
    for word, function in (("init", init), ("update", update), *maybe.items()):
        if not (callable(function) or (function is None and word in maybe)):
            raise TypeError(f"{name}: {word} must be a function, got {function!r}")
    code = getattr(update, "__code__", None)
    if code is not None and not code.co_flags & CO_VARKEYWORDS:
        raise TypeError(
            f"{name}: update must take any extra keyword, since what a step tells goes to every link, "
            f"got {update.__name__}{signature(update)}; "
            "write update(updates, state, params=None, **extra)"
        )


def _dense(where: str, what: str, leaves: list[Any], paths: Callable[[], list[str]]) -> None:
    from funcopt.core.unfit import dense  # which shows transformations, and so stands above this file

    dense(where, what, leaves, paths)


def _explain(where: str, init: Callable[..., Any], updates: Any, state: Any, params: Any, error: Exception) -> None:
    from funcopt.core.unfit import explain

    explain(where, init, updates, state, params, error)


class Grouping(NamedTuple):
    """How a transformation cuts a tree into groups."""

    labels: list[Hashable]  # of every leaf
    links: Mapping[Hashable, GradientTransformation]  # what works on the leaves of a label; the others pass
    remade: Callable[
        [Mapping[Hashable, GradientTransformation], Callable[[TensorTree], list[Any]]], GradientTransformation
    ]  # the same with other links and labels


def _guarded_init(init: Callable[[TensorTree], Any], name: str, accepted: str) -> Init[Any]:
    def guarded(params: TensorTree) -> Any:
        leaves = tree.leaves(params)
        if not compiling():
            _dense(name, "params", leaves, lambda: tree.paths(params))
        for index, leaf in enumerate(leaves):
            if accepted == "any" or leaf.is_floating_point() or (accepted == "complex" and leaf.is_complex()):
                continue
            path = tree.paths(params)[index]
            remedy = "wrap it in split_real_and_imaginary" if leaf.is_complex() else "mask it out, or keep it out of params"
            raise TypeError(f"{name}: needs floating point leaves, got {str(leaf.dtype).removeprefix('torch.')} at '{path}'; {remedy}")
        refuse_shared(name, params, trained=True)
        params = numbers(params)  # before anything is made of them: what is no parameter any more keeps its graph
        if holds_halves(tree.leaves(params)):
            params = widened(params)
        if autocasting():
            return outside_autocast(init, params)
        return init(params)

    return guarded


def _guarded_update(init: Callable[..., Any], update: Callable[..., Any], name: str, alike: bool | None) -> Update[Any]:
    def outermost(
        updates: TensorTree, state: Any, params: TensorTree | None, signals: Any, extra: dict[str, Any]
    ) -> tuple[TensorTree, Any]:
        """Looks at its arguments once (at shapes in eager alone)."""
        if autocasting():
            return outside_autocast(guarded, updates, state, params, signals=signals, **extra)
        held = updates if params is None else params
        flat = None if compiling() else tree.flatten(held)
        leaves = tree.leaves(held) if flat is None else flat[0]
        if params is not None:
            updates = arrived(name, updates, params, alike, flat)
            if torch.is_grad_enabled() and any([is_trained(p) for p in leaves if p.requires_grad]):
                updates, params = without_graphs(name, updates, params)
        if extra:
            extra = without_stray_graphs(updates, params, extra)
        if holds_halves(leaves):  # beside wider params no update is float16 any more
            found, state = update(widened(updates), state, widened(params), signals=signals, **extra)
            return narrowed(found, updates), state
        return update(updates, state, params, signals=signals, **extra)

    def guarded(
        updates: TensorTree, state: Any = MISSING, params: TensorTree | None = None, *, signals: Any = None, **extra: Any
    ) -> tuple[TensorTree, Any]:
        if not (signals is None or type(signals) is dict):  # links inside a chain get a Signals object and pass
            return update(updates, state, params, signals=signals, **extra)
        if compiling():
            return outermost(updates, state, params, signals, extra)
        try:
            return outermost(updates, state, params, signals, extra)
        except Exception as error:
            if state is MISSING:
                raise TypeError(f"{name}: update needs the state; write updates, state = tx.update(updates, state, params)") from None
            _explain(name, init, updates, state, params, error)
            raise

    return guarded
