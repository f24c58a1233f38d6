"""One row for every public transformation; the contract in tests/contract runs on every row.

A row that cannot do something says so here, in `cannot`, with the sentence it answers
with; the contract checks that it answers so.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

import funcopt as fo
from funcopt.core.wrap import WHOLE, wrapped


class Row(NamedTuple):
    """A transformation and what a step needs.

    make: builds it; called anew for every test.
    name: the public name of the factory; several rows may share one (`label` tells them apart).
    label: what the test is called.
    extra: `(step) -> dict` of extra keyword arguments for `update` at step 0, 1, ...
    descends: whether a few hundred steps with it get well down a bowl (optimizers), or only its shape counts (links).
    cannot: what it cannot do, with a pattern of the sentence it raises: "vmap", "compile", "hypergradient", "donate", "empty", "host";
        or, with the reason, "noise" and "dtype".
    """

    name: str
    make: Callable[[], fo.GradientTransformation]
    label: str = ""
    extra: Callable[[int], dict] = lambda step: {}
    descends: bool = False
    cannot: dict[str, str] = {}  # noqa: RUF012

    @property
    def id(self) -> str:
        return self.label or self.name


def with_loss(step: int) -> dict:
    """Losses that fall, for controllers."""
    return {"loss": torch.tensor(1.0 / (step + 1), dtype=torch.float64)}


def with_validation_loss(step: int) -> dict:
    """Told at every step, since presence decides the graph."""
    return {"validation_loss": torch.tensor(1.0 / (step + 1))}


def matrix_or_vector(params):
    """Labels by rank."""
    return fo.tree.map_plain(lambda p: "matrix" if p.dim() > 1 else "vector", params)


def end_or_rest(path, leaf):
    """Labels by path."""
    return "end" if path.endswith(("b", "s")) else "rest"


def in_halves(path, leaf):
    """Blocks for `adam_mini`."""
    return 2 if leaf.dim() and leaf.shape[0] % 2 == 0 else "auto"


def small_pool() -> dict:
    """Two directions and a ready-made optimizer."""
    return {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sgd": fo.Member(fo.sgd(0.1)), "lion": fo.Member(fo.scale_by_lion(), lr=0.02)}


def with_loss_and_reward(step: int) -> dict:
    """Losses and rewards that differ in their course; now and then one is missing in content."""
    # of a NaN in float64 the compiler makes a graph of its own
    reward = torch.tensor(float("nan") if step % 5 == 3 else 0.1 * (step % 4), dtype=torch.float32)
    return with_loss(step) | {"reward": reward}


def adaptive_everything() -> fo.GradientTransformation:
    """Rules of every kind on one optimizer."""
    rule = fo.rules
    return fo.adaptive(
        lambda **h: fo.chain(fo.clip(10.0), fo.sgd(**h)),
        lr=rule.trend(0.05) * rule.variance() * rule.cosine_restart(length=5),
        momentum=rule.relative(0.9) * rule.normalized() * rule.inverse(),
        weight_decay=rule.trend(0.01),
        reward="trend+scaling+variance",
    )


def on_a_bowl(tx: fo.GradientTransformation) -> fo.GradientTransformation:
    """Told the Hessian's diagonal of half the squared norm."""

    def update(updates, state, params=None, **extra):
        return tx.update(updates, state, params, **{**extra, "hessian": fo.tree.ones_like(updates)})

    return wrapped(tx.init, update, tx, WHOLE, needs=())


def on_a_parabola(tx: fo.GradientTransformation) -> fo.GradientTransformation:
    """Told the loss as a function of the params, one whose gradient here is what arrives, and its curvature 1."""

    def update(updates, state, params=None, **extra):
        def loss(p):
            d = fo.tree.sub(p, params)
            return fo.tree.vdot(updates, d) + 0.5 * fo.tree.squared_norm(d)

        def slopes(p, number):
            return fo.tree.add(updates, fo.tree.sub(p, params))

        told = {"loss": 0.0, "grad": updates, "value_fn": loss, "obj_fn": loss, "grad_fn": slopes}
        return tx.update(updates, state, params, **{**extra, **told})

    return wrapped(tx.init, update, tx, WHOLE, needs=())


def managed_roulette() -> fo.Roulette:
    """With a warm-up, a bench and rules; told no metric: the arithmetic of swaps takes a compiler a minute (a long test traces it)."""
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "sgd": fo.Member(fo.sgd(0.1)), "momentum": fo.Member(fo.trace(0.9), lr=0.02)}
    settings = {"failures": fo.Failures(swaps=False), "backup": ["momentum"]}
    rules = fo.switch_rules(high_to_low=(0.5, [(["sgd"], ["momentum"])]))
    return fo.roulette(pool, switch="epoch", warmup=fo.fixed_warmup(1, "sgd"), rules=rules, seed=1, **settings)


def finding_roulette() -> fo.Roulette:
    """A member that finds its rate beside one that has its own."""
    return fo.roulette({"adam": fo.Member(fo.scale_by_adam(), start=1e-2), "momentum": fo.Member(fo.trace(0.9), lr=0.02)}, every=3, seed=1)


# In the gradients of tests some directions are empty but for roundings, which Adam would make as long as the others: hence the eps of soap.
NO_DERIVATIVE = {"hypergradient": "its decompositions cannot be differentiated through"}


def backtracking(**settings) -> fo.GradientTransformation:
    """A search that has to cut its first step."""
    return fo.chain(fo.sgd(3.0), fo.scale_by_backtracking_linesearch(3, decrease_factor=0.5, store_grad=True, **settings))


LOOKS = {"host": "reads a value on the host"}  # where it may, to end a search
NOT_IN_PLACE = r"from_torch\(AdamW\): runs an optimizer that writes in place"


def with_epoch(step: int) -> dict:
    """Epochs of three steps."""
    return {"epoch": step // 3}


ROWS: list[Row] = [
    # core
    Row("identity", lambda: fo.identity()),
    Row("stateless", lambda: fo.stateless(lambda updates, params: fo.tree.scale(0.5, updates), flattenable=True)),
    Row("stateless_with_tree_map", lambda: fo.stateless_with_tree_map(lambda u, p: u + 0.1 * p)),
    Row("chain", lambda: fo.chain(fo.clip(1.0), fo.scale_by_adam(), fo.lr_scale(0.1)), descends=True),
    Row("named_chain", lambda: fo.named_chain(("adam", fo.scale_by_adam()), ("size", fo.lr_scale(0.1))), descends=True),
    Row("scoped", lambda: fo.scoped("slow", fo.sgd(0.1)), descends=True),
    # transforms
    Row("scale", lambda: fo.scale(-0.1), descends=True),
    Row("scale_by_schedule", lambda: fo.scale_by_schedule(lambda count: -1 / (count + 5.0))),
    Row("lr_scale", lambda: fo.lr_scale(0.1), descends=True),
    Row("lr_scale", lambda: fo.lr_scale(lambda count: 0.1 / (1 + 0.01 * count)), label="lr_scale-schedule", descends=True),
    Row(
        "scale_by_signal", lambda: fo.scale_by_signal("lr_multiplier"), extra=lambda step: {"signals": {"lr_multiplier": torch.tensor(0.5)}}
    ),
    Row("trace", lambda: fo.trace(0.9)),
    Row("trace", lambda: fo.trace(0.9, nesterov=True), label="trace-nesterov"),
    Row("clip", lambda: fo.clip(0.5)),
    Row("clip_by_global_norm", lambda: fo.clip_by_global_norm(0.5)),
    Row("clip_by_mean_norm", lambda: fo.clip_by_mean_norm(1.2, 0.5)),
    Row("clip_by_block_rms", lambda: fo.clip_by_block_rms(0.5)),
    Row("adaptive_grad_clip", lambda: fo.adaptive_grad_clip(0.1)),
    Row("ema", lambda: fo.ema(0.9)),
    Row("ema", lambda: fo.ema(0.5, debias=False), label="ema-biased"),
    Row("sign", lambda: fo.sign()),
    Row("normalize", lambda: fo.normalize()),
    Row("normalize_by_update_norm", lambda: fo.normalize_by_update_norm()),
    Row("centralize", lambda: fo.centralize()),
    Row("scale_by_trust_ratio", lambda: fo.scale_by_trust_ratio()),
    Row("scale_by_param_block_norm", lambda: fo.scale_by_param_block_norm()),
    Row("scale_by_param_block_rms", lambda: fo.scale_by_param_block_rms()),
    Row("zero_nans", lambda: fo.zero_nans()),
    Row("keep_params_nonnegative", lambda: fo.keep_params_nonnegative()),
    Row("conditionally_transform", lambda: fo.conditionally_transform(fo.trace(0.5), lambda step: step % 2 == 0)),
    Row("conditionally_mask", lambda: fo.conditionally_mask(fo.adam(0.1), lambda step: step % 2 == 0), descends=True),
    Row("multi_steps", lambda: fo.multi_steps(fo.adam(0.1), 2), descends=True),
    Row(
        "multi_steps",
        lambda: fo.multi_steps(fo.sgd(0.1, momentum=0.5), lambda step: 1 + step % 2, dispatch="select"),
        label="multi_steps-select",
        descends=True,
    ),
    Row(
        "multi_steps",
        lambda: fo.multi_steps(fo.sgd(0.1), 2, should_skip_update_fn=fo.skip_not_finite),
        label="multi_steps-skip",
        descends=True,
    ),
    Row("apply_every", lambda: fo.apply_every(2)),
    Row("average_params", lambda: fo.average_params(fo.sgd(0.1)), descends=True),
    Row("average_params", lambda: fo.average_params(fo.adam(0.1), "ema", decay=0.5), label="average_params-ema", descends=True),
    Row("keep_best", lambda: fo.keep_best(fo.average_params(fo.sgd(0.1))), extra=with_validation_loss, descends=True),
    Row("compress_state", lambda: fo.compress_state(fo.adamw(0.1), "bf16+8"), descends=True),
    Row(
        "compress_state",
        lambda: fo.compress_state(fo.adamw(0.1), "bf16", key=0),
        label="compress_state-bf16",
        descends=True,
        cannot={"noise": "chances differ from leaf to leaf"},
    ),
    Row(
        "compress_state",
        lambda: fo.compress_state(fo.adamw(0.1), "int8"),
        label="compress_state-int8",
        descends=True,
        cannot={"hypergradient": "a state in 'int8' must not be differentiated, since integers have no derivative"},
    ),
    Row(
        "cast_params",
        lambda: fo.cast_params(fo.adam(0.1), key=0),
        descends=True,
        cannot={
            "noise": "chances differ from leaf to leaf",
            "dtype": "differences in float32 of bfloat16 params, so that they land on bfloat16 numbers",
        },
    ),
    Row("lookahead", lambda: fo.lookahead(fo.adam(0.1), 3, 0.5), descends=True),
    Row("lookahead", lambda: fo.lookahead(fo.adam(0.1), 2, 0.8, reset_state=True), label="lookahead-reset", descends=True),
    Row("flatten", lambda: fo.flatten(fo.chain(fo.clip_by_block_rms(0.5), fo.adam(0.1))), descends=True),
    Row("snapshot", lambda: fo.snapshot("norm", fo.tree.norm)),
    Row("monitor", lambda: fo.monitor({"norm": fo.tree.norm, "largest": lambda updates: fo.tree.max(updates).abs()})),
    Row("measure_with_ema", lambda: fo.monitor({"mean_norm": fo.measure_with_ema(fo.tree.squared_norm, 0.9)})),
    Row("reduce_on_plateau", lambda: fo.reduce_on_plateau(patience=1), extra=lambda step: {"loss": torch.tensor(1.0)}),
    Row("project", lambda: fo.chain(fo.sgd(0.1), fo.project(fo.projections.projection_l1_ball))),
    Row("split_real_and_imaginary", lambda: fo.split_real_and_imaginary(fo.adam(0.1)), descends=True),
    Row("normalize_adaptively", lambda: fo.normalize_adaptively()),
    Row("sam", lambda: fo.sam(fo.sgd(0.1)), descends=True),
    Row(
        "sam",
        lambda: fo.sam(fo.adam(0.1), fo.sgd(0.05, momentum=0.5), 3, reset_state=False, dispatch="select"),
        label="sam-select",
        descends=True,
    ),
    Row("sam", lambda: on_a_parabola(fo.sam(fo.sgd(0.1), opaque_mode=True, adaptive=True, rho=0.5)), label="sam-opaque", descends=True),
    Row("hutchinson_estimator_diag_hessian", lambda: on_a_parabola(fo.hutchinson_estimator_diag_hessian(key=0))),
    Row("scale_by_backtracking_linesearch", lambda: on_a_parabola(backtracking(dispatch="select")), descends=True),
    Row("scale_by_backtracking_linesearch", lambda: on_a_parabola(backtracking()), label="backtracking-auto", descends=True, cannot=LOOKS),
    Row(
        "scale_by_zoom_linesearch",
        lambda: on_a_parabola(fo.chain(fo.sgd(3.0), fo.scale_by_zoom_linesearch(3, dispatch="select"))),
        descends=True,
    ),
    Row("add_decayed_weights", lambda: fo.add_decayed_weights(0.1)),
    Row("add_decayed_weights", lambda: fo.add_decayed_weights(lambda count: 0.1 / (count + 1.0)), label="add_decayed_weights-schedule"),
    Row("add_noise", lambda: fo.add_noise(0.01, 0.55, key=0), cannot={"noise": "draws differ between dtypes"}),
    Row("add_gaussian_noise", lambda: fo.add_gaussian_noise(0.1, key=0), cannot={"noise": "draws differ between dtypes"}),
    Row("masked", lambda: fo.masked(fo.trace(0.9), lambda params: fo.tree.map(lambda p: p.dim() > 1, params))),
    Row(
        "masked",
        lambda: fo.masked(fo.trace(0.9), fo.by_path(lambda path, leaf: not path.endswith("b"), but="parts.*")),
        label="masked-by-path",
    ),
    Row("partition", lambda: fo.partition({"matrix": fo.adamw(0.1), "vector": fo.sgd(0.1)}, matrix_or_vector), descends=True),
    Row(
        "partition",
        lambda: fo.partition({"end": fo.sgd(0.1), "rest": fo.adam(0.1)}, end_or_rest, by="path"),
        label="partition-by-path",
        descends=True,
    ),
    Row(
        "partition",
        lambda: fo.partition(fo.chain(fo.clip_by_global_norm(1.0), fo.adam(0.1)), by="leaf"),
        label="partition-by-leaf",
        descends=True,
    ),
    Row("apply_if_finite", lambda: fo.apply_if_finite(fo.adam(0.1), 2), descends=True),
    Row("scale_by_depth", lambda: fo.scale_by_depth(0.5, lambda params: fo.tree.map_plain(lambda p: 1 + p.dim(), params))),
    Row("set_to_zero", lambda: fo.set_to_zero()),
    Row("freeze", lambda: fo.freeze(lambda params: fo.tree.map_plain(lambda p: p.dim() == 1, params))),
    Row(
        "selective_transform",
        lambda: fo.selective_transform(fo.adam(0.1), freeze_mask=lambda params: fo.tree.map_plain(lambda p: p.dim() == 1, params)),
    ),
    Row("inject_hyperparams", lambda: fo.inject_hyperparams(fo.adamw)(0.1, b1=lambda count: 0.9 - 0.1 / (count + 1)), descends=True),
    # optimizers
    Row("scale_by_adahessian", lambda: on_a_bowl(fo.scale_by_adahessian())),
    Row("adahessian", lambda: on_a_bowl(fo.adahessian(0.1))),
    Row("acprop", lambda: fo.acprop(0.1), descends=True),
    Row("scale_by_acprop", lambda: fo.scale_by_acprop()),
    Row("cocob", lambda: fo.cocob(alpha=10.0, weight_decay=1e-4), descends=True),
    Row("scale_by_cocob", lambda: fo.scale_by_cocob()),
    Row("polyak_sgd", lambda: fo.polyak_sgd(variant="sps+"), extra=with_loss),
    Row("scale_by_polyak", lambda: fo.scale_by_polyak(eps=0.1), extra=with_loss),
    Row("sophia", lambda: on_a_parabola(fo.sophia(0.05, gamma=1.0, update_interval=2, key=0)), descends=True),
    Row("scale_by_sophia", lambda: on_a_bowl(fo.scale_by_sophia(hessian_diagonal_fn="told", update_interval=3, dispatch="select"))),
    Row("galore", lambda: fo.galore(0.1, rank=2, update_proj_gap=2), descends=True),
    Row("scale_by_galore", lambda: fo.scale_by_galore(1, 3, 0.5, fo.trace(0.9), dispatch="select")),
    Row("lbfgs", lambda: on_a_parabola(fo.lbfgs(1.0, 2, linesearch=fo.scale_by_zoom_linesearch(2, dispatch="select"))), descends=True),
    Row("scale_by_lbfgs", lambda: fo.scale_by_lbfgs(2)),
    Row("scale_by_adam", lambda: fo.scale_by_adam()),
    Row("scale_by_adam", lambda: fo.scale_by_adam(nesterov=True), label="scale_by_adam-nesterov"),
    Row("adam", lambda: fo.adam(0.1), descends=True),
    Row("adamw", lambda: fo.adamw(0.1), descends=True),
    Row("sgd", lambda: fo.sgd(0.1), descends=True),
    Row("sgd", lambda: fo.sgd(0.02, momentum=0.9, nesterov=True), label="sgd-nesterov", descends=True),
    Row("scale_by_lion", lambda: fo.scale_by_lion()),
    Row("lion", lambda: fo.lion(0.02), descends=True),
    Row("scale_by_rms", lambda: fo.scale_by_rms()),
    Row("scale_by_stddev", lambda: fo.scale_by_stddev()),
    Row("rmsprop", lambda: fo.rmsprop(0.02), descends=True),
    Row("rmsprop", lambda: fo.rmsprop(0.02, centered=True, momentum=0.5), label="rmsprop-centered", descends=True),
    Row("nadam", lambda: fo.nadam(0.1), descends=True),
    Row("nadamw", lambda: fo.nadamw(0.1, momentum_decay=0.01), descends=True),
    Row("scale_by_nadam", lambda: fo.scale_by_nadam()),
    Row("scale_by_sure_adam", lambda: fo.chain(fo.find_rate(), fo.scale_by_sure_adam(), fo.lr_scale(0.01)), descends=True),
    Row("amsgrad", lambda: fo.amsgrad(0.1), descends=True),
    Row("scale_by_amsgrad", lambda: fo.scale_by_amsgrad(correct_before_max=False)),
    Row("adamax", lambda: fo.adamax(0.1), descends=True),
    Row("adamaxw", lambda: fo.adamaxw(0.1), descends=True),
    Row("scale_by_adamax", lambda: fo.scale_by_adamax()),
    Row("adabelief", lambda: fo.adabelief(0.1), descends=True),
    Row("scale_by_belief", lambda: fo.scale_by_belief(nesterov=True)),
    Row("yogi", lambda: fo.yogi(0.1), descends=True),
    Row("scale_by_yogi", lambda: fo.scale_by_yogi()),
    Row("radam", lambda: fo.radam(0.1), descends=True),
    Row("scale_by_radam", lambda: fo.scale_by_radam(b2=0.9, threshold=4.0, correct_eps=True)),
    Row("adan", lambda: fo.adan(0.1), descends=True),
    Row("scale_by_adan", lambda: fo.scale_by_adan()),
    Row("adagrad", lambda: fo.adagrad(1.0), descends=True),
    Row("scale_by_rss", lambda: fo.scale_by_rss(0.0, 1e-10, eps_in_sqrt=False)),
    Row("adadelta", lambda: fo.adadelta(rho=0.9, eps=1e-2), descends=True),
    Row("scale_by_adadelta", lambda: fo.scale_by_adadelta()),
    Row("novograd", lambda: fo.novograd(0.01, weight_decay=lambda count: 0.01 / (count + 1.0)), descends=True),
    Row("scale_by_novograd", lambda: fo.scale_by_novograd(weight_decay=0.1)),
    Row("rprop", lambda: fo.rprop(0.1), descends=True),
    Row("scale_by_rprop", lambda: fo.scale_by_rprop(0.1)),
    Row("scale_by_optimistic_gradient", lambda: fo.scale_by_optimistic_gradient()),
    Row("optimistic_gradient_descent", lambda: fo.optimistic_gradient_descent(0.1), descends=True),
    Row("optimistic_adam_v2", lambda: fo.optimistic_adam_v2(0.05), descends=True),
    Row("sm3", lambda: fo.sm3(1.0), descends=True),
    Row("scale_by_sm3", lambda: fo.scale_by_sm3(b2=0.9)),
    Row("noisy_sgd", lambda: fo.noisy_sgd(0.1, key=0), cannot={"noise": "draws of another dtype are others"}),
    Row("muon", lambda: fo.muon(0.1), descends=True),
    Row(
        "muon",
        lambda: fo.muon(0.02, "dion", preconditioning="aol", consistent_rms=0.2, weight_decay=0.01),
        label="muon-dion",
        descends=True,
    ),
    Row("scale_by_muon", lambda: fo.masked(fo.scale_by_muon(), lambda params: fo.tree.map(lambda p: p.dim() == 2, params))),
    Row("scale_by_shape", lambda: fo.scale_by_shape()),
    Row("sign_sgd", lambda: fo.sign_sgd(0.02), descends=True),
    Row("signum", lambda: fo.signum(0.02), descends=True),
    Row("lamb", lambda: fo.lamb(0.02, weight_decay=0.01), descends=True),
    Row(
        "lars",
        lambda: fo.lars(0.1, trust_coefficient=0.1, trust_ratio_mask=lambda params: fo.tree.map(lambda p: p.dim() > 0, params)),
        descends=True,
    ),
    Row("fromage", lambda: fo.fromage(0.02), descends=True),
    Row("adafactor", lambda: fo.adafactor(0.1, 2, momentum=0.5, dtype_momentum=None, weight_decay=1e-4), descends=True),
    Row("scale_by_factored_rms", lambda: fo.scale_by_factored_rms(min_dim_size_to_factor=2, factored_axes="last")),
    Row("schedule_free", lambda: fo.schedule_free(fo.adamw(0.1, b1=0.0)), descends=True),
    Row("schedule_free_adamw", lambda: fo.schedule_free_adamw(0.1), descends=True),
    Row("schedule_free_sgd", lambda: fo.schedule_free_sgd(0.2), descends=True),
    Row("scale_by_prodigy", lambda: fo.scale_by_prodigy(1.0)),
    Row("prodigy", lambda: fo.prodigy(estim_lr0=1e-2, weight_decay=0.01), descends=True),
    Row("dadapt_adamw", lambda: fo.dadapt_adamw(estim_lr0=1e-2, weight_decay=0.01), descends=True),
    Row("mechanize", lambda: fo.mechanize(fo.adam(1.0), s_init=1e-2), descends=True),
    Row("scale_by_ademamix", lambda: fo.scale_by_ademamix(alpha=lambda count: 0.1 * count)),
    Row("ademamix", lambda: fo.ademamix(0.02, b3=0.99), descends=True),
    Row("scale_by_simplified_ademamix", lambda: fo.scale_by_simplified_ademamix()),
    Row("simplified_ademamix", lambda: fo.simplified_ademamix(0.005, b1=0.9, alpha=1.0), descends=True),
    Row("scale_by_madgrad", lambda: fo.scale_by_madgrad(0.1), descends=True),
    Row("madgrad", lambda: fo.madgrad(0.1, weight_decay=1e-4), descends=True),
    Row("scale_by_dog", lambda: fo.scale_by_dog(("learning_rate", 0.01))),
    Row("dog", lambda: fo.dog(init_step=("distance", 0.1)), descends=True),
    Row("scale_by_dowg", lambda: fo.scale_by_dowg()),
    Row("dowg", lambda: fo.dowg(), descends=True),
    Row("scale_by_distance_over_gradients", lambda: fo.scale_by_distance_over_gradients(1e-2, param_dtype=None)),
    Row("momo", lambda: fo.momo(0.5), extra=with_loss),
    Row("momo", lambda: fo.momo(0.5, weight_decay=1e-3, adapt_lower_bound=True), extra=with_loss, label="momo-adapting"),
    Row("momo_adam", lambda: fo.momo_adam(0.1, weight_decay=1e-3, adapt_lower_bound=True), extra=with_loss),
    Row("scale_by_adopt", lambda: fo.scale_by_adopt(nesterov=True)),
    Row("adopt", lambda: fo.adopt(0.05), descends=True),
    # what the field uses now
    Row("cautious", lambda: fo.cautious(fo.scale_by_adam())),
    Row("cautious", lambda: fo.cautious(fo.sgd(0.1, momentum=0.5)), label="cautious-sgd", descends=True),
    Row("mars", lambda: fo.mars()),
    Row("mars", lambda: fo.mars(max_norm=None), label="mars-unbounded"),
    Row("grokfast", lambda: fo.grokfast(0.5)),
    Row("orthograd", lambda: fo.orthograd()),
    Row("scale_by_laprop", lambda: fo.scale_by_laprop()),
    Row("laprop", lambda: fo.laprop(0.1), descends=True),
    Row("scale_by_stable_adam", lambda: fo.scale_by_stable_adam()),
    Row("stable_adamw", lambda: fo.stable_adamw(0.1), descends=True),
    Row("scale_by_came", lambda: fo.scale_by_came()),
    Row("came", lambda: fo.came(0.02), descends=True),
    Row("scale_by_adam_mini", lambda: fo.scale_by_adam_mini(blocks=fo.by_path(in_halves))),
    Row("adam_mini", lambda: fo.adam_mini(0.1), descends=True),
    Row("scale_by_scion", lambda: fo.scale_by_scion(norms=fo.by_path(lambda path, leaf: ("sign", 2.0) if leaf.dim() == 2 else "auto"))),
    Row("scion", lambda: fo.scion(0.02, rho=8.0), descends=True),
    Row("scale_by_qhadam", lambda: fo.scale_by_qhadam(nu2=0.8)),
    Row("qhadam", lambda: fo.qhadam(0.1, b1=0.9), descends=True),
    Row("scale_by_adamp", lambda: fo.scale_by_adamp(delta=1.0, nesterov=True)),
    Row("adamp", lambda: fo.adamp(0.1, delta=1.0, weight_decay=0.01), descends=True),
    Row("scale_by_adanorm", lambda: fo.scale_by_adanorm(r=0.5)),
    Row("adanorm", lambda: fo.adanorm(0.1, r=0.5), descends=True),
    Row("scale_by_adai", lambda: fo.scale_by_adai()),
    Row("adai", lambda: fo.adai(0.5), descends=True),
    Row("scale_by_aggmo", lambda: fo.scale_by_aggmo()),
    Row("aggmo", lambda: fo.aggmo(0.02), descends=True),
    Row("scale_by_tam", lambda: fo.scale_by_tam(entrywise=True)),
    Row("tam", lambda: fo.tam(0.1), descends=True),
    Row("scale_by_gravity", lambda: fo.scale_by_gravity(0.1, key=0), cannot={"noise": "draws differ between dtypes"}),
    Row("gravity", lambda: fo.gravity(0.1, key=0), cannot={"noise": "draws differ between dtypes"}),
    Row("scale_by_accsgd", lambda: fo.scale_by_accsgd(0.1)),
    Row("accsgd", lambda: fo.accsgd(0.1, kappa=100.0), descends=True),
    Row("scale_by_adgd", lambda: fo.scale_by_adgd(0.05)),
    Row("adgd", lambda: fo.adgd(0.05, weight_decay=0.001), descends=True),
    Row("scale_by_nero", lambda: fo.scale_by_nero(0.05, constraints=False)),
    Row("nero", lambda: fo.nero(0.02, constraints=False), descends=True),
    Row("nero", lambda: fo.nero(0.02), label="nero-constrained"),
    Row("scale_by_apollo_dqn", lambda: fo.scale_by_apollo_dqn(rebound=1e-3)),
    Row("apollo_dqn", lambda: fo.apollo_dqn(0.02, rebound=0.1), descends=True),
    Row("ranger", lambda: fo.ranger(0.1, sync_period=2), descends=True),
    Row("ranger21", lambda: fo.ranger21(0.05, num_iterations=300, weight_decay=1e-3), descends=True),
    Row("scale_by_splus", lambda: fo.scale_by_splus(every=2)),
    Row("splus", lambda: fo.splus(0.3, every=3, other_scale=0.1, ema=None), descends=True),
    Row("scale_by_fira", lambda: fo.scale_by_fira(rank=1, every=2)),
    Row("fira", lambda: fo.fira(0.1, rank=1, every=3), descends=True),
    Row("scale_by_apollo", lambda: fo.scale_by_apollo(rank=1, by="leaf", every=2, key=0), cannot={"noise": "draws differ between dtypes"}),
    Row("apollo", lambda: fo.apollo(0.1, rank=1, every=3, key=0), descends=True, cannot={"noise": "draws differ between dtypes"}),
    Row("muon_with_adam", lambda: fo.muon_with_adam(0.1), descends=True),
    Row("scale_by_neuron_rms", lambda: fo.scale_by_neuron_rms()),
    Row("normuon", lambda: fo.normuon(0.1), descends=True),
    Row("scale_by_entry_rms", lambda: fo.scale_by_entry_rms(consistent_rms=None)),
    Row("adamuon", lambda: fo.adamuon(0.1), descends=True),
    Row("scale_by_soap", lambda: fo.scale_by_soap(eps=1e-3, every=2, precondition_1d=True, dispatch="select"), cannot=NO_DERIVATIVE),
    Row("soap", lambda: fo.soap(0.1, eps=1e-3, every=3), descends=True, cannot=NO_DERIVATIVE),
    Row("scale_by_shampoo", lambda: fo.scale_by_shampoo(every=2, block_size=2, root="newton", dispatch="select"), cannot=NO_DERIVATIVE),
    Row("shampoo", lambda: fo.shampoo(0.1, every=3), descends=True, cannot=NO_DERIVATIVE),
    Row("scale_by_psgd", lambda: fo.scale_by_psgd(every=2, dispatch="select"), cannot={"noise": "draws of another dtype are others"}),
    Row("psgd", lambda: fo.psgd(0.02), descends=True, cannot={"noise": "draws of another dtype are others"}),
    # controllers
    Row("find_rate", lambda: fo.chain(fo.find_rate(), fo.sgd(0.01)), descends=True),
    Row(
        "find_rate",
        lambda: fo.chain(fo.find_rate(after="cosine", horizon=40, keep=0.5), fo.adam(0.01)),
        label="find_rate-cosine",
        extra=with_loss,
    ),
    Row("rate_free", lambda: fo.rate_free(start=1e-3), descends=True),
    Row(
        "rate_free",
        lambda: fo.rate_free(fo.adamw, start=1e-3, average=False, find={"after": "walk"}),
        label="rate_free-adamw-walk",
        descends=True,
    ),
    Row("ucb_episodes", lambda: fo.ucb_episodes(episode_length=3, seed=0), extra=with_loss),
    Row(
        "ucb_episodes",
        lambda: fo.ucb_episodes((0.5, 2.0), (0.0, 0.01, 0.1), episode_length=2, control="conditional", context="trend", seed=0),
        extra=with_loss,
        label="ucb_episodes-trend",
        cannot={"noise": "draws differ between dtypes"},
    ),
    Row("ucb_episodes", lambda: fo.ucb_episodes(episode_length=3, dispatch="select", seed=0), extra=with_loss, label="ucb_episodes-select"),
    Row("aees", lambda: fo.aees(fo.adamw(0.1), (0.5, 1.0, 2.0), episode_length=5, seed=0), extra=with_loss, descends=True),
    Row("es.clipup", lambda: fo.es.clipup(0.1), descends=True),
    Row("es.only_selected", lambda: fo.es.only_selected(fo.sgd(0.1, momentum=0.5)), descends=True),
    Row("adaptive", lambda: fo.adaptive(fo.adamw, lr=fo.rules.trend(0.1)), extra=with_loss, descends=True),
    Row("adaptive", lambda: adaptive_everything(), extra=with_loss_and_reward, label="adaptive-everything", descends=True),
    Row("agreement_policy", lambda: fo.agreement_policy(lr=0.1)),
    Row(
        "agreement_policy",
        lambda: fo.agreement_policy(lr=0.1, degree=1, pin={"pv": 0.25}, start="published"),
        label="agreement_policy-pinned",
    ),
    Row("pilot", lambda: fo.pilot(0.02), descends=True),
    Row("roulette", lambda: fo.chain(fo.roulette(small_pool(), every=3, seed=1), fo.lr_scale()), descends=True),
    Row(
        "roulette",
        lambda: fo.chain(fo.roulette(small_pool(), every=3, seed=1, dispatch="select"), fo.lr_scale()),
        label="roulette-select",
        descends=True,
    ),
    Row("roulette", lambda: fo.chain(managed_roulette(), fo.lr_scale()), label="roulette-managed", extra=with_epoch, descends=True),
    Row("roulette", lambda: fo.chain(finding_roulette(), fo.lr_scale()), label="roulette-finding", extra=with_loss, descends=True),
    Row("optiroulette", lambda: fo.optiroulette(small_pool(), seed=1), extra=with_epoch, descends=True),
    # from torch.optim
    Row(
        "torch_optim.from_torch",
        lambda: fo.torch_optim.from_torch(torch.optim.AdamW, lr=0.1),
        descends=True,
        cannot={
            **dict.fromkeys(("vmap", "compile", "hypergradient", "donate"), NOT_IN_PLACE),
            "host": "reads a value on the host",
            "dtype": "differences in a wider dtype, so that params become what the class makes of them",
        },
    ),
]

# Rows all of whose operations another row runs too, beside more or with other numbers. What is dear to ask of a row (compiling it, many
# dtypes, many forms) is asked of these in the long suite.
PART_OF: dict[str, str] = {
    "named_chain": "chain",
    "scale": "lr_scale-schedule",
    "lr_scale": "lr_scale-schedule",
    "trace": "trace-nesterov",
    "ema-biased": "ema",
    "lookahead": "lookahead-reset",
    "add_decayed_weights": "add_decayed_weights-schedule",
    "add_noise": "noisy_sgd",
    "add_gaussian_noise": "noisy_sgd",
    "masked": "masked-by-path",
    "partition-by-path": "partition",
    "partition-by-leaf": "partition",
    "freeze": "selective_transform",
    "set_to_zero": "selective_transform",
    "scale_by_trust_ratio": "lamb",
    "scale_by_adahessian": "adahessian",
    "scale_by_acprop": "acprop",
    "scale_by_cocob": "cocob",
    "scale_by_polyak": "polyak_sgd",
    "scale_by_lbfgs": "lbfgs",
    "backtracking-auto": "scale_by_backtracking_linesearch",
    "hutchinson_estimator_diag_hessian": "sophia",
    "scale_by_sophia": "sophia",
    "scale_by_galore": "galore",
    "sam": "sam-select",
    "normalize_adaptively": "sam-opaque",
    "scale_by_adam": "adamw",
    "adam": "adamw",
    "scale_by_adam-nesterov": "nadam",
    "sgd": "sgd-nesterov",
    "scale_by_lion": "lion",
    "scale_by_rms": "rmsprop",
    "scale_by_stddev": "rmsprop-centered",
    "scale_by_nadam": "nadamw",
    "adamax": "adamaxw",
    "scale_by_adamax": "adamaxw",
    "scale_by_yogi": "yogi",
    "scale_by_adan": "adan",
    "scale_by_adadelta": "adadelta",
    "scale_by_novograd": "novograd",
    "scale_by_rprop": "rprop",
    "scale_by_optimistic_gradient": "optimistic_gradient_descent",
    "scale_by_muon": "muon",
    "schedule_free": "schedule_free_adamw",
    "scale_by_prodigy": "prodigy",
    "scale_by_ademamix": "ademamix",
    "scale_by_simplified_ademamix": "simplified_ademamix",
    "scale_by_madgrad": "madgrad",
    "scale_by_dowg": "dowg",
    "scale_by_qhadam": "qhadam",
    "scale_by_adamp": "adamp",
    "scale_by_adanorm": "adanorm",
    "scale_by_adai": "adai",
    "scale_by_aggmo": "aggmo",
    "scale_by_gravity": "gravity",
    "scale_by_accsgd": "accsgd",
    "scale_by_adgd": "adgd",
    "scale_by_nero": "nero-constrained",
    "nero": "nero-constrained",
    "scale_by_apollo_dqn": "apollo_dqn",
    "scale_by_splus": "splus",
    "scale_by_fira": "fira",
    "scale_by_apollo": "apollo",
    "momo": "momo-adapting",
    "cautious": "cautious-sgd",
    "scale_by_laprop": "laprop",
    "scale_by_stable_adam": "stable_adamw",
    "scale_by_came": "came",
    "find_rate": "find_rate-cosine",
    "ucb_episodes": "aees",
    "adaptive": "adaptive-everything",
    "agreement_policy": "pilot",
}


def every(rows: list[Row] | None = None):
    """`parametrize` over rows, those that are part of others in the long suite."""
    rows = ROWS if rows is None else rows
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.id, marks=[pytest.mark.long] * (row.id in PART_OF)) for row in rows])


# Public callables that are not transformations, with the reason.
EXEMPT: dict[str, str] = {
    "GradientTransformation": "the class of all of them",
    "Signals": "what links hear",
    "Member": "one optimizer of a pool",
    "Roulette": "the class of what roulette makes",
    "optiroulette_profile": "settings of a roulette",
    "fixed_warmup": "settings of a roulette",
    "plateau_warmup": "settings of a roulette",
    "switch_rules": "settings of a roulette",
    "MuonDimensionNumbers": "names axes",
    "muon_labels": "makes labels",
    "schedule_free_eval_params": "where to evaluate",
    "apply_updates": "applies updates",
    "averaged_params": "where to evaluate",
    "decompress_state": "reads states",
    "best_params": "where to evaluate",
    "by_path": "makes masks and labels",
    "describe_groups": "prints a table",
    "layers_of": "makes labels",
    "no_decay": "makes masks",
    "parameter_kinds": "makes labels",
    "differentially_private_aggregate": "takes gradients with a batch axis: tests/transforms/test_privacy.py",
    "dpsgd": "takes gradients with a batch axis: tests/transforms/test_privacy.py",
    "MultiSteps": "the class of what multi_steps makes",
    "per_example_global_norm_clip": "a function of gradients with a batch axis",
    "per_example_layer_norm_clip": "a function of gradients with a batch axis",
    "skip_large_updates": "a rule for multi_steps",
    "skip_not_finite": "a rule for multi_steps",
    "incremental_update": "averages params",
    "periodic_update": "replaces params",
    "episode_log": "reads states",
    "pool_migration": "moves checkpoints",
    "find": "searches states",
    "find_all": "searches states",
    "policy_diagnostics": "names what a policy saw",
    "read_signals": "reads states",
    "replace": "edits states",
    "tree_map_params": "edits states",
    "unitwise_clip": "a function of one leaf",
    "unitwise_norm": "a function of one leaf",
    "value_and_grad_from_state": "reads states",
}
