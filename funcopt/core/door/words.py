"""The words of optax, torch.optim, evosax and EvoTorch, and ours for them.

`told` answers a keyword that a function does not take; `ask` is the `__getattr__` of the namespaces
and answers a name that they do not hold. Both tell what to write instead.
"""

import difflib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NoReturn

__all__ = ["ask", "told"]

# A foreign keyword -> ours, of which the first that the function takes is told.
KEYWORDS = {
    "lr": "learning_rate step_size stepsize eta init_lr initial_lr alpha learning_rate_fn lrate rate center_learning_rate lr_init "
    "max_learning_rate",
    "b1": "beta1 beta_1 momentum beta adam_b1 adam_beta1",
    "b2": "beta2 beta_2 rho alpha adam_b2 adam_beta2",
    "betas": "beta b",
    "decay": "alpha rho momentum gamma beta rate decay_rate ema_decay smoothing",
    "momentum": "b1 beta beta1 mu decay",
    "eps": "epsilon adam_epsilon eps_adam",
    "weight_decay": "wd l2 decay weight_decay_rate decay_rate l2_reg weight_decouple",
    "weight_decay_mask": "mask decay_mask wd_mask no_decay",
    "mask": "weight_decay_mask map_fn freeze_mask where",
    "popsize": "pop_size population_size population n_samples num_samples samples lambda_ lam num_interactions num_perturbations",
    "sigma": "std stdev stdev_init sigma_init init_stdev noise_std init_std sigma0 noise_scale scale radius_init perturbation_scale",
    "sigma_lr": "stdev_learning_rate lr_std lrate_init std_lr",
    "sigma_decay": "std_decay stdev_decay decay",
    "shaping": "fitness_shaping fitness_shaping_fn ranking ranking_method shape_fn utilities",
    "antithetic": "symmetric mirrored use_antithetic_sampling antithetic_sampling",
    "rho": "elite_ratio parenthood_ratio elite_fraction",
    "directions": "elite_ratio num_elites top_directions",
    "maximize": "minimize objective_sense maximise",
    "objective": "fn f func loss_fn objective_fn fitness_fn fitness_function",
    "loss_fn": "fn f func objective loss criterion closure",
    "chunk_size": "batch_size chunks chunk",
    "key": "seed rng rng_key prng prng_key generator random_state random_seed",
    "keys": "key rng seeds",
    "seed": "key rng rng_key generator random_state random_seed",
    "inner": "optimizer opt tx inner_opt base_optimizer inner_optimizer transform transformation base inner_tx",
    "fast_optimizer": "inner optimizer opt tx base_optimizer",
    "threshold": "max_norm clip clip_threshold max_delta",
    "alpha": "eta_min end_value final_value min_lr",
    "optimizer": "opt tx inner transformation fast_optimizer center_optimizer",
    "tx": "optimizer opt transformation inner transform",
    "transformation": "tx optimizer opt transform",
    "factory": "optimizer opt tx inner_factory transformation optimizer_cls",
    "transforms": "optimizers groups txs",
    "labels": "param_labels label_fn groups",
    "loss": "value",
    "compile": "jit torch_compile use_jit",
    "accumulate": "every_k_schedule accumulation_steps gradient_accumulation_steps accumulate_grad_batches microbatches",
    "every_k_schedule": "every_k k accumulation_steps gradient_accumulation_steps every steps n",
    "has_aux": "aux return_aux",
    "in_dims": "in_axes in_dim",
    "max_norm": "clip_norm max_grad_norm norm clip threshold max_value",
    "max_delta": "max_value clip_value clip threshold value",
    "max_consecutive_errors": "max_errors patience n max_consecutive",
    "sync_period": "k la_steps period steps every",
    "slow_step_size": "alpha la_alpha step_size",
    "accumulator_dtype": "mu_dtype state_dtype dtype",
    "mu_dtype": "accumulator_dtype state_dtype dtype momentum_dtype",
    "state_dtype": "mu_dtype dtype",
    "init_value": "initial_value lr init_lr start base_lr value start_value",
    "peak_value": "max_lr peak_lr max_value peak",
    "end_value": "eta_min min_lr final_value end_lr final_lr min_value end",
    "decay_steps": "T_max total_steps steps num_steps num_training_steps n_steps max_iter",
    "transition_steps": "total_steps steps num_steps n_steps step_size T_max total_iters decay_steps max_iter",
    "warmup_steps": "warmup num_warmup_steps warm_up warmup_iters",
    "decay_rate": "gamma rate decay",
    "boundaries_and_scales": "milestones boundaries scales",
    "boundaries": "milestones",
    "value": "lr init_value constant",
    "power": "exponent degree gamma",
    "ns_steps": "steps num_steps backend_steps newton_schulz_steps",
    "ns_coeffs": "coefficients coeffs",
    "lr_candidates": "lrs lr_arms rates multipliers",
    "noise_candidates": "noises noise_arms sigmas",
    "episode_length": "episode_steps length period every",
    "pool": "optimizers members",
    "every": "switch_every_steps period interval every_k",
    "switch": "switch_granularity granularity",
    "warmup": "warmup_config warmup_epochs",
    "steps": "num_steps n_steps length T max_steps",
    "max_steps": "num_steps n_steps steps episode_length max_episode_length",
    "path": "file filename f filepath",
    "like": "template target state map_location into",
    "strict": "partial",
    "process_group": "group pg",
    "seeds": "seed n_seeds num_seeds runs",
    "module": "model net network",
    "params": "parameters variables model_params",
    "clipping_threshold": "clip_threshold clip max_norm",
    "switch_granularity": "switch",
    "noise": "distribution perturbation noise_type",
    "baseline": "reference",
    "tree": "pytree params",
}
# Keywords that no function of ours takes where they are given, and what does it.
ELSEWHERE = {
    "betas": lambda takes: "betas is b1 and b2 here" if "b1" in takes else "",
    "etas": lambda takes: "etas is etaminus and etaplus here" if "etaminus" in takes else "",
    "maximize": lambda takes: "to go uphill put fo.scale(-1.0) first in a chain",
    "amsgrad": lambda takes: "AMSGrad is fo.amsgrad",
    "dampening": lambda takes: "dampening is fo.scale_by_schedule(lambda count: 1 - d * (count > 0).double()) before fo.sgd",
    "foreach": lambda takes: "there is one form only; fo.make_step(..., compile=True) makes it fast",
    "fused": lambda takes: "there is one form only; fo.make_step(..., compile=True) makes it fast",
    "capturable": lambda takes: "no step looks at the device, so that graphs can be captured as it is",
    "differentiable": lambda takes: "every transformation is differentiable",
    "decoupled_weight_decay": lambda takes: "decoupled decay is fo.adamw; coupled decay is fo.add_decayed_weights before the optimizer",
    "flip_sign": lambda takes: "fo.lr_scale goes downhill; fo.scale(lr) keeps the sign",
    "use_nesterov": lambda takes: "use_nesterov is nesterov here" if "nesterov" in takes else "",
    "weight_decay": lambda takes: "put fo.add_decayed_weights(...) into the chain" if "lr" in takes else "",
    "max_grad_norm": lambda takes: "put fo.clip_by_global_norm(...) before it in a chain" if "lr" in takes else "",
    "clip_norm": lambda takes: "put fo.clip_by_global_norm(...) before it in a chain" if "lr" in takes else "",
    "static_argnames": lambda takes: "names to leave alone are static_args" if "static_args" in takes else "",
    "num_dims": lambda takes: "the number of dimensions is read off the params at init",
    "solution": lambda takes: "the params go to init",
    "clip_min": lambda takes: "bounds belong into the objective, which clamps what it is given",
    "lower_bounds": lambda takes: "bounds belong into the objective, which clamps what it is given",
}


@lru_cache(maxsize=1)
def _foreign() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for ours, theirs in KEYWORDS.items():
        for word in theirs.split():
            found.setdefault(word, []).append(ours)
    return found


def told(word: str, takes: Sequence[str]) -> str:
    """What a function that takes these words has for another; empty if nothing."""
    if word in ELSEWHERE and (hint := ELSEWHERE[word](takes)):
        return hint
    ours = next((own for own in _foreign().get(word, ()) if own in takes), None)
    if ours is None:
        ours = next(iter(difflib.get_close_matches(word.lower(), takes, n=1, cutoff=0.75)), None)
    return "" if ours is None else f"{word} is {ours} here"


# A foreign name -> ours, under `fo`. Names that differ by capitals and underscores alone are found without.
NAMES = {
    "multi_transform": "partition",
    "global_norm": "tree.norm",
    "tree_utils": "tree",
    "contrib": "schedule_free, prodigy, momo and the others, which stand in fo itself",
    "losses": "torch.nn.functional",
    "scale_by_learning_rate": "lr_scale",
    "scale_by_sign": "sign",
    "scale_by_lr": "lr_scale",
    "scale_by_momentum": "trace",
    "momentum": "trace",
    "additive_weight_decay": "add_decayed_weights",
    "weight_decay": "add_decayed_weights",
    "adaptive_gradient_clip": "adaptive_grad_clip",
    "clip_by_norm": "clip_by_global_norm",
    "clip_by_value": "clip",
    "clip_grad_norm_": "clip_by_global_norm",
    "clip_grad_norm": "clip_by_global_norm",
    "clip_grad_value_": "clip",
    "gradient_accumulation": "multi_steps",
    "accumulate": "multi_steps",
    "inject_stateful_hyperparams": "inject_hyperparams",
    "GradientTransformationExtraArgs": "GradientTransformation, of which every update takes extra arguments",
    "with_extra_args_support": "nothing: every update takes extra arguments",
    "TransformUpdateExtraArgsFn": "TransformUpdateFn, which takes extra arguments",
    "ScaleByBeliefState": "ScaleByAdamState",
    "ScaleByNovogradState": "ScaleByAdamState",
    "GaLoreDimensionNumbers": "MuonDimensionNumbers",
    "MultiTransformState": "PartitionState",
    "OptState": "TensorTree",
    "Params": "TensorTree",
    "Updates": "TensorTree",
    "ArrayTree": "TensorTree",
    "value_and_grad": "make_step, or torch.func.grad_and_value",
    "minimize": "make_step",
    "jit": "make_step(..., compile=True)",
    "grad": "es.grad, or torch.func.grad",
    "vmap": "torch.func.vmap, or population.make_step",
    "softmax_cross_entropy": "torch.nn.functional.cross_entropy",
    "softmax_cross_entropy_with_integer_labels": "torch.nn.functional.cross_entropy",
    "sigmoid_binary_cross_entropy": "torch.nn.functional.binary_cross_entropy_with_logits",
    "l2_loss": "torch.nn.functional.mse_loss",
    "huber_loss": "torch.nn.functional.huber_loss",
    "squared_error": "torch.nn.functional.mse_loss",
    "asgd": "torch_optim.from_torch(torch.optim.ASGD)",
    "sparseadam": "torch_optim.from_torch(torch.optim.SparseAdam)",
    "optim": "torch_optim",
    "lr_scheduler": "schedules",
    "schedule": "schedules",
    "optimizer": "torch_optim.Optimizer",
    "step": "make_step",
    "init": "init of a transformation: tx.init(params)",
    "update": "update of a transformation: tx.update(grads, state, params)",
    "CosineAnnealingLR": "schedules.cosine_decay_schedule",
    "CosineAnnealingWarmRestarts": "schedules.sgdr_schedule",
    "StepLR": "schedules.exponential_decay(..., staircase=True)",
    "MultiStepLR": "schedules.piecewise_constant_schedule",
    "ExponentialLR": "schedules.exponential_decay",
    "LinearLR": "schedules.linear_schedule",
    "PolynomialLR": "schedules.polynomial_schedule",
    "ConstantLR": "schedules.constant_schedule",
    "LambdaLR": "any function of the count of steps: fo.adam(lambda count: ...)",
    "OneCycleLR": "schedules.cosine_onecycle_schedule",
    "SequentialLR": "schedules.join_schedules",
    "ReduceLROnPlateau": "reduce_on_plateau",
    "cosine_schedule": "schedules.cosine_decay_schedule",
    "linear_warmup": "schedules.linear_schedule",
    "warmup_cosine": "schedules.warmup_cosine_decay_schedule",
    "get_cosine_schedule_with_warmup": "schedules.warmup_cosine_decay_schedule",
    "OpenES": "es.openai_es",
    "GuidedES": "es.guided",
    "PersistentES": "es.persistent",
    "NoiseReuseES": "es.persistent(..., reuse=True)",
    "Strategy": "es.Search",
    "SearchAlgorithm": "es.Search",
    "Problem": "nothing: a search is asked and told, see es.run",
    "ParameterReshaper": "nothing: params of a search are any tree",
    "FitnessShaper": "es.shaping",
    "Runner": "es.run",
    "GeneticAlgorithm": "es.simple_es",
    "MeZO": "es.spsa_step",
    "spsa": "es.spsa_step",
    "evolution": "es",
    "load_state_dict": "checkpoint.load_state_dict",
    "state_dict": "checkpoint.state_dict",
    "save": "checkpoint.save",
    "load": "checkpoint.load",
    "run": "race.run, or es.run",
    "EMA": "ema",
    "Module": "functional, which takes a torch.nn.Module",
    "Ranger": "lookahead(fo.radam(lr))",
    "AMSGrad": "amsgrad",
    "Nesterov": "sgd(lr, momentum, nesterov=True)",
    "RAdamW": "radam",
    "NovoGrad": "novograd",
    "AdamWScheduleFree": "schedule_free_adamw",
    "SGDScheduleFree": "schedule_free_sgd",
    "DAdaptAdam": "dadapt_adamw",
    "maybe_update": "conditionally_transform",
    "monte_carlo": "es.grad",
    "second_order": "torch.func.hessian",
    "perturbations": "es.grad",
    "safe_int32_increment": "numerics.safe_increment",
    "CyclicLR": "any function of the count of steps: fo.adam(lambda count: ...)",
    "swa_utils": "average_params",
    "AveragedModel": "average_params",
    "GradScaler": "torch.amp.GradScaler, which works with fo.torch_optim.Optimizer",
    "zero_grad": "nothing: gradients are values; a class of fo.torch_optim has zero_grad",
    "Strategies": "es.cma_es, es.snes, es.pgpe and others, each a function",
    "EvolutionStrategy": "es.Search",
    "RandomSearch": "es.simple_es",
    "DE": "nothing: no swarms and genetic algorithms are here; begin with es.cma_es",
    "PSO": "nothing: no swarms and genetic algorithms are here; begin with es.cma_es",
    "MAPElites": "nothing: no archives are here; begin with es.cma_es",
    "NEProblem": "es.evaluator, of a function of params",
    "GymNE": "es.gymnasium_rollout",
    "VecGymNE": "es.gymnasium_rollout, or es.rollout for environments in torch",
    "StdOutLogger": "es.run, whose history has every generation",
    "centered_rank": "es.shaping",
    "ask": "ask of a search: search.ask(state)",
    "tell": "tell of a search: search.tell(state, fitness)",
    "linear": "schedules.linear_schedule",
    "PBT": "population.exploit_explore",
    "best_member": "population.best",
    "stack_params": "population.stack",
    "stack_module_state": "population.stack",
    "restore": "checkpoint.load",
    "load_checkpoint": "checkpoint.load",
    "save_checkpoint": "checkpoint.save",
    "l2_norm": "tree.norm",
    "DDP": "torch.nn.parallel.DistributedDataParallel, which works with fo.torch_optim.Optimizer",
    "DistributedDataParallel": "torch.nn.parallel.DistributedDataParallel, which works with fo.torch_optim.Optimizer",
    "all_reduce": "distributed.mean",
    "compare": "race.run",
    "benchmark": "race.run",
    "plot": "viz.race, or viz.signals",
    "PRNGKey": "random.key",
    "bernoulli": "random.uniform(key, shape) < p",
    "choice": "random.randint(key, shape, 0, n)",
    "permutation": "random.uniform(key, (n,)).argsort(), or population.permutations",
}
# Namespaces, and the modules that are shown as some of them.
HOMES = {name: f"funcopt.core.{name}" for name in ("tree", "random")}
HOMES |= {name: f"funcopt.core.math.{name}" for name in ("moments", "projections", "numerics")}
HOMES["microbatching"] = "funcopt.core.functional.microbatching"
SPACES = ("", "es", "torch_optim", "schedules", "rules", "checkpoint", "population", "race", "distributed", "viz", *HOMES)


NOT_OURS = ("torch.", "nothing", "any ", "init ", "update ", "ask ", "tell ")  # answers that are no name of ours


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


PLAIN_NAMES = {_plain(name): ours for name, ours in NAMES.items()}


@lru_cache(maxsize=1)
def _shown() -> dict[str, list[str]]:
    """Every public name without capitals and underscores, and its place; read from the text, since some namespaces are dear to import."""
    found: dict[str, list[str]] = {}
    for space in SPACES:
        home = HOMES.get(space) or f"funcopt.{space}".rstrip(".")
        spec = importlib.util.find_spec(home)
        text = spec.loader.get_source(home) if spec is not None and hasattr(spec.loader, "get_source") else ""  # pyright: ignore
        listed = re.findall(r'"(\w+)"', "".join(re.findall(r"^__all__ = \[.*?\]", text or "", re.M | re.S)))
        for name in dict.fromkeys(re.findall(r"\b(\w+) as \1\b", text or "") + re.findall(r"^def (\w+)", text or "", re.M) + listed):
            if not name.startswith("_"):
                found.setdefault(_plain(name), []).append(f"{space}.{name}".lstrip("."))
    return found


def _ours(space: str, name: str) -> str | None:
    """What is called so, or almost so: in this namespace first, then by the table, then anywhere."""
    everywhere = _shown().get(_plain(name), []) or [
        place for place in _shown().get(_plain(name.removeprefix("tree_")), []) if "tree." in place
    ]
    here = [place for place in everywhere if place.rpartition(".")[0] == space]
    known = NAMES.get(name) or PLAIN_NAMES.get(_plain(name))
    choice = here[:1] or ([known] if known else everywhere[:1])
    if choice:
        return choice[0]
    own = {place.rpartition(".")[2].lower(): place for places in _shown().values() for place in places if place.rpartition(".")[0] == space}
    close = difflib.get_close_matches(name.lower(), own, n=1, cutoff=0.8)
    return own[close[0]] if close else None


def ask(namespace: str) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a namespace: tells what is called so here."""
    space = namespace.removeprefix("funcopt").removeprefix(".").removeprefix("core.")

    def __getattr__(name: str) -> NoReturn:
        message = f"module '{namespace}' has no attribute '{name}'"
        if not name.startswith("_") and (ours := _ours(space, name)):
            message += f"; it is {'' if ours.startswith(NOT_OURS) else 'fo.'}{ours}"
        raise AttributeError(message, name=name, obj=sys.modules.get(namespace))

    return __getattr__
