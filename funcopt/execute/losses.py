"""What a loss function has returned, looked at where it is differentiated: a number that knows what it came from, or a sentence."""

from typing import Any

from torch import Tensor

from funcopt.core.door.shown import shown

__all__ = ["checked"]


def checked(where: str, value: Any, has_aux: bool, params: list[Any]) -> Any:
    """What `loss_fn` returned, if there is something to differentiate.

    Args:
        value: the loss, or `(loss, aux)` with `has_aux`.
        params: the leaves that are trained; a loss need not depend on none.
    """
    loss = value
    if has_aux:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{where}: with has_aux=True loss_fn must return a pair (loss, aux), got {shown(value)}")
        loss = value[0]
    if isinstance(loss, (tuple, list, dict)):
        remedy = "" if has_aux or isinstance(loss, dict) else "; pass has_aux=True where it returns (loss, aux)"
        raise TypeError(f"{where}: loss_fn must return the loss, a 0-dim tensor, got a {type(loss).__name__} of {len(loss)}{remedy}")
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"{where}: loss_fn must return the loss as a 0-dim tensor that depends on params, got {shown(loss)}; "
            "leave out .item() and float()"
        )
    if loss.dim() != 0:
        raise ValueError(
            f"{where}: loss_fn must return one number, a 0-dim tensor, got a tensor of shape {tuple(loss.shape)}; take its mean or sum"
        )
    if not loss.dtype.is_floating_point:
        kind = str(loss.dtype).removeprefix("torch.")
        raise TypeError(
            f"{where}: loss_fn must return a real floating point loss, got {kind}, which has no gradient; "
            "an objective without one is for fo.es.grad"
        )
    if params and not loss.requires_grad:
        raise ValueError(
            f"{where}: the loss does not depend on params, so that nothing would be trained; "
            "loss_fn must use the params it is given, without detach(), no_grad() or .item() on the way"
        )
    return value
