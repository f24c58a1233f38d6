"""The recorded PILOT runs (tests/golden/pilot, README-pilot-aees.md there), replayed.

Every *.json file of the folder is found by listing. One `pilot` per group, as the
reference has one policy per group, and once more through `partition`. A key or a form
that this harness does not understand is an error. `FUNCOPT_GOLDEN=DIR` replays another
directory of the same layout.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import funcopt as fo
from funcopt.controllers.pilot.policy import meta_gradient, sweep
from tests.parity.encoding import dtype_of, only_keys
from tests.parity.golden import golden_dir, golden_files

FILE_KEYS = {
    "format",
    "name",
    "description",
    "reference",
    "dtype",
    "policy_dtype",
    "hyperparams",
    "groups",
    "leaves",
    "init_params",
    "steps",
    "final",
}
HYPERPARAMS = {"lr", "betas", "eps", "weight_decay", "gamma", "eta_phi", "degree", "policy_overrides"}
STEP_KEYS = {"t", "lr", "grads", "groups", "params"}
GROUP_KEYS = {"r", "rho", "p_m", "p_v", "p_s", "meta_grad", "phi"}
FINAL_KEYS = {"m", "v", "g_prev"}

# Leaves that skip steps and keep their state of then: our trees are static (a None leaf is absent for good), see the method's page.
COMES_AND_GOES = "a leaf that has no gradient at some steps: trees are static here"


class Tolerance(NamedTuple):
    atol: float
    rtol: float
    meta_rtol: float


TOLERANCES = {  # by dtype and policy_dtype
    ("float64", "float64"): Tolerance(1e-12, 1e-9, 1e-9),
    ("float32", "float32"): Tolerance(2e-6, 2e-6, 2e-5),
    ("float64", "float32"): Tolerance(2e-6, 1e-5, 1e-5),  # informational: our policy is float64 where a leaf is
}


class Trace:
    """A recorded run, checked for anything that this harness does not understand."""

    def __init__(self, path: Path):
        file = json.loads(path.read_text())
        only_keys(path.name, file, FILE_KEYS)
        if file["format"] != "pilot-trace-1":
            raise ValueError(f"{path.name}: format {file['format']!r}, this harness reads 'pilot-trace-1'")
        if (file["dtype"], file["policy_dtype"]) not in TOLERANCES:
            raise ValueError(f"{path.name}: no tolerance for {file['dtype']} params with a {file['policy_dtype']} policy")
        only_keys(f"{path.name}: hyperparams", file["hyperparams"], HYPERPARAMS)
        for group in file["groups"]:
            only_keys(f"{path.name}: groups", group, HYPERPARAMS)
        for leaf in file["leaves"]:
            only_keys(f"{path.name}: leaves", leaf, {"name", "shape", "group"})
        for step in file["steps"]:
            only_keys(f"{path.name}: step", step, STEP_KEYS)
            for group in step["groups"]:
                only_keys(f"{path.name}: step {step['t']}", group, GROUP_KEYS)
        only_keys(f"{path.name}: final", file["final"], FINAL_KEYS)
        self.file, self.steps, self.final = file, file["steps"], file["final"]
        self.dtype = dtype_of(file["dtype"])
        self.tolerance = TOLERANCES[file["dtype"], file["policy_dtype"]]
        self.shapes = {leaf["name"]: leaf["shape"] for leaf in file["leaves"]}
        self.group_of = {leaf["name"]: leaf["group"] for leaf in file["leaves"]}
        self.groups = [{**file["hyperparams"], **group} for group in file["groups"]]
        if [step["t"] for step in self.steps] != list(range(1, len(self.steps) + 1)):
            raise ValueError(f"{path.name}: the steps must be counted 1, 2, ...")

    def comes_and_goes(self) -> bool:
        return any(values is None for step in self.steps for values in step["grads"].values())

    def tree(self, values: dict) -> dict[str, Tensor]:
        """All leaves of a recorded mapping from names to flat numbers."""
        return {name: torch.tensor(values[name], dtype=torch.float64).to(self.dtype).reshape(shape) for name, shape in self.shapes.items()}

    def part(self, values: dict, group: int) -> dict[str, Tensor]:
        """The leaves of one group."""
        return {name: leaf for name, leaf in self.tree(values).items() if self.group_of[name] == group}

    def lrs(self, group: int) -> list[float]:
        return [step["lr"][group] for step in self.steps]

    def lr(self, group: int, how: str):
        lrs = torch.tensor(self.lrs(group), dtype=torch.float64)
        return {"schedule": lambda count: lrs[count], "number": self.lrs(group)[0], "tensor": lrs[0], "heard": None}[how]

    def make(self, group: int, how: str) -> fo.GradientTransformation:
        h = self.groups[group]
        settings = {"eps": h["eps"], "weight_decay": h["weight_decay"], "gamma": h["gamma"], "lr_phi": h["eta_phi"], "degree": h["degree"]}
        return fo.pilot(self.lr(group, how), *h["betas"], **settings, pin=h["policy_overrides"])

    def close(self, where: str, ours: Tensor, recorded, rtol: float | None = None) -> None:
        recorded = torch.tensor(recorded, dtype=torch.float64).reshape(ours.shape)
        torch.testing.assert_close(
            ours.double(),
            recorded,
            atol=self.tolerance.atol,
            rtol=rtol or self.tolerance.rtol,
            equal_nan=True,
            msg=lambda text: f"{where}: {text}",
        )


def traces() -> list:
    return [pytest.param(path, id=path.stem) for path in golden_files("pilot")]


def load(path: Path) -> Trace:
    trace = Trace(path)
    if trace.comes_and_goes():
        pytest.skip(COMES_AND_GOES)
    return trace


def test_there_are_recordings():
    assert golden_files("pilot"), f"no recorded runs in {golden_dir('pilot')}"


@pytest.mark.parametrize("how", ["schedule", "number", "tensor", "heard"])
@pytest.mark.parametrize("path", traces())
def test_replays(path, how):
    """Every number of every step: r, rho, the knobs, M, phi, params; at the end m, v and the last gradient."""
    trace = load(path)
    for group, settings in enumerate(trace.groups):
        lrs = trace.lrs(group)
        if how in ("number", "tensor") and len(set(lrs)) > 1:
            pytest.skip("the rate moves, so it is no number")
        tx = trace.make(group, how)
        params = trace.part(trace.file["init_params"], group)
        state = tx.init(params)
        for lr, step in zip(lrs, trace.steps, strict=True):
            where, recorded = f"step {step['t']}, group {group}", step["groups"][group]
            grads = trace.part(step["grads"], group)
            policy = fo.find(state, fo.AgreementPolicyState)
            knobs = policy.momentum_trust, policy.variance_power, policy.sign_compression
            sums = sweep(grads, policy.last_grad, policy.mu, policy.nu, policy.count, knobs, *settings["betas"])
            M = meta_gradient(sums, torch.tensor(lr, dtype=torch.float64), policy.sign_compression, policy.phi, policy.rho)
            trace.close(f"{where}, M", M, recorded["meta_grad"], trace.tolerance.meta_rtol)

            heard = {"signals": {"base_lr": torch.tensor(lr, dtype=torch.float64)}} if how == "heard" else {}
            updates, state = tx.update(grads, state, params, **heard)
            params = fo.apply_updates(params, updates)
            policy = fo.find(state, fo.AgreementPolicyState)
            ours = {"r": policy.r, "rho": policy.rho, "phi": policy.phi}
            ours |= {"p_m": policy.momentum_trust, "p_v": policy.variance_power, "p_s": policy.sign_compression}
            for name, value in ours.items():
                trace.close(f"{where}, {name}", value, recorded[name])
            for name, leaf in params.items():
                assert leaf.dtype == trace.dtype
                trace.close(f"{where}, {name}", leaf, step["params"][name])
        policy = fo.find(state, fo.AgreementPolicyState)
        for name in params:
            for key, ours in {"m": policy.mu, "v": policy.nu, "g_prev": policy.last_grad}.items():
                trace.close(f"final {key}, group {group}, {name}", ours[name], trace.final[key][name])


@pytest.mark.parametrize("how", ["schedule", "heard"])
@pytest.mark.parametrize("path", traces())
def test_replays_through_partition(path, how):
    """Groups as labels: one transformation for all, whose groups do not see each other."""
    trace = load(path)
    groups = {f"group{index}": trace.make(index, how) for index in range(len(trace.groups))}
    tx = fo.partition(groups, {name: f"group{index}" for name, index in trace.group_of.items()})
    params = trace.tree(trace.file["init_params"])
    state = tx.init(params)
    for step in trace.steps:
        heard = {f"group{index}/base_lr": torch.tensor(lr, dtype=torch.float64) for index, lr in enumerate(step["lr"])}
        updates, state = tx.update(trace.tree(step["grads"]), state, params, **({"signals": heard} if how == "heard" else {}))
        params = fo.apply_updates(params, updates)
        for name, leaf in params.items():
            trace.close(f"step {step['t']}, {name}", leaf, step["params"][name])
        for (path_, policy), (label, recorded) in zip(
            fo.find_all(state, fo.AgreementPolicyState), zip(groups, step["groups"], strict=True), strict=True
        ):
            assert label in path_
            words = fo.read_signals(state)
            trace.close(f"step {step['t']}, {label}", policy.phi, recorded["phi"])
            for word, key in {"agreement": "rho", "momentum_trust": "p_m", "variance_power": "p_v", "sign_compression": "p_s"}.items():
                trace.close(f"step {step['t']}, {label}/{word}", words[f"{label}/{word}"], recorded[key])


@pytest.mark.parametrize("name", ["format", "key", "hyperparam", "step", "group", "dtype"])
def test_what_it_does_not_understand_is_an_error(tmp_path, name):
    file = json.loads(golden_files("pilot")[0].read_text())
    {
        "format": lambda: file.update(format="pilot-trace-2"),
        "key": lambda: file.update(surprise=1),
        "hyperparam": lambda: file["hyperparams"].update(surprise=1),
        "step": lambda: file["steps"][0].update(surprise=1),
        "group": lambda: file["steps"][0]["groups"][0].update(surprise=1),
        "dtype": lambda: file.update(dtype="float16"),
    }[name]()
    (tmp_path / "a.json").write_text(json.dumps(file))
    with pytest.raises(ValueError, match="do not understand|reads 'pilot-trace-1'|no tolerance"):
        Trace(tmp_path / "a.json")


def test_the_comparison_can_fail():
    trace = Trace(golden_files("pilot")[0])
    with pytest.raises(AssertionError, match="here"):
        trace.close("here", torch.ones(()), 1 + 1e-4)
