"""The recorded OptiRoulette runs (tests/golden/roulette, README-roulette-adaptive.md there), replayed call by call.

Every *.json file of the folder is found by listing and replayed in parity mode, with Python's generator and with the recorded draws;
runs that need no
quirk of the reference also in the default mode. A key, a call or a setting that this harness does not understand is an error.
"""

import io
import json
import os
import random
from typing import Any

import pytest
import torch

import funcopt as fo
from tests.parity.draws import Mt19937, Replay
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir, golden_files
from tests.parity.roulette_config import pool_and_settings, torch_buffers

FILE_KEYS = {"schema", "name", "about", "config", "initial", "ops", "rng_probe"}
OP_KEYS = {
    "on_epoch_start": {"epoch", "phase"},
    "on_batch_start": {"batch"},
    "step": {"grads"},
    "on_epoch_end": {"val_acc"},
    "update_performance": {"name", "reward", "val_acc", "best_val_acc"},
    "increment_epochs": set(),
    "report_instability": {"name", "reason"},
    "lock": {"name"},
    "unlock": set(),
    "block": {"name"},
    "unblock": {"name"},
    "set_phase": {"phase"},
    "reset_epoch_stats": set(),
    "set_lr": {"name", "lr"},
    "reload": set(),
    "probe": {"name"},
}
RESULT_KEYS = {"op", "cur", "ret", "draws", "events", "delta", "raises", "quirk"}
STATS = {
    "total_epochs_used": "epochs_used",
    "consecutive_failures": "failures",
    "catastrophic_failures": "catastrophes",
    "instability_events": "instability",
    "average_reward": "average",
    "last_val_acc": "last",
    "best_val_acc": "best",
    "swap_count": "swaps",
    "is_blacklisted": "blacklisted",
    "epochs_since_activation": "age",
    "in_grace_period": "in_grace",
}
REASONS = ("none", "epoch_start", "batch_start", "lock", "locked_epoch", "pool_swap")
PHASES = ("warmup", "roulette")
# The call at which each of our own recordings shows its first quirk (README 1.4), so that the default mode goes another way; None: nowhere.
FIRST_QUIRK = {
    **dict.fromkeys(("r02", "r03", "r04", "r06", "r09", "r15", "r19", "r20", "r21", "r22", "r23")),
    "r01": (1, "Q5"),
    "r05": (40, "Q20"),
    "r08": (23, "Q14"),
    "r10": (20, "Q14"),
    "r11": (2, "Q2"),
    "r12": (2, "Q13"),
    "r13": (3, "Q11"),
    "r16": (0, "Q2"),
    "r17": (11, "Q9"),
    "r18": (3, "Q7"),
}
RTOL = 1e-12


def recorded() -> list:
    return [pytest.param(path, id=path.stem) for path in golden_files("roulette")]


def load(path) -> dict[str, Any]:
    file = json.loads(path.read_text(), parse_constant=float)
    only_keys(path.name, file, FILE_KEYS)
    if file["schema"] != "funcopt-roulette-trace/1":
        raise ValueError(f"{path.name}: schema {file['schema']!r}, this harness reads funcopt-roulette-trace/1")
    for call in file["ops"]:
        if call["op"] not in OP_KEYS:
            raise ValueError(f"{path.name}: do not understand the call {call['op']!r}")
        only_keys(f"{path.name}: {call['op']}", call, RESULT_KEYS | OP_KEYS[call["op"]])
    return number(file)


def number(node: Any) -> Any:
    """JSON has no NaN and no infinities."""
    if isinstance(node, dict):
        return {key: number(value) for key, value in node.items()}
    if isinstance(node, list):
        return [number(value) for value in node]
    return float(node) if node in ("nan", "inf", "-inf") else node


class Run:
    """One roulette, and what the reference keeps beside its state: the histories."""

    def __init__(self, file: dict[str, Any], parity: bool, source: str):
        self.config, self.parity = file["config"], parity
        self.names, pool, settings, params = pool_and_settings(self.config, file["initial"]["lr"], parity)
        if source == "mt19937":
            draw = Mt19937(self.config["seed"])
        else:
            draw = Replay([draw for call in file["ops"] for draw in call.get("draws", [])], self.names)
        self.tx = fo.roulette(pool, draw=draw, parity=parity, seed=0, **settings)
        self.params, self.settings = params, settings
        self.numeric = self.config.get("numeric", False)
        self.state = self.tx.init(params)
        self.phase_history = [[0, PHASES[int(self.state.phase)]]]
        self.steps = dict.fromkeys(self.names, 0)
        self.lr_scale = fo.lr_scale()
        self.size = self.lr_scale.init(params)

    def name(self, i: torch.Tensor) -> str | None:
        return self.names[int(i)] if int(i) >= 0 else None

    def snapshot(self) -> dict[str, Any]:
        state = self.state
        listed = lambda queue: [self.names[i] for i in queue.tolist() if i >= 0]  # noqa: E731
        said = {
            "current": self.name(state.pick),
            "phase": PHASES[int(state.phase)],
            "locked": self.name(state.locked),
            "blocked": sorted(name for name, blocked in zip(self.names, state.blocked.tolist(), strict=True) if blocked),
            "epoch": int(state.epoch),
            "step_count": int(state.count),
            "lr": dict(zip(self.names, state.lr.tolist(), strict=True)),
            "counts": {name: count for name, count in zip(self.names, state.counts.tolist(), strict=True) if count >= 0},
            "phase_history": self.phase_history,
            "warmup_hist": state.window.metrics[: int(state.window.length)].tolist()
            if isinstance(state.window, tuple) and state.window
            else [],
            "warmup_completed": bool(state.warmup_completed),
            "active": listed(state.active),
        }
        if self.config.get("pool") is not None or self.config.get("default_profile"):
            columns = {theirs: getattr(state.pool, ours).tolist() for theirs, ours in STATS.items()}
            stats = {name: {key: column[i] for key, column in columns.items()} for i, name in enumerate(self.names)}
            for name in self.names:
                stats[name]["is_active"] = name in said["active"]
            said |= {"backup": listed(state.pool.backup), "reserve": listed(state.pool.reserve), "stats": stats}
        if self.numeric:
            said["params"] = [p.tolist() for p in self.params]
        return said

    def call(self, call: dict[str, Any]) -> Any:
        tx, state, ret = self.tx, self.state, None
        op, before = call["op"], int(self.state.phase)
        match op:
            case "on_epoch_start":
                self.state = tx.start_epoch(state, call["epoch"], call.get("phase"))
            case "on_batch_start":
                self.state = tx.start_batch(state)
            case "step" if self.numeric:
                grads = [torch.tensor(grad, dtype=torch.float64) for grad in call["grads"]]
                self.steps[self.name(state.pick)] += 1
                updates, self.state = tx.run(grads, state, self.params)
                updates, self.size = self.lr_scale.update(updates, self.size, signals={"base_lr": self.state.base_lr})
                self.params = fo.apply_updates(self.params, updates)
            case "step":
                self.state = tx.count_step(state)
            case "on_epoch_end":
                self.state = tx.end_epoch(state, call["val_acc"])
            case "update_performance":
                had = state.active.tolist()
                if hasattr(self.state.pool, "backup"):
                    self.state = tx.record(state, call["name"], call["reward"], call["val_acc"], call["best_val_acc"])
                    new = [i for i in self.state.active.tolist() if i not in had]
                    ret = self.names[new[0]] if new else None
            case "increment_epochs":
                self.state = tx.age(state)
            case "report_instability":
                self.state = tx.report_instability(state, call["name"])
            case "lock" | "block" | "unblock":
                self.state = getattr(tx, op)(state, call["name"])
            case "unlock":
                self.state = tx.unlock(state)
            case "set_phase":
                self.state = tx.set_phase(state, call["phase"])
            case "reset_epoch_stats":
                self.state = tx.reset_counts(state)
            case "set_lr":
                self.state = tx.set_lr(state, call["name"], call["lr"])
            case "reload":
                self.state = self.reloaded()
            case "probe":
                ret = torch_buffers(self.config, self.state, call["name"], self.steps[call["name"]])
        if before == 0 and int(self.state.phase) == 1 and op in ("on_epoch_start", "on_epoch_end") and call.get("phase") is None:
            self.phase_history = [*self.phase_history, [int(self.state.epoch), "roulette"]]
        return ret

    def reloaded(self) -> Any:
        """The reference's checkpoint holds no pool: lists and statistics start anew, and the effects of the phase are applied (spec 14)."""
        if not self.parity:
            return self.state
        fresh, held = self.tx.init(self.params), self.settings.get("warmup")
        state = self.state._replace(active=fresh.active, pool=fresh.pool, events=fresh.events)
        known = held is not None and held.member in self.names
        if held is not None and int(state.phase) == 0:
            state = self.tx.lock(state, held.member if known else state.pick)
            state = state._replace(warmup_lock=state.locked)
        elif known and held.drop and bool(state.warmup_completed):
            state = self.tx.block(state, held.member)
        return state


def events(run: Run, op: str) -> list:
    if op == "probe" or (op == "reload" and not run.parity):
        return []
    rows = run.state.events.tolist()
    return [[run.names[old], run.names[new], REASONS[reason]] for _, old, new, reason in rows if reason]


def patched(snapshot: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    new = dict(snapshot)
    for key, value in delta.items():
        if key in ("lr", "counts"):
            new[key] = {name: entry for name, entry in {**snapshot[key], **value}.items() if entry is not None}
        elif key == "stats":
            new[key] = snapshot[key] | {name: snapshot[key][name] | fields for name, fields in value.items()}
        else:
            new[key] = value
    return new


def compare(where: str, ours: Any, theirs: Any, close: bool = False) -> None:
    """Exactly, but for params, buffers and average rewards."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and set(ours) == set(theirs), f"{where}: {ours} instead of {theirs}"
        for key in theirs:
            compare(f"{where}: {key}", ours[key], theirs[key], close or key in ("params", "average_reward"))
    elif isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs), f"{where}: {ours} instead of {theirs}"
        for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            compare(f"{where}: {i}", x, y, close)
    elif close and isinstance(theirs, (float, int)) and ours is not None:
        x, y = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
        torch.testing.assert_close(x, y, rtol=RTOL, atol=1e-15, equal_nan=True, msg=lambda message: f"{where}: {message}")
    elif isinstance(theirs, float) and theirs != theirs:
        assert ours != ours, f"{where}: {ours} instead of nan"
    else:
        assert ours == theirs, f"{where}: {ours} instead of {theirs}"


def replay(file: dict[str, Any], parity: bool, source: str, save: bool = False) -> Run:
    run = Run(file, parity, source)
    expected = file["initial"]
    compare("initial", comparable(run, expected), expected)
    for i, call in enumerate(file["ops"]):
        where = f"call {i} {call['op']}"
        if not parity and "quirk" in call:
            return run
        expected = patched(expected, call.get("delta", {}))
        if "raises" in call:
            with pytest.raises({"KeyError": KeyError, "IndexError": IndexError, "ValueError": ValueError}[call["raises"]]) as stopped:
                run.call(call)
            run.state = stopped.value.state
            ret = None
        else:
            ret = run.call(call)
        if "cur" in call:
            compare(f"{where}: cur", run.name(run.state.pick), call["cur"])
        compare(f"{where}: ret", ret, call.get("ret"), close=call["op"] == "probe")
        if "raises" not in call:
            compare(f"{where}: events", events(run, call["op"]), call.get("events", []))
        compare(where, comparable(run, expected), expected)
        if save:
            run.state = through_a_file(run.state)
    return run


def comparable(run: Run, expected: dict[str, Any]) -> dict[str, Any]:
    """In the default mode every member keeps its counter (Q7)."""
    ours = run.snapshot()
    if not run.parity:
        ours["counts"] = {name: count for name, count in ours["counts"].items() if name in expected["counts"]}
    return ours


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(fo.tree.leaves(state), file)
    file.seek(0)
    return fo.tree.unflatten(state, torch.load(file, weights_only=True))


@pytest.mark.parametrize("path", recorded())
def test_replays_with_the_generator_of_the_reference(path):
    file = load(path)
    run = replay(file, parity=True, source="mt19937")
    generator = random.Random()
    generator.setstate((3, tuple(run.state.draw.tolist()), None))
    assert [generator.random() for _ in range(3)] == file["rng_probe"]


@pytest.mark.parametrize("path", recorded())
def test_replays_with_the_recorded_draws(path):
    file = load(path)
    run = replay(file, parity=True, source="replay")
    assert int(run.state.draw.position) == len(run.tx.init(run.params).draw) * 0 + sum(len(call.get("draws", [])) for call in file["ops"])


@pytest.mark.skipif("FUNCOPT_GOLDEN" in os.environ, reason="which quirks other recordings show is not known here")
@pytest.mark.filterwarnings("ignore:roulette. .* puts out of reach")
@pytest.mark.parametrize("name", sorted(FIRST_QUIRK))
def test_the_default_mode_goes_along_up_to_the_first_quirk(name):
    (path,) = golden_dir("roulette").glob(f"{name}_*.json")
    file, quirk = load(path), FIRST_QUIRK[name]
    if quirk is None:
        replay(file, parity=False, source="mt19937")
        return
    replay({**file, "ops": file["ops"][: quirk[0]]}, parity=False, source="mt19937")
    if "quirk" not in file["ops"][quirk[0]]:
        with pytest.raises(AssertionError, match=f"call {quirk[0]} "):
            replay(file, parity=False, source="mt19937")


@pytest.mark.parametrize("path", recorded())
def test_saving_after_every_call_changes_nothing(path):
    replay(load(path), parity=True, source="mt19937", save=True)


def test_there_are_recordings():
    assert golden_files("roulette"), f"no recorded runs in {golden_dir('roulette')}"
