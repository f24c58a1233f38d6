"""How a process of a test joins the ranks of torch.distributed, and leaves them so that it can end.

A thread of gloo that lets go of a tensor while Python shuts down ends the process by SIGABRT ("terminate called without an
active exception"). Three things prevent it. Before the end, a barrier: everybody has come so far. No group outlives
`destroy_process_group` where we can help it: `torch.distributed.nn.functional` has the group of all ranks among its
defaults, and keeps it for good if it is imported once that group is there, as the first step of any optimizer of
torch.optim does; so it is imported before. And as FSDP and device meshes keep their groups and threads whatever we do, a
rank that has said all it had to say ends at once, without Python's shutdown.

    torchrun ... tests/ranks.py SCRIPT ARGUMENTS      runs a script that knows nothing of this, and ends it so
"""

import os
import runpy
import sys
from typing import NoReturn

import torch.distributed as dist
import torch.distributed.nn.functional  # noqa: F401

__all__ = ["join", "leave"]


def join(**options) -> int:
    """Makes the group of all ranks, over gloo; this process's rank."""
    dist.init_process_group("gloo", **options)
    return dist.get_rank()


def leave() -> NoReturn:
    """Ends the group once everybody has come so far, and the process."""
    dist.barrier()
    dist.destroy_process_group()
    end(0)


def end(code: int) -> NoReturn:
    """Ends the process as it stands; what was printed is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")  # what it raises, SystemExit too, takes the usual way
    end(0)
