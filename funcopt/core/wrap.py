"""What a wrapper declares follows from what it wraps."""

from collections.abc import Callable
from typing import Any

from funcopt.core.protocol import GradientTransformation

__all__ = ["declared_by"]


def declared_by(inner: GradientTransformation, inner_state: Callable[[Any], Any], **changed: Any) -> dict[str, Any]:
    """The keyword arguments for a `GradientTransformation` around another.

    Args:
        inner: what is wrapped; its inits check their leaves themselves.
        inner_state: from the state of the wrapper to that of `inner`.
        changed: what the wrapper declares otherwise.
    """
    plan = inner.plan
    forwarded = None if plan is None else lambda state, **extra: plan(inner_state(state), **extra)
    declared = {"hears": inner.hears, "must_be_heard": inner.must_be_heard, "leafwise": inner.leafwise, "alike": inner.alike}
    return {**declared, "leaves": "any", "plan": forwarded, **changed}
