"""The compiler's loops for `funcopt::philox`: the formula of `core/random/philox.py`, written out as late as can be.

A step of the sentence makes five draws, of 160 operations each where they are written out. Here each is one for all but the last step of
the compiler (`python benchmarks/compile_time.py steps`).
"""

import functools
from typing import Any

import torch

from funcopt.core.random import operation, philox
from funcopt.core.versions import TORCH

__all__ = ["tell_the_compiler"]


@functools.cache
def tell_the_compiler() -> None:
    """Registers the formula, once in a process; where this torch has no such place draws stay written out."""
    if TORCH < (2, 10):
        return
    try:
        from torch._inductor.ir import Pointwise
        from torch._inductor.lowering import register_lowering
        from torch._inductor.virtualized import ops
    except ImportError:
        return

    class Word:
        """A number of the compiler's, with the operators of which the formula is made."""

        def __init__(self, value: Any):
            self.value = value

    def operator(name: str) -> Any:
        def apply(self: Word, other: "Word | int") -> Word:
            value = other.value if isinstance(other, Word) else ops.constant(other, torch.int64)
            return Word(getattr(ops, name)(self.value, value))

        return apply

    for sign, name in (("add", "add"), ("mul", "mul"), ("and", "bitwise_and"), ("xor", "bitwise_xor"), ("rshift", "bitwise_right_shift")):
        setattr(Word, f"__{sign}__", operator(name))

    @register_lowering(torch.ops.funcopt.philox.default, type_promotion_kind=None)
    def lowered(key: Any, by: Any, m: int) -> tuple[Any, ...]:  # pyright: ignore[reportUnusedFunction]
        key.realize()
        key_at, by_at = key.make_loader(), by.make_loader()

        def word(which: int) -> Any:
            def entry(index: Any) -> Any:
                seed, offset = (Word(key_at([place])) for place in (0, 1))
                counter = philox.add(offset, Word(ops.add(by_at([]), ops.index_expr(index[0], torch.int64))))
                zero = Word(ops.constant(0, torch.int64))
                return philox.rounds(*counter, zero, zero, philox.key_schedule(*philox.halves(seed)))[which].value

            made = Pointwise.create(device=key.get_device(), dtype=torch.int64, inner_fn=entry, ranges=[m])
            made.realize()
            return made

        return tuple([word(which) for which in range(4)])

    operation.lowered = True
