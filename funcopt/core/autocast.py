"""Out of torch.autocast: what keeps a state, steps or recombines is done in the precision of its tensors, whatever the model runs in.

`torch.autocast` rounds the arguments of matrix products to half precision. A forward pass is
made to bear that; Newton-Schulz iterations, covariances and weighted sums of noise
are not, so whoever calls an update inside the context gets that of outside.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from funcopt.core.versions import autocast_on, autocasting

__all__ = ["autocasting", "context", "in_full_precision", "outside_autocast"]

KINDS = ("cpu", "cuda", "mps", "xpu")


def context() -> tuple[Any, ...] | None:
    """What is under autocast, and in which dtypes: None outside, and something to compare with inside."""
    return tuple([(kind, torch.get_autocast_dtype(kind)) for kind in _kinds()]) if autocasting() else None


def outside_autocast(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`f(*args, **kwargs)` with autocast switched off for every kind of device."""
    return _without(_kinds(), functools.partial(f, *args, **kwargs)) if autocasting() else f(*args, **kwargs)


def in_full_precision(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as it is outside of `torch.autocast`.

    Example:
        >>> from funcopt.core.autocast import in_full_precision
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     in_full_precision(torch.matmul)(torch.ones(1, 1), torch.ones(1, 1)).dtype
        torch.float32
    """

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any):
        return outside_autocast(f, *args, **kwargs)

    return run


def _kinds() -> tuple[str, ...]:
    """The kinds of devices that are under autocast."""
    return tuple([kind for kind in KINDS if autocast_on(kind)])


def _without(kinds: tuple[str, ...], f: Callable[[], Any]) -> Any:
    if not kinds:
        return f()
    with torch.autocast(kinds[0], enabled=False):
        return _without(kinds[1:], f)
