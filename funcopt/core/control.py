"""control: what a loop may do to a state between updates, wherever in a transformation the link stands that can do it.

A link declares such functions beside `init` and `update`, as `hooks`; chains, wrappers,
groups and pools hand them on, each with its part of the state.
"""

from typing import Any

from funcopt.core.protocol import GradientTransformation

__all__ = ["control"]


def control(tx: GradientTransformation, state: Any, hook: str, *arguments: Any, **named: Any) -> Any:
    """Calls a function that a link declares (`finalize`, `start_epoch`, `lock`, `observe_loss`, ...) on that link's part of the state.

    Args:
        tx: any transformation: the link, or a chain, wrapper or group it stands in.
        state: its state; it is not changed.
        hook: the name of the function; `tx.hooks` holds all that there are. Where several
            links have it, it is called on each; "label/name" is that of one group, named
            scope or member of a pool.
        arguments, named: what the function takes besides the state.

    Returns:
        The new state.

    Raises:
        ValueError: no link has such a function; tells those that there are.

    Example:
        >>> tx = fo.apply_if_finite(fo.aees(fo.sgd(0.1), (0.5, 1.0), seed=0), max_consecutive_errors=3)
        >>> state = tx.init(torch.zeros(2))
        >>> _, state = tx.update(torch.ones(2), state, loss=1.0)
        >>> fo.find(fo.control(tx, state, "finalize"), "episode")
        tensor(1)
    """
    found = tx.hooks.get(hook) if isinstance(hook, str) else None
    if found is None:
        known = f"it has {', '.join(tx.hooks)}" if tx.hooks else "it has none"
        raise ValueError(f"control: {tx.name} has no function {hook!r} for the loop; {known}")
    return found(state, *arguments, **named)
