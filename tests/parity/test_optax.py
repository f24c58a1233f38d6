"""The recorded optax runs (tests/golden/optax, README-optax.md there), replayed.

Every *.json file of the folder is found by listing, every case in it is a test. A case that names something that is not built fails, as
does a key or a form that this harness does not understand. `FUNCOPT_GOLDEN=DIR` replays another directory of
the same layout.
"""

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import funcopt as fo
from funcopt.core import random as keyed_draws
from tests.parity import spec as specs
from tests.parity.compare import Tolerance, compare_states, compare_trees, search
from tests.parity.encoding import Missing, Named, decode, dtype_of, leaf_tensors, map_leaves, only_keys
from tests.parity.golden import golden_dir, golden_files
from tests.parity.objectives import gradient, objective

FILE_KEYS = {"format", "name", "kind", "optax_version", "jax_version", "inputs", "cases", "shared_inputs", "grads"}
CASE_KEYS = {
    *("id", "dtype", "transform", "inputs", "steps", "params_none", "params_wrapper", "extra_args", "objective", "objective_args"),
    *("init_state", "state", "updates", "params", "watch_state", "watch", "eval_fn", "eval_params", "noise", "noise_std", "noise_draws"),
    *("float32_inside", "tol", "known_bug", "corrected", "grads", "values", "final_value"),
}
EXACT = Tolerance(1e-9, 1e-11)


def recorded_cases() -> Iterator[Any]:
    for path in golden_files("optax"):
        file = json.loads(path.read_text())
        for index, case in enumerate(file["cases"]):
            yield pytest.param(path, index, id=f"{path.stem}-{case.get('id') or case.get('name')}" + ("" if "id" in case else f"-{index}"))


def load(path: Path, cache: dict = {}) -> dict:  # noqa: B006 (one reading per file and process)
    if path not in cache:
        file = json.loads(path.read_text())
        only_keys(path.name, file, FILE_KEYS)
        if file["format"] != 1:
            raise ValueError(f"{path.name}: format {file['format']}, this harness reads format 1")
        cache[path] = file
    return cache[path]


@pytest.mark.parametrize("path, index", list(recorded_cases()))
def test_replays(path, index):
    file = load(path)
    case = file["cases"][index]
    replay = {"transform": replay_transform, "schedules": replay_schedule, "functions": replay_function}
    if file["kind"] not in replay:
        raise ValueError(f"{path.name}: do not understand the kind {file['kind']!r}")
    replay[file["kind"]](file, case)


def test_there_are_recordings():
    assert golden_files("optax"), f"no recorded runs in {golden_dir('optax')}"


def test_a_name_that_is_not_built_fails():
    with pytest.raises(Missing, match=r"not built: scale_by_surprise, surprise"):
        specs.build({"$tx": "chain", "args": [{"$tx": "surprise"}, {"$tx": "scale_by_surprise"}, {"$tx": "identity"}]})


def test_an_unknown_key_is_an_error():
    with pytest.raises(ValueError, match="do not understand the keys"):
        replay_transform({"inputs": {}}, {"id": "a", "dtype": "float64", "surprise": 1})
    with pytest.raises(ValueError, match="do not understand the keys"):
        specs.build({"$tx": "identity", "ns": "optax", "surprise": 1})
    with pytest.raises(ValueError, match="do not understand"):
        decode({"$surprise": 1}, torch.float64)


# ---------------------------------------------------------------------------------------------------- transformations


def replay_transform(file: dict, case: dict) -> None:
    only_keys(f"case {case['id']}", case, CASE_KEYS)
    if "corrected" in case:
        only_keys(f"case {case['id']}: corrected", case["corrected"], {"updates", "params", "state"})
        case = case | case["corrected"]
    dtype = dtype_of(case["dtype"])
    start = file["inputs"][case["inputs"]]
    only_keys(f"inputs {case['inputs']}", start, {"params0", "grads", "objective"})
    params = decode(start["params0"], dtype)
    transform = specs.build(case["transform"], params)
    function = objective(case["objective"], dtype) if "objective" in case else None
    if case.get("params_wrapper") == "lookahead":
        params = specs.find("LookaheadParams").init_synced(params)
    elif "params_wrapper" in case:
        raise ValueError(f"do not understand params_wrapper {case['params_wrapper']!r}")
    evaluate = specs.find(case["eval_fn"]) if "eval_fn" in case else None

    at = Tolerance(case["tol"]["rtol"], case["tol"]["atol"])
    if dtype is torch.bfloat16:
        at = at._replace(dtypes=True)
    elif "bfloat16" in repr(case["transform"]):  # optax rounds the coefficients too
        at = at.at_least(3e-2, 3e-2)._replace(dtypes=True)
    at_params = at.at_least(0.0, 1e-5) if dtype is torch.float32 else at

    state = transform.init(params)
    compare_states("init_state", state, decode(case["init_state"], dtype), at, at_init=True)
    for step in range(case["steps"]):
        where = f"step {step}"
        if function is None:
            updates = decode(start["grads"][step], dtype)
            extra = extra_arguments(case, step, dtype)
        else:
            value, updates = gradient(function, params)
            compare_trees(f"{where}: grads", updates, decode(case["grads"][step], dtype), at)
            compare_trees(f"{where}: value", value, decode(case["values"][step], dtype), at)
            extra = extra_arguments(case, step, dtype) | objective_arguments(case, function, value, updates)
        with recorded_noise(case, step):
            if case.get("params_none"):
                updates, state = transform.update(updates, state, **extra)
            else:
                updates, state = transform.update(updates, state, params, **extra)
        expected = decode(case["updates"][step], dtype)
        compare_trees(f"{where}: updates", updates, expected, at)
        assert [leaf.dtype for leaf in leaf_tensors(updates)] == [leaf.dtype for leaf in leaf_tensors(plain(expected))], (
            f"{where}: dtypes of updates"
        )
        for key in case.get("watch_state", []):
            watched = renamed(search(state, key)) if key == "hyperparams" else search(state, key)
            compare_trees(f"{where}: watch {key}", watched, renamed(decode(case["watch"][key][step], dtype)), at)
        params = fo.apply_updates(params, updates)
    expected = decode(case["params"], dtype)
    compare_trees("params", params, expected, at_params)
    assert [leaf.dtype for leaf in leaf_tensors(params)] == [leaf.dtype for leaf in leaf_tensors(plain(expected))], "dtypes of params"
    compare_states("state", state, decode(case["state"], dtype), at)
    if "final_value" in case:
        compare_trees("final_value", function(params), decode(case["final_value"], dtype), at)
    if evaluate is not None:
        compare_trees("eval_params", evaluate(state, params), decode(case["eval_params"], dtype), at_params)


def extra_arguments(case: dict, step: int, dtype: torch.dtype) -> dict[str, Any]:
    """What is passed beside the gradients; optax's `value` is our `loss`, and both are given (unknown ones are ignored)."""
    extra = {name: decode(per_step[step], dtype) for name, per_step in case.get("extra_args", {}).items()}
    return extra | ({"loss": extra["value"]} if "value" in extra else {})


def objective_arguments(case: dict, function: Any, value: torch.Tensor, grads: Any) -> dict[str, Any]:
    given = {
        "value": lambda: {"value": value, "loss": value},
        "grad": lambda: {"grad": grads},
        "value_fn": lambda: {"value_fn": function},
        "grad_fn": lambda: {"grad_fn": lambda params, i=None: gradient(function, params)[1]},
    }
    only_keys("objective_args", dict.fromkeys(case["objective_args"]), set(given))
    return {name: argument for key in case["objective_args"] for name, argument in given[key]().items()}


def renamed(hyperparams: Any) -> Any:
    """Hyperparameters under our names, and only their values."""
    if not isinstance(hyperparams, dict):
        return hyperparams
    return {{"learning_rate": "lr"}.get(name, name): value for name, value in hyperparams.items()}


def plain(node: Any) -> Any:
    return tuple(plain(part) for part in node.fields.values()) if isinstance(node, Named) else node


class recorded_noise:
    """Hands out one step's recorded draws in place of `core.random.normal`, leaf by leaf (or all at once to a draw of one vector)."""

    def __init__(self, case: dict, step: int) -> None:
        self.draws = None
        if "noise_draws" in case:
            only_keys("noise", {case["noise"]: None}, {"add_noise", "dp", "noisy_sgd"})
            self.draws = leaf_tensors(decode(case["noise_draws"][step], dtype_of(case["dtype"])))

    def normal(self, key: Any, shape: Any = (), *args: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> torch.Tensor:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(shape) == 1 and shape[0] == sum(draw.numel() for draw in self.draws):
            draw, self.draws = torch.cat([draw.reshape(-1) for draw in self.draws]), []
        else:
            draw = self.draws.pop(0)
        assert tuple(draw.shape) == shape, f"recorded noise of shape {tuple(draw.shape)}, asked for {shape}"
        return draw if dtype is None else draw.to(dtype)

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        if self.draws is not None:
            self.patch.setattr(keyed_draws, "normal", self.normal)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self.patch.undo()
        if kind is None:
            assert not self.draws, f"{len(self.draws)} recorded draws were not asked for"


# ------------------------------------------------------------------------------------------------ schedules, functions


def replay_schedule(file: dict, case: dict) -> None:
    only_keys(f"schedule {case['name']}", case, {"name", "kwargs", "schedules", "boundaries", "counts", "values", "dtype_with_int32_count"})
    kwargs = case["kwargs"] if "kwargs" in case else {"schedules": case["schedules"], "boundaries": case["boundaries"]}
    schedule = specs.schedule(case["name"], kwargs)
    expected = torch.tensor([float(value) for value in case["values"]], dtype=torch.float64)
    at = {"rtol": 1e-12, "atol": 1e-15}  # plain float64 arithmetic
    for count in (lambda n: n, lambda n: torch.tensor(n, dtype=torch.int64), lambda n: torch.tensor(n, dtype=torch.int32)):
        values = [schedule(count(n)) for n in case["counts"]]
        assert all(value.shape == () and value.dtype == torch.float64 for value in values)
        torch.testing.assert_close(torch.stack(values), expected, **at)
    torch.testing.assert_close(torch.func.vmap(schedule)(torch.tensor(case["counts"])), expected, **at)


def replay_function(file: dict, case: dict) -> None:
    name = case["name"]
    if "call" in case:
        replay_tree_call(file, case)
    elif name.startswith("projection_"):
        only_keys(name, case, {"name", "x", "kwargs", "out"})
        kwargs = {key: decode(value, torch.float64) for key, value in case["kwargs"].items()}
        compare_trees(name, specs.find(name)(decode(case["x"], torch.float64), **kwargs), decode(case["out"], torch.float64), EXACT)
    elif name in FUNCTIONS:
        FUNCTIONS[name](file, case)
    elif specs.built(name):
        raise ValueError(f"do not know how to replay the function {name!r}")
    else:
        raise Missing(name)


def replay_tree_call(file: dict, case: dict) -> None:
    """A call on `t = optax.tree`, such as t.norm(x, ord=inf)."""
    only_keys(f"tree call {case['name']}", case, {"name", "call", "out"})
    known = {name: decode(value, torch.float64) for name, value in file["shared_inputs"].items()} | {"inf": math.inf}
    call = ast.parse(case["call"], mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == case["name"]

    def value(node: ast.expr) -> Any:
        return known[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

    function = specs.find("tree." + case["name"])
    result = function(*(value(node) for node in call.args), **{keyword.arg: value(keyword.value) for keyword in call.keywords})
    compare_trees(case["call"], result, decode(case["out"], torch.float64), EXACT)


def replay_apply_updates(file: dict, case: dict) -> None:
    only_keys("apply_updates", case, {"name", "params", "updates", "out"})
    params, updates = decode(case["params"], torch.float64), decode(case["updates"], torch.float64)
    compare_trees("apply_updates", fo.apply_updates(params, updates), decode(case["out"], torch.float64), EXACT)


def replay_incremental_update(file: dict, case: dict) -> None:
    only_keys("incremental_update", case, {"name", "new", "old", "step_size", "out"})
    new, old = decode(case["new"], torch.float64), decode(case["old"], torch.float64)
    compare_trees(
        "incremental_update", specs.find("incremental_update")(new, old, case["step_size"]), decode(case["out"], torch.float64), EXACT
    )


def replay_periodic_update(file: dict, case: dict) -> None:
    only_keys("periodic_update", case, {"name", "steps", "update_period", "takes"})
    trees = {"new": {"w": torch.tensor([1.0, 2.0])}, "old": {"w": torch.tensor([3.0, 4.0])}}
    result = specs.find("periodic_update")(trees["new"], trees["old"], torch.tensor(case["steps"]), case["update_period"])
    compare_trees("periodic_update", result, trees[case["takes"]], EXACT)


def replay_safe_norm(file: dict, case: dict) -> None:
    only_keys("safe_norm", case, {"name", "x", "min_norm", "out", "grad"})
    safe_norm = specs.find("safe_norm")
    x = torch.tensor(case["x"], dtype=torch.float64, requires_grad=True)
    result = safe_norm(x, case["min_norm"])
    (slope,) = torch.autograd.grad(result, x)
    compare_trees("safe_norm", result, decode(case["out"], torch.float64), EXACT)
    compare_trees("slope of safe_norm", slope, torch.tensor(case["grad"], dtype=torch.float64), EXACT)


def replay_safe_rms(file: dict, case: dict) -> None:
    only_keys("safe_root_mean_squares", case, {"name", "x", "min_rms", "out"})
    result = specs.find("safe_root_mean_squares")(torch.tensor(case["x"], dtype=torch.float64), case["min_rms"])
    compare_trees("safe_root_mean_squares", result, decode(case["out"], torch.float64), EXACT)


def replay_safe_increment(file: dict, case: dict) -> None:
    only_keys("safe_increment", case, {"name", "count", "dtype", "out"})
    result = specs.find("safe_increment")(torch.tensor(case["count"], dtype=dtype_of(case["dtype"])))
    assert result.dtype == dtype_of(case["dtype"]) and int(result) == case["out"]


def replay_power_iteration(file: dict, case: dict) -> None:
    only_keys("power_iteration", case, {"name", "matrix", "v0", "num_iters", "error_tolerance", "eigenvalue", "abs_eigenvector", "rtol"})
    matrix, start = (torch.tensor(case[name], dtype=torch.float64) for name in ("matrix", "v0"))
    value, vector = specs.find("power_iteration")(matrix, v0=start, num_iters=case["num_iters"], error_tolerance=case["error_tolerance"])
    at = Tolerance(case["rtol"], 0.0)
    compare_trees("eigenvalue", value, decode(case["eigenvalue"], torch.float64), at)
    compare_trees("eigenvector", vector.abs(), torch.tensor(case["abs_eigenvector"], dtype=torch.float64), at)


def replay_global_norm_clip(file: dict, case: dict) -> None:
    only_keys("per_example_global_norm_clip", case, {"name", "l2_norm_clip", "out", "num_clipped"})
    total, clipped = specs.find("per_example_global_norm_clip")(decode(file["grads"], torch.float64), case["l2_norm_clip"])
    compare_trees("sum", total, decode(case["out"], torch.float64), EXACT)
    assert int(clipped) == case["num_clipped"]


def replay_layer_norm_clip(file: dict, case: dict) -> None:
    only_keys("per_example_layer_norm_clip", case, {"name", "global_l2_norm_clip", "uniform", "out", "num_clipped"})
    clip = specs.find("per_example_layer_norm_clip")
    total, clipped = clip(decode(file["grads"], torch.float64), case["global_l2_norm_clip"], uniform=case["uniform"])
    compare_trees("sum", total, decode(case["out"], torch.float64), EXACT)
    compare_trees("number clipped", map_leaves(lambda n: n.to(torch.int64), clipped), decode(case["num_clipped"], torch.int64), EXACT)


FUNCTIONS = {
    "apply_updates": replay_apply_updates,
    "incremental_update": replay_incremental_update,
    "periodic_update": replay_periodic_update,
    "safe_norm": replay_safe_norm,
    "safe_root_mean_squares": replay_safe_rms,
    "safe_increment": replay_safe_increment,
    "power_iteration": replay_power_iteration,
    "per_example_global_norm_clip": replay_global_norm_clip,
    "per_example_layer_norm_clip": replay_layer_norm_clip,
}
