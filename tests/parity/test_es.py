"""Evolution strategies against recorded runs: keys and numbers, pytorch-optimize's traces, and estimators of others on recorded noise.

Shaping is in test_es_shaping.py, searches in test_es_search.py, environments in test_es_envs.py, low rank, ARS and MeZO in test_es_misc.py.
"""

import json

import pytest
import torch

import funcopt as fo
from funcopt.core.random import philox
from tests.helpers import assert_trees_close
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir, golden_files

UNDERSTOOD = {"envs", "misc", "philox", "pytorch_optimize", "shaping", "strategies_evosax", "strategies_evotorch"}
PHILOX = json.loads((golden_dir("es") / "philox.json").read_text(encoding="utf-8"))
TRACES = json.loads((golden_dir("es") / "pytorch_optimize.json").read_text(encoding="utf-8"))
MISC = json.loads((golden_dir("es") / "misc.json").read_text(encoding="utf-8"))
BY_TRACE = pytest.mark.parametrize("trace", TRACES["traces"], ids=lambda trace: trace["name"])
BY_KEY = pytest.mark.parametrize("case", PHILOX["keys"], ids=lambda case: "-".join(case["key"]))


def signed(words):
    """The int64 with the bits of each uint64, written as a decimal string."""
    return torch.tensor([(int(word) + 2**63) % 2**64 - 2**63 for word in words])


def test_knows_every_file_that_was_recorded():
    unknown = {file.stem for file in golden_files("es")} - UNDERSTOOD
    assert not unknown, f"no test replays {sorted(unknown)}"


def test_knows_everything_that_was_recorded():
    only_keys("philox.json", PHILOX, {"doc", "known_answers", "note", "keys"})
    for case in PHILOX["keys"]:
        only_keys("philox.json, a key", case, {"key", "words_at_0", "split3", "fold_in", "normal13", "uniform6"})


@pytest.mark.parametrize("case", PHILOX["known_answers"], ids=lambda case: f"{case['counter'][0]:x}")
def test_cipher_gives_the_known_answers(case):
    schedule = philox.key_schedule(*case["key"])
    assert list(philox.rounds(*case["counter"], schedule)) == case["output"]
    tensors = philox.rounds(*torch.tensor(case["counter"]), philox.key_schedule(*torch.tensor(case["key"])))
    assert [word.item() for word in tensors] == case["output"]


@BY_KEY
def test_words_and_keys(case):
    key = signed(case["key"])
    assert fo.random.bits(key, 4).tolist() == case["words_at_0"]
    assert torch.equal(fo.random.split(key, 3), torch.stack([signed(pair) for pair in case["split3"]]))
    for i, expected in case["fold_in"].items():
        assert torch.equal(fo.random.fold_in(key, int(i)), signed(expected))
        assert torch.equal(torch.func.vmap(fo.random.fold_in)(key[None], torch.tensor([int(i)]))[0], signed(expected))


@BY_KEY
def test_uniforms_are_exact_and_normals_close(case):
    key = signed(case["key"])
    assert fo.random.uniform(key, 6).tolist() == case["uniform6"]
    torch.testing.assert_close(fo.random.normal(key, 13), torch.tensor(case["normal13"]), rtol=0, atol=2e-6)


# -------------------------------------------------------------------------------------------------------- pytorch-optimize


def recorded_noise(rows, like):
    """A law for each leaf of `like` that hands out its part of the rows [h, n], whose columns are the leaves in their order."""
    laws, start = {}, 0
    for name, leaf in like.items():
        part = rows[:, start : start + leaf.numel()].reshape(len(rows), *leaf.shape)
        laws[name] = lambda key, leaf, pairs, part=part: part[pairs.start : pairs.stop].to(leaf.dtype)
        start += leaf.numel()
    assert start == rows.shape[1]
    return laws


def tensors(record, like=None):
    """Recorded parameters, flat or in their shapes."""
    shapes = {name: like[name].shape for name in record} if like else {}
    return {
        name: torch.tensor(values, dtype=torch.float32).reshape(shapes.get(name, torch.tensor(values).shape))
        for name, values in record.items()
    }


def one_step(trace, number, params, make):
    """The gradient that `make(objective, noise, step)` gives at a recorded step, and the step itself."""
    step = trace["steps"][number]
    names = [name for name in params if step["layer"] == "all" or name.split(".")[0] == step["layer"]]
    noise = recorded_noise(torch.tensor(step["noise"]), {name: params[name] for name in names})
    laws = {name: noise.get(name, "normal") for name in params}
    objectives = torch.tensor(step["objectives"], dtype=torch.float64)
    grads, info = make(lambda population: objectives, laws, number)(params, key=0, step=number)
    assert torch.equal(info.fitness, objectives)
    # The gradient that minimises; they return the one that ascends, as a column in the order of the layer.
    ours = torch.cat([-grads[name].reshape(-1) for name in names])
    expected = torch.tensor(step["returned_gradient"], dtype=torch.float32)
    assert list(step["returned_shape"]) == [len(expected), 1] or list(step["returned_shape"])[0] == len(expected)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)
    assert all((grads[name] == 0).all() for name in params if name not in names)
    return grads, step


def strategy_of(trace):
    """Their RANDOM draws from numpy's generator: the layers are taken from the record."""
    if trace["strategy"] == "RANDOM":
        return lambda step: trace["steps"][step]["layer"]
    return {"ALL": "all", "BOTTOM_UP": "bottom_up", "TOP_DOWN": "top_down"}[trace["strategy"]]


def test_knows_everything_that_pytorch_optimize_recorded():
    only_keys("pytorch_optimize.json", TRACES, {"doc", "traces"})
    known = {"name", "strategy", "n_samples", "sigma", "weights", "lr", "momentum", "dims", "layers", "params_before", "x", "steps"}
    in_a_step = {"layer", "noise", "objectives", "returned_gradient", "returned_shape", "grad_after", "params_after"}
    for trace in TRACES["traces"]:
        only_keys(trace["name"], trace, known)
        for step in trace["steps"]:
            only_keys(f"{trace['name']}, a step", step, in_a_step)


@BY_TRACE
def test_groups_are_the_layers_of_pytorch_optimize_in_their_order(trace):
    params = tensors(trace["params_before"])
    groups = fo.es.compat.layer_groups(params)
    assert list(groups.items()) == [(name, [member for member, _ in members]) for name, members in trace["layers"].items()]
    blocks = fo.es.layers(strategy_of(trace))
    for number, step in enumerate(trace["steps"]):
        chosen = [name for name, kept in blocks(number, params).items() if kept]
        assert set(chosen) == set(params if step["layer"] == "all" else groups[step["layer"]])


@BY_TRACE
def test_gradients_of_pytorch_optimize(trace):
    params = tensors(trace["params_before"])

    def by_compat(objective, noise, step):
        return fo.es.compat.grad(
            objective,
            n_samples=trace["n_samples"],
            sigma=trace["sigma"],
            obj_weights=trace["weights"],
            strategy=strategy_of(trace),
            noise=noise,
            vectorize="external",
        )

    def by_layerwise(objective, noise, step):
        settings = {
            "popsize": trace["n_samples"],
            "sigma": trace["sigma"],
            "weights": trace["weights"],
            "noise": noise,
            "vectorize": "external",
        }
        return fo.es.layerwise(objective, strategy=strategy_of(trace), tie="last", scale="inverse_sigma", **settings)

    def by_grad(objective, noise, step):
        mask = fo.es.layers(strategy_of(trace))(step)
        settings = {
            "popsize": trace["n_samples"],
            "sigma": trace["sigma"],
            "weights": trace["weights"],
            "noise": noise,
            "vectorize": "external",
        }
        estimate = fo.es.grad(
            objective, maximize=True, shaping="centered_rank", tie="last", scale="inverse_sigma", antithetic=True, mask=mask, **settings
        )
        return lambda params, key, step: estimate(params, key=key)

    for number, step in enumerate(trace["steps"]):
        for make in (by_compat,) if trace["n_samples"] % 2 else (by_compat, by_layerwise, by_grad):
            one_step(trace, number, params, make)
        params = tensors(step["params_after"], params)


@BY_TRACE
def test_feeding_sgd_follows_pytorch_optimize_step_by_step(trace):
    # Where a group is not chosen in a step, theirs goes on with its old gradient: such runs are followed up to the second step.
    params = tensors(trace["params_before"])
    tx = fo.es.only_selected(fo.sgd(trace["lr"], momentum=trace["momentum"] or None))
    state = tx.init(params)
    steps = trace["steps"] if trace["strategy"] == "ALL" else trace["steps"][:1]
    for number in range(len(steps)):
        settings = {"n_samples": trace["n_samples"], "sigma": trace["sigma"], "obj_weights": trace["weights"], "vectorize": "external"}
        grads, step = one_step(
            trace,
            number,
            params,
            lambda objective, noise, n, settings=settings: fo.es.compat.grad(
                objective, strategy=strategy_of(trace), noise=noise, **settings
            ),
        )
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)
        assert_trees_close(params, tensors(step["params_after"], params), rtol=3e-5, atol=3e-5)


RANKED = [
    case for case in json.loads((golden_dir("es") / "shaping.json").read_text(encoding="utf-8"))["cases"] if "pytorch_optimize_rank" in case
]


@pytest.mark.parametrize("case", RANKED, ids=lambda case: case["name"])
def test_ranks_of_pytorch_optimize(case):
    fitness = torch.tensor([float(value) for value in case["fitness"]], dtype=torch.float64)
    expected = torch.tensor([float(value) for value in case["pytorch_optimize_rank"]], dtype=torch.float64)
    torch.testing.assert_close(fo.es.compat.centered_rank_shared_ties(fitness), expected, rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------------------------------------- estimators of others


def test_knows_everything_that_other_estimators_recorded():
    only_keys("misc.json", MISC, {"doc", "openai_es", "ars", "mezo", "low_rank", "torchopt"})
    for run in MISC["openai_es"]:
        only_keys("misc.json, openai_es", run, {"config", "iterations", "l2coeff", "optimizer", "theta0"})
        only_keys("misc.json, openai_es, config", run["config"], {"stepsize"})
        for iteration in run["iterations"]:
            known = {"ascent_gradient", "noise", "processed", "returns_plus_minus", "theta", "update_ratio"}
            only_keys("misc.json, openai_es, an iteration", iteration, known)
    for case in MISC["torchopt"]:
        only_keys("misc.json, torchopt", case, {"c", "correct", "f", "gradient", "method", "noise", "num_samples", "sigma", "x"})


@pytest.mark.parametrize("run", MISC["openai_es"], ids=lambda run: f"{run['optimizer']}-{run['l2coeff']}")
def test_iterations_of_openai(run):
    theta = torch.tensor(run["theta0"], dtype=torch.float64)
    lr = run["config"]["stepsize"]
    direction = {"SGD": fo.ema(0.9, debias=False), "Adam": fo.scale_by_adam(0.9, 0.999, 1e-8)}[run["optimizer"]]
    tx = fo.chain(fo.add_decayed_weights(run["l2coeff"]), direction, fo.lr_scale(lr))
    state = tx.init(theta)
    for iteration in run["iterations"]:
        noise = torch.tensor(iteration["noise"], dtype=torch.float64)
        returns = torch.tensor(iteration["returns_plus_minus"], dtype=torch.float64).t().reshape(-1)
        settings = {
            "popsize": 2 * len(noise),
            "sigma": 0.02,
            "maximize": True,
            "scale": "openai",
            "tie": "ordinal",
            "vectorize": "external",
        }
        grads, _ = fo.es.grad(
            lambda stack, returns=returns: returns, noise=lambda key, leaf, pairs, noise=noise: noise[pairs.start : pairs.stop], **settings
        )(theta, key=0)
        torch.testing.assert_close(-grads, torch.tensor(iteration["ascent_gradient"], dtype=torch.float64), rtol=1e-5, atol=1e-6)
        utilities = fo.es.shaping("centered_rank")(returns).reshape(2, -1).t()
        torch.testing.assert_close(utilities, torch.tensor(iteration["processed"], dtype=torch.float64), rtol=1e-5, atol=1e-6)
        updates, state = tx.update(grads, state, theta)
        ratio = updates.norm() / theta.norm()
        torch.testing.assert_close(ratio.item(), iteration["update_ratio"], rtol=1e-4, atol=1e-7)
        theta = fo.apply_updates(theta, updates)
        torch.testing.assert_close(theta, torch.tensor(iteration["theta"], dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", MISC["torchopt"], ids=lambda case: f"{case['method']}-{case['num_samples']}")
def test_zero_order_gradients_of_torchopt(case):
    assert case["f"] == "sum(c*x)+sum(x^3)"
    x, c, noise = (torch.tensor(case[name], dtype=torch.float64) for name in ("x", "c", "noise"))

    def f(x):
        return (c * x).sum() + (x**3).sum()

    method = {"naive": {"antithetic": False}, "forward": {"antithetic": False, "baseline": "center"}, "antithetic": {}}[case["method"]]
    popsize = case["num_samples"] * (2 if case["method"] == "antithetic" else 1)
    settings = {
        "popsize": popsize,
        "sigma": case["sigma"],
        "shaping": "none",
        "noise": lambda key, leaf, pairs: noise[pairs.start : pairs.stop],
        **method,
    }
    grads, _ = fo.es.grad(f, **settings)(x, key=0)
    recorded = torch.tensor(case["gradient"], dtype=torch.float64)
    if case["correct"]:
        torch.testing.assert_close(grads, recorded, rtol=1e-5, atol=1e-6)
    else:  # theirs multiplies by sigma and loses its reference value after the first sample
        assert case["method"] == "forward"
        by_hand = torch.stack([(f(x + case["sigma"] * eps) - f(x)) / case["sigma"] * eps for eps in noise]).mean(0)
        torch.testing.assert_close(grads, by_hand, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(grads, recorded, rtol=1e-3)
    inside = x.clone().requires_grad_()
    fo.es.differentiable(f, **settings)(inside, key=0).backward()
    torch.testing.assert_close(inside.grad, grads, rtol=1e-12, atol=1e-12)
