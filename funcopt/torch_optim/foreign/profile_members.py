"""member_from_profile: a member of a pool from a class of pytorch_optimizer or torch.optim, by its name."""

import inspect
from typing import Any

import torch

from funcopt.controllers.roulette.members import Member
from funcopt.torch_optim.foreign.from_torch import from_torch

__all__ = ["member_from_profile"]


def member_from_profile(name: str, settings: dict[str, Any]) -> Member:
    """A class of pytorch_optimizer, or else of torch.optim, as a member of a pool.

    The members of OptiRoulette's default profile are built here (`fo.optiroulette_profile`) and need no such class.

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
        >>> member = fo.torch_optim.member_from_profile("lamb", {"lr": 0.1})
        >>> tx = fo.chain(fo.roulette({"lamb": member, "sgd": fo.Member(fo.identity(), lr=0.1)}, seed=0), fo.lr_scale())
        >>> fo.read_signals(tx.init({"w": torch.ones(2, 3)}))["lamb/lr"]
        tensor(0.1000, dtype=torch.float64)
    """
    try:
        import pytorch_optimizer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(f"member_from_profile: '{name}' is a class of pytorch_optimizer; pip install pytorch_optimizer") from error

    classes: dict[str, type] = {}
    for library in (torch.optim, pytorch_optimizer):  # the later one wins
        known = {
            key.lower(): value
            for key, value in vars(library).items()
            if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
        }
        classes.update(known)
    if name.lower() not in classes:
        raise ValueError(f"member_from_profile: neither torch.optim nor pytorch_optimizer has a class '{name}'")
    optimizer_class = classes[name.lower()]
    taken = list(inspect.signature(optimizer_class).parameters)[1:]
    unknown = [key for key in settings if key not in taken]
    if unknown:
        raise ValueError(f"member_from_profile: {optimizer_class.__name__} takes {', '.join(taken)}, got {', '.join(unknown)}")
    return Member(from_torch(optimizer_class, **settings))
