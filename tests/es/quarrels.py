"""What two ranks do in tests/es/test_agreement.py that do not make the same call, or of which one hangs and dies."""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

import funcopt as fo
from tests.ranks import end, join


def bowl(p, *data):
    return p.square().sum() + sum(x.sum() for x in data)


def hill(p, *data):
    return -bowl(p, *data)


def estimated(group, params=(), data=(), objective=bowl, **options):
    params = torch.ones(5) if isinstance(params, tuple) else params
    return fo.es.grad(objective, process_group=group, **{"popsize": 8, "sigma": 0.1, "chunk_size": 2, "vectorize": "vmap", **options})(
        params, *data, key=0
    )


def searched(group, make=fo.es.snes, generations=1, **options):
    return fo.es.run(make(8, process_group=group, **{"sigma": 0.3, **options}), bowl, torch.ones(5), 0, generations, chunk_size=2)


def closing_over(factor):
    return lambda p: factor * p.sum()


class Weighed:
    """An objective with settings of its own."""

    def __init__(self, factor, rank=0):
        self.factor, self.rank = factor, rank

    def __call__(self, p, *others):
        return self.factor * p.sum() * (others[0].factor if others else 1)

    def method(self, p):
        return self(p)


def configured(factor):
    config = {"factor": factor}
    return lambda p: config["factor"] * p.sum()


def activated(slope):
    module = torch.nn.LeakyReLU(slope)
    return lambda p: module(p - 1).sum()


# What a rank does; and of the sentence that both must end with.
QUARRELS = {
    "maximize": (lambda g, r: estimated(g, maximize=r == 1), r"maximize \(False on rank 0, True on rank 1\)"),
    "shaping": (lambda g, r: estimated(g, shaping=("nes", "zscore")[r]), r"shaping \(nes on rank 0, zscore on rank 1\)"),
    "a shaping of one's own": (lambda g, r: estimated(g, shaping=(lambda f: f, lambda f: -f)[r]), "differ in shaping"),
    "baseline": (lambda g, r: estimated(g, baseline=("none", "mean")[r]), r"baseline \(none on rank 0, mean on rank 1\)"),
    "noise": (lambda g, r: estimated(g, noise=("normal", "rademacher")[r]), r"noise, sigma or mask \(Dense\(kind='normal'\)"),
    "sigma": (lambda g, r: estimated(g, sigma=(0.1, 0.2)[r]), r"sigma 0.1 on rank 0, .* sigma 0.2 on rank 1"),
    "sigma as a tensor": (lambda g, r: estimated(g, sigma=torch.full((5,), 0.1 + r)), "noise, sigma or mask"),
    "mask": (lambda g, r: estimated(g, mask=torch.arange(5) > r), "noise, sigma or mask"),
    "scale": (lambda g, r: estimated(g, scale=("inverse_sigma", "openai")[r]), "scale"),
    "on_failure": (lambda g, r: estimated(g, on_failure=("worst", "drop")[r]), "on_failure"),
    "objective": (lambda g, r: estimated(g, objective=(bowl, hill)[r]), r"objective \(bowl on rank 0, hill on rank 1\)"),
    "what the objective closes over": (lambda g, r: estimated(g, objective=closing_over(r + 1.0)), "differ in objective;"),
    "the data it closes over": (lambda g, r: estimated(g, objective=closing_over(torch.ones(()) * r)), "differ in objective;"),
    "a dict that it closes over": (lambda g, r: estimated(g, objective=configured(r + 1.0)), "differ in objective"),
    "the setting of a module": (lambda g, r: estimated(g, objective=activated(0.1 + r)), "differ in objective"),
    "an object with settings": (lambda g, r: estimated(g, objective=Weighed(r + 1.0)), "differ in objective"),
    "a method of one": (lambda g, r: estimated(g, objective=Weighed(torch.ones(()) + r).method), "differ in objective"),
    "one among the data": (
        lambda g, r: estimated(g, objective=Weighed(1.0), data=(Weighed(r + 1.0),)),
        "differ in arguments of the objective",
    ),
    "popsize": (lambda g, r: estimated(g, popsize=(8, 12)[r]), r"popsize \(8 on rank 0, 12 on rank 1\)"),
    "antithetic": (lambda g, r: estimated(g, antithetic=r == 0), r"antithetic \(True on rank 0, False on rank 1\)"),
    "chunk_size": (lambda g, r: estimated(g, chunk_size=(2, 4)[r]), r"chunk_size \(2 on rank 0, 4 on rank 1\)"),
    "weights": (
        lambda g, r: estimated(g, objective=lambda p: (p.sum(),) * (r + 2), weights=(1.0,) * (r + 2)),
        r"weights \(\(1.0, 1.0\) on rank 0, \(1.0, 1.0, 1.0\) on rank 1\)",
    ),
    "dtype of params": (
        lambda g, r: estimated(g, torch.ones(5).to((torch.float32, torch.float64)[r])),
        r"shapes of params \(float32 \[5\] on rank 0, float64",
    ),
    "shape of params": (
        lambda g, r: estimated(g, torch.ones(5 + r)),
        r"shapes of params \(float32 \[5\] on rank 0, float32 \[6\] on rank 1\)",
    ),
    "params": (lambda g, r: estimated(g, torch.ones(5) + 1e-6 * r), "hold different parameters or keys; broadcast them"),
    "data": (lambda g, r: estimated(g, data=(torch.ones(4) * r,)), "arguments of the objective"),
    "much data": (lambda g, r: estimated(g, data=(torch.arange(3000.0) == 7 * r,)), "arguments of the objective"),
    "the search maximizes": (lambda g, r: searched(g, maximize=r == 1), r"maximize \(False on rank 0, True on rank 1\)"),
    "shaping of the search": (lambda g, r: searched(g, shaping=("nes", "zscore")[r]), r"differ in search"),
    "rate of the search": (lambda g, r: searched(g, sigma_lr=(0.1, 0.2)[r]), "differ in search"),
    "optimizer of the search": (lambda g, r: searched(g, optimizer=fo.adam(0.1 + 0.1 * r)), "differ in search"),
    "kind of the search": (
        lambda g, r: searched(g, (fo.es.snes, fo.es.cem)[r]),
        r"function \(es\.run of es\.snes on rank 0, es\.run of es\.cem on rank 1\)",
    ),
    "length of the search": (lambda g, r: searched(g, generations=2 + r), r"generations \(2 on rank 0, 3 on rank 1\)"),
    "estimate or search": (lambda g, r: (estimated, searched)[r](g), r"function \(es\.grad on rank 0, es\.run of es\.snes on rank 1\)"),
}
BY_SIZE = (
    "popsize",
    "antithetic",
    "chunk_size",
    "weights",
    "dtype of params",
    "shape of params",
    "maximize",
    "length of the search",
    "estimate or search",
)


def said_by(act) -> str:
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}" + (
            "" if error.__cause__ is None else f" <- {type(error.__cause__).__name__}: {error.__cause__}"
        )
    return "nothing"


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    join(init_method=f"file://{folder}/store", rank=rank, world_size=2)
    impatient = dist.new_group(timeout=timedelta(seconds=10))
    told = {name: said_by(lambda name=name: QUARRELS[name][0](True, rank)) for name in BY_SIZE}
    grad = fo.es.grad(bowl, popsize=8, sigma=0.1, chunk_size=2, process_group=impatient)
    grad(torch.ones(5), key=0)
    if rank == 1:
        while not (folder / "gone.on").exists():  # the other one has given up waiting
            time.sleep(0.05)
        torch.save(told, folder / "1.pt")
        os.kill(os.getpid(), signal.SIGKILL)
    told["hangs"] = said_by(lambda: grad(torch.ones(5), key=1))
    (folder / "gone.on").touch()
    told["dies"] = said_by(lambda: searched(True))
    torch.save(told, folder / "0.pt")
    end(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
