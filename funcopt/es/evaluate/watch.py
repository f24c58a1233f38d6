"""The first member that is evaluated by itself, watched: what it writes into tensors of others, what it draws.

Members that come one after the other see what those before them wrote: the power iteration of
a spectral norm in training mode, a running mean, a cache. That one has written is
no fault as long as nobody reads it. So if the first has, another member is evaluated after it, and
with the tensors put back: with the same fitness all is well; with another, where the
first gives its own once more, the objective is refused, and the tensors are as they were.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from funcopt.core import versions
from funcopt.core.versions import HigherOrderOperator, TorchDispatchMode
from funcopt.es.evaluate.generators import generator_states
from funcopt.es.evaluate.switches import as_written
from funcopt.es.noise.lazy_weight import Marked

__all__ = ["refuse_sharing", "refuse_torchs_generator"]


def refuse_sharing(
    evaluate: Callable[[], Any], other: Callable[[], Any], fitness_of: Callable[[Any], Tensor], sentence: Callable[[str], str]
) -> Any:
    """`evaluate()`, unless another member would see what it left behind: ValueError with the `sentence` of what wrote.

    Args:
        evaluate: one member.
        other: another one; called if the first writes into a tensor that it has not made.
        fitness_of: what it gives -> its fitness.
    """
    if versions.transforming() or versions.compiling():
        return evaluate()
    with as_written(), Writes() as writes:
        result = evaluate()
    if writes.before:
        after = fitness_of(other())
        writes.undo()
        if not _alike(fitness_of(other()), after):
            writes.undo()
            certain = _alike(fitness_of(evaluate()), fitness_of(result))  # else it gives another number at every call anyway
            if certain:
                writes.undo()
                raise ValueError(sentence(writes.writer))
    return result


def refuse_torchs_generator(evaluate: Callable[[], Any], device: torch.device, sentence: str) -> Any:
    """`evaluate()`, unless it draws from torch's generators, which are put back."""
    if versions.transforming() or versions.compiling():
        return evaluate()
    before = generator_states(device)
    result = evaluate()
    if any(not torch.equal(old, new) for old, new in zip(before, generator_states(device), strict=True)):
        torch.set_rng_state(before[0])
        if len(before) > 1:
            torch.cuda.set_rng_state(before[1], device)
        raise ValueError(sentence)
    return result


class Writes(TorchDispatchMode):
    """Tensors that were there before, written into: each as it was."""

    watches_only = True  # for core/random/philox.py: numbers may be read as they are outside
    supports_higher_order_operators = True  # torch.cond and its kin, whose branches torch does not let write

    def __init__(self):
        super().__init__()
        self.made: set[int] = set()  # memory that came up since
        self.before: list[tuple[Tensor, Tensor]] = []
        self.kept: set[int] = set()
        self.writer = ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        places, names, fresh = ((), (), True) if isinstance(func, HigherOrderOperator) else _roles(func)
        for place in places:
            for tensor in _tensors(args[place] if place < len(args) else None):
                self.note(func, tensor)
        for name in names:
            for tensor in _tensors(kwargs.get(name)):
                self.note(func, tensor)
        result = func(*args, **kwargs)
        if fresh:
            self.made.update(_memory(tensor) for tensor in _tensors(result))
        return result

    def note(self, func: Any, tensor: Tensor) -> None:
        memory = _memory(tensor)
        if memory not in self.made and memory not in self.kept:
            self.writer = self.writer or str(func)
            self.kept.add(memory)
            whole = tensor.as_strided((tensor.untyped_storage().nbytes() // max(1, tensor.element_size()),), (1,), 0)
            self.before.append((whole, whole.clone()))

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, old in self.before:
                tensor.copy_(old)


@functools.cache
def _roles(func: Any) -> tuple[tuple[int, ...], tuple[str, ...], bool]:
    """Of an operation: the arguments that it writes into, by place and by name, and whether what it returns is new memory."""
    written = [
        (place, argument)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    fresh = all(returned.alias_info is None for returned in func._schema.returns) or func is torch.ops.aten.lift_fresh.default
    return tuple(place for place, _ in written), tuple(argument.name for _, argument in written), fresh


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not isinstance(value, Marked) and value.layout == torch.strided:
            yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True)
