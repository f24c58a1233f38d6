"""What a rank does in tests/es/test_distributed.py; alone, the same functions say what it must have done."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import funcopt as fo
from tests.ranks import join, leave

EVERY = 3  # generations between two checkpoints
TREE = {"w": torch.linspace(-1, 1, 9000), "b": torch.zeros(3, dtype=torch.float64)}
CALLS = []  # of `bowl`: one for each chunk under vmap


def bowl(params, target):
    CALLS.append(None)
    if os.environ.get("DIES_IN_CALL") == str(len(CALLS)):
        os.kill(os.getpid(), signal.SIGKILL)
    return (params["w"] - target).square().sum() + params["b"].abs().sum().float()


def watched(policy, obs):
    """An objective with what it observed beside it."""
    stats = fo.es.observation_stats(obs[0])
    for x in obs:
        stats = fo.es.push_observation(stats, policy["w"][:3] * x)
    return stats.mean.sum().float(), stats


def estimates(group) -> dict:
    """Estimates of all kinds, some of them by chunks of several shapes, one with statistics beside fitness."""
    options = {"popsize": 20, "sigma": 0.1, "chunk_size": 4, "process_group": group}
    found = {
        "sharded": fo.es.grad(bowl, **options)(TREE, 0.5, key=3),
        "replicated": fo.es.grad(bowl, gradient="replicated", **options)(TREE, 0.5, key=3),
        "float64": fo.es.grad(lambda p: p["b"].sum() / 3, **options)(TREE, key=3),
        "rademacher": fo.es.grad(bowl, noise="rademacher", antithetic=False, shaping="zscore", **options)(TREE, 0.5, key=4),
        "low rank": fo.es.grad(lambda p: (p["m"] @ torch.ones(40)).square().sum(), noise=fo.es.low_rank(1), **options)(
            {"m": torch.zeros(50, 40)}, key=5
        ),
        "two objectives": fo.es.grad(lambda p: (p["b"].sum(), p["w"].sum()), weights=(1.0, 0.5), **options)(TREE, key=6),
        "watched": fo.es.grad(watched, has_aux=True, **options)(TREE, torch.ones(4, 3), key=7),
    }
    told = {name: {"grads": grads, "fitness": info.fitness, "aux": info.user_aux} for name, (grads, info) in found.items()}
    told["merged"] = fo.es.merge_observations(found["watched"][1].user_aux)
    for name, search in (("snes", fo.es.snes(12, sigma=0.3)), ("openai_es", fo.es.openai_es(12, sigma=0.3))):
        told[name] = fo.es.run(search._replace(process_group=group), bowl, TREE, 5, 3, 0.5, chunk_size=4)
    return told


def members_of_two_ranks(mesh) -> dict:
    """Each member is evaluated by two ranks, half of the data each; the second one is wrong, and nobody listens to it."""

    def halves(p, x):
        if mesh is None:
            first, second = x.chunk(2)
            return (p["b"] * first).sum() + (p["b"] * second).sum()
        inner = mesh.get_group(1)
        part = (p["b"] * x.chunk(2)[dist.get_rank(inner)]).sum()
        parts = [torch.empty_like(part) for _ in range(2)]
        dist.all_gather(parts, part, group=inner)
        return parts[0] + parts[1] + 1e-3 * dist.get_rank(inner)

    x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    grads, info = fo.es.grad(halves, popsize=8, sigma=0.1, chunk_size=2, vectorize="loop", shaping="none", process_group=mesh)(
        TREE, x, key=0
    )
    return {"grads": grads, "fitness": info.fitness}


def evolve(folder: Path, generations: int, group=None, dies_in: int = -1, where: str = "between") -> dict:
    """Generations from the last checkpoint on; in one the last rank may die: between two, in an evaluation, or rank 0 as it saves."""
    tx = fo.adam(0.05)
    run = {"params": TREE, "state": tx.init(TREE), "generation": torch.tensor(0)}
    rank, last = (0, 0) if group is None else (dist.get_rank(), dist.get_world_size() - 1)
    if rank == 0 and (folder / "run.pt").exists():
        run = fo.checkpoint.load(folder / "run.pt", run)
    run = run if group is None else fo.distributed.broadcast(run)
    grad = fo.es.grad(bowl, popsize=20, sigma=0.1, chunk_size=2, vectorize="vmap", process_group=group)
    for generation in range(int(run["generation"]), generations):
        if generation == dies_in:
            if rank == last and where == "between":
                os.kill(os.getpid(), signal.SIGKILL)
            if rank == last and where == "evaluation":
                os.environ["DIES_IN_CALL"] = str(len(CALLS) + 2)
            if rank == 0 and where == "saving":
                os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        grads, _ = grad(run["params"], 0.5, key=fo.random.fold_in(fo.random.key(1), generation))
        updates, state = tx.update(grads, run["state"], run["params"])
        run = {"params": fo.apply_updates(run["params"], updates), "state": state, "generation": run["generation"] + 1}
        if rank == 0 and (int(run["generation"]) % EVERY == 0 or os.replace.__name__ == "<lambda>"):
            fo.checkpoint.save(folder / "run.pt", run)
    return run


def main(folder: str, task: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    join(timeout=timedelta(seconds=300))
    if task == "estimates":
        found = estimates(True)
        if dist.get_world_size() == 4 and hasattr(dist, "init_device_mesh"):  # torch 2.3 and newer
            mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("population", "model"))
            found["mesh"] = members_of_two_ranks(mesh)
            found["line"] = estimates(mesh["population"])["sharded"]
    else:
        found = evolve(Path(folder), int(arguments[0]), True, int(arguments[1]), arguments[2])
    torch.save(fo.checkpoint.state_dict(found), f"{folder}/{dist.get_rank()}.pt")
    leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
