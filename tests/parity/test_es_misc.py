"""Recorded runs of the further estimators: ARS, MeZO, low-rank noise, guided, persistent and noise-reuse evolution strategies."""

import json
from fnmatch import fnmatch

import pytest
import torch
from torch.func import functional_call, vmap

import funcopt as fo
from funcopt.es.noise.guided import guide
from funcopt.es.noise.low_rank import FactorNoise, LowRank
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir

# What of each file is replayed here: the keys of misc.json, patterns of names in strategies_evosax.json.
COVERED = {"misc.json": ("ars", "low_rank", "mezo"), "strategies_evosax.json": ("guided_es*", "persistent_es*", "noise_reuse_es*")}

MISC = json.loads((golden_dir("es") / "misc.json").read_text(encoding="utf-8"))
EVOSAX = json.loads((golden_dir("es") / "strategies_evosax.json").read_text(encoding="utf-8"))
TRACES = [trace for trace in EVOSAX["traces"] if any(fnmatch(trace["name"], name) for name in COVERED["strategies_evosax.json"])]
LAZY = pytest.mark.parametrize("lazy", [True, False, "auto"])


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def recorded(*noise):
    """A law that hands out these noises, one tensor [H, *shape] for each leaf in turn."""
    turn = {}

    def draw(key, leaf, pairs):
        one = turn.setdefault(tuple(key.tolist()), noise[min(len(turn), len(noise) - 1)])
        return one[pairs.start : pairs.stop].reshape(-1, *leaf.shape).to(leaf.dtype)

    return draw


def looked_up(seen, everything, values):
    """The value of that entry of `everything` which is most like `seen`."""
    return values.index_select(0, (everything - seen).square().flatten(1).sum(1).argmin().reshape(1)).reshape(())


def test_all_recorded_ones_are_replayed_somewhere():
    others = {"openai_es", "torchopt", "doc"}  # test_es.py
    assert set(MISC) == others | set(COVERED["misc.json"])
    searches = ("open_es*", "snes*", "pgpe*", "ars*", "simple_es*", "sep_cma_es*", "cma_es*", "xnes*")  # test_es_search.py
    for trace in EVOSAX["traces"]:
        assert any(fnmatch(trace["name"], name) for name in searches + COVERED["strategies_evosax.json"]), trace["name"]


# ------------------------------------------------------------------------------------------------------------------- ARS


@pytest.mark.parametrize("case", MISC["ars"], ids=lambda case: f"{case['deltas_used']} of {case['num_deltas']}")
def test_ars_is_a_shaping_of_es_grad(case):
    only_keys("misc.json, ars", case, {"ascent_direction", "deltas_used", "noise", "num_deltas", "rewards_plus_minus"})
    noise, rewards = tensor(case["noise"]), tensor(case["rewards_plus_minus"]).T.reshape(-1)
    grad = fo.es.grad(
        lambda x: looked_up(x, torch.cat([noise, -noise]), rewards),
        popsize=2 * case["num_deltas"],
        sigma=1.0,
        maximize=True,
        scale="openai",
        shaping=fo.es.shaping("ars", directions=case["deltas_used"]),
        noise=recorded(noise),
    )
    grads, info = grad(torch.zeros(noise.shape[1], dtype=torch.float64), key=0)
    assert torch.equal(info.fitness, rewards)
    torch.testing.assert_close(-grads, tensor(case["ascent_direction"]), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------------ MeZO


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("case", MISC["mezo"], ids=lambda case: f"decay {case['weight_decay']}")
def test_mezo_step(case, donate):
    only_keys(
        "misc.json, mezo", case, {"after", "before", "eps", "losses_plus_minus", "lr", "projected_grad", "target", "weight_decay", "x", "z"}
    )
    assert set(case["before"]) == {"weight", "bias"}
    params = {name: tensor(value) for name, value in case["before"].items()}
    before = fo.tree.clone(params)
    x, target = tensor(case["x"]), tensor(case["target"])
    options = {
        "lr": case["lr"],
        "weight_decay": case["weight_decay"],
        "weight_decay_mask": {"weight": True, "bias": False},
        "noise": {name: recorded(tensor(case["z"][name]).unsqueeze(0)) for name in params},
    }
    net = torch.nn.Linear(*reversed(params["weight"].shape))
    step = fo.es.spsa_step(
        lambda p: torch.nn.functional.mse_loss(functional_call(net, p, (x,)), target), sigma=case["eps"], donate=donate, **options
    )
    after, info = step(params, key=0)
    torch.testing.assert_close(info.fitness, tensor(case["losses_plus_minus"]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(info.projected, tensor([case["projected_grad"]]), rtol=1e-3, atol=1e-4)
    for name, value in case["after"].items():
        torch.testing.assert_close(after[name], tensor(value), rtol=0, atol=2e-5)
    again = fo.es.spsa_replay(before, info.projected, key=0, **options)
    for name in before:
        assert torch.equal(again[name], after[name])
        assert torch.equal(params[name], after[name] if donate else before[name])


# -------------------------------------------------------------------------------------------------------------- low rank


class Recorded(LowRank):
    """Low-rank noise whose factors were recorded, and normal noise that was recorded for the bias."""

    def __init__(self, case, lazy):
        super().__init__(case["rank"], 0, lazy)
        pairs = slice(0, None, 2)  # recorded members 2 j and 2 j + 1 share a draw, the second negated
        A, B, bias = (tensor(case[name])[pairs] for name in ("A_signed", "B", "bias_noise_signed"))
        object.__setattr__(self, "recorded", (FactorNoise(A=A / case["rank"] ** 0.5, B=B), bias))

    def draw(self, key, leaf, pairs, source=None):
        factors, bias = self.recorded
        rows = slice(pairs.start, pairs.stop)
        return FactorNoise(factors.A[rows], factors.B[rows]) if leaf.dim() == 2 else bias[rows]


def is_low_rank(case):
    known = {"A_signed", "B", "W", "b", "bias_noise_signed", "descent_gradient", "group_size", "params_after", "rank", "raw_fitness"}
    only_keys("misc.json, low_rank", case, known | {"sgd_lr", "shaped", "sigma", "x", "y_matmul"})


RANKS = pytest.mark.parametrize("case", MISC["low_rank"], ids=lambda case: f"rank {case['rank']}, groups of {case['group_size']}")


@LAZY
@RANKS
def test_low_rank_forward(case, lazy):
    is_low_rank(case)
    W, x, law = tensor(case["W"]), tensor(case["x"]), Recorded(case, lazy)
    noise, scales = law.draw(None, W, range(len(case["y_matmul"]) // 2)), tensor([case["sigma"], -case["sigma"]])
    y = vmap(lambda eps: vmap(lambda scale: torch.nn.functional.linear(x, law.perturb(W, eps, scale)))(scales))(noise)
    torch.testing.assert_close(y.flatten(0, 1), tensor(case["y_matmul"]), rtol=1e-5, atol=1e-5)


@LAZY
@RANKS
def test_low_rank_gradient_and_update(case, lazy):
    is_low_rank(case)
    params = {"w": tensor(case["W"]), "b": tensor(case["b"])}
    x, raw, sigma, popsize = tensor(case["x"]), tensor(case["raw_fitness"]), case["sigma"], len(case["raw_fitness"])
    ours = [*range(0, popsize, 2), *range(1, popsize, 2)]  # their place of each of our members
    options = {"eps": 1e-5, "eps_in_sqrt": True} | ({"group_size": case["group_size"]} if case["group_size"] else {})
    shape = fo.es.shaping("group_zscore" if case["group_size"] else "zscore", **options)

    def shaped(fitness):
        utilities = shape(fitness[torch.tensor(ours).argsort()])
        torch.testing.assert_close(utilities, tensor(case["shaped"]), rtol=1e-5, atol=1e-6)
        return utilities[ours]

    options = {"popsize": popsize, "sigma": sigma, "maximize": True, "noise": Recorded(case, lazy), "shaping": shaped}
    grad = fo.es.grad(lambda p: looked_up(x @ p["w"].T, tensor(case["y_matmul"]), raw), **options)
    grads, info = grad(params, key=0)
    assert torch.equal(info.fitness, raw[ours])
    theirs = sigma**2 * popsize**0.5  # their descent gradient is ours times this
    for name in ("w", "b"):
        torch.testing.assert_close(theirs * grads[name], tensor(case["descent_gradient"][name]), rtol=1e-5, atol=1e-6)
    sgd = fo.sgd(case["sgd_lr"] * theirs)
    updates, _ = sgd.update(grads, sgd.init(params), params)
    after = fo.apply_updates(params, updates)
    for name in ("w", "b"):
        torch.testing.assert_close(after[name], tensor(case["params_after"][name]), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------- with a state of one's own


def descend(mean, grads, trace):
    sgd = fo.sgd(trace["hyper"]["lr"])
    updates, _ = sgd.update(grads, sgd.init(mean), mean)
    return fo.apply_updates(mean, updates)


def assert_recorded(ours, theirs):
    torch.testing.assert_close(ours, tensor(theirs), rtol=1e-5, atol=1e-6)


FRAME = {"name", "hyper", "params", "mean0", "state0", "generations"}


@pytest.mark.parametrize("trace", [trace for trace in TRACES if trace["name"].startswith("guided")], ids=lambda trace: trace["name"])
def test_guided(trace):
    only_keys(trace["name"], trace, FRAME)
    only_keys(trace["name"], trace["hyper"], {"k", "lr", "note", "std"})
    only_keys(trace["name"], trace["params"], {"alpha", "beta"})
    sigma, mean, half = trace["hyper"]["std"], tensor(trace["mean0"]), EVOSAX["popsize"] // 2
    state = fo.es.surrogates(mean, trace["hyper"]["k"])
    for generation in trace["generations"]:
        state = fo.es.push_surrogate(state, tensor(generation["surrogate_gradient"]))
        assert_recorded(state.gradients.T, generation["subspace"])
        law = fo.es.guided(state, **trace["params"])
        Q, theirs = law.basis(mean.numel(), torch.float64), tensor(generation["Q"])
        assert_recorded(Q @ Q.T, (theirs @ theirs.T).tolist())
        noise = guide(tensor(generation["eps_full"]), tensor(generation["eps_subspace"]), theirs, trace["params"]["alpha"])
        population = torch.cat([mean + sigma * noise, mean - sigma * noise])
        assert_recorded(population, generation["population"])
        assert_recorded(sigma * noise, generation["z"][:half])
        object.__setattr__(law, "draw", lambda key, leaf, pairs, source, noise=noise: noise[pairs.start : pairs.stop])
        grad = fo.es.grad(
            lambda x, population=population, generation=generation: looked_up(x, population, tensor(generation["fitness"])),
            popsize=2 * half,
            sigma=sigma,
            shaping="none",
            noise=law,
        )
        grads, _ = grad(mean, key=0)
        mean = descend(mean, half * grads, trace)  # theirs sums over the pairs
        assert_recorded(mean, generation["state_after"]["mean"])


@pytest.mark.parametrize("trace", [trace for trace in TRACES if not trace["name"].startswith("guided")], ids=lambda trace: trace["name"])
def test_persistent_and_noise_reuse(trace):
    only_keys(trace["name"], trace, FRAME)
    only_keys(trace["name"], trace["hyper"], {"lr", "std"})
    only_keys(trace["name"], trace["params"], {"K", "T"})
    reuse, mean, half = trace["name"].startswith("noise_reuse"), tensor(trace["mean0"]), EVOSAX["popsize"] // 2
    strategy = fo.es.persistent(popsize=2 * half, sigma=trace["hyper"]["std"], reuse=reuse)
    state = strategy.init(mean, key=0)
    for generation in trace["generations"]:
        before, after = generation["state_before_tell"], generation["state_after"]
        e, state = strategy.ask(state, mean, tensor(generation["z"])[:half])
        assert_recorded(torch.cat([mean + e, mean - e]), generation["population"])
        assert_recorded(torch.cat([state.xi, -state.xi]), before["pert" if reuse else "pert_accum"])
        ended = before["inner_step_counter"] + trace["params"]["K"] >= trace["params"]["T"]
        grads, state = strategy.tell(state, tensor(generation["fitness"]), torch.full((half,), ended))
        assert state.age.eq(0).all() == (after["inner_step_counter"] == 0)
        mean = descend(mean, grads, trace)
        assert_recorded(mean, after["mean"])
