"""member_from_profile: the members of OptiRoulette's profile that are not built here, by their classes in pytorch_optimizer."""

import inspect
from typing import Any

import torch

from funcopt.controllers.members import Member
from funcopt.torch_optim.foreign import from_torch

__all__ = ["member_from_profile"]


def member_from_profile(name: str, settings: dict[str, Any]) -> Member:
    """A class of pytorch_optimizer, or else of torch.optim, as a member of a pool: `optiroulette_profile(missing=member_from_profile)`.

    Args:
        name: of the class, in small or capital letters. As in OptiRoulette a name that both libraries
            have is pytorch_optimizer's: `ASGD` is the accelerated one, `Apollo` the low-rank APOLLO.
        settings: its arguments, `lr` among them.

    Returns:
        A ready-made member, which says the `lr` of its group.

    Raises:
        ImportError: pytorch_optimizer is not installed.
        ValueError: neither library has the class, or the class does not take a setting.

    Example:
        >>> import pytest; _ = pytest.importorskip("pytorch_optimizer")
        >>> profile = fo.optiroulette_profile(missing=fo.torch_optim.member_from_profile)
        >>> tx = fo.optiroulette(profile, seed=0)
        >>> params = {"w": torch.ones(2, 3)}
        >>> state = tx.init(params)
        >>> updates, state = tx.update(params, state, params, epoch=0)  # seventeen epochs of warm-up on sgd
        >>> updates["w"][0, 0]
        tensor(-0.1901)
    """
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise ImportError(f"member_from_profile: '{name}' is a class of pytorch_optimizer; pip install 'funcopt[integrations]'") from error

    classes: dict[str, type] = {}
    for library in (torch.optim, pytorch_optimizer):  # the later one wins
        known = {key.lower(): value for key, value in vars(library).items() if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)}
        classes.update(known)
    if name.lower() not in classes:
        raise ValueError(f"member_from_profile: neither torch.optim nor pytorch_optimizer has a class '{name}'")
    optimizer_class = classes[name.lower()]
    taken = list(inspect.signature(optimizer_class).parameters)[1:]
    unknown = [key for key in settings if key not in taken]
    if unknown:
        raise ValueError(f"member_from_profile: {optimizer_class.__name__} takes {', '.join(taken)}, got {', '.join(unknown)}")
    return Member(from_torch(optimizer_class, **settings))
