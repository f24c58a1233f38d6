"""The searches against recorded generations of evosax and EvoTorch.

Every generation is told the recorded population (or noise) and fitness, from our own state of the generation before. EvoTorch's
pairs are interleaved, ours are blocks; EvoTorch's distributions sum where PGPE takes means. Guided, persistent and noise-reuse ES
are estimators, and replayed with them.
"""

import json
import math

import pytest
import torch

import funcopt as fo
from tests.parity.encoding import only_keys
from tests.parity.golden import golden_dir
from tests.parity.sgd import sgd_direction


def read(name):
    return json.loads((golden_dir("es") / name).read_text(encoding="utf-8"))


EVOSAX, EVOTORCH = read("strategies_evosax.json"), read("strategies_evotorch.json")
ESTIMATORS = ("guided_es", "persistent_es", "noise_reuse_es")
SEARCHES = [trace for trace in EVOSAX["traces"] if not trace["name"].startswith(ESTIMATORS)]
RANKINGS = {"centered": "centered_rank", "linear": "linear_rank", "nes": "nes", "raw": "none"}
EVOSAX_SHAPINGS = {
    "centered_rank": ("centered_rank", {}),
    "none": ("none", {}),
    "standardize": ("zscore", {"eps_in_sqrt": True}),
    "normalize": ("minmax", {}),
}


def numbers(values):
    """float() reads "nan" and "inf" too."""
    if isinstance(values, list):
        return torch.stack([numbers(value) for value in values])
    return torch.tensor(float(values), dtype=torch.float64)


def close(ours, recorded, tolerance, where):
    torch.testing.assert_close(ours, numbers(recorded), rtol=tolerance, atol=tolerance, msg=lambda text: f"{where}: {text}")


def blocks(rows):
    """Interleaved pairs as a block of first and a block of second members."""
    return torch.cat([rows[0::2], rows[1::2]])


# ------------------------------------------------------------------------------------------------------------ evosax


def evosax_search(trace):
    """Our search for a trace, and its fields: recorded name -> what it is of our state."""
    name, hyper, params, popsize = trace["name"], trace["hyper"], trace["params"], EVOSAX["popsize"]
    if name.startswith("open_es"):
        only_keys(name, hyper, {"lr", "adam_lr", "std", "shaping"})
        shaping, options = EVOSAX_SHAPINGS[hyper["shaping"]]
        optimizer = fo.adam(hyper["adam_lr"]) if "adam_lr" in hyper else fo.sgd(hyper["lr"])
        shape = fo.es.shaping(shaping, **options)
        return fo.es.openai_es(popsize, hyper["std"], optimizer=optimizer, shaping=shape, antithetic="noantithetic" not in name), {}
    if name == "snes":
        only_keys(name, params, {"std_init", "weights", "lr_std_init"})
        return fo.es.snes(popsize, params["std_init"], sigma_lr=params["lr_std_init"]), {"std": lambda state: state.sigma}
    if name == "pgpe_sgd":
        only_keys(name, hyper, {"lr", "shaping"})
        only_keys(name, params, {"std_init", "std_lr", "std_max_change"})
        search = fo.es.pgpe(
            popsize,
            params["std_init"],
            sigma_lr=params["std_lr"],
            sigma_max_change=params["std_max_change"],
            optimizer=fo.sgd(hyper["lr"]),
            shaping=hyper["shaping"],
        )
        return search, {"std": lambda state: state.sigma}
    if name == "ars_sgd":
        only_keys(name, hyper, {"lr", "std", "elite_directions"})
        return fo.es.ars(popsize, hyper["std"], directions=hyper["elite_directions"], optimizer=fo.sgd(hyper["lr"]), exact=True), {}
    if name == "simple_es":
        only_keys(name, params, {"std_init", "weights", "c_std"})
        rho = sum(weight > 0 for weight in params["weights"]) / popsize
        return fo.es.simple_es(popsize, params["std_init"], rho=rho, sigma_lr=params["c_std"]), {"std": lambda state: state.sigma}
    if name in ("sep_cma_es", "cma_es"):
        only_keys(
            name, params, {"std_init", "std_min", "std_max", "weights", "mu_eff", "c_mean", "c_std", "d_std", "c_c", "c_1", "c_mu", "chi_n"}
        )
        fields = {"std": lambda state: state.sigma, "p_c": lambda state: state.p_c, "C": lambda state: state.covariance}
        if name == "sep_cma_es":
            return fo.es.sep_cma_es(popsize, params["std_init"], variant="evosax"), fields | {"p_std": lambda state: state.p_sigma}
        return fo.es.cma_es(popsize, params["std_init"], variant="evosax"), fields | {"p_std": lambda state: state.p_sigma}
    if name == "xnes_evosax_variant":
        return fo.es.xnes(popsize, params["std_init"], factor_lr=(9 + 3 * math.log(EVOSAX["dim"])) / (5 * EVOSAX["dim"] ** 1.5)), {}
    raise ValueError(f"strategies_evosax.json: do not understand the trace {name!r}")


def test_knows_everything_that_was_recorded():
    only_keys("strategies_evosax.json", EVOSAX, {"doc", "evosax", "dim", "popsize", "traces"})
    only_keys(
        "strategies_evotorch.json",
        EVOTORCH,
        {"doc", "evotorch", "dim", "popsize", "pgpe", "cem", "distributions", "cmaes", "center_optimizers"},
    )
    generation = {"z", "population", "fitness", "state_before_tell", "state_after"}
    for trace in SEARCHES:
        only_keys(trace["name"], trace, {"name", "hyper", "params", "mean0", "state0", "generations"})
        for record in trace["generations"]:
            only_keys(trace["name"], record, generation)
            evosax_search(trace)


@pytest.mark.parametrize("trace", [trace for trace in SEARCHES if trace["name"] != "xnes_evosax_variant"], ids=lambda trace: trace["name"])
def test_evosax(trace):
    search, fields = evosax_search(trace)
    state = search.init(numbers(trace["mean0"]), 0)
    for number, record in enumerate(trace["generations"]):
        where = f"{trace['name']}, generation {number}"
        population, state = search.ask(state)
        if trace["name"] != "cma_es":  # its z are in the coordinates of an eigenbasis, whose signs are anybody's
            close(population.members(numbers(record["z"])), record["population"], 1e-5, where)
        state = search.tell(state, numbers(record["fitness"]), population=numbers(record["population"]))
        close(search.center(state), record["state_after"]["mean"], 1e-5, where)
        for name, ours in fields.items():
            close(ours(state), record["state_after"][name], 1e-5, f"{where}, {name}")


def test_xnes_differs_from_the_element_wise_exponential_that_evosax_takes():
    (trace,) = (trace for trace in SEARCHES if trace["name"] == "xnes_evosax_variant")
    search, _ = evosax_search(trace)
    record = trace["generations"][0]
    state = search.tell(search.init(numbers(trace["mean0"]), 0), numbers(record["fitness"]), noise=numbers(record["z"]))
    if trace["params"]["std_init"] == 1:  # it counts twice there
        close(search.center(state), record["state_after"]["mean"], 1e-5, "the mean does not depend on the exponential")
    theirs = record["state_after"]["std"] * numbers(record["state_after"]["B"])
    off_diagonal = ~torch.eye(len(theirs), dtype=torch.bool)
    assert (theirs[off_diagonal] == 0).all()  # a zero times anything: an element-wise product never fills them
    assert state.factor[off_diagonal].abs().max() > 1e-4
    z, utilities = numbers(record["z"]), fo.es.shaping("nes")(-numbers(record["fitness"]))
    moment = sum(u * (torch.outer(row, row) - torch.eye(len(row))) for u, row in zip(utilities, z, strict=True))
    rate = (9 + 3 * math.log(EVOSAX["dim"])) / (5 * EVOSAX["dim"] ** 1.5)
    torch.testing.assert_close(state.factor, trace["params"]["std_init"] * torch.linalg.matrix_exp(rate / 2 * moment))


# ---------------------------------------------------------------------------------------------------------- EvoTorch


@pytest.mark.parametrize("trace", EVOTORCH["pgpe"], ids=lambda trace: f"{trace['symmetric']}-{trace['ranking']}-{trace['sense']}")
def test_evotorch_pgpe(trace):
    only_keys(
        "pgpe",
        trace,
        {"symmetric", "ranking", "sense", "center0", "stdev0", "center_lr", "stdev_lr", "stdev_max_change", "optimizer", "generations"},
    )
    search = fo.es.pgpe(
        EVOTORCH["popsize"],
        trace["stdev0"],
        sigma_lr=trace["stdev_lr"],
        sigma_max_change=trace["stdev_max_change"],
        optimizer={"sgd": fo.sgd, "adam": fo.adam, "clipup": fo.es.clipup}[trace["optimizer"]](trace["center_lr"]),
        antithetic=trace["symmetric"],
        shaping=RANKINGS[trace["ranking"]],
        maximize=trace["sense"] == "max",
    )
    order = blocks if trace["symmetric"] else lambda rows: rows
    state = search.init(numbers(trace["center0"]), 0)
    for number, record in enumerate(trace["generations"]):
        only_keys("pgpe", record, {"z", "population", "fitness", "center", "stdev"})
        population, state = search.ask(state)
        close(population.members(numbers(record["z"])), record["population"], 1e-8, f"generation {number}, population")
        state = search.tell(state, order(numbers(record["fitness"])), population=order(numbers(record["population"])))
        close(search.center(state), record["center"], 1e-8, f"generation {number}, center")
        close(state.sigma, record["stdev"], 1e-8, f"generation {number}, sigma")


@pytest.mark.parametrize("trace", EVOTORCH["cem"], ids=lambda trace: f"{trace['sense']}-{trace['parenthood_ratio']}")
def test_evotorch_cem(trace):
    only_keys("cem", trace, {"sense", "parenthood_ratio", "center0", "stdev0", "stdev_max_change", "generations"})
    search = fo.es.cem(
        EVOTORCH["popsize"],
        trace["stdev0"],
        rho=trace["parenthood_ratio"],
        sigma_max_change=trace["stdev_max_change"],
        maximize=trace["sense"] == "max",
    )
    state = search.init(numbers(trace["center0"]), 0)
    for number, record in enumerate(trace["generations"]):
        only_keys("cem", record, {"population", "fitness", "center", "stdev"})
        state = search.tell(state, numbers(record["fitness"]), population=numbers(record["population"]))
        close(search.center(state), record["center"], 1e-8, f"generation {number}, center")
        close(state.sigma, record["stdev"], 1e-8, f"generation {number}, sigma")


def distribution_search(trace):
    """SNES, xNES, or PGPE with the sums of EvoTorch's distributions in place of its means."""
    kind, popsize = trace["class"], EVOTORCH["popsize"]
    shaping, lr, sigma_lr, sigma0 = RANKINGS[trace["ranking"]], trace["lr_mu"], trace["lr_sigma"], numbers(trace["sigma0"])
    if kind == "ExpSeparableGaussian":
        return fo.es.snes(popsize, sigma0, lr=lr, sigma_lr=sigma_lr, shaping=shaping, maximize=True)
    if kind == "ExpGaussian":
        return fo.es.xnes(popsize, sigma0, lr=lr, factor_lr=sigma_lr, shaping=shaping, maximize=True)
    rows = {"SeparableGaussian": popsize, "SymmetricSeparableGaussian": popsize // 2}[kind]
    return fo.es.pgpe(
        popsize,
        sigma0,
        sigma_lr=sigma_lr * rows,
        sigma_max_change=None,
        optimizer=fo.sgd(lr * rows),
        antithetic=kind.startswith("Symmetric"),
        shaping=shaping,
        maximize=True,
    )


@pytest.mark.parametrize("trace", EVOTORCH["distributions"], ids=lambda trace: f"{trace['class']}-{trace['ranking']}")
def test_evotorch_distributions(trace):
    only_keys("distributions", trace, {"class", "ranking", "mu0", "sigma0", "lr_mu", "lr_sigma", "generations"})
    search = distribution_search(trace)
    order = blocks if trace["class"].startswith("Symmetric") else lambda rows: rows
    state = search.init(numbers(trace["mu0"]), 0)
    for number, record in enumerate(trace["generations"]):
        only_keys("distributions", record, {"z", "population", "fitness", "gradients", "mu", "sigma"})
        population, state = search.ask(state)
        close(population.members(numbers(record["z"])), record["population"], 1e-8, f"generation {number}, population")
        state = search.tell(state, order(numbers(record["fitness"])), noise=order(numbers(record["z"])))
        close(search.center(state), record["mu"], 1e-8, f"generation {number}, mu")
        close(state.factor if hasattr(state, "factor") else state.sigma, record["sigma"], 1e-8, f"generation {number}, sigma")


@pytest.mark.parametrize("trace", EVOTORCH["cmaes"], ids=lambda trace: f"{'separable' if trace['separable'] else 'full'}-{trace['active']}")
def test_evotorch_cma_es(trace):
    only_keys("cmaes", trace, {"separable", "active", "m0", "sigma0", "hyper", "generations"})
    make = fo.es.sep_cma_es if trace["separable"] else fo.es.cma_es
    search = make(EVOTORCH["popsize"], trace["sigma0"], variant="pycma", active=trace["active"])
    state = search.init(numbers(trace["m0"]), 0)
    for number, record in enumerate(trace["generations"]):
        only_keys("cmaes", record, {"z", "fitness", "population", "m", "sigma", "C", "A", "p_sigma", "p_c"})
        population, state = search.ask(state)
        close(population.members(numbers(record["z"])), record["population"], 1e-6, f"generation {number}, population")
        state = search.tell(state, numbers(record["fitness"]), noise=numbers(record["z"]))
        fields = {"m": state.mean, "sigma": state.sigma, "C": state.covariance, "p_sigma": state.p_sigma, "p_c": state.p_c}
        fields["A"] = state.covariance.sqrt() if trace["separable"] else state.factor
        for name, ours in fields.items():
            close(ours, record[name], 1e-6, f"generation {number}, {name}")


@pytest.mark.parametrize("trace", EVOTORCH["center_optimizers"], ids=lambda trace: trace["name"])
def test_evotorch_center_optimizers(trace):
    only_keys("center_optimizers", trace, {"name", "center0", "lr", "config", "steps"})
    config = trace["config"]
    if trace["name"] == "clipup":
        only_keys("clipup", config, {"max_speed", "momentum"})
        optimizer = fo.es.clipup(trace["lr"], **config)
    elif trace["name"] == "sgd":
        optimizer = fo.chain(sgd_direction("center_optimizers", config), fo.lr_scale(trace["lr"]))
    else:
        only_keys("adam", config, set())
        optimizer = {"adam": fo.adam}[trace["name"]](trace["lr"])
    center = numbers(trace["center0"])
    state = optimizer.init(center)
    for number, step in enumerate(trace["steps"]):
        only_keys("center_optimizers", step, {"ascent_gradient", "center"})
        updates, state = optimizer.update(-numbers(step["ascent_gradient"]), state, center)
        center = fo.apply_updates(center, updates)
        close(center, step["center"], 1e-8, f"step {number}")
