"""Evolution on many ranks: each evaluates a part of the population, and all end with the bits that one rank alone computes.

    python examples/es_distributed.py                      two ranks on this machine
    python examples/es_distributed.py --check              1, 2 and 4 ranks; one is killed, and the run resumed with another number of ranks
    torchrun --nnodes=8 ... examples/es_distributed.py     ranks that you launch yourself

Two spirals are told apart by a small network that is trained on its number of errors, which has no gradient. A rank that dies
ends the job; a new launch, with any number of ranks, goes on from the last checkpoint. Exit status 0 says that all went as it should.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

import funcopt as fo

EVERY = 3  # generations between two checkpoints


class Run(NamedTuple):
    """All that a new launch needs."""

    params: dict
    state: tuple
    key: torch.Tensor
    generation: torch.Tensor


def spirals(points: int = 200):
    t = torch.linspace(0.5, 2.5, points)
    arm = torch.stack([t * torch.cos(3 * t), t * torch.sin(3 * t)], dim=1)
    return torch.cat([arm, -arm]), torch.arange(2 * points) >= points


def errors(params, x, y):
    hidden = torch.sin(x @ params["w"] + params["b"])
    return ((hidden @ params["out"] > 0) != y).float().mean()


def train(options: argparse.Namespace) -> None:
    """What every rank does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, file = dist.get_rank(), Path(options.folder) / "run.pt"
    x, y = spirals()
    grad = fo.es.grad(errors, popsize=options.popsize, sigma=0.1, chunk_size=8, process_group=True)
    tx = fo.adam(0.05)

    start = {"w": torch.zeros(2, 32), "b": torch.zeros(32), "out": torch.zeros(32)}
    params = fo.tree.random_like(fo.random.key(options.seed), start)
    run = Run(params, tx.init(params), fo.random.key(options.seed + 1), torch.tensor(0))
    if rank == 0 and file.exists():
        run = fo.checkpoint.load(file, run)
    run = fo.distributed.broadcast(run)

    progress = fo.race.Progress(f"{dist.get_world_size()} ranks", options.generations, rank == 0 and options.verbose, "generation")
    for generation in range(int(run.generation), options.generations):
        if generation == options.kill_in and rank == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        grads, info = grad(run.params, x, y, key=fo.random.fold_in(run.key, generation))
        updates, state = tx.update(grads, run.state, run.params)
        run = Run(fo.apply_updates(run.params, updates), state, run.key, run.generation + 1)
        if rank == 0 and int(run.generation) % EVERY == 0:
            fo.checkpoint.save(file, run)  # in place of the old one, in one go
        progress.at(generation + 1, f"members err {info.mean:.3f}, best {info.best:.3f}")

    progress.close()
    fo.distributed.assert_in_sync(run)
    if rank == 0:
        bits = b"".join(leaf.numpy().tobytes() for leaf in fo.tree.leaves(run.params))
        told = f"{hashlib.sha256(bits).hexdigest()} {errors(run.params, x, y):.3f}"
        (Path(options.folder) / "result").write_text(told)
        print(f"generation {int(run.generation)}   SHA-256 of the parameters, and errors: {told}")
    dist.barrier()  # nobody is gone while another still listens
    dist.destroy_process_group()


def launch(ranks: int, folder: Path, options: argparse.Namespace, kill_in: int = -1, verbose: bool = False) -> int:
    """Starts ranks on this machine and waits for them; their exit status, 0 if all is well."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", __file__, f"--folder={folder}"]
    command += (
        [f"--{name}={getattr(options, name)}" for name in ("generations", "popsize", "seed")]
        + [f"--kill-in={kill_in}"]
        + ["--verbose"] * verbose
    )
    with open(folder / f"output-{ranks}", "w") as output:
        job = subprocess.Popen(command, stdout=None if verbose else output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            return job.wait(timeout=120)
        finally:
            job.terminate()  # the launcher takes its ranks along
            job.wait()


def result(folder: Path) -> tuple[str, str]:
    """SHA-256 of the parameters, and the errors that they make."""
    digest, err = (folder / "result").read_text().split()
    return digest, err


def check(options: argparse.Namespace) -> bool:
    """1, 2 and 4 ranks, and a run that lost a rank, end with the same bits."""
    with tempfile.TemporaryDirectory() as name:
        digests, folder = [], Path(name)
        for ranks in (1, 2, 4):
            status = launch(ranks, folder / f"{ranks}", options)
            if status:
                print((folder / f"{ranks}" / f"output-{ranks}").read_text())
                return False
            digest, err = result(folder / f"{ranks}")
            print(f"ranks {ranks}   {options.generations} generations   errors {err}   SHA-256 {digest[:32]}", flush=True)
            digests.append(digest)
        same = len(set(digests)) == 1
        print(f"1, 2 and 4 ranks agree bitwise: {'yes' if same else 'NO'}", flush=True)

        folder, when = folder / "killed", random.randrange(1, options.generations)
        died = launch(2, folder, options, kill_in=when) != 0 and not (folder / "result").exists()
        print(f"ranks 2   one killed in generation {when}: the job {'ended' if died else 'did NOT end'}", flush=True)
        resumed = launch(3, folder, options) == 0
        digest = result(folder)[0] if resumed else "none"
        print(f"ranks 3   from the checkpoint of generation {when // EVERY * EVERY}   SHA-256 {digest[:32]}")
        unchanged = died and resumed and digest == digests[0]
        print("all agree bitwise: the killed rank changed nothing" if same and unchanged else "the runs DIFFER")
        return same and unchanged


def main(arguments: list[str] | None = None) -> bool:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare numbers of ranks, kill one, resume")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--generations", type=int, default=45)
    parser.add_argument("--popsize", type=int, default=128, help="even")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=".", help="where the checkpoint is, of ranks that are launched from outside")
    parser.add_argument("--kill-in", type=int, default=-1, help="a generation in which the last rank kills itself")
    parser.add_argument("--verbose", action="store_true", help="rank 0 tells how it goes")
    options = parser.parse_args(arguments)
    if "LOCAL_RANK" in os.environ:  # launched: by us, or by torchrun
        train(options)
        return True
    if options.check:
        return check(options)
    with tempfile.TemporaryDirectory() as folder:
        status = launch(options.ranks, Path(folder), options, verbose=True)
        if status:
            print((Path(folder) / f"output-{options.ranks}").read_text())
        return status == 0


if __name__ == "__main__":
    sys.exit(not main())
