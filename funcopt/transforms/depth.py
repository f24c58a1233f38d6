"""scale_by_depth: layers near the input take smaller steps ("layer-wise rate decay").

    u_l = decay^(L - l) g_l        for a leaf of layer l = 1, ..., L, counted from the input

Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018 (discriminative fine-tuning); in this form
Clark et al., "ELECTRA", 2020, and Bao et al., "BEiT", 2021.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from funcopt.core import EmptyState, GradientTransformation, TensorTree, check, tree
from funcopt.core.door.shown import shown
from funcopt.transforms.groups import LISTED, Labels, by_path, entries_of

__all__ = ["layers_of", "scale_by_depth"]


def layers_of(module: nn.Module) -> Callable[[Any], Any]:
    """Labels 1, 2, ...: the layer of each parameter of a module, counted from the input as the module lists them.

    A layer is what stands under a path up to its first number ("blocks.3"), else under its first name ("embed", "head"). Look at
    them: `print(fo.describe_groups(fo.layers_of(model), dict(model.named_parameters())))`.

    Args:
        module: lists its layers from the input to the output, as it is written.

    Returns:
        A function from a tree of params, named as in `named_parameters()`, to a tree of labels.

    Raises:
        TypeError: `module` is no module.
        ValueError: when called, a leaf has a name that the module has not.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> fo.layers_of(model)(dict(model.named_parameters()))
        {'0.weight': 1, '0.bias': 1, '2.weight': 2, '2.bias': 2}
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"layers_of: module must be a torch.nn.Module, got {shown(module)}")
    depths = depths_in(module)

    def entries(values: TensorTree) -> list[Any]:
        paths = tree.paths(values)
        strange = [path for path in paths if path not in depths]
        if strange:
            raise ValueError(
                f"layers_of: leaves must have the names of the module's parameters, and it has no {', '.join(strange[:LISTED])}; "
                f"it has {', '.join(list(depths)[:LISTED])}"
            )
        return [depths[path] for path in paths]

    return Labels(entries)


def depths_in(module: nn.Module) -> dict[str, int]:
    """The layer of each parameter of a module."""
    numbers: dict[str, int] = {}
    return {path: numbers.setdefault(_layer(path), len(numbers) + 1) for path, _ in module.named_parameters()}


def _layer(path: str) -> str:
    parts = path.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: first + 1])


def scale_by_depth(
    decay: float, layers: nn.Module | Sequence[str] | TensorTree | Callable[[TensorTree], TensorTree]
) -> GradientTransformation:
    """Multiplies the updates of each layer by a power of `decay`: 1 at the output, less and less towards the input.

    Put it to the right of what divides by the size of gradients (Adam, sign methods), where it is a rate for each layer: beside or behind
    the whole optimizer, so that decoupled weight decay shrinks with it.

    Args:
        decay: in (0, 1]; 0.75 to 0.9 for fine-tuning.
        layers: a module (`layers_of`); or patterns of paths from the input to the output, each a layer, such as
            `["embed.*", "blocks.0.*", "blocks.1.*", "head.*"]`; or labels 1, 2, ..., as `partition` takes them.

    Returns:
        A transformation without a state of its own.

    After a NaN:
        That entry of this step is NaN, the next is clean.

    Raises:
        TypeError, ValueError: `decay` is out of range; at `init`, a layer is no int from 1 on, a leaf has no
            layer, or a pattern no leaf.

    Example:
        >>> tx = fo.chain(fo.sgd(1.0), fo.scale_by_depth(0.5, ["in.*", "mid.*", "out.*"]))
        >>> gradients = {name: {"w": torch.ones(1)} for name in ("in", "mid", "out")}
        >>> tx.update(gradients, tx.init(gradients), gradients)[0]
        {'in': {'w': tensor([-0.2500])}, 'mid': {'w': tensor([-0.5000])}, 'out': {'w': tensor([-1.])}}
    """
    where = "scale_by_depth"
    if isinstance(decay, bool) or not isinstance(decay, (int, float)):
        raise TypeError(f"{where}: decay must be a number, got {shown(decay)}")
    check.within(where, "decay", decay, 0, 1)
    check.positive(where, "decay", decay)
    labels: Any = layers
    known: int | None = None  # how many layers there are, where the tree may hold some of them
    if isinstance(layers, nn.Module):
        labels, known = layers_of(layers), max(depths_in(layers).values(), default=1)
    elif isinstance(layers, (list, tuple)) and layers and all(isinstance(pattern, str) for pattern in layers):
        labels, known = by_path({pattern: depth for depth, pattern in enumerate(layers, 1)}), len(layers)

    def numbered(values: TensorTree) -> list[int]:
        found = entries_of(labels, values, where, "layers")
        for path, label in zip(tree.paths(values), found, strict=True):
            if isinstance(label, bool) or not isinstance(label, int) or label < 1:
                raise ValueError(f"{where}: layers must be numbered 1, 2, ..., got {label!r} at '{path}'")
        return found

    def init(params: TensorTree) -> EmptyState:
        numbered(params)
        return EmptyState()

    def update(updates: TensorTree, state: EmptyState, params: TensorTree | None = None, **extra: Any):
        layer = entries_of(labels, updates, where, "layers")
        L = max(layer, default=1) if known is None else known
        scaled = [decay ** (L - l) * g for g, l in zip(tree.leaves(updates), layer, strict=True)]
        return tree.unflatten(updates, scaled), state

    return GradientTransformation(init, update, name=where, turns=False, leaves="complex")
