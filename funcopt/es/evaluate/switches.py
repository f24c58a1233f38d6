"""Settings of torch that belong to the whole process, switched while an objective is evaluated."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from funcopt.core import versions

__all__ = ["as_written", "math_attention"]


class Switch:
    """Threads evaluate side by side, so the first who needs a setting switches it, and the last who did switches back."""

    def __init__(self, switch: Callable[[contextlib.ExitStack], None]):
        self.switch = switch  # puts on the stack what switches back
        self.lock, self.inside, self.switched = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.switch(self.switched)
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if self.inside == 0:
                    self.switched.close()


def _math_attention(switched: contextlib.ExitStack) -> None:
    switched.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
    torch.backends.mha.set_fastpath_enabled(False)
    # Flags of the process; what `sdpa_kernel` sets belongs to a thread from torch 2.15 on, and is not switched back by another.
    flags: Any = torch.backends.cuda
    for kind in ("flash", "mem_efficient", "cudnn", "math"):
        if hasattr(flags, f"enable_{kind}_sdp"):
            switched.callback(getattr(flags, f"enable_{kind}_sdp"), getattr(flags, f"{kind}_sdp_enabled")())
            getattr(flags, f"enable_{kind}_sdp")(kind == "math")


def _no_compiler(switched: contextlib.ExitStack) -> None:
    with contextlib.suppress(RuntimeError):  # in a region that is compiled, where torch does not let it be switched
        switched.enter_context(torch.compiler.set_stance("force_eager"))


_attention, _compiler = Switch(_math_attention), Switch(_no_compiler)


def math_attention() -> contextlib.AbstractContextManager:
    """The attention that has a batching rule, and no fused encoder layers, which have none, for what is evaluated inside vmap."""
    known = hasattr(torch.nn, "attention") and hasattr(torch.backends, "mha")
    return _attention() if known and not versions.compiling() else contextlib.nullcontext()


def as_written() -> contextlib.AbstractContextManager:
    """Compiled functions run as they are written, where torch can be told so (2.6 and newer).

    Under a mode that sees every operation, torch.compile gives a function up for the rest of the process.
    """
    return _compiler() if hasattr(torch.compiler, "set_stance") else contextlib.nullcontext()
