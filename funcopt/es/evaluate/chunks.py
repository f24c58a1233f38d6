"""What a chunk of members is made of: how many of them, where they are evaluated, and where their answers go."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from funcopt.core import tree, versions
from funcopt.es.noise.population import Perturbations

__all__ = ["Answers", "Task", "auto_chunk", "filled", "moved", "shapes_of"]

CACHE = 3 << 19  # bytes of weights in a chunk on the CPU: about a second-level cache
EAGER = 8 << 20  # of an eager chunk, whose operations are calls, each as dear as the work on some 100 kB


class Task(NamedTuple):
    """A call of the objective without its parameters."""

    args: tuple
    kwargs: dict


def shapes_of(perturbations: Perturbations) -> tuple:
    return tuple((leaf.shape, leaf.dtype) for leaf in perturbations.leaves)


def auto_chunk(perturbations: Perturbations, task: Task, popsize: int) -> int:
    """Members whose weights fill the cache; on an accelerator an eighth of its free memory, with as much again for their activations.

    Where weights are not built, what counts is a quarter of the numbers of the noise, or a quarter of the outputs of all layers;
    in eager chunks the widest outputs, if there are more of them than of weights.
    """
    weights = outputs = widest = 0
    compiled = bool(perturbations.settings.execution.compile)
    for field in perturbations.fields:
        lazy = compiled and bool(getattr(field.law, "lazy", False)) and not versions.autocast_on(field.leaf.device.type)
        weights += field.leaf.element_size() * (field.law.numbers(field.leaf) // 4 if lazy else field.leaf.numel())
        output = field.leaf.element_size() * field.leaf.shape[0] if field.leaf.dim() > 1 else 0
        outputs, widest = outputs + (output if lazy else 0), max(widest, 0 if compiled else output)
    batch = [x for x in tree.leaves((task.args[1:], task.kwargs)) if isinstance(x, Tensor) and x.numel()]
    rows = max((x.numel() // (x.shape[-1] if x.dim() > 1 and x.is_floating_point() else 1) for x in batch), default=1)
    size = max(1, weights, rows * outputs // 4, rows * widest)
    device = perturbations.leaves[0].device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(2, min(popsize, free // 8 // size))
    members = max(4, min(128, CACHE // size) if compiled else min(256, EAGER // size))
    return 1 << (members.bit_length() - 1)


def filled(x: Tensor, size: int) -> Tensor:
    return torch.cat([x, x[-1:].expand(size - x.shape[0], *x.shape[1:])])


def moved(perturbations: Perturbations, task: Task, device: torch.device | None) -> tuple[list[Tensor], list[Tensor], Task]:
    scales = [field.scale for field in perturbations.fields]
    if device is None:
        return perturbations.leaves, scales, task

    def move(x: Any) -> Any:
        return x.to(device) if isinstance(x, Tensor) else x

    args, kwargs = tree.map_plain(move, task.args), tree.map_plain(move, task.kwargs)
    return [move(x) for x in perturbations.leaves], [move(x) for x in scales], Task(args, kwargs)


class Answers:
    """Those of all pairs and signs [pairs, signs, ...], each chunk's written where it belongs and let go.

    Kept until the end, the small tensors of the chunks would lie scattered among the large ones that every chunk
    allocates and frees: the heap would grow by such a large one with every chunk.
    """

    def __init__(self, pairs: int, signs: int):
        self.pairs, self.signs, self.places, self.parts = pairs, signs, None, []

    def add(self, answer: Any, part: range, signs: range) -> None:
        if versions.transforming() or versions.compiling():
            self.parts.append((signs.start, answer))  # nothing is written inside vmap
            return
        if self.places is None:
            self.places = tree.map_plain(lambda x: x.new_empty(self.pairs, self.signs, *x.shape[2:]), answer)
        tree.map_plain(lambda place, x: place[part.start : part.stop, signs.start : signs.stop].copy_(x), self.places, answer)

    def whole(self) -> Any:
        if self.places is not None:
            return self.places
        columns = [
            _catenated([answer for at, answer in self.parts if at == sign], dim=0) for sign in dict.fromkeys(at for at, _ in self.parts)
        ]
        return _catenated(columns, dim=1)


def _catenated(parts: list, dim: int) -> Any:
    return parts[0] if len(parts) == 1 else tree.map_plain(lambda *xs: torch.cat(xs, dim=dim), *parts)
