"""What a rank does in the tests of fo.distributed: writes down what it found."""

import json
import sys

import torch

import funcopt as fo
from tests.ranks import join, leave


def refused(call) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def main(folder: str) -> None:
    torch.set_num_threads(1)
    rank = join()
    tree = {
        "w": torch.full((2, 3), float(rank)),
        "half": torch.tensor(0.5 + rank, dtype=torch.bfloat16),
        "flags": torch.tensor([rank == 1, True]),
    }
    given = fo.distributed.broadcast({**tree, "key": fo.random.key(rank), "z": torch.tensor(1j * rank), "none": None}, rank=1)
    averaged = fo.distributed.mean({**tree, "loss": 0.1 + rank, "epoch": rank})
    state = {"mu": torch.zeros(5), "count": torch.tensor(3)}
    found = {
        "broadcast": [
            given["w"].tolist(),
            given["half"].item(),
            given["flags"].tolist(),
            given["key"].tolist(),
            given["z"].item().imag,
            given["none"],
        ],
        "mean": [averaged["w"].tolist(), averaged["half"].item(), averaged["flags"].tolist(), float(averaged["loss"]), averaged["epoch"]],
        "dtypes": [str(averaged[name].dtype) for name in ("w", "half", "loss")],
        "same": refused(lambda: fo.distributed.assert_in_sync({**state, **given})),
        "sign of zero": refused(lambda: fo.distributed.assert_in_sync({**state, "mu": torch.zeros(5) * (-1.0) ** rank})),
        "count": refused(lambda: fo.distributed.assert_in_sync([state["mu"]] * (rank + 1))),
        "mean of others": refused(lambda: fo.distributed.mean(torch.ones(2 + rank))),
        "mean of fewer": refused(lambda: fo.distributed.mean({"loss": 1.0} if rank else {})),
        "broadcast of others": refused(lambda: fo.distributed.broadcast({"w": torch.ones(2 + rank)})),
        "broadcast of another dtype": refused(
            lambda: fo.distributed.broadcast({"w": torch.ones(2, dtype=(torch.float32, torch.float64)[rank])})
        ),
        "mean of others later": later(fo.distributed.mean, rank, 2),
        "mean of many others later": later(fo.distributed.mean, rank, 40),
        "broadcast of others later": later(fo.distributed.broadcast, rank, 2),
        "mean of many": fo.distributed.mean([float(rank), torch.arange(40.0) + rank])[1].tolist(),
        "shim": shim(rank),
    }
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)
    leave()


def later(call, rank: int, size: int) -> str:
    """What is said of trees that differ, once the ranks have had each of them in common."""
    for length in (size, size + 1):
        call(torch.ones(length))
    return refused(lambda: call(torch.ones(size + rank)))


def shim(rank: int) -> list[str]:
    """What the optimizer says where each rank is told its own loss: averaged, and not."""
    answers = []
    for group in (None, False):
        w = torch.nn.Parameter(torch.ones(3))
        opt = fo.torch_optim.Optimizer(
            [w], fo.chain(fo.scale_by_adam(), fo.reduce_on_plateau(factor=0.5, patience=1), fo.lr_scale(0.1)), process_group=group
        )
        for step in range(6):
            w.grad = torch.ones(3)
            opt.step(loss=torch.tensor(1.0 - 0.1 * rank * step))
        answers.append(refused(opt.assert_in_sync))
    return answers


if __name__ == "__main__":
    main(sys.argv[1])
