"""How a process of a test joins the ranks of torch.distributed, and leaves them so that it can end.

A thread of gloo that lets go of a tensor while Python shuts down ends the process by SIGABRT ("terminate called without an
active exception"). Two things prevent it. Before the end, a barrier: the threads have no tensor of ours in hand after it.
And no group outlives `destroy_process_group`: `torch.distributed.nn.functional` has the group of all ranks among its
defaults, and keeps it for good if it is imported once that group is there, as the first step of any optimizer of
torch.optim does. So it is imported before.
"""

import torch.distributed as dist
import torch.distributed.nn.functional  # noqa: F401

__all__ = ["join", "leave"]


def join(**options) -> int:
    """Makes the group of all ranks, over gloo; this process's rank."""
    dist.init_process_group("gloo", **options)
    return dist.get_rank()


def leave() -> None:
    """Ends the group once everybody has come so far."""
    dist.barrier()
    dist.destroy_process_group()
