"""Names that people bring from optax, torch.optim, evosax and EvoTorch: each is there, or is answered with ours."""

import functools

import pytest

import funcopt as fo
from funcopt.core.door import words

GUESSED = {
    # optax
    "": """
        adam adamw sgd lion rmsprop adagrad adadelta adafactor yogi radam nadam novograd lamb lars fromage sm3 amsgrad
        noisy_sgd sign_sgd prodigy
        multi_transform partition global_norm linear_schedule cosine_decay_schedule warmup_cosine_decay_schedule exponential_decay
        piecewise_constant_schedule join_schedules constant_schedule cosine_onecycle_schedule sgdr_schedule polynomial_schedule
        scale_by_learning_rate scale_by_sign scale_by_adam MultiSteps apply_if_finite lookahead masked maybe_update chain named_chain
        inject_hyperparams inject_stateful_hyperparams clip clip_by_global_norm adaptive_grad_clip centralize contrib tree_utils losses
        safe_norm safe_increment safe_int32_increment keep_params_nonnegative GradientTransformationExtraArgs with_extra_args_support
        OptState Params Updates EmptyState set_to_zero identity trace ema add_noise add_decayed_weights scale scale_by_schedule
        apply_updates incremental_update softmax_cross_entropy l2_loss lbfgs scale_by_lbfgs monte_carlo second_order perturbations
        microbatching value_and_grad_from_state tree_map_params projections optimistic_gradient_descent reduce_on_plateau
        Adam AdamW SGD RMSprop Adagrad Adadelta Adamax NAdam RAdam Rprop LBFGS SparseAdam ASGD Adafactor Muon Lion
        StepLR MultiStepLR ExponentialLR CosineAnnealingLR CosineAnnealingWarmRestarts OneCycleLR ReduceLROnPlateau LambdaLR LinearLR
        PolynomialLR SequentialLR ConstantLR CyclicLR clip_grad_norm_ clip_grad_value_ swa_utils AveragedModel EMA Optimizer lr_scheduler
        GradScaler state_dict load_state_dict zero_grad
    """,
    "torch_optim": "Adam AdamW SGD RMSprop Adagrad NAdam RAdam LBFGS Lion Muon lr_scheduler Pilot OptiRoulette AEES SparseAdam",
    # evosax and EvoTorch
    "es": """
        CMA_ES CMAES Sep_CMA_ES SNES xNES XNES OpenES Open_ES PGPE ARS CEM SimpleES GuidedES PersistentES NoiseReuseES ParameterReshaper
        FitnessShaper Strategies Strategy EvolutionStrategy RandomSearch DE PSO MAPElites GeneticAlgorithm Problem NEProblem GymNE VecGymNE
        SearchAlgorithm StdOutLogger centered_rank ClipUp ask tell Rollout
    """,
    "schedules": "CosineAnnealingLR StepLR cosine_schedule linear_warmup OneCycleLR get_cosine_schedule_with_warmup linear warmup_cosine",
    "population": "vmap best_member PBT stack_params stack_module_state",
    "checkpoint": "save load restore save_checkpoint load_checkpoint state_dict",
    "tree": "global_norm l2_norm map tree_map tree_add tree_norm tree_leaves tree_flatten tree_scale tree_sub tree_zeros_like zeros_like",
    "random": "PRNGKey split normal uniform fold_in randint bernoulli choice permutation key",
    "distributed": "all_reduce DistributedDataParallel DDP",
    "race": "compare benchmark plot",
}
NAMES = [(space, name) for space, names in GUESSED.items() for name in names.split()]


def answer(space: str, name: str) -> str | None:
    """What a namespace says of a name; None where it is there."""
    home = getattr(fo, space) if space else fo
    try:
        getattr(home, name)
    except AttributeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("space", GUESSED)
def test_a_name_that_is_guessed_is_there_or_answered_with_ours(space):
    silent = [name for home, name in NAMES if home == space and (told := answer(space, name)) is not None and "; it is " not in told]
    assert not silent, f"fo.{space} says nothing of {', '.join(silent)}; give them their lines in core/door/words.py"


def test_at_least_120_names_are_guessed():
    assert len(set(NAMES)) >= 120


def test_what_is_answered_exists():
    """An answer that begins with a name of ours, `fo.es.cma_es, ...`, begins with one that is there."""
    wrong = []
    for space, name in NAMES:
        told = (answer(space, name) or "").partition("; it is fo.")[2]
        path = told.split(",")[0].split("(")[0].split(" ")[0]
        try:
            functools.reduce(getattr, path.split(".") if path else [], fo)
        except AttributeError:
            wrong.append(f"{name}: fo.{path}")
    assert not wrong


@pytest.mark.parametrize(
    "name, ours",
    [
        ("multi_transform", "fo.partition"),
        ("Adam", "fo.adam"),
        ("global_norm", "fo.tree.norm"),
        ("linear_schedule", "fo.schedules.linear_schedule"),
        ("torch_optim.AdamW", "fo.torch_optim.adamw"),
        ("es.CMA_ES", "fo.es.cma_es"),
        ("tree.tree_add", "fo.tree.add"),
        ("random.PRNGKey", "fo.random.key"),
    ],
)
def test_the_answer_is_this_one(name, ours):
    space, _, last = name.rpartition(".")
    assert (answer(space, last) or "").endswith(f"; it is {ours}")


def test_every_namespace_is_looked_into():
    """Where a part of the package moves, the doors go on knowing what it holds."""
    shown = {place for places in words._shown().values() for place in places}
    for name in (
        "tree.add",
        "random.normal",
        "moments.update_moment",
        "projections.projection_box",
        "numerics.safe_norm",
        "es.cma_es",
        "adam",
    ):
        assert name in shown


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: fo.adam(learning_rate=0.1), "learning_rate is lr here"),
        (lambda: fo.adamw(0.1, mask=None), "mask is weight_decay_mask here"),
        (lambda: fo.adam(0.1, betas=(0.9, 0.99)), "betas is b1 and b2 here"),
        (lambda: fo.es.snes(pop_size=8), "pop_size is popsize here"),
        (lambda: fo.es.snes(std=1.0), "std is sigma here"),
        (lambda: fo.es.grad(fn=None, popsize=8, sigma=0.1), "fn is objective here"),
    ],
)
def test_a_keyword_of_theirs_is_answered_with_ours(call, told):
    with pytest.raises(TypeError, match=told):
        call()
