"""The harness understands every setting of torch's SGD: runs of torch itself, in the layout of the recorded ones, are replayed."""

import json
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.parity import test_adaptive, test_aees, test_roulette
from tests.parity.sgd import sgd_direction

SETTINGS = [
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.05},
    {"momentum": 0.7, "nesterov": True, "weight_decay": 0.1, "dampening": 0.0},
    {"momentum": 0.5, "dampening": 1.0, "maximize": True, "weight_decay": 0.02, "foreach": False},
    {"dampening": 0.4, "weight_decay": 0.1},
    {"momentum": 0.0, "nesterov": False},
]
EACH = pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(f"{key}={value}" for key, value in settings.items()))


def stepped(leaves, lr, settings):
    """torch's optimizer on these leaves, and a function that steps it with given gradients and rate."""
    leaves = [leaf.requires_grad_() for leaf in leaves]
    opt = torch.optim.SGD(leaves, lr=lr, **settings)

    def step(grads, lr=lr):
        for leaf, grad in zip(leaves, grads, strict=True):
            leaf.grad = grad.to(leaf.dtype)
        opt.param_groups[0]["lr"] = lr
        opt.step()
        return [leaf.detach().clone() for leaf in leaves]

    return opt, step


def here(folder):
    """The folder of the repository's own recordings, wherever FUNCOPT_GOLDEN points: those made here are variants of them."""
    return Path(__file__).parents[1] / "golden" / folder


@EACH
def test_aees_replays_around_every_sgd(settings, tmp_path):
    file = json.loads((here("aees") / "independent_noise.json").read_text())
    file["optimizer"] = {"name": "sgd", "lr": 0.1} | settings
    names = [leaf["name"] for leaf in file["leaves"]]
    _, step = stepped([torch.tensor(file["init_params"][name], dtype=torch.float64) for name in names], 0.1, settings)
    before = [torch.tensor(file["init_params"][name], dtype=torch.float64) for name in names]
    for record in file["steps"]:
        z = record["z"] or {name: [0.0] * len(values) for name, values in record["grads"].items()}
        grads = [
            torch.tensor(record["grads"][name], dtype=torch.float64) + record["noise_std"] * torch.tensor(z[name], dtype=torch.float64)
            for name in names
        ]
        after = step(grads, record["base_lr"][0] * record["lr_multiplier"])
        record["params"] = {name: leaf.tolist() for name, leaf in zip(names, after, strict=True)}
        record["update_norm"] = sum(float((new - old).square().sum()) for new, old in zip(after, before, strict=True)) ** 0.5
        before = after
    for episode in file["episodes"]:
        norms = [record["update_norm"] for record in file["steps"] if episode["start_step"] <= record["t"] <= episode["end_step"]]
        episode["mean_update_norm"] = sum(norms) / len(norms)
    path = tmp_path / "made.json"
    path.write_text(json.dumps(file))
    test_aees.test_a_run_around_an_optimizer_replays(path, "branch")


@EACH
def test_roulette_replays_with_every_sgd(settings, tmp_path):
    file = json.loads((here("roulette") / "r15_numeric_batch.json").read_text())
    config = file["config"]
    config["optimizers"] = [{"name": "only", "kind": "sgd", "hyper": {"lr": 0.05} | settings}]
    starts = [torch.tensor(start, dtype=torch.float64) for start in config["param_init"]]
    opt, step = stepped([start.clone() for start in starts], 0.05, settings)
    initial = dict(file["initial"], current="only", lr={"only": 0.05}, counts={"only": 0}, active=["only"])
    steps = [call for call in file["ops"] if call["op"] == "step"][:8]
    ops = []
    for number, call in enumerate(steps, 1):
        params = [leaf.tolist() for leaf in step([torch.tensor(grad, dtype=torch.float64) for grad in call["grads"]])]
        ops.append({"op": "step", "grads": call["grads"], "delta": {"step_count": number, "params": params}})
    buffers = [
        {"momentum_buffer": opt.state[p]["momentum_buffer"].tolist()} if settings.get("momentum") else {}
        for p in opt.param_groups[0]["params"]
    ]
    ops.append({"op": "probe", "name": "only", "ret": buffers})
    path = tmp_path / "made.json"
    path.write_text(json.dumps(dict(file, initial=initial, ops=ops)))
    test_roulette.replay(test_roulette.load(path), parity=True, source="mt19937")


def test_adaptive_takes_the_settings_of_an_sgd_that_no_rule_moves(tmp_path):
    file = json.loads((here("adaptive") / "a10_momentum_inverse.json").read_text())
    file["base"] |= {"nesterov": True, "dampening": 0.0}
    file["steps"][0]["hyperparams"] |= {"nesterov": True, "dampening": 0.0}
    path = tmp_path / "made.json"
    path.write_text(json.dumps(file))
    test_adaptive.test_replays(path, False)


@EACH
def test_the_direction_is_that_of_torch(settings):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    _, step = stepped([start.clone()], 0.1, settings)
    tx = fo.chain(sgd_direction("a run", settings), fo.lr_scale(0.1))
    params, state = start.clone(), tx.init(start)
    for _ in range(6):
        grad = torch.randn(5, generator=generator, dtype=torch.float64)
        updates, state = tx.update(grad, state, params)
        params = fo.apply_updates(params, updates)
        torch.testing.assert_close(params, step([grad])[0], rtol=1e-14, atol=1e-15)


def test_what_torch_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="do not understand the keys"):
        sgd_direction("a run", {"surprise": 1})
    with pytest.raises(ValueError, match="nesterov with a momentum and without dampening"):
        sgd_direction("a run", {"momentum": 0.9, "nesterov": True, "dampening": 0.1})
