"""What only a machine with a GPU can tell, in under eight minutes: tables, and all numbers as JSON.

    python scripts/device_check.py                       on the first GPU; runs/device.json
    python scripts/device_check.py --rehearse            the same on the CPU, small and in a minute or two: whether the script runs
    python scripts/device_check.py --only zoo es         some parts
    python scripts/device_check.py --seconds 240         less time; what does not fit is left out and said

zoo       every row of tests/zoo.py, eager: the numbers of the CPU, and no step that synchronises (torch's own debug mode says so)
compiled  whole donated steps as CUDA graphs, `make_step(compile=True, donate=True, mode="reduce-overhead")`: the numbers of eager
          steps, and their time
step      what a step takes beside torch.optim.AdamW(fused=True): one large tensor, many small ones, a tiny model
es        `es.grad` of a small policy from 10^2 to 10^6 members, dense and of rank one: members a second and peak memory

Exit status 0 says that all numbers agree and nothing synchronised.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

import funcopt as fo
from tests.helpers import gradients_at, small_params
from tests.zoo import ROWS

SECONDS = 450.0
COMPILED = ("adamw", "lion", "muon", "pilot", "roulette-select", "ucb_episodes-select", "chain")
SETS = {"12 M in 62": [(440, 440)] * 62, "1 M in 1000": [(1000,)] * 1000, "5 k in 4": [(50, 50), (50,), (50, 48), (50,)]}


class Check:
    """One run: where, for how long, and what was found."""

    def __init__(self, device: torch.device, seconds: float, rehearse: bool):
        self.device, self.rehearse = device, rehearse
        self.ends = time.perf_counter() + seconds
        self.found: dict[str, Any] = {"torch": torch.__version__, "device": self.name(), "rehearsal": rehearse}
        self.wrong: list[str] = []

    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def late(self, part: str) -> bool:
        """Whether the time is over; says so once."""
        over = time.perf_counter() > self.ends
        if over and part not in self.found.setdefault("cut short", []):
            self.found["cut short"].append(part)
            print(f"  ({part}: the time is over, the rest is left out)", flush=True)
        return over

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, step: Callable[[], Any], rounds: int, warm: int = 3) -> float:
        """Of one call, by the clock, with the queue empty before and after."""
        for _ in range(warm):
            step()
        self.wait()
        began = time.perf_counter()
        for _ in range(rounds):
            step()
        self.wait()
        return (time.perf_counter() - began) / rounds

    def moved(self, values: Any) -> Any:
        return fo.tree.map_plain(lambda x: x.to(self.device) if isinstance(x, torch.Tensor) else x, values)

    def differ(self, ours: Any, theirs: Any, rtol: float = 1e-6, atol: float = 1e-9) -> bool:
        pairs = zip(fo.tree.leaves(ours), fo.tree.leaves(theirs), strict=True)
        return any(not torch.allclose(x.cpu(), y.cpu(), rtol=rtol, atol=atol, equal_nan=True) for x, y in pairs)

    @contextlib.contextmanager
    def no_waiting(self) -> Iterator[None]:
        """An operation that synchronises raises here."""
        if self.device.type != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def zoo(check: Check) -> dict:
    """Eager updates: the numbers of the CPU, without a wait."""
    rows, good = ROWS[::12] if check.rehearse else ROWS, 0
    for row in rows:
        if check.late("zoo"):
            break
        tx = row.make()
        here, params = small_params(), check.moved(small_params())
        state, there = tx.init(here), tx.init(params)
        try:
            for step in range(3):
                gradients, extra = gradients_at(step, here), row.extra(step)
                sent, told = check.moved(gradients), check.moved(extra)
                with check.no_waiting() if "host" not in row.cannot else contextlib.nullcontext():
                    moved, there = tx.update(sent, there, params, **told)
                    params = fo.apply_updates(params, moved)
                updates, state = tx.update(gradients, state, here, **extra)
                here = fo.apply_updates(here, updates)
        except Exception as error:
            check.wrong.append(f"zoo {row.id}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            continue
        if check.differ(params, here):
            check.wrong.append(f"zoo {row.id}: other numbers than on the CPU")
        else:
            good += 1
    told = "" if check.rehearse else " and wait for nothing"
    print(f"  {good} of {len(rows)} rows have the numbers of the CPU{told}", flush=True)
    return {"rows": len(rows), "good": good}


def compiled(check: Check) -> dict:
    """Donated steps as CUDA graphs against eager ones."""
    wanted, found = COMPILED[:2] if check.rehearse else COMPILED, {}
    rows = {row.id: row for row in ROWS}
    mode = "reduce-overhead" if check.device.type == "cuda" else None

    def loss(params, x):
        return sum((p * x).square().mean() for p in fo.tree.leaves(params))

    for name in wanted:
        if name not in rows or check.late("compiled"):
            continue
        params, x = check.moved(small_params()), torch.full((), 0.5, dtype=torch.float64, device=check.device)
        results = []
        try:
            for form in ({}, {"compile": True, "donate": True, "mode": mode}):
                step = fo.make_step(loss, rows[name].make(), **form)
                held = list(step.init(params))
                began = time.perf_counter()
                for _ in range(5):
                    *held, value = step(*held, x)
                check.wait()
                first = time.perf_counter() - began
                results.append((fo.tree.clone(step.params(held[0])), first))

                def once(step=step, held=held, x=x):
                    held[0], held[1], _ = step(*held, x)

                results[-1] += (check.seconds(once, 5 if check.rehearse else 100),)
        except Exception as error:
            check.wrong.append(f"compiled {name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            continue
        if check.differ(results[1][0], results[0][0], 1e-5, 1e-8):
            check.wrong.append(f"compiled {name}: other numbers than eager")
        found[name] = {"eager us": results[0][2] * 1e6, "compiled us": results[1][2] * 1e6, "first five steps s": results[1][1]}
        figures = found[name]
        print(f"  {name:22} eager {figures['eager us']:8.0f} us   compiled {figures['compiled us']:8.0f} us", flush=True)
    return found


def step(check: Check) -> dict:
    """An update of AdamW beside the fused class, gradients given."""
    found: dict[str, Any] = {}
    sets = {"5 k in 4": SETS["5 k in 4"]} if check.rehearse else SETS
    for name, shapes in sets.items():
        if check.late("step"):
            break
        leaves = [torch.randn(shape, device=check.device) for shape in shapes]
        grads = [torch.randn_like(leaf) for leaf in leaves]

        def given(params, grads=grads):
            return sum((p * g).sum() for p, g in zip(params, grads, strict=True))

        row: dict[str, float] = {}
        parameters = [torch.nn.Parameter(leaf.clone()) for leaf in leaves]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        rounds = 5 if check.rehearse else 50
        row["torch fused"] = check.seconds(torch.optim.AdamW(parameters, fused=True).step, rounds)
        row["shim"] = check.seconds(fo.torch_optim.adamw(parameters).step, rounds)
        if not check.late("step"):
            whole = fo.make_step(given, fo.adamw(1e-3), compile=True, donate=True)
            held = list(whole.init(leaves))

            def once(whole=whole, held=held):
                held[0], held[1], _ = whole(*held)

            row["compiled whole step"] = check.seconds(once, rounds)
        found[name] = {kind: seconds * 1e6 for kind, seconds in row.items()}
        print(f"  {name:14}" + "".join(f"   {kind} {us:8.0f} us" for kind, us in found[name].items()), flush=True)
    return found


def es(check: Check) -> dict:
    """Gradients of a policy 4 - 64 - 64 - 2 on 32 rows from ever more members."""
    sizes = (10**2, 10**3) if check.rehearse else (10**2, 10**3, 10**4, 10**5, 10**6)
    shapes = {"a": (4, 64), "b": (64, 64), "c": (64, 2)}
    params = {name: 0.1 * torch.randn(shape, device=check.device) for name, shape in shapes.items()}
    x, y = torch.randn(32, 4, device=check.device), torch.randint(0, 2, (32,), device=check.device)

    def objective(p, x, y):
        return torch.nn.functional.cross_entropy(((x @ p["a"]).tanh() @ p["b"]).tanh() @ p["c"], y)

    found: dict[str, Any] = {}
    for kind, noise in (("dense", "normal"), ("rank 1", fo.es.low_rank(1))):
        for popsize in sizes:
            if check.late("es"):
                return found
            if check.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(check.device)
            grad = fo.es.grad(objective, popsize=popsize, sigma=0.05, noise=noise)
            try:
                seconds = check.seconds(lambda grad=grad: grad(params, x, y, key=0), 1 if popsize > 10**5 else 3, warm=1)
            except torch.cuda.OutOfMemoryError as error:
                check.wrong.append(f"es {kind} {popsize}: {str(error).splitlines()[0][:160]}")
                continue
            # torch counts what a GPU has given out, and not what a CPU has
            peak = torch.cuda.max_memory_allocated(check.device) / 2**20 if check.device.type == "cuda" else None
            found[f"{kind}, {popsize}"] = {"members a second": popsize / seconds, "peak MB": peak}
            told = "" if peak is None else f"   peak {peak:8.0f} MB"
            print(f"  {kind:8} {popsize:9,} members   {popsize / seconds:14,.0f} a second{told}", flush=True)
    return found


PARTS: dict[str, Callable[[Check], dict]] = {"zoo": zoo, "compiled": compiled, "step": step, "es": es}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together; 450")
    parser.add_argument("--json", type=Path, default=Path("runs/device.json"))
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --rehearse tries the script on the CPU")
    check = Check(torch.device("cpu" if options.rehearse else "cuda:0"), options.seconds, options.rehearse)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {check.name()}", flush=True)
    for part in options.only:
        began = time.perf_counter()
        print(part, flush=True)
        check.found[part] = PARTS[part](check)
        check.found[part]["seconds"] = round(time.perf_counter() - began, 1)
    check.found["wrong"] = check.wrong
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(check.found, indent=1), encoding="utf-8")
    print("\n".join(check.wrong) or "all numbers agree", f"\n{options.json}", flush=True)
    return int(bool(check.wrong))


if __name__ == "__main__":
    sys.exit(main())
