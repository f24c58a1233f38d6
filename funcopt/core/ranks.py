"""Ranks of torch.distributed: who they are, what each of them has, and whether it is the same bits.

`torch.distributed` is imported on use: `import funcopt` does without it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Team", "fingerprint", "talking", "team_of"]

# Odd constants of splitmix64, below 2^63: places count, and no bit of a word stays where it was.
PLACE, MIX, FINISH = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB
BLOCK = {"cpu": 1 << 15}  # words hashed at once: what stays in the cache; elsewhere temporaries of 128 MB
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Team:
    """The ranks of a process group; or of a mesh (population, model), whose second axis is the ranks that evaluate one member together."""

    model: Any = None
    who: str = "torch.distributed"  # speaks where the others are lost

    def __init__(self, group: Any = None, model: Any = None, who: str = who):
        import torch.distributed as dist

        self.group, self.model, self.who = group, model, who
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, x: Tensor) -> list[Tensor]:
        """The x of every rank, all of one shape."""
        import torch.distributed as dist

        parts = [torch.empty_like(x) for _ in range(self.size)]
        with talking(self.who):
            dist.all_gather(parts, x.contiguous(), group=self.group)
        return parts

    def gather_object(self, x: Any) -> list[Any]:
        """Any picklable x of every rank."""
        import torch.distributed as dist

        parts: list[Any] = [None] * self.size
        with talking(self.who):
            dist.all_gather_object(parts, x, group=self.group)
        return parts

    def put_together(self, x: Tensor) -> Tensor:
        """One tensor of parts: every entry is x's on the rank that has it; the others have 0. No bit is lost, that of -0.0 neither."""
        import torch.distributed as dist

        words = x.contiguous().view(WORDS[x.element_size()]).clone()
        with talking(self.who):
            dist.all_reduce(words, group=self.group)
        return words.view(x.dtype)

    def said_by_the_first(self, x: Tensor) -> Tensor:
        """x as the first of the ranks has it that evaluate a member together; x itself where one rank does."""
        if self.model is None:
            return x
        import torch.distributed as dist

        x = x.contiguous().clone()
        with talking(self.who):
            dist.broadcast(x, dist.get_global_rank(self.model, 0), group=self.model)
        return x


def team_of(process_group: Any, where: str) -> Team | None:
    """The team that `process_group=` names.

    Args:
        process_group: None: nobody else; True or "world": all ranks; a group of
            torch.distributed; or a DeviceMesh of one axis, or of two: (population, model).
        where: whose argument it is, for the message.

    Raises:
        ValueError: torch.distributed is not initialised; a mesh of three axes or more.
    """
    if process_group is None or isinstance(process_group, Team):
        return process_group
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            f"{where}: process_group needs ranks that know each other; "
            "start with torchrun and call torch.distributed.init_process_group() first"
        )
    if process_group is True or process_group == "world":
        return Team(who=where)
    if hasattr(process_group, "mesh_dim_names"):
        if process_group.ndim > 2:
            raise ValueError(
                f"{where}: a mesh must have the axes (population) or (population, model), got {process_group.ndim}; take a part of it"
            )
        return Team(process_group.get_group(0), process_group.get_group(1) if process_group.ndim == 2 else None, where)
    return Team(process_group, who=where)


@contextlib.contextmanager
def talking(who: str) -> Iterator[None]:
    """Around a collective: where it fails, `who` says what that means, with the error of torch.distributed as the cause."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"{who}: the ranks have lost each other: one died, hangs, or made another call (its own output says which), "
            "and none can go on without it; "
            "start all of them again from the last checkpoint, or give init_process_group a longer timeout= where one is only slow"
        ) from error


def fingerprint(x: Tensor) -> Tensor:
    """64 bits, made of all bits of a tensor and their places.

    Args:
        x: of any dtype and layout in memory.

    Returns:
        0-dim int64 on the device of `x`. Tensors that differ in one bit differ in it but
        for a chance of about 2^-64; that of a tensor without entries is 0.

    Example:
        >>> from funcopt.core.ranks import fingerprint
        >>> bool(fingerprint(torch.tensor([0.0, 1.0])) == fingerprint(torch.tensor([-0.0, 1.0])))
        False
    """
    words = (torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()).reshape(-1)
    words = words.view(WORDS[words.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    size = BLOCK.get(x.device.type, 1 << 24)
    for start in range(0, words.numel(), size):
        block = words[start : start + size].to(torch.int64)
        mixed = block + torch.arange(start + 1, start + 1 + block.numel(), dtype=torch.int64, device=x.device) * PLACE  # modulo 2^64
        mixed = (mixed ^ (mixed >> 30)) * MIX
        mixed = (mixed ^ (mixed >> 27)) * FINISH  # without the next line signs of doubles cancel in pairs
        total = total + (mixed ^ (mixed >> 31)).sum()
    return total
