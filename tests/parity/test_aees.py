"""The recorded AEES runs (tests/golden/aees, README-pilot-aees.md there), replayed.

Every *.json file of the folder is found by listing. Runs around an optimizer replay step by step,
in both dispatches and with the multiplier, noise, parameters, inner state, choices, rewards, statistics and logs compared;
bandits alone replay choice by choice. A key or a form that this harness does not understand is an error.
`FUNCOPT_GOLDEN=DIR` replays another directory of the same layout.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import funcopt as fo
from funcopt.controllers.pulseopt import bandits
from funcopt.controllers.pulseopt.arms import Axes
from funcopt.controllers.pulseopt.bandits import SUM, WARMED, WEIGHT, Bandits, Ucb
from funcopt.controllers.pulseopt.episodes import BUCKETS, trend
from funcopt.controllers.pulseopt.episodic import REPORT
from tests.parity.encoding import dtype_of, only_keys
from tests.parity.golden import golden_dir, golden_files
from tests.parity.sgd import sgd_direction

FILE_KEYS = {
    *(
        "format",
        "kind",
        "name",
        "description",
        "reference",
        "dtype",
        "tie_break",
        "hyperparams",
        "optimizer",
        "groups",
        "leaves",
        "init_params",
    ),
    *("finalize_closed", "steps", "episodes", "bucket_names"),
}
STEP_KEYS = {
    *(
        "t",
        "loss",
        "episode",
        "lr_index",
        "noise_index",
        "lr_multiplier",
        "noise_std",
        "base_lr",
        "grads",
        "z",
        "params",
        "update_norm",
        "closed",
    ),
    *("inner", "finalize"),
}
EPISODE_KEYS = {
    *(
        "index",
        "start_step",
        "end_step",
        "context_bucket",
        "lr_index",
        "noise_index",
        "name",
        "picks",
        "loss_start",
        "loss_end",
        "ema_start",
        "ema_end",
    ),
    *("reward_base", "reward_instability", "reward_penalty", "reward_unclipped", "reward", "mean_update_norm", "lr_state", "noise_states"),
}
CONTROLLER_STEP_KEYS = {"k", "context", "pick", "updated_arm", "reward", "state"}
PICK_KEYS = {"axis", "controller", "row", "phase", "scores", "tie_set", "chosen"}
ROW_KEYS = {"counts", "reward_sums", "warmup_counts", "total_updates"}
STATE_KEYS = {"global", "rows", "bucket_visit_counts", "bucket_reward_sums", "bucket_distinct_arm_counts"}
SETTINGS = {  # theirs -> ours
    "lr_candidates": "lr_candidates",
    "noise_candidates": "noise_candidates",
    "episode_length": "episode_length",
    "context_trend_window": "trend_window",
    "context_trend_epsilon": "trend_epsilon",
    "reward_instability_lambda": "instability",
    "reward_epsilon": "reward_epsilon",
    "ema_alpha": "ema_alpha",
}
OTHER_SETTINGS = {"control_mode", "structured_control_mode", "context_mode", "reward_clip_min", "reward_clip_max", "seed"}
BANDIT_SETTINGS = {"exploration_coef", "discount", "warmup_rounds", "eps", "n_arms", "random_seed", "prior_from_global"}
UCB = Ucb()  # the reference fixes these inside AEES


class Tolerance(NamedTuple):
    atol: float
    rtol: float


EXACT = Tolerance(1e-12, 1e-9)
PARAMS = {torch.float64: EXACT, torch.float32: Tolerance(2e-6, 2e-6)}
NORMS = {torch.float64: EXACT, torch.float32: Tolerance(2e-6, 1e-5)}


def close(where: str, ours: Any, recorded: Any, at: Tolerance = EXACT) -> None:
    ours, recorded = (torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (ours, recorded))
    assert torch.allclose(ours, recorded, atol=at.atol, rtol=at.rtol), f"{where}: we have {ours.tolist()}, recorded is {recorded.tolist()}"


def same(where: str, ours: Any, recorded: Any) -> None:
    assert ours == recorded, f"{where}: we have {ours}, recorded is {recorded}"


def load(path: Path) -> dict:
    file = json.loads(path.read_text())
    only_keys(path.name, file, FILE_KEYS)
    if file["format"] != "aees-trace-1" or file["kind"] not in ("wrapper", "controller"):
        raise ValueError(
            f"{path.name}: {file['format']!r} of the kind {file['kind']!r}; this harness reads 'aees-trace-1', wrapper and controller"
        )
    if file["tie_break"] not in ("first", "recorded"):
        raise ValueError(f"{path.name}: do not understand tie_break {file['tie_break']!r}")
    for step in file["steps"]:
        only_keys(f"{path.name}: step", step, STEP_KEYS if file["kind"] == "wrapper" else CONTROLLER_STEP_KEYS)
    for episode in file["episodes"]:
        only_keys(f"{path.name}: episode", episode, EPISODE_KEYS)
        for pick in episode["picks"]:
            only_keys(f"{path.name}: pick", pick, PICK_KEYS)
    return file


def recorded(kind: str) -> list:
    return [pytest.param(path, id=path.stem) for path in golden_files("aees") if json.loads(path.read_text()).get("kind", kind) == kind]


def test_there_are_recordings():
    assert recorded("wrapper") and recorded("controller"), f"no recorded runs in {golden_dir('aees')}"


def test_every_recording_is_replayed():
    kinds = {path: json.loads(path.read_text())["kind"] for path in golden_files("aees")}
    strange = {path.name: kind for path, kind in kinds.items() if kind not in ("wrapper", "controller")}
    assert not strange, f"do not understand the kinds {strange}"


def test_an_unknown_key_is_an_error(tmp_path):
    path = tmp_path / "new.json"
    path.write_text(json.dumps({"format": "aees-trace-1", "kind": "wrapper", "surprise": 1}))
    with pytest.raises(ValueError, match="do not understand the keys"):
        load(path)


# ------------------------------------------------------------------------------------------------ draws


class Replay:
    """Hands out the recorded draws: who goes first among equals, and the noise."""

    def __init__(self, file: dict, axes: Axes, trace: "Trace"):
        self.file, self.axes, self.trace = file, axes, trace

    def init(self) -> Tensor:
        return torch.zeros(2, dtype=torch.int64)

    def priorities(self, key: Tensor, episode: Tensor, shape: tuple[int, int]) -> Tensor:
        first = torch.arange(shape[1], 0, -1).expand(shape)
        if self.file["tie_break"] == "first" or int(episode) >= len(self.file["episodes"]):
            return first
        forced = first.clone()
        for pick in self.file["episodes"][int(episode)]["picks"]:
            forced[place(self.axes, pick), pick["chosen"]] = shape[1] + 1
        return forced

    def noise(self, key: Tensor, step: Tensor, updates: Any) -> Any:
        z = self.file["steps"][int(step)]["z"]
        return fo.tree.zeros_like(updates) if z is None else self.trace.tree(z)


def place(axes: Axes, pick: dict) -> int:
    """Which of our bandits a pick belongs to."""
    if pick["axis"] not in ("lr", "noise"):
        raise ValueError(f"do not understand the axis {pick['axis']!r}")
    return 0 if pick["axis"] == "lr" else axes.lr_bandits + pick["controller"]


# ------------------------------------------------------------------------------------------------ runs


class Trace:
    """A recorded run around an optimizer, in our terms."""

    def __init__(self, path: Path):
        self.file = file = load(path)
        self.steps, self.episodes = file["steps"], file["episodes"]
        self.dtype = dtype_of(file["dtype"])
        self.shapes = {leaf["name"]: leaf["shape"] for leaf in file["leaves"]}
        self.group_of = {leaf["name"]: leaf["group"] for leaf in file["leaves"]}
        given = file["hyperparams"]
        only_keys(f"{path.name}: hyperparams", given, set(SETTINGS) | OTHER_SETTINGS)
        self.settings = {ours: given[theirs] for theirs, ours in SETTINGS.items()}
        self.settings["reward_clip"] = (given["reward_clip_min"], given["reward_clip_max"])
        self.settings["context"] = {"none": None, "trend": "trend"}[given["context_mode"]]
        control = {"adaptive": given["structured_control_mode"], "random": "random"}[given["control_mode"]]
        self.settings["control"] = control
        self.axes = Axes(len(given["lr_candidates"]), len(given["noise_candidates"]), control)
        self.rows = 1 if self.settings["context"] is None else 1 + len(BUCKETS)

    def tree(self, values: dict) -> dict[str, Tensor]:
        return {name: torch.tensor(values[name], dtype=torch.float64).to(self.dtype).reshape(shape) for name, shape in self.shapes.items()}

    def inner(self) -> fo.GradientTransformation:
        groups = self.file["groups"]
        if len(groups) == 1:
            return self.optimizer(0)
        masks = [{name: self.group_of[name] == group for name in self.shapes} for group in range(len(groups))]
        return fo.chain(*[fo.scoped(str(group), fo.masked(self.optimizer(group), mask)) for group, mask in enumerate(masks)])

    def optimizer(self, group: int) -> fo.GradientTransformation:
        settings = {**self.file["optimizer"], **self.file["groups"][group]}
        name = settings.pop("name")
        settings.pop("lr")
        rates = torch.tensor([step["base_lr"][group] for step in self.steps], dtype=torch.float64)
        settings["lr"] = lambda count: rates[count]
        if name == "sgd":
            rate = settings.pop("lr")
            return fo.chain(sgd_direction(f"{self.file['name']}: optimizer", settings), fo.lr_scale(rate))
        if "betas" in settings:
            settings["b1"], settings["b2"] = settings.pop("betas")
        settings.setdefault("weight_decay", 0.01)
        if name == "adamw":
            only_keys("adamw", settings, {"lr", "b1", "b2", "eps", "weight_decay"})
            return fo.adamw(**settings)
        if name == "pilot":
            settings = {{"eta_phi": "lr_phi"}.get(key, key): value for key, value in settings.items()}
            only_keys("pilot", settings, {"lr", "b1", "b2", "eps", "weight_decay", "gamma", "lr_phi", "degree"})
            return fo.pilot(**settings)
        raise ValueError(f"do not understand the optimizer {name!r}")


@pytest.mark.parametrize("dispatch", ["branch", "select"])
@pytest.mark.parametrize("path", recorded("wrapper"))
def test_a_run_around_an_optimizer_replays(path, dispatch):
    trace = Trace(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ucb_episodes: ")  # recorded on purpose: episodes of one step, axes in lock step
        tx = fo.aees(trace.inner(), **trace.settings, dispatch=dispatch, draw=Replay(trace.file, trace.axes, trace))
    params = trace.tree(trace.file["init_params"])
    state = tx.init(params)
    norms, history = [], []
    for index, step in enumerate(trace.steps):
        where = f"step {index}"
        before = fo.find(state, fo.UcbEpisodesState)
        same(f"{where}: episode", int(before.episode), step["episode"])
        if int(before.step) == int(before.start) and step["episode"] < len(trace.episodes):
            compare_picks(f"{where}: episode {step['episode']}", trace, before)
        loss = torch.tensor(step["loss"], dtype=torch.float64)
        updates, state = tx.update(trace.tree(step["grads"]), state, params, loss=loss)
        moved = fo.apply_updates(params, updates)
        norms.append(math.sqrt(sum(float((moved[name] - params[name]).square().sum()) for name in params)))
        params = moved
        after = fo.find(state, fo.UcbEpisodesState)
        said = fo.read_signals(state)
        same(f"{where}: multiplier", float(said["lr_multiplier"]), step["lr_multiplier"])
        same(f"{where}: noise", float(said["noise_std"]), step["noise_std"])
        same(f"{where}: arms", after.arms[:2].tolist(), [step["lr_index"], step["noise_index"]])
        for name, values in step["params"].items():
            close(f"{where}: params.{name}", params[name], values, PARAMS[trace.dtype])
        close(f"{where}: update_norm", norms[-1], step["update_norm"], NORMS[trace.dtype])
        compare_inner(where, state, step.get("inner", []))
        same(f"{where}: closed", int(after.episode) == step["episode"] + 1, step["closed"])
        history.append(state)
        if step["closed"]:
            compare_episode(trace, after, norms)
        if "finalize" in step:
            state = finalized(f"{where}: finalize", tx, trace, state, norms, step["finalize"])
            history.append(state)
    history.append(finalized("finalize", tx, trace, state, norms, trace.file["finalize_closed"]))
    compare_log(trace, fo.episode_log(history, norms))


def finalized(where: str, tx, trace: Trace, state: Any, norms: list[float], closed: bool) -> Any:
    episode = int(fo.find(state, fo.UcbEpisodesState).episode)
    state = tx.finalize(state)
    after = fo.find(state, fo.UcbEpisodesState)
    same(where, int(after.episode) == episode + 1, closed)
    if closed:
        compare_episode(trace, after, norms)
    again = tx.finalize(state)
    same(f"{where}, again", int(fo.find(again, fo.UcbEpisodesState).episode), int(after.episode))
    return state


def compare_inner(where: str, state: Any, inner: list[dict]) -> None:
    for group in inner:
        only_keys(f"{where}: inner", group, {"rho", "phi"})
        close(f"{where}: rho", fo.find(state, "rho"), group["rho"])
        close(f"{where}: phi", fo.find(state, "phi"), group["phi"])


def compare_picks(where: str, trace: Trace, state: fo.UcbEpisodesState) -> None:
    """What is best where the next episode begins, before it is chosen."""
    episode, axes = trace.episodes[state.episode.item()], trace.axes
    bucket = None
    if trace.settings["context"] is not None:
        bucket = trend(state.ends, trace.settings["trend_epsilon"], relative=False)
        same(f"{where}: context", BUCKETS[int(bucket)], episode["context_bucket"])
    same(f"{where}: picks", len(episode["picks"]), axes.lr_bandits + (axes.noise_arms > 1))
    for pick in episode["picks"]:
        arms = axes.bandits[place(axes, pick)]
        if pick["phase"] == "random":
            same(f"{where}: tie set", list(range(arms)), pick["tie_set"])
            continue
        row = None if bucket is None else bucket + 1
        same(f"{where}: row", "global" if bucket is None else BUCKETS[int(bucket)], pick["row"])
        choice = bandits.choices(state.bandits, row, UCB, bandits.existing(axes.bandits, torch.device("cpu")))
        compare_pick(where, choice, place(axes, pick), arms, pick)


def compare_pick(where: str, choice: bandits.Choice, place: int, arms: int, pick: dict) -> None:
    if pick["phase"] not in ("warmup", "ucb"):
        raise ValueError(f"do not understand the phase {pick['phase']!r}")
    same(f"{where}: phase", "warmup" if choice.warming[place] else "ucb", pick["phase"])
    same(f"{where}: tie set", choice.best[place].nonzero().flatten().tolist(), pick["tie_set"])
    assert pick["chosen"] in pick["tie_set"], f"{where}: {pick['chosen']} was chosen, which is not among the best"
    if pick["scores"] is not None:
        close(f"{where}: scores", choice.scores[place, :arms], pick["scores"])


def compare_episode(trace: Trace, state: fo.UcbEpisodesState, norms: list[float]) -> None:
    """The last closed episode: what it was, what it earned, what the bandits have learned from it."""
    report = dict(zip(REPORT, state.report.tolist(), strict=True))
    episode = trace.episodes[int(report["episode"])]
    where, begin = f"episode {episode['index']}", trace.steps[0]["t"]
    steps = range(int(report["first_step"]), int(report["first_step"] + report["steps"]))
    same(f"{where}: steps", [begin + steps[0], begin + steps[-1]], [episode["start_step"], episode["end_step"]])
    same(f"{where}: arms", [report["lr_arm"], report["noise_arm"]], [episode["lr_index"], episode["noise_index"]])
    pairs = {"first": "loss_start", "last": "loss_end", "start": "ema_start", "ema": "ema_end"}
    pairs |= {name: f"reward_{name}" for name in ("base", "instability", "penalty", "unclipped")} | {"reward": "reward"}
    for ours, theirs in pairs.items():
        close(f"{where}: {theirs}", report[ours], episode[theirs])
    close(f"{where}: reward said", state.episode_reward, episode["reward"])
    close(f"{where}: mean norm", sum(norms[i] for i in steps) / len(steps), episode["mean_update_norm"], NORMS[trace.dtype])
    axes = trace.axes
    states = [episode["lr_state"]] * axes.lr_bandits + (episode["noise_states"] if axes.noise_arms > 1 else [])
    idle = [] if axes.lr_bandits else [episode["lr_state"]]
    idle += [] if axes.noise_arms > 1 else episode["noise_states"]
    assert not any(idle), f"{where}: statistics for an axis with one candidate: {idle}"
    if not axes.learns:
        assert not any(states), f"{where}: statistics where nothing learns: {states}"
        return
    for place, (arms, recorded_state) in enumerate(zip(axes.bandits, states, strict=True)):
        compare_statistics(f"{where}: bandit {place}", state.bandits, place, arms, recorded_state)


def compare_statistics(where: str, ours: Bandits, place: int, arms: int, state: dict) -> None:
    only_keys(where, state, STATE_KEYS)
    statistics, created = ours.statistics[:, place, :, :arms], ours.created[place]
    compare_row(f"{where}: global", statistics[:, 0], state["global"])
    for index, bucket in enumerate(BUCKETS if "rows" in state else ()):
        recorded_row = state["rows"][bucket]
        same(f"{where}: row {bucket} has begun", bool(created[index + 1]), recorded_row is not None)
        if recorded_row is not None:
            compare_row(f"{where}: {bucket}", statistics[:, index + 1], recorded_row)
        _, _, _, visits, earned = statistics[:, index + 1]
        same(f"{where}: visits of {bucket}", int(visits.sum()), state["bucket_visit_counts"][bucket])
        same(f"{where}: arms of {bucket}", int((visits > 0).sum()), state["bucket_distinct_arm_counts"][bucket])
        close(f"{where}: rewards of {bucket}", earned.sum(), state["bucket_reward_sums"][bucket])


def compare_row(where: str, statistics: Tensor, row: dict) -> None:
    only_keys(where, row, ROW_KEYS)
    close(f"{where}: counts", statistics[WEIGHT], row["counts"])
    close(f"{where}: sums", statistics[SUM], row["reward_sums"])
    same(f"{where}: warm-up", statistics[WARMED].tolist(), row["warmup_counts"])
    same(f"{where}: updates", int(statistics[WARMED].sum()), row["total_updates"])


def compare_log(trace: Trace, log: dict[str, list]) -> None:
    begin = trace.steps[0]["t"]
    exact = {"selected_lr_indices": "lr_index", "selected_noise_indices": "noise_index", "selected_combined_names": "name"}
    near = {
        "episode_rewards": "reward",
        "episode_start_losses": "loss_start",
        "episode_end_losses": "loss_end",
        "episode_ema_loss_starts": "ema_start",
        "episode_ema_loss_ends": "ema_end",
        "reward_base": "reward_base",
        "reward_instability": "reward_instability",
        "reward_penalty": "reward_penalty",
        "reward_final_unclipped": "reward_unclipped",
        "reward_final_clipped": "reward",
    }
    for column, key in exact.items():
        same(column, log[column], [episode[key] for episode in trace.episodes])
    for column, key in near.items():
        close(column, log[column], [episode[key] for episode in trace.episodes])
    close("mean_update_norms", log["mean_update_norms"], [episode["mean_update_norm"] for episode in trace.episodes], NORMS[trace.dtype])
    same(
        "episode_start_steps", [begin + step for step in log["episode_start_steps"]], [episode["start_step"] for episode in trace.episodes]
    )
    same("episode_end_steps", [begin + step for step in log["episode_end_steps"]], [episode["end_step"] for episode in trace.episodes])
    given = trace.file["hyperparams"]
    same("selected_lr_values", log["selected_lr_values"], [given["lr_candidates"][episode["lr_index"]] for episode in trace.episodes])
    same(
        "selected_noise_values",
        log["selected_noise_values"],
        [given["noise_candidates"][episode["noise_index"]] for episode in trace.episodes],
    )
    buckets = [episode["context_bucket"] for episode in trace.episodes]
    same("context_buckets", log.get("context_buckets", [None] * len(buckets)), buckets)


# ------------------------------------------------------------------------------------------------ bandits alone


@pytest.mark.parametrize("path", recorded("controller"))
def test_a_bandit_alone_replays(path):
    file = load(path)
    given = file["hyperparams"]
    only_keys(f"{path.name}: hyperparams", given, BANDIT_SETTINGS)
    names, arms = file["bucket_names"], given["n_arms"]
    assert names is None or tuple(names) == BUCKETS, f"do not understand the buckets {names}"
    settings = Ucb(given["exploration_coef"], given["discount"], given["warmup_rounds"], given["eps"], given.get("prior_from_global", True))
    ours = bandits.init([arms], 1 if names is None else 1 + len(names))
    for step in file["steps"]:
        where = f"step {step['k']}"
        only_keys(where, step["pick"], PICK_KEYS)
        row = None if names is None else torch.tensor(1 + names.index(step["context"]))
        choice = bandits.choices(ours, row, settings)
        compare_pick(where, choice, 0, arms, step["pick"])
        forced = torch.arange(arms, 0, -1)
        if file["tie_break"] == "recorded":
            forced[step["pick"]["chosen"]] = arms + 1
        same(f"{where}: chosen", bandits.pick(choice.best, forced.unsqueeze(0)).tolist(), [step["pick"]["chosen"]])
        chose = torch.tensor([True])
        ours = bandits.begin_rows(ours, row, chose, settings)
        reward, one = torch.tensor(step["reward"], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        ours = bandits.update(ours, row, torch.tensor([step["updated_arm"]]), chose, reward, one, settings)
        compare_statistics(where, ours, 0, arms, step["state"])
