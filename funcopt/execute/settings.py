"""What the settings of `make_step` must be."""

from typing import Any, Literal, get_args

from funcopt.core import check, tree
from funcopt.core.door.shown import shown

__all__ = ["AHEAD", "Compile", "Donate", "Flat", "Mode", "check_settings"]

Ahead = Literal["ahead"]
AHEAD: Ahead = "ahead"  # compile=: the second engine, for small steps

Auto = Literal["auto"]
Mode = Literal["reduce-overhead"]
Compile = bool | Ahead
Flat = bool | Auto
Checked = Literal["checked"]
Donate = bool | Checked


def check_settings(loss_fn: Any, compile: Any, flat: Any, donate: Any, accumulate: Any, in_dims: Any, mode: Any) -> None:
    """Raises a TypeError or ValueError for what is out of range, or does not go together."""
    if not callable(loss_fn):
        raise TypeError(f"make_step: loss_fn must be a function of (params, *batch), got {shown(loss_fn)}")
    check.choice("make_step", "compile", compile, (True, False, *get_args(Ahead)))
    check.choice("make_step", "flat", flat, (True, False, *get_args(Auto)))
    check.choice("make_step", "donate", donate, (True, False, *get_args(Checked)))
    if donate == "checked" and mode is not None:
        raise ValueError(
            "make_step: donate='checked' makes new buffers in every step, which mode='reduce-overhead' cannot; pass donate=True"
        )
    check.integer("make_step", "accumulate", accumulate, 1)
    if any(isinstance(dim, bool) or not isinstance(dim, int) for dim in tree.leaves(in_dims)):
        raise TypeError(f"make_step: in_dims must be an axis for all arguments of the batch, None, or a tuple of these, got {in_dims!r}")
    check.choice("make_step", "mode", mode, (None, *get_args(Mode)))
    if compile == AHEAD and accumulate > 1:
        raise ValueError("make_step: compile='ahead' makes one graph of the whole step, and accumulate is two; pass compile=True")
    if mode is not None and not (compile is True and donate):
        raise ValueError(
            "make_step: mode='reduce-overhead' replays a graph on buffers that stay where they are; pass compile=True, donate=True"
        )
