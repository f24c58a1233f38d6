"""The protocol: an optimizer is a pair of pure functions over trees of tensors.

    state          = tx.init(params)
    updates, state = tx.update(updates, state, params, loss=loss)
    params         = apply_updates(params, updates)

The same arguments give the same result; nothing is written into; the state is a
NamedTuple of tensors and trees of tensors. After optax (0.2.8), with one protocol in
place of two: every `update` takes `signals` and any extra keyword and ignores what it
does not know.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from funcopt.core import tree
from funcopt.core.versions import compiling

__all__ = ["EmptyState", "GradientTransformation", "Grouping", "Scalar", "ScalarOrSchedule", "Schedule", "TensorTree"]

TensorTree = Any  # a dict, list, tuple, NamedTuple or registered dataclass of tensors, or a tensor
Schedule = Callable[[Tensor], Tensor]  # from the count of steps taken, 0-dim int64, to a 0-dim value
Scalar = float | Tensor  # a number or a 0-dim tensor, which may require grad
ScalarOrSchedule = float | Tensor | Schedule

HEARING = ("in passing", "if said", "last", "needed")  # from the weakest to the strongest
LEAVES = ("real", "complex", "any")


class EmptyState(NamedTuple):
    """The state of a link that remembers nothing."""


class GradientTransformation(tuple):
    """A pair of pure functions, `init` and `update`, and what they declare about themselves.

    It is a tuple: `init, update = tx` works.

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
        leafwise: the result does not depend on how the tree is cut into leaves, so
            that it may run on one flat vector.
        leaves: which leaves `init` accepts: "real" floating ones, "complex" ones too,
            or "any" (for wrappers, whose inner links decide).
        alike: updates look like params; false where they carry a batch axis or pairs.
        plan: `(state, **extra) -> hashable`, the host value on which the work of the
            next call depends (the pick of a pool), or None. It comes back to `update`
            as `plan=`. "eager" runs that one step of a compiled `make_step` outside the graph.
        links: what a chain is made of.
        relink: from other links to the same chain of them; None for what is no chain.
        apart: every leaf is worked out by itself, wherever it stands, but for what is
            counted; so that leaves of one shape may be worked out together.
        grouping: `params -> Grouping`, for what gives groups of leaves to transformations
            of their own; None for what does not.

    Example:
        >>> double = fo.GradientTransformation(lambda params: fo.EmptyState(), lambda updates, state, params=None, **extra: (2 * updates, state))
        >>> init, update = double
        >>> update(torch.ones(2), init(torch.ones(2)))
        (tensor([2., 2.]), EmptyState())
    """

    name: str
    hears: dict[str, str]
    must_be_heard: tuple[str, ...]
    leafwise: bool
    leaves: str
    alike: bool
    plan: Callable | None
    links: tuple["GradientTransformation", ...]
    relink: Callable[[list["GradientTransformation"]], "GradientTransformation"] | None
    apart: bool
    grouping: Callable[[TensorTree], "Grouping"] | None

    def __new__(
        cls,
        init: Callable,
        update: Callable,
        *,
        name: str = "",
        hears: Mapping[str, str] | Sequence[str] = (),
        must_be_heard: Sequence[str] = (),
        leafwise: bool = False,
        leaves: str = "real",
        alike: bool = True,
        plan: Callable | None = None,
        links: Sequence["GradientTransformation"] = (),
        relink: Callable[[list["GradientTransformation"]], "GradientTransformation"] | None = None,
        apart: bool = False,
        grouping: Callable[[TensorTree], "Grouping"] | None = None,
    ):
        name = name or getattr(update, "__qualname__", "a transformation").split(".")[0]
        self = super().__new__(cls, (_guarded_init(init, name, leaves), _guarded_update(update, name, alike)))
        self.name = name
        self.hears = dict(hears) if isinstance(hears, Mapping) else dict.fromkeys(hears, "if said")
        for how in self.hears.values():
            if how not in HEARING:
                raise ValueError(f"{name}: hears must say one of {', '.join(HEARING)} for each word, got {how!r}")
        self.must_be_heard = tuple(must_be_heard)
        self.leafwise = leafwise
        self.leaves = leaves
        self.alike = alike
        self.plan = plan
        self.links = tuple(links)
        self.relink = relink
        self.apart = apart
        self.grouping = grouping
        return self

    def __init__(self, init: Callable, update: Callable, **declared: Any):
        super().__init__()

    @property
    def init(self) -> Callable[[TensorTree], Any]:
        return self[0]

    @property
    def update(self) -> Callable[..., tuple[TensorTree, Any]]:
        return self[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def __reduce__(self):
        raise TypeError(f"{self.name}: a transformation is made of functions and cannot be pickled; save its state with funcopt.checkpoint and make it again")


class Grouping(NamedTuple):
    """How a transformation cuts a tree into groups."""

    labels: list[Hashable]  # of every leaf
    links: Mapping[Hashable, GradientTransformation]  # what works on the leaves of a label; the others pass
    remade: Callable[[Mapping[Hashable, GradientTransformation], Callable[[TensorTree], list]], GradientTransformation]  # the same with other links and labels


def _guarded_init(init: Callable, name: str, accepted: str) -> Callable:
    if accepted not in LEAVES:
        raise ValueError(f"{name}: leaves must be one of {', '.join(LEAVES)}, got {accepted!r}")

    def guarded(params: TensorTree) -> Any:
        for index, leaf in enumerate(tree.leaves(params)):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name}: params must be a tree of tensors, got {type(leaf).__name__} at '{tree.paths(params)[index]}'")
            if accepted == "any" or leaf.is_floating_point() or (accepted == "complex" and leaf.is_complex()):
                continue
            path = tree.paths(params)[index]
            remedy = "wrap it in split_real_and_imaginary" if leaf.is_complex() else "mask it out, or keep it out of params"
            raise TypeError(f"{name}: needs floating point leaves, got {str(leaf.dtype).removeprefix('torch.')} at '{path}'; {remedy}")
        return init(params)

    return guarded


def _guarded_update(update: Callable, name: str, alike: bool) -> Callable:
    def guarded(updates, state, params=None, *, signals=None, **extra):
        # The outermost call of an eager step looks at its trees once; links inside a chain get a Signals object and pass.
        if alike and params is not None and (signals is None or type(signals) is dict) and not compiling():
            tree.assert_alike(name, updates, params)
        return update(updates, state, params, signals=signals, **extra)

    return guarded
