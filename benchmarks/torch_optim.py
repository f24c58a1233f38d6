"""What a step of `fo.torch_optim.adamw` costs beside `torch.optim.AdamW`: process CPU time, one thread, interleaved, medians.

    python benchmarks/torch_optim.py                     the table of the targets, a minute or two
    python benchmarks/torch_optim.py --sets tiny,small   some of them
    python benchmarks/torch_optim.py --json out.json     and the figures

Ratios are medians of pairs of neighbouring measurements, so that other work on the machine falls on both.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn

import funcopt as fo

SETS = {
    "tiny": [(64, 32), (64,), (32, 64), (32,)],  # 4 tensors, 4 k
    "small": [(1000,)] * 1000,  # 1000 tensors, 1 M
    "large": [(768, 768)] * 20 + [(768,)] * 42,  # 62 tensors, 12 M
}
# what, set, ours, theirs, target
ROWS = [
    ("compiled, 4 tensors", "tiny", {"compile": True, "flat": False}, {"fused": True}, 1.3),
    ("compiled, 4 tensors, owned", "tiny", {"compile": True, "flat": True}, {"fused": True}, 1.3),
    ("compiled, 1000 tensors, owned", "small", {"compile": True, "flat": True}, {"fused": True}, 0.5),
    ("compiled, 1000 tensors", "small", {"compile": True}, {"fused": True}, None),
    ("compiled, 12 M", "large", {"compile": True, "flat": False}, {"fused": True}, 1.0),
    ("compiled, 12 M, owned", "large", {"compile": True, "flat": True}, {"fused": True}, 1.0),
    ("eager, 4 tensors", "tiny", {}, {"foreach": True}, 2.0),
    ("eager, 1000 tensors", "small", {}, {"foreach": True}, 2.0),
    ("eager, 12 M", "large", {}, {"foreach": True}, 2.0),
]
SECONDS = {"tiny": 1.5, "small": 3.0, "large": 6.0}


def prepared(make, shapes):
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    opt = make(params)
    for _ in range(3):
        opt.step()
    return opt


def measured(step, calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        step()
    return (time.process_time() - began) / calls


def compare(ours, theirs, seconds: float) -> tuple[float, float, float]:
    """Median times of both and the median of the ratios of neighbours."""
    once = max(measured(theirs, 3), 1e-6)
    calls = max(1, int(0.02 / once))
    pairs = []
    deadline = time.perf_counter() + 2 * seconds
    while len(pairs) < 5 or (time.perf_counter() < deadline and len(pairs) < 101):
        pairs.append((measured(ours, calls), measured(theirs, calls)))
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, other, statistics.median(x / y for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS), help="which of tiny, small, large")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = []
    print(f"{'step of adamw':32s} {'ours, us':>10s} {'torch, us':>10s} {'ratio':>7s} {'target':>7s}")
    for what, name, ours, theirs, target in ROWS:
        if name not in options.sets.split(","):
            continue
        opt = prepared(lambda params, ours=ours: fo.torch_optim.adamw(params, lr=1e-3, **ours), SETS[name])
        beside = prepared(lambda params, theirs=theirs: torch.optim.AdamW(params, lr=1e-3, **theirs), SETS[name])
        mine, other, ratio = compare(opt.step, beside.step, SECONDS[name])
        met = "" if target is None else f"{target:7.1f} {'met' if ratio <= target else 'MISSED'}"
        print(f"{what:32s} {1e6 * mine:10.0f} {1e6 * other:10.0f} {ratio:7.2f} {met}", flush=True)
        figures.append({"what": what, "set": name, "ours_us": 1e6 * mine, "torch_us": 1e6 * other, "ratio": ratio, "target": target})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "threads": 1, "rows": figures}, file, indent=1)


if __name__ == "__main__":
    main()
