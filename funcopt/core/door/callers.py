"""Who called into the package: what warnings name, however deep they are raised."""

import sys
import warnings
from typing import Any

__all__ = ["caller", "warn"]


def _between(frame: Any) -> bool:
    """Whether it is ours, or one of torch's that called us (a vmap, a hook of an optimizer)."""
    return frame.f_globals.get("__name__", "").startswith(("funcopt.", "torch."))


def caller() -> Any:
    """The frame of whoever called into the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _between(frame):
        frame = frame.f_back
    return frame


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that names the line of the caller, however deep in the package it is raised."""
    depth, frame = 1, sys._getframe(1)
    while frame is not None and _between(frame):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth + 1)
