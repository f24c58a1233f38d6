"""Where the leaves of a state live in a torch optimizer: by name, in plain containers.

    a leaf of a parameter   opt.state[parameter]["0/mu"]
    a leaf of all           group["funcopt"]["state"]["0/count"]

A dict of the state whose keys are exactly those of the tree of parameters belongs to
the parameters, and everything else to all of them. A path joins field names, names of
chains and positions with "/"; positions count the links that remember something, so
that a link without memory may come and go. There are no dots in a path.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree
from funcopt.core.dtypes import kind
from funcopt.execute.layouts.layout import Flat

__all__ = ["ELSEWHERE", "ENTRY", "FORMAT", "TRAINED", "Place", "compare", "detached", "entry", "memory", "places", "rename"]

FORMAT = 1
ENTRY = "funcopt"  # of a group
ELSEWHERE = ("foreach", "fused", "differentiable")  # of a group of torch's: how it runs a step, which is told otherwise here
TRAINED = "trained"  # of a parameter: its value in training, while the weights for evaluation stand in its place


class Place(NamedTuple):
    """Where a leaf lives."""

    owner: str | None  # key of a parameter; None: all of them
    path: str


def _named(node: Any, every: bool) -> Iterator[tuple[str, Any]]:
    if hasattr(node, "_fields"):
        yield from zip(node._fields, node, strict=True)
    elif isinstance(node, dict):
        yield from ((str(key).replace(".", "%2E"), child) for key, child in node.items())
    elif isinstance(node, (tuple, list)):
        remembering = [child for child in node if every or tree.leaves(child)]
        yield from ((str(position), child) for position, child in enumerate(remembering))


def places(state: Any, keys: Sequence[str], *, every: bool = False) -> list[Place]:
    """The place of every leaf, in the order of `tree.leaves`; leaves inside a `Flat` belong to the owner "*".

    With `every`, positions count links without memory too, so that they do not depend on which parameters are in the tree.
    """
    number = tree.unflatten(state, list(range(len(tree.leaves(state)))))
    found: dict[int, Place] = {}
    wanted = set(keys)

    def walk(node: Any, path: tuple[str, ...], owner: str | None) -> None:
        if isinstance(node, int):
            found[node] = Place(owner, "/".join(path) or "value")
        elif owner is None and isinstance(node, Flat):
            for child in node.vectors.values():
                walk(child, path, "*")
        elif owner is None and type(node) is dict and set(node) == wanted:
            for key, child in node.items():
                walk(child, path, key)
        else:
            for name, child in _named(node, every):
                walk(child, (*path, name), owner)

    walk(number, (), None)
    if len(found) != len(tree.leaves(state)):
        raise TypeError("torch_optim: a state must be made of NamedTuples, dicts, tuples and lists of tensors")
    return [found[index] for index in range(len(found))]


def rename(homes: Sequence[dict], old: Sequence[str], new: Sequence[str]) -> None:
    """Moves what is stored to other names, all at once."""
    moving = [(home, b, home.pop(a)) for home, a, b in zip(homes, old, new, strict=True) if a != b and a in home]
    for home, name, value in moving:
        home[name] = value


def entry(group: dict[str, Any]) -> dict[str, Any]:
    """What a group keeps for us; made where it is not there yet."""
    return group.setdefault(ENTRY, {"format": FORMAT, "structure": [], "state": {}})


def compare(where: str, wanted: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Raises a ValueError that lists what is missing, unexpected, of another shape or of another kind of numbers."""
    wrong = [f"missing: {name} {tuple(value.shape)}" for name, value in wanted.items() if name not in saved]
    wrong += [f"unexpected: {name} {tuple(value.shape)}" for name, value in saved.items() if name not in wanted]
    wrong += [
        f"of other shape: {name} is {tuple(value.shape)}, saved {tuple(saved[name].shape)}"
        for name, value in wanted.items()
        if name in saved and saved[name].shape != value.shape
    ]
    wrong += [
        f"of another kind: {name} is {value.dtype}, saved {saved[name].dtype}"
        for name, value in wanted.items()
        if name in saved and kind(saved[name].dtype) != kind(value.dtype)
    ]
    if wrong:
        raise ValueError(f"{where}: the saved state must be that of this transformation, but\n  " + "\n  ".join(sorted(wrong)))


def detached(state: Any, foreign: Sequence[Tensor]) -> Any:
    """The state with a copy of every leaf that shares memory with a tensor of `foreign` or with another leaf."""
    seen = {memory(x) for x in foreign}

    def own(leaf: Tensor) -> Tensor:
        leaf = leaf.detach()
        where = memory(leaf)
        if where in seen or any(stride == 0 and size > 1 for stride, size in zip(leaf.stride(), leaf.shape, strict=True)):
            leaf = leaf.clone(memory_format=torch.preserve_format)
            where = memory(leaf)
        seen.add(where)
        return leaf

    return tree.unflatten(state, [own(leaf) for leaf in tree.leaves(state)])


def memory(x: Tensor) -> Any:
    """What tells whether two tensors share memory."""
    if type(x) not in (Tensor, torch.nn.Parameter) or x.device.type == "meta" or math.prod(x.shape) == 0:
        return id(x)
    return x.untyped_storage().data_ptr()
