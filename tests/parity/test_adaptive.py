"""The worked examples of adaptive hyperparameters (tests/golden/adaptive, README-roulette-adaptive.md there), replayed.

Every *.json file of the folder is found by listing; a key, a rule or a setting that this harness does not understand is an error.
`FUNCOPT_GOLDEN=DIR` replays another directory of the same layout. Each file runs around an optimizer that has exactly its knobs,
once by `update(loss=, reward=)` and once by `observe_loss`, `observe_reward` and an update without signals.
"""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import funcopt as fo
from tests.parity.golden import golden_files

SCHEMA = "funcopt-adaptive-example/1"
FILE_KEYS = {"schema", "name", "about", "base", "rules", "config", "steps"}
CONFIG_KEYS = {"loss", "reward", "bounds", "compensate", "strict"}
STEP_KEYS = {"loss", "reward", "hyperparams", "debug"}
FIXED = ("nesterov", "dampening")  # settings of an sgd that no rule moves
KNOBS = ("lr", "momentum", "b1", "b2", "decay", "weight_decay")
RTOL = 1e-9


def only_keys(where: str, given: dict, known: set) -> None:
    strange = sorted(set(given) - set(known))
    if strange:
        raise ValueError(f"{where}: do not understand {', '.join(strange)}")


def decoded(value: Any) -> Any:
    """JSON has no nan and no infinities: they are strings."""
    if isinstance(value, str):
        if value not in ("nan", "inf", "-inf"):
            raise ValueError(f"do not understand the number {value!r}")
        return float(value)
    return value


def load(path: Path) -> dict:
    file = json.loads(path.read_text())
    if file.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: the schema is {file.get('schema')!r}, this harness reads {SCHEMA}")
    only_keys(path.name, file, FILE_KEYS)
    only_keys(f"{path.name}: config", file["config"], CONFIG_KEYS)
    only_keys(f"{path.name}: base", file["base"], {*KNOBS, *FIXED})
    only_keys(f"{path.name}: rules", file["rules"], {*KNOBS, "reward"})
    for number, step in enumerate(file["steps"], 1):
        only_keys(f"{path.name}: step {number}", step, STEP_KEYS)
        only_keys(f"{path.name}: debug of step {number}", step.get("debug", {}), set(DEBUG))
        if set(step["hyperparams"]) - set(FIXED) != set(file["base"]) - set(FIXED):
            raise ValueError(
                f"{path.name}: step {number} has the hyperparams {sorted(step['hyperparams'])}, the base {sorted(file['base'])}"
            )
    return file


def rule(spec: dict) -> fo.rules.Rule:
    if spec.get("rule") not in fo.rules.RULES:
        raise ValueError(f"do not understand the rule {spec.get('rule')!r}")
    return fo.rules.RULES[spec["rule"]](**{name: value for name, value in spec.items() if name != "rule"})


def product(specs: list[dict]) -> fo.rules.Rule | fo.rules.Product:
    rules = [rule(spec) for spec in specs]
    total = rules[0]
    for other in rules[1:]:
        total = total * other
    return total


def controller(file: dict, used: dict[str, Any]) -> fo.GradientTransformation:
    """The controller of a file around an optimizer with exactly its knobs, which notes in `used` what it is built with."""

    def optimizer(**hyperparams):
        used.clear()
        used.update(hyperparams)
        return fo.chain(fo.trace(0.0), fo.lr_scale(hyperparams["lr"]))  # only the rate is compared: a momentum would hide it

    rules = {knob: product(specs) for knob, specs in file["rules"].items() if specs}
    alone = {knob: base for knob, base in file["base"].items() if knob not in rules and knob not in FIXED}
    config = file["config"]
    settings = {
        "loss_stats": config.get("loss"),
        "reward_stats": config.get("reward"),
        "bounds": config.get("bounds"),
        "compensate": config.get("compensate", True),
        "strict": config.get("strict", False),
    }
    return fo.adaptive(with_knobs(optimizer, file["base"]), **alone, **rules, **settings)


def with_knobs(optimizer, base: dict[str, float]):
    """The same function, with a signature that names the knobs and has their bases as defaults."""
    parameters = [inspect.Parameter(knob, inspect.Parameter.KEYWORD_ONLY, default=value) for knob, value in base.items()]

    def made(**given):
        return optimizer(**(base | given))

    made.__signature__ = inspect.Signature(parameters)
    return made


DEBUG = {
    "ema": lambda state: state.loss.number("mean") if state.loss.seen else None,
    "slow": lambda state: state.loss.number("slow") if state.loss.seen else None,
    "spread": lambda state: state.loss.number("spread"),
    "flag": lambda state: state.loss.verdict,
    "var": lambda state: state.loss.variance,
    "reward_ema": lambda state: state.reward.number("mean") if state.reward.seen else None,
    "reward_slow": lambda state: state.reward.number("slow") if state.reward.seen else None,
    "reward_spread": lambda state: state.reward.number("spread"),
    "reward_var": lambda state: state.reward.variance,
    "bad_loss": lambda state: state.loss.bad,
    "bad_reward": lambda state: state.reward.bad,
}


def compare(where: str, ours: Any, recorded: Any) -> None:
    recorded = decoded(recorded)
    if recorded is None or ours is None:
        assert ours is None and recorded is None, f"{where}: recorded {recorded}, we have {ours}"
        return
    # Differences of nearly equal losses have no relative accuracy: what is left at 1e-15 of a level is zero.
    assert math.isclose(float(ours), recorded, rel_tol=RTOL, abs_tol=1e-14), f"{where}: recorded {recorded!r}, we have {float(ours)!r}"


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in golden_files("adaptive")])
def test_replays(path, apart):
    file = load(path)
    used: dict[str, Any] = {}
    tx = controller(file, used)
    params = torch.ones(2, dtype=torch.float64)
    state = tx.init(params)
    for number, step in enumerate(file["steps"], 1):
        signals = {name: decoded(step[name]) for name in ("loss", "reward") if name in step}
        if apart:
            state = tx.observe_loss(state, signals["loss"]) if "loss" in signals else state
            state = tx.observe_reward(state, signals["reward"]) if "reward" in signals else state
            signals = {}
        updates, state = tx.update(params, state, params, **signals)
        for knob, recorded in step["hyperparams"].items():
            compare(f"step {number}: {knob}", used[knob], recorded)
        compare(f"step {number}: size of the update", -updates[0], step["hyperparams"]["lr"])
        for name, recorded in step.get("debug", {}).items():
            compare(f"step {number}: {name}", DEBUG[name](state), recorded)
    assert file["steps"], "nothing to replay"


def test_finds_recorded_examples():
    assert golden_files("adaptive"), "no recorded examples"


def test_losses_in_another_unit_give_the_same_hyperparameters():
    files = {path.stem: load(path) for path in golden_files("adaptive") if path.stem.startswith("a25_scale_")}
    if len(files) < 2:
        pytest.skip("this directory holds no pair of files that differ in the unit of the loss")
    first, *others = files.values()
    for other in others:
        for mine, theirs in zip(first["steps"], other["steps"], strict=True):
            assert mine["hyperparams"] == pytest.approx(theirs["hyperparams"], rel=RTOL)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.update(surprise=1),
        lambda file: file["config"].update(surprise=1),
        lambda file: file["steps"][0].update(surprise=1),
        lambda file: file["rules"]["lr"].append({"rule": "surprise"}),
        lambda file: file["rules"]["lr"][0].update(surprise=1),
        lambda file: file["config"].setdefault("loss", {}).update(surprise=1),
        lambda file: file.update(schema="funcopt-adaptive-example/2"),
    ],
)
def test_what_is_not_understood_is_an_error(tmp_path, change):
    file = {
        "schema": SCHEMA,
        "name": "x",
        "about": "",
        "base": {"lr": 0.1},
        "rules": {"lr": [{"rule": "trend"}]},
        "config": {},
        "steps": [{"hyperparams": {"lr": 0.1}}],
    }
    change(file)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(file))
    with pytest.raises((ValueError, TypeError)):
        controller(load(path), {})
