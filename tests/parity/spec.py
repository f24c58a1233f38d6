"""From the JSON description of a transformation (SPEC) to the transformation.

`names(spec)` lists what a description needs, in our names; `built(name)` says whether it is there; `build(spec, ...)` makes it.
The mapping of names and of the few calls that differ on purpose is all in this file (docs/from-optax.md tells the reasons):

    learning_rate -> lr            mask -> weight_decay_mask (on optimizers)       scale_by_learning_rate -> lr_scale (no flip: scale)
    weight_decay_rate -> weight_decay        adam_learning_rate -> adam_lr         scale_by_sign -> sign,  MultiSteps -> multi_steps
    muon: optax's (in, out) dimension numbers passed explicitly; adaptive_grad_clip: optax's axes passed as a function
"""

import inspect
from typing import Any

import torch

import funcopt as fo
from tests.parity.encoding import Missing, dtype_of, map_leaves, only_keys

__all__ = ["build", "built", "find", "names", "our_argument", "our_name"]

RENAMED = {"scale_by_learning_rate": "lr_scale", "scale_by_sign": "sign", "MultiSteps": "multi_steps"}
OWN = {"explicit_hessian"}  # stand-ins that the harness itself provides


# --------------------------------------------------------------------------------------------------------------- names


def our_name(name: str) -> str:
    return RENAMED.get(name, name)


def homes(name: str) -> list[tuple[Any, str]]:
    """Where a function of this name may live, and what it is called there."""
    head, _, tail = name.partition(".")
    if head == "tree":
        return [(fo.tree, tail), (fo.moments, tail)]
    if tail:
        return [(getattr(fo, head, None), tail)]
    return [(home, name) for home in (fo, getattr(fo, "projections", None), getattr(fo, "numerics", None)) if home is not None]


def built(name: str) -> bool:
    return name in OWN or name in RESHAPED or any(_here(*home) for home in homes(name))


def _here(home: Any, name: str) -> bool:
    return callable(getattr(home, name, None)) and name in getattr(home, "__all__", (name,))


def find(name: str) -> Any:
    """The function of this (our) name; `Missing` when nobody has built it."""
    if name in RESHAPED:
        return RESHAPED[name]
    for home, name_there in homes(name):
        if _here(home, name_there):
            return getattr(home, name_there)
    raise Missing(name)


def _bias_corrected(moment: Any, decay: float, count: int) -> Any:
    correction = fo.moments.bias_correction(torch.tensor(count), decay)
    return fo.tree.map(lambda m: m / correction[0], moment)


RESHAPED = {"tree.bias_correction": _bias_corrected}  # ours gives the divisors of several decays at once


def names(spec: Any) -> set[str]:
    """Every function of ours that building this description needs."""
    if isinstance(spec, list):
        return set().union(*(names(part) for part in spec)) if spec else set()
    if not isinstance(spec, dict):
        return set()
    if "$tx" in spec:
        found = {our_name(spec["$tx"])}
        if spec["$tx"] == "scale_by_learning_rate" and spec.get("kwargs", {}).get("flip_sign") is False:
            found = {"scale_by_schedule" if isinstance(spec["args"][0], dict) else "scale"}
        if "factory" in spec:
            found.add(our_name(spec["factory"]["name"]))
        return found | names(spec.get("args", [])) | names(spec.get("kwargs", {}))
    if "$schedule" in spec:
        return {"schedules." + spec["$schedule"]} | names(spec.get("kwargs", {}))
    if "$fn" in spec:
        return {spec["$fn"]} if spec["$fn"] in SKIP_RULES else set()
    if "$tree" in spec:
        return {"MuonDimensionNumbers"} if "$muon_dims" in repr(spec) else set()
    if any(key.startswith("$") for key in spec):
        return set()
    return set().union(*(names(part) for part in spec.values())) if spec else set()


# ------------------------------------------------------------------------------------------------------------ building


def build(spec: Any, params: Any = None) -> Any:
    """What the description says, made of our functions. `params` only serve calls that must be given a tree of our own."""
    if isinstance(spec, list):
        return [build(part, params) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if "$tx" in spec:
        return _transformation(spec, params)
    if "$schedule" in spec:
        only_keys("schedule", spec, {"$schedule", "kwargs", "args"})
        return schedule(spec["$schedule"], spec.get("kwargs", {}), spec.get("args", []))
    if "$fn" in spec:
        only_keys("function", spec, {"$fn", "kwargs"})
        if spec["$fn"] not in FUNCTIONS:
            raise ValueError(f"recorded data: do not know the function {spec['$fn']!r}")
        return FUNCTIONS[spec["$fn"]](**spec.get("kwargs", {}))
    if "$tree" in spec:
        only_keys("tree", spec, {"$tree"})
        return _literal(spec["$tree"])
    if "$dtype" in spec:
        only_keys("dtype", spec, {"$dtype"})
        return dtype_of(spec["$dtype"])
    if "$tuple" in spec:
        only_keys("tuple", spec, {"$tuple"})
        return tuple(build(part, params) for part in spec["$tuple"])
    strange = [key for key in spec if key.startswith("$")]
    if strange:
        raise ValueError(f"recorded data: do not understand {strange}")
    return {label: build(part, params) for label, part in spec.items()}


def schedule(name: str, kwargs: dict, args: list = ()) -> Any:
    kwargs = dict(kwargs)
    for key in ("boundaries_and_scales",):
        if kwargs.get(key) is not None:
            kwargs[key] = {int(boundary): scale for boundary, scale in kwargs[key].items()}
    if "schedules" in kwargs:
        kwargs["schedules"] = [
            build(part) if "$schedule" in part else schedule(part["name"], part["kwargs"]) for part in kwargs["schedules"]
        ]
    return find("schedules." + name)(*args, **kwargs)


def _literal(tree: Any) -> Any:
    if isinstance(tree, dict):
        if "$muon_dims" in tree:
            only_keys("dimension numbers", tree, {"$muon_dims"})
            return find("MuonDimensionNumbers")(**tree["$muon_dims"])
        strange = [key for key in tree if key.startswith("$")]
        if strange:
            raise ValueError(f"recorded data: do not understand {strange} in a literal tree")
        return {name: _literal(part) for name, part in tree.items()}
    if isinstance(tree, list):
        return [_literal(part) for part in tree]
    return tree


def _transformation(spec: dict, params: Any) -> Any:
    only_keys(
        f"description of {spec['$tx']}",
        spec,
        {"$tx", "ns", "args", "kwargs"} | ({"factory", "static_args"} if spec["$tx"] == "inject_hyperparams" else set()),
    )
    if spec.get("ns", "optax") not in ("optax", "contrib"):
        raise ValueError(f"recorded data: do not know the namespace {spec['ns']!r}")
    missing = sorted(name for name in names(spec) if not built(name))
    if missing:
        raise Missing(*missing)
    if spec["$tx"] == "named_chain":
        return fo.named_chain(*((label, build(part, params)) for label, part in spec["args"]))
    args = [build(part, params) for part in spec.get("args", [])]
    kwargs = {name: build(part, params) for name, part in spec.get("kwargs", {}).items()}
    if spec["$tx"] in SPECIAL:
        return SPECIAL[spec["$tx"]](spec, args, kwargs, params)
    return _call(spec["$tx"], args, kwargs)


def our_argument(function: Any, name: str) -> str:
    """The name of an argument of optax in our function."""
    parameters = inspect.signature(function).parameters
    if name in ("learning_rate", "weight_decay_rate", "adam_learning_rate"):
        return {"learning_rate": "lr", "weight_decay_rate": "weight_decay", "adam_learning_rate": "adam_lr"}[name]
    if name in parameters:
        return name
    for ours in {"mask": ("weight_decay_mask",), "key": ("seed",), "seed": ("key",), "step_size": ("factor",)}.get(name, ()):
        if ours in parameters:
            return ours
    return name.replace("learning_rate", "lr")


def _call(name: str, args: list, kwargs: dict) -> Any:
    function = find(our_name(name))
    return function(*args, **{our_argument(function, key): value for key, value in kwargs.items()})


# ------------------------------------------------------------------------------------- calls that differ on purpose


def _lr_scale(spec, args, kwargs, params):
    only_keys("scale_by_learning_rate", kwargs, {"learning_rate", "flip_sign"})
    lr = args[0] if args else kwargs["learning_rate"]
    if lr is None:
        return fo.identity()
    if kwargs.get("flip_sign", True):
        return fo.lr_scale(lr)
    return fo.scale_by_schedule(lr) if callable(lr) else fo.scale(lr)  # lr_scale always turns downhill


def _adafactor(spec, args, kwargs, params):
    if kwargs.get("learning_rate", 0) is None:
        kwargs = kwargs | {"learning_rate": 1.0}
    return _call("adafactor", args, kwargs)


def _adadelta(spec, args, kwargs, params):
    if "learning_rate" not in kwargs and not args or kwargs.get("learning_rate", 0) is None:
        # optax's None is the identity and leaves the sign; ours would hear base_lr
        decay = fo.add_decayed_weights(kwargs.get("weight_decay", 0.0), kwargs.get("weight_decay_mask"))
        return fo.chain(decay, fo.scale_by_adadelta(kwargs.get("rho", 0.9), kwargs.get("eps", 1e-6)))
    return _call("adadelta", args, kwargs)


def _lbfgs(spec, args, kwargs, params):
    if kwargs.get("learning_rate", 0) is None:
        kwargs = {name: value for name, value in kwargs.items() if name != "learning_rate"}
    return _call("lbfgs", args, kwargs)


def _inject(spec, args, kwargs, params):
    factory = find(our_name(spec["factory"]["name"]))
    static = tuple(our_argument(factory, name) for name in spec["static_args"])
    return fo.inject_hyperparams(factory, static)(*args, **{our_argument(factory, name): value for name, value in kwargs.items()})


def _adaptive_grad_clip(spec, args, kwargs, params):
    if kwargs.get("axis") is None:
        kwargs = kwargs | {"axis": optax_axes}
    return _call("adaptive_grad_clip", args, kwargs)


def optax_axes(leaf: torch.Tensor) -> tuple[int, ...]:
    """The axes over which optax takes the unit-wise norm: flax keeps (in, ..., out)."""
    if sum(size != 1 for size in leaf.shape) <= 1:
        return tuple(range(leaf.ndim))
    if leaf.ndim in (2, 3):
        return (0,)
    if leaf.ndim in (4, 5):
        return tuple(range(leaf.ndim - 1))
    raise ValueError(f"optax: no unit-wise norm for rank {leaf.ndim}")


def _muon(spec, args, kwargs, params):
    if kwargs.get("muon_weight_dimension_numbers") is None:
        kwargs = kwargs | {"muon_weight_dimension_numbers": _matrices}
    return _call("muon", args, kwargs)


def _scale_by_muon(spec, args, kwargs, params):
    if kwargs.get("weight_dimension_numbers") is None:
        kwargs = kwargs | {"weight_dimension_numbers": _matrices}
    return _call("scale_by_muon", args, kwargs)


def _matrices(params: Any) -> Any:
    """optax's default: every matrix is (in, out), everything else is for Adam."""
    numbers = find("MuonDimensionNumbers")
    return map_leaves(lambda leaf: numbers(reduction_axis=0, output_axis=1) if leaf.ndim == 2 else None, params)


def _explicit_hessian(spec, args, kwargs, params):
    def init(params):
        return fo.EmptyState()

    def update(updates, state, params=None, *, signals=None, hess, **extra):
        return hess, state

    return fo.GradientTransformation(init, update, name="explicit_hessian")


def _polyak_sgd(spec, args, kwargs, params):
    """optax's `scaling` is that of sgd, before the norm is taken; ours multiplies the step."""
    kwargs = {our_argument(fo.scale_by_polyak, name): value for name, value in kwargs.items()}
    return fo.chain(fo.sgd(kwargs.pop("scaling", 1.0)), fo.scale_by_polyak(**kwargs))


def _sgd(spec, args, kwargs, params):
    """A rate below 0 climbs: here a link that says so."""
    lr = args[0] if args else kwargs["learning_rate"]
    return fo.scale(-lr) if isinstance(lr, float) and lr < 0 and len(kwargs) + len(args) == 1 else _call("sgd", args, kwargs)


def _galore(spec, args, kwargs, params):
    return _call(spec["$tx"], args, {"weight_dimension_numbers": _matrices, **kwargs})


SPECIAL = {
    "sgd": _sgd,
    "polyak_sgd": _polyak_sgd,
    "galore": _galore,
    "scale_by_galore": _galore,
    "scale_by_learning_rate": _lr_scale,
    "adafactor": _adafactor,
    "adadelta": _adadelta,
    "lbfgs": _lbfgs,
    "inject_hyperparams": _inject,
    "adaptive_grad_clip": _adaptive_grad_clip,
    "muon": _muon,
    "scale_by_muon": _scale_by_muon,
    "explicit_hessian": _explicit_hessian,
}


# ----------------------------------------------------------------------------------------------------- helper functions


def step_lt(n):
    return lambda step, **extra: step < n


def step_mod_eq(k, r):
    return lambda step, **extra: step % k == r


def value_lt(threshold):
    return lambda step, *, value, **extra: torch.as_tensor(value) < threshold


def k_schedule(boundary, before, after):
    def every_k(gradient_step):
        step = torch.as_tensor(gradient_step)
        return torch.where(step < boundary, torch.full_like(step, before), torch.full_like(step, after))

    return every_k


def mask_ndim_ge(n):
    return lambda params: map_leaves(lambda leaf: leaf.ndim >= n, params)


def labels_by_ndim(n):
    return lambda params: map_leaves(lambda leaf: "matrix" if leaf.ndim >= n else "vector", params)


def scale_by_constant(c):
    return lambda updates, params: map_leaves(lambda u: c * u, updates)


def add_param_multiple(c):
    return lambda u, p: u + c * p


def _skip_large_updates(max_squared_norm):
    rule = find("skip_large_updates")
    return lambda updates, gradient_step, params: rule(updates, gradient_step, params, max_squared_norm=max_squared_norm)


SKIP_RULES = {"skip_not_finite": lambda: find("skip_not_finite"), "skip_large_updates": _skip_large_updates}
FUNCTIONS = {
    "step_lt": step_lt,
    "step_mod_eq": step_mod_eq,
    "value_lt": value_lt,
    "k_schedule": k_schedule,
    "mask_ndim_ge": mask_ndim_ge,
    "labels_by_ndim": labels_by_ndim,
    "tree_norm": lambda: fo.tree.norm,
    "pow": lambda p: lambda x: x**p,
    "scale_by_constant": scale_by_constant,
    "add_param_multiple": add_param_multiple,
    **SKIP_RULES,
}
