"""Evolution strategies against EvoTorch, evosax and pytorch-optimize: time, memory, and how far it is to plain inference.

    python benchmarks/es.py                  the four cases, memory, and on a GPU populations up to 10^6
    python benchmarks/es.py i iv flat        some: i, ii, iii, iv, flat, gpu
    python benchmarks/es.py phases           noise, evaluation, sum and rest of our generations (benchmarks/es_phases.py)
    python benchmarks/es.py tried            what was tried and left out, against what is there (benchmarks/es_tried.py);
                                             beside it cases to be looked at alone: `tried iii`
    python benchmarks/es.py --short          cases i and ii in few rounds
    python benchmarks/es.py --json es.json   all numbers into a file

What is measured is one generation (benchmarks/es_cases.py). Contestants take turns in one process, CPU seconds on one thread
(benchmarks/clock.py); ratios are ours over theirs. Memory is the peak of a generation above what was resident before it, the
median of five, each contestant in a process of its own. "inference" is the compiled unperturbed network on the rows of all members,
in one batch.
"best" is the fastest of ours.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import clock
import es_phases
import es_tried
import torch
from es_cases import CASES, OURS, PEERS, Case, contestant, inference, installed, ours
from memory import peak as allocated

FUNCTIONAL, PGPE, SAX, POOL = PEERS
MEASURED = ["dense", "rank 1", "rank 1, bf16", "dense, eager", "rank 1, eager"]


class Target(NamedTuple):
    above: str  # of ours
    below: str
    factors: tuple[float, float, float, float]  # how many times faster in cases i to iv, at least
    amx: bool = False  # on a processor that multiplies matrices in bfloat16


TARGETS = [
    Target("dense", FUNCTIONAL, (1.9, 4, 2.5, 3.8)),
    Target("dense", PGPE, (4, 5, 3.3, 5.5)),
    Target("rank 1", FUNCTIONAL, (3, 5.5, 3.8, 65)),
    Target("rank 1", PGPE, (6, 7, 5, 90)),
    Target("rank 1, bf16", FUNCTIONAL, (3, 10, 10, 100), amx=True),
    Target("rank 1, bf16", PGPE, (6, 13, 13, 150), amx=True),
    Target("dense", SAX, (3.8, 4.2, 3, 5)),
    Target("best", SAX, (6, 11, 11, 150), amx=True),
    Target("dense", POOL, (30, 9.5, 2.3, 3.3)),
    Target("best", POOL, (55, 25, 9, 94), amx=True),
    Target("dense", "inference", (0.5, 1.0, 0.8, 0.05)),
    Target("rank 1", "inference", (0.85, 1.0, 1.0, 0.8)),
]
LEANER = {  # peak memory, over the smaller of EvoTorch and evosax: what of ours -> at most, in cases i to iv
    "dense": (1 / 3, 1 / 4, None, None),
    "dense, regenerate": (None, None, 1 / 7, 1 / 8),
    "rank 1": (1 / 6, 1 / 6, 1 / 20, 1 / 50),
    "rank 1, bf16": (None, None, None, None),
}


def amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def held(value: float, at_most: float | None) -> str:
    return "" if at_most is None else f"   at most {at_most:.3g}{'' if value <= at_most else '   ABOVE'}"


def speed(name: str, peers: list[str], rounds: int) -> dict:
    case, index = CASES[name], list(CASES).index(name)
    names = ["inference", *MEASURED, *peers]
    race = clock.race({each: lambda each=each: contestant(case, each) for each in names}, rounds, copies=1)
    seconds = {each: race.median(each) for each in names}
    seconds["best"] = min(seconds[each] for each in MEASURED)
    print(f"\n{name}: {case.title}; D {case.size:,}, P {case.popsize}")
    for each in names:
        print(f"  {each:<22} {seconds[each] * 1e3:10.1f} ms   {seconds[each] / seconds['inference']:7.2f} of inference")
    lines = []
    for target in TARGETS:
        if target.below not in seconds:
            continue
        value = seconds[target.above] / seconds[target.below]
        at_most = None if target.amx and not amx() else 1 / target.factors[index]
        print(f"  {target.above} / {target.below}: {value:.3g} ({1 / value:.3g} times as fast){held(value, at_most)}", flush=True)
        lines.append({"above": target.above, "below": target.below, "value": value, "at_most": at_most})
    return {"title": case.title, "D": case.size, "P": case.popsize, "seconds": seconds, "ratios": lines}


# --- memory, each contestant in a process of its own ----------------------------------------------------------------------------


def resident(line: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) * 1024


def peak(case: Case, name: str) -> int:
    """Bytes that a generation adds to what is resident, at its peak; the median of the third to the seventh, for the heap has its whims."""
    torch.set_num_threads(1)
    run = contestant(case, name)
    run(), run()
    peaks = []
    for _ in range(5):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = resident("VmRSS")
        run()
        peaks.append(max(0, resident("VmHWM") - before))
    return statistics.median(peaks)


def peak_of(case: str, name: str) -> int | None:
    answer = subprocess.run([sys.executable, __file__, "--peak", case, name], capture_output=True, text=True)
    return int(answer.stdout.split()[-1]) if answer.returncode == 0 else None


def memory(name: str, peers: list[str]) -> dict:
    index = list(CASES).index(name)
    peaks = {each: peak_of(name, each) for each in [*LEANER, *peers]}
    known = [size for peer in peers if (size := peaks.get(peer))]
    sizes = [f"{each} " + ("not known" if size is None else f"{size / 2**20:.1f}") for each, size in peaks.items()]
    print(f"  peak above what was resident, MB: {', '.join(sizes)}")
    for each, factors in LEANER.items():
        if known and peaks.get(each) is not None:
            value = peaks[each] / min(known)
            print(f"  {each}, memory / the leanest peer: {value:.3g}{held(value, factors[index])}", flush=True)
    return peaks


def flat_step(popsize: int) -> Callable[[], object]:
    return ours(CASES["ii"]._replace(popsize=popsize), memory="regenerate", chunk_size=128)


def flat() -> dict:
    """Peaks of a population of 256 and of 16,384 whose noise is drawn again: of torch's tensors, and of processes of their own."""
    few, many = (allocated(run) for run in map(flat_step, (256, 16384)) if run() is None)
    print("\nflat: case ii, noise drawn again, chunks of 128; peak of what is allocated, P 16,384 / P 256")
    print(f"  {few / 2**20:.1f} MB, {many / 2**20:.1f} MB: {many / few:.3f}{held(many / few, 1.1)}", flush=True)
    peaks = [
        int(subprocess.run([sys.executable, __file__, "--resident", str(p)], capture_output=True, text=True).stdout.split()[-1])
        for p in (256, 16384)
    ]
    print(
        f"  resident set at its peak: {peaks[0] / 2**20:.0f} MB, {peaks[1] / 2**20:.0f} MB: "
        f"{peaks[1] / peaks[0]:.3f}{held(peaks[1] / peaks[0], 1.1)}",
        flush=True,
    )
    return {"256": few, "16384": many, "resident 256": peaks[0], "resident 16384": peaks[1]}


# --- an accelerator ---------------------------------------------------------------------------------------------------------------


def gpu(limit: float = 20.0, device: str = "cuda") -> dict:
    """Generations per second over populations; a case ends with the first population whose generation takes longer than `limit` seconds."""
    table: dict = {}
    print(f"\n{device}: generations a second, and the share of plain inference on the same rows")
    for name, case in CASES.items():
        for form in ("dense", "rank 1"):
            for popsize in (100, 1000, 10_000, 100_000, 1_000_000):
                sized = case._replace(popsize=popsize)
                made = [lambda s=sized, f=form: ours(s, device, **OURS[f], rng="philox"), lambda s=sized: inference(s, device)]
                try:
                    mine, plain = (wall(make, device, limit) for make in made)
                except torch.OutOfMemoryError as error:
                    print(f"  {name} {form}, P {popsize:,}: {str(error).splitlines()[0]}")
                    break
                print(f"  {name} {form}, P {popsize:,}: {1 / mine:.3g} a second, {plain / mine:.3f} of inference", flush=True)
                table[f"{name} {form} {popsize}"] = {"seconds": mine, "inference": plain}
                if mine > limit:
                    break
    return table


def wall(make, device: str, limit: float) -> float:
    """Seconds of a generation: the device works by itself, so the clock is that on the wall, read when it is done."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    run, count = make(), 0
    run(), run(), wait()
    began = time.perf_counter()
    while count < 3 or (count < 20 and time.perf_counter() - began < limit / 4):
        run(), wait()
        count += 1
        if time.perf_counter() - began > limit:
            break
    return (time.perf_counter() - began) / count


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--peak"]:
        print(peak(CASES[arguments[1]], arguments[2]))
        return 0
    if arguments[:1] == ["--resident"]:
        torch.set_num_threads(1)
        step = flat_step(int(arguments[1]))
        step(), step(), step()
        print(resident("VmHWM"))
        return 0
    names, asked = [*CASES, "flat", "gpu"], ["phases", "tried"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(names + asked)}; without any {', '.join(names)}")
    parser.add_argument("--short", action="store_true", help="cases i and ii in few rounds, time alone")
    parser.add_argument("--rounds", type=int, help="generations of every contestant; 9, or 5 of the large cases and in the short form")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    options = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in names + asked]:
        parser.error(f"rows must be out of {', '.join(names + asked)}, got {', '.join(unknown)}")
    warnings.filterwarnings("ignore")
    print(clock.heading() + (", AMX" if amx() else ", no AMX: rank 1 in bf16 has no targets here"))
    began, numbers, peers = time.perf_counter(), {}, []
    for name, (package, _) in PEERS.items():
        if installed(package):
            peers.append(name)
        else:
            print(f"not compared: no {package}")
    rows = options.rows or (["i", "ii"] if options.short else names)
    for row in rows:
        if row in CASES and "tried" in rows:
            continue
        if row in CASES:
            rounds = options.rounds or (5 if options.short or row in ("iii", "iv") else 9)
            numbers[row] = speed(row, peers, rounds)
            if not options.short:
                numbers[row]["peak bytes"] = memory(row, [peer for peer in peers if peer != POOL])
        elif row == "flat":
            numbers[row] = flat()
        elif row == "phases":
            numbers[row] = es_phases.phases(options.rounds or 5)
        elif row == "tried":
            numbers[row] = es_tried.tried(options.rounds or 5, tuple(each for each in rows if each in CASES))
        elif torch.cuda.is_available():
            numbers[row] = gpu()
        else:
            print("\nnot measured: generations a second on a GPU, for there is none")
    print(f"\n{time.perf_counter() - began:.0f} s")
    clock.save(options.json, rows=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
