"""From the configuration of a recorded OptiRoulette run to a pool and the settings of `roulette`."""

from typing import Any

import torch

import funcopt as fo
from tests.parity.encoding import only_keys
from tests.parity.sgd import has_momentum, sgd_direction

CONFIG_KEYS = {"seed", "optimizers", "roulette", "pool", "lr_scaling_rules", "default_profile", "pool_overrides", "numeric", "param_init"}
ROULETTE_KEYS = {
    *("switch_granularity", "switch_every_steps", "switch_probability", "avoid_repeat"),
    *("warmup_optimizer", "warmup_epochs", "warmup_config", "drop_after_warmup"),
}
FAILURES = {
    "enable_failure_swaps": "swaps",
    "failure_threshold": "threshold",
    "consecutive_failure_limit": "in_a_row",
    "catastrophic_drop": "drop",
    "catastrophic_failure_limit": "drops_in_a_row",
    "blacklist_threshold": "blacklist",
}
RECOVERY = {
    "grace_period_epochs": "grace",
    "relaxed_threshold_factor": "relax",
    "momentum_scaling": "scale",
    "instability_lr_factor": "instability_factor",
    "instability_min_lr": "instability_min_lr",
    "instability_swap_threshold": "instability_limit",
}
TIERS = ("first_choice", "second_choice", "third_choice")


def pool_and_settings(
    config: dict[str, Any], rates: dict[str, float], parity: bool
) -> tuple[list[str], dict[str, fo.Member], dict[str, Any], list[torch.Tensor]]:
    """The names, the members, the settings and the params of a run."""
    only_keys("config", config, CONFIG_KEYS)
    if config.get("default_profile"):
        return default_profile(config, rates)
    pool = {optimizer["name"]: member(optimizer, config.get("numeric", False)) for optimizer in config["optimizers"]}
    params = [torch.tensor(p, dtype=torch.float64) for p in config.get("param_init", [[0.0]])]
    return list(pool), pool, switching(config["roulette"]) | pool_settings(config, parity) | rules(config, parity), params


def default_profile(config: dict[str, Any], rates: dict[str, float]):
    """The profile's settings around members of which only the rate matters."""
    pool, settings = fo.optiroulette_profile()
    assert list(pool) == list(rates)
    said = {name: float(fo.read_signals(m.transformation.init(torch.ones(2, 2)))["lr"]) if m.has_size else m.lr for name, m in pool.items()}
    assert said == rates
    pool = {name: fo.Member(fo.identity(), lr=lr) for name, lr in rates.items()}
    overrides = {FAILURES[key]: value for key, value in config.get("pool_overrides", {}).items()}
    settings = {key: value for key, value in settings.items() if key not in ("seed", "parity")}
    settings["failures"] = fo.Failures(**vars(settings["failures"]) | overrides)
    return list(pool), pool, settings, [torch.zeros(1, dtype=torch.float64)]


def switching(given: dict[str, Any]) -> dict[str, Any]:
    only_keys("roulette", given, ROULETTE_KEYS)
    settings = {
        "switch": {"epoch": "epoch", "batch": "step"}[given["switch_granularity"]],
        "every": max(1, given["switch_every_steps"]),
        "probability": given["switch_probability"],
        "avoid_repeat": given["avoid_repeat"],
    }
    held = {"member": given["warmup_optimizer"], "drop": given["drop_after_warmup"]}
    plateau = given["warmup_config"]
    if given["warmup_epochs"] > 0:
        settings["warmup"] = fo.fixed_warmup(given["warmup_epochs"], **held)
    elif plateau:
        only_keys("warmup_config", plateau, {"min_val_acc", "plateau_threshold", "min_epochs"})
        numbers = (plateau.get("min_val_acc", 0.0), plateau.get("plateau_threshold", 1e-3), plateau.get("min_epochs", 0))
        settings["warmup"] = fo.plateau_warmup(*numbers, **held)
    return settings


def pool_settings(config: dict[str, Any], parity: bool) -> dict[str, Any]:
    given = config["pool"]
    if given is None:
        return {}
    known = {"num_active", "num_backup", "swap_recovery", "active", "backup", "lr_scaling_rules"}
    only_keys("pool", given, known | set(FAILURES) | {"compatibility_groups", "compatibility_rules", "group_interactions"})
    names = [optimizer["name"] for optimizer in config["optimizers"]]
    active = given.get("active", names[: given["num_active"]])
    backup = given.get("backup", [name for name in names if name not in active])
    assert len(active) == given["num_active"]
    recovery = dict(given.get("swap_recovery", {}))
    modes = {"adaptive": "all", "direct": "all", "none": "none"}
    transfer = modes.get(recovery.pop("transfer_mode", "none"), "momentum")
    transfer = transfer if recovery.pop("transfer_momentum", False) else "none"
    only_keys("swap_recovery", recovery, set(RECOVERY))
    settings = {
        "active": active,
        "backup": backup[: given["num_backup"]],
        "reserve": backup[given["num_backup"] :],
        "failures": fo.Failures(**{ours: given[theirs] for theirs, ours in FAILURES.items() if theirs in given}),
        "recovery": fo.Recovery(transfer=transfer, **{RECOVERY[key]: value for key, value in recovery.items()}),
    }
    data = [given.get(key) for key in ("compatibility_groups", "compatibility_rules", "group_interactions", "lr_scaling_rules")]
    if any(data):
        settings["compatible"] = compatibility(*(part or {} for part in data[:3]), parity=parity, names=names)
    return settings


def compatibility(groups: dict, given: dict, interactions: dict, *, parity: bool, names: list[str]) -> fo.Compatibility:
    only_keys("compatibility_rules", given, {"allow_cross_group_swap", "prefer_same_group", "preferred_swaps", "state_transfer_compatible"})
    interactions = dict(interactions)
    enabled = interactions.pop("enabled", False)
    made = {}
    for name, group in groups.items():
        only_keys(f"group {name}", group, {"members", "enabled", "swap_priority", "internal_swap_only", "characteristics"})
        relations = interactions.get(name, {})
        only_keys(f"interactions of {name}", relations, {"compatible_with", "incompatible_with"})
        made[name] = fo.Group(
            group["members"],
            enabled=group.get("enabled", False),
            priority=group.get("swap_priority", 999),
            internal=group.get("internal_swap_only", False),
            compatible=relations.get("compatible_with", ()),
            incompatible=relations.get("incompatible_with", ()),
        )
    preferred = given.get("preferred_swaps", {})
    for name, tiers in preferred.items():
        only_keys(f"preferred_swaps of {name}", tiers, {*TIERS, "avoid"})
    known = lambda entries: [entry for entry in entries if parity or entry in names or entry in groups]  # noqa: E731
    return fo.Compatibility(
        made,
        across=given.get("allow_cross_group_swap", False),
        interactions=enabled,
        preferred={name: [known(tiers.get(tier, [])) for tier in TIERS] for name, tiers in preferred.items()},
        avoid={name: known(tiers.get("avoid", [])) for name, tiers in preferred.items()},
        transfer=given.get("state_transfer_compatible", {}),
    )


def switch_rules(given: dict[str, Any] | None) -> fo.SwitchRules | None:
    if given is None:
        return None
    only_keys("lr_scaling_rules", given, {"from_high_to_low", "from_low_to_high", "special_cases"})
    special = {}
    for name, case in given.get("special_cases", {}).items():
        only_keys(f"special case {name}", case, {"override_lr", "no_scaling", "max_lr", "force_clip"})
        special[name] = {"lr": case.get("override_lr"), "scale": not case.get("no_scaling", False)}
        special[name]["max_lr"] = case.get("max_lr") if case.get("force_clip") else None
    cases = {}
    for ours, theirs in (("high_to_low", "from_high_to_low"), ("low_to_high", "from_low_to_high")):
        if theirs in given:
            only_keys(theirs, given[theirs], {"scale_factor", "applies_to"})
            cases[ours] = (given[theirs].get("scale_factor", 1.0), [(case["from"], case["to"]) for case in given[theirs]["applies_to"]])
    return fo.switch_rules(special=special, **cases)


def rules(config: dict[str, Any], parity: bool) -> dict[str, Any]:
    at_switch = switch_rules(config["lr_scaling_rules"])
    if not parity:
        return {"rules": at_switch}
    return {"rules": (at_switch, switch_rules((config["pool"] or {}).get("lr_scaling_rules")))}


# --- members of numeric runs, with torch's semantics --------------------------------------------------------------------------


def member(optimizer: dict[str, Any], numeric: bool) -> fo.Member:
    only_keys("optimizer", optimizer, {"name", "kind", "hyper"})
    hyper = dict(optimizer["hyper"])
    lr = hyper.pop("lr")
    if not numeric:
        return fo.Member(fo.identity(), lr=lr)
    kind = optimizer["kind"]
    if kind == "sgd":
        return fo.Member(
            sgd_direction(optimizer["name"], hyper), lr=lr, roles=fo.Roles(velocity="trace") if has_momentum(hyper) else fo.Roles()
        )
    decay = hyper.pop("weight_decay", 0.01 if optimizer["kind"] == "adamw" else 0.0)
    coupled = fo.add_decayed_weights(decay)
    momentum = hyper.get("momentum", 0.0)
    if kind in ("adam", "adamw"):
        only_keys(kind, hyper, {"betas", "eps", "amsgrad"})
        numbers = (*hyper.get("betas", (0.9, 0.999)), hyper.get("eps", 1e-8))
        adam = fo.scale_by_amsgrad(*numbers, correct_before_max=False) if hyper.get("amsgrad") else fo.scale_by_adam(*numbers)
        return fo.Member(fo.chain(coupled, adam) if kind == "adam" else fo.chain(adam, coupled), lr=lr)
    if kind == "rmsprop":
        only_keys("rmsprop", hyper, {"alpha", "momentum", "centered", "eps"})
        scale = fo.scale_by_stddev if hyper.get("centered") else fo.scale_by_rms
        scaled = fo.chain(coupled, scale(hyper.get("alpha", 0.99), hyper.get("eps", 1e-8), eps_in_sqrt=False))
        return fo.Member(
            fo.chain(scaled, fo.trace(momentum)), lr=lr, roles=fo.Roles(normalised_velocity="trace") if momentum else fo.Roles()
        )
    raise ValueError(f"do not understand an optimizer of kind {kind!r}")


def torch_buffers(config: dict[str, Any], state: Any, name: str, steps: int) -> list[dict[str, Any]]:
    """A member's state under torch's names, one mapping per parameter."""
    optimizer = next(optimizer for optimizer in config["optimizers"] if optimizer["name"] == name)
    kind, inner = optimizer["kind"], state.members[name]
    fields = {"mu": "exp_avg", "nu": "exp_avg_sq"}
    momentum = {"trace": "momentum_buffer"} if optimizer["hyper"].get("momentum") else {}
    if kind == "sgd":
        fields = momentum
    if kind == "rmsprop":
        fields = {"nu": "square_avg"} | momentum | ({"mu": "grad_avg"} if optimizer["hyper"].get("centered") else {})
    counted = {} if kind == "sgd" else {"step": float(steps)}
    if kind in ("adam", "adamw"):
        assert int(fo.find(inner, "count")) == steps
    return [
        {theirs: fo.find(inner, ours)[i].tolist() for ours, theirs in fields.items()} | counted for i in range(len(config["param_init"]))
    ]
