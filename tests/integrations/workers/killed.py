"""A run under DDP that saves every third step by os.replace and goes on from what it finds; one rank may kill itself at a step (D6).

killed.py FOLDER STEPS KILL      KILL: the step at which rank 1 dies, -1: never
"""

import faulthandler
import os
import signal
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from tests.integrations.workers.common import controllers, losses, model, rank, whole
from tests.ranks import join, leave

EVERY = 3


def save(path: Path, content: dict) -> None:
    """The file is the old one until the new one is whole."""
    torch.save(content, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def train(kept: Path | None, steps: int, kill: int = -1) -> dict:
    """A run that goes on from the file `kept`, if there is one, and saves there; the parameters and words at its end."""
    net = DistributedDataParallel(model())
    opt = controllers()["aees"](net.parameters())
    done = 0
    if kept is not None and kept.exists():
        found = torch.load(kept, weights_only=True)
        net.load_state_dict(found["model"])
        opt.load_state_dict(found["optimizer"])
        done = found["step"]
    if kept is not None and rank() == 0:
        print(f"resumed at {done}", flush=True)
    for step, loss in enumerate(losses(net, steps - done, start=done), done):
        if step == kill and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        opt.step(loss=loss)
        if kept is not None and (step + 1) % EVERY == 0 and rank() == 0:
            save(kept, {"model": net.state_dict(), "optimizer": opt.state_dict(), "step": step + 1})
    opt.assert_in_sync()
    return {"params": whole(net), "words": opt.signals()}


def main(folder: Path, steps: int, kill: int) -> None:
    faulthandler.dump_traceback_later(300, exit=True)
    join()
    cut = train(folder / "run.pt", steps, kill)
    uninterrupted = train(None, steps)
    if rank() == 0:
        torch.save({"cut": cut, "uninterrupted": uninterrupted}, folder / "end.pt")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
