"""The front door of every public function: flags are True or False, others' words are answered with ours, and nothing else changes."""

import inspect
import pickle
import types
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import funcopt as fo
from funcopt.core.door import front, words
from funcopt.core.door.kinds import kind
from tests.helpers import assert_trees_close

SPACES = (
    "es",
    "torch_optim",
    "population",
    "race",
    "checkpoint",
    "schedules",
    "rules",
    "viz",
    "distributed",
    "tree",
    "moments",
    "numerics",
    "projections",
    "random",
    "microbatching",
)
NO_FLAGS = {"yes": "no", "one": 1, "zero": 0, "nothing": None, "tensor": torch.tensor(True), "numpy": np.True_}
MASKS = {"weight_decay_mask", "trust_ratio_mask"}  # trees of bools, of which True is one
LISTS = {"kept"}  # a bool for each leaf
OLD_NAMES = {"leafwise": "flattenable", "apart": "per_leaf"}


def public():
    """Every public function, class and factory by its name, once."""
    found = {}
    for space, home in [("fo", fo), *((space, getattr(fo, space)) for space in SPACES), ("es.compat", fo.es.compat)]:
        for name in sorted(dir(home)):
            value = getattr(home, name)
            if name.startswith("_") or isinstance(value, types.ModuleType) or not callable(value) or value in found.values():
                continue
            if getattr(value, "__module__", "").startswith("funcopt"):
                found[f"{space}.{name}"] = value
    return found


def is_flag(parameter):
    if parameter.name in MASKS | LISTS:
        return False
    parts = getattr(parameter.annotation, "__args__", (parameter.annotation,))
    return torch.Tensor not in parts and (bool in parts or type(parameter.default) is bool)


def flags():
    for name, value in public().items():
        if (
            inspect.isclass(value)
            and issubclass(value, Warning | tuple)
            and not hasattr(value.__new__, "__front__")
            and not issubclass(value, fo.GradientTransformation)
        ):
            continue  # states and results, which nobody but their maker builds
        for parameter in inspect.signature(value).parameters.values():
            if is_flag(parameter):
                yield name, value, parameter


def call_with(value, parameter, given):
    """Calls with nonsense for what else is needed: the flag is looked at first, or something else that is asked for is of its kind."""
    others = {}
    for other in inspect.signature(value).parameters.values():
        if (
            other.name != parameter.name
            and other.default is inspect.Parameter.empty
            and other.kind not in (other.VAR_KEYWORD, other.VAR_POSITIONAL)
        ):
            others[other.name] = sample(other)
    return value(**others, **{parameter.name: given})


def sample(parameter):
    known = {
        "inner": fo.sgd(0.1),
        "fast_optimizer": fo.sgd(0.1),
        "base_optimizer": fo.sgd(0.1),
        "transformation": fo.sgd(0.1),
        "tx": fo.sgd(0.1),
        "factory": fo.sgd,
        "optimizers": {"sgd": fo.sgd(0.1)},
        "params": [torch.nn.Parameter(torch.zeros(2))],
        "transforms": {"a": fo.sgd(0.1)},
        "labels": "a",
        "mask": True,
        "pool": {"a": fo.Member(fo.identity(), lr=0.1), "b": fo.Member(fo.identity(), lr=0.2)},
        "init": lambda params: (),
        "update": lambda updates, state, params=None, **extra: (updates, state),
        "path": "nowhere",
        "sigma": 0.1,
        "every_k_schedule": 2,
        "env": "CartPole-v1",
        "members": ("a",),
        "grads": torch.ones(2, 3),
        "x": torch.ones(2),
        "tree": torch.ones(2),
        "saved": {},
        "state": torch.zeros(2),
    }
    if parameter.name in known:
        return known[parameter.name]
    found = kind(parameter.annotation)
    for candidate in (True, 0.5, 2, "adam", (lambda *args: args[0]), torch.ones(2)):
        if found is None or found.holds(candidate):
            return candidate
    return None


FLAGS: dict[str, list[tuple]] = {}  # by the name of the function
for called, *case in flags():
    FLAGS.setdefault(called, []).append(case)


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_true_or_false(name):
    for value, parameter in FLAGS[name]:
        true_or_false(name, value, parameter)


def true_or_false(name, value, parameter):
    holds = kind(parameter.annotation) or kind(bool)
    for given in NO_FLAGS.values():
        if (given is None and holds.holds(None)) or (isinstance(given, str) and holds.holds("")):
            continue
        with pytest.raises((TypeError, ValueError)) as stopped, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call_with(value, parameter, given)
        message = str(stopped.value)
        assert OLD_NAMES.get(parameter.name, parameter.name) in message, message
        assert name.rpartition(".")[2] in message or ": " in message, message
        assert "must be" in message, message


def test_the_signatures_have_flags():
    assert len(list(flags())) > 200


@pytest.mark.parametrize("squared", NO_FLAGS.values(), ids=NO_FLAGS)
def test_flags_of_what_runs_in_a_step_are_checked_too(squared):
    for call in (
        lambda: fo.tree.norm(torch.ones(2), squared=squared),
        lambda: fo.numerics.safe_norm(torch.ones(2), keepdim=squared),
    ):
        with pytest.raises(TypeError, match="must be True or False"):
            call()


def test_a_choice_between_true_false_and_a_word_does_not_take_one_for_true():
    for given in (1, 0, torch.tensor(True), np.True_):
        with pytest.raises((TypeError, ValueError), match="make_step: flat must be"):
            fo.make_step(lambda w: w.sum(), fo.sgd(0.1), flat=given)


# ------------------------------------------------------------------------------------------------ what a door must not change


def test_signatures_annotations_and_sources_are_those_of_the_function():
    plain = inspect.unwrap(fo.adamw)
    assert plain is not fo.adamw
    assert inspect.signature(fo.adamw) == inspect.signature(plain)
    assert fo.adamw.__annotations__ == plain.__annotations__
    assert fo.adamw.__doc__ == plain.__doc__
    assert (fo.adamw.__module__, fo.adamw.__qualname__) == ("funcopt.optimizers.adamw", "adamw")
    assert inspect.getsource(fo.adamw).startswith("def adamw(")


@pytest.mark.parametrize(
    "name", ["adamw", "chain", "make_step", "es.cma_es", "schedules.linear_schedule", "rules.trend", "checkpoint.save", "es.grad"]
)
def test_public_functions_pickle_by_their_names(name):
    value = fo
    for part in name.split("."):
        value = getattr(value, part)
    assert pickle.loads(pickle.dumps(value)) is value


def test_hyperparameters_are_still_read_off_annotations():
    tx = fo.inject_hyperparams(fo.adamw)(lr=lambda count: 0.1 / (count + 1), b1=0.8)
    state = tx.init(torch.zeros(2))
    assert set(state.hyperparams) >= {"lr", "b1", "b2", "eps"}
    injected, plain = fo.inject_hyperparams(fo.sgd)(0.1), fo.sgd(0.1)
    assert_trees_close(
        injected.update(torch.ones(2), injected.init(torch.zeros(2)))[0],
        plain.update(torch.ones(2), plain.init(torch.zeros(2)))[0],
        rtol=1e-7,
        atol=0,
    )


def test_no_step_passes_a_door(monkeypatch):
    passed = []
    real = front.compiling
    monkeypatch.setattr(front, "compiling", lambda: passed.append(1) or real())
    injected = fo.inject_hyperparams(fo.adamw)(0.1)
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.adaptive(fo.adamw, lr=fo.rules.trend(0.1)))
    params = torch.zeros(3)
    states = injected.init(params), tx.init(params)
    step = fo.make_step(lambda w: w.square().sum(), fo.adam(0.1))
    held, state = step.init(params)
    passed.clear()
    injected.update(torch.ones(3), states[0], params)
    tx.update(torch.ones(3), states[1], params, loss=1.0)
    step(held, state)
    assert not passed


def test_a_warning_names_the_line_of_the_caller():
    with pytest.warns(UserWarning, match="nothing is learned") as caught:
        fo.ucb_episodes(episode_length=1)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="flattenable") as caught:
        fo.stateless(lambda updates, params: updates, leafwise=True)
    assert caught[0].filename == __file__


def test_a_class_made_outside_is_found_in_the_module_of_its_caller():
    assert fo.torch_optim.optimizer_class(fo.lamb, name="Lamb").__module__ == __name__


# ------------------------------------------------------------------------------------------------ the words of others

FOREIGN_NAMES = {
    (fo, "Adam"): "fo.adam",
    (fo, "AdamW"): "fo.adamw",
    (fo, "SGD"): "fo.sgd",
    (fo, "multi_transform"): "fo.partition",
    (fo, "global_norm"): "fo.tree.norm",
    (fo, "linear_schedule"): "fo.schedules.linear_schedule",
    (fo, "cosine_decay_schedule"): "fo.schedules.cosine_decay_schedule",
    (fo, "scale_by_learning_rate"): "fo.lr_scale",
    (fo, "CMA_ES"): "fo.es.cma_es",
    (fo, "OneCycleLR"): "fo.schedules.cosine_onecycle_schedule",
    (fo, "ReduceLROnPlateau"): "fo.reduce_on_plateau",
    (fo, "clip_grad_norm_"): "fo.clip_by_global_norm",
    (fo, "l2_loss"): "torch.nn.functional.mse_loss",
    (fo, "LBFGS"): "fo.lbfgs",
    (fo, "adamm"): "fo.adam",
    (fo.es, "CMA_ES"): "fo.es.cma_es",
    (fo.es, "CMAES"): "fo.es.cma_es",
    (fo.es, "SNES"): "fo.es.snes",
    (fo.es, "OpenES"): "fo.es.openai_es",
    (fo.es, "PGPE"): "fo.es.pgpe",
    (fo.es, "Sep_CMA_ES"): "fo.es.sep_cma_es",
    (fo.torch_optim, "AdamW"): "fo.torch_optim.adamw",
    (fo.torch_optim, "SGD"): "fo.torch_optim.sgd",
    (fo.torch_optim, "RMSprop"): "fo.torch_optim.rmsprop",
    (fo.torch_optim, "Muon"): "fo.torch_optim.muon",
    (fo.schedules, "CosineAnnealingLR"): "fo.schedules.cosine_decay_schedule",
    (fo.schedules, "warmup_cosine"): "fo.schedules.warmup_cosine_decay_schedule",
    (fo.population, "makestep"): "fo.population.make_step",
    (fo.checkpoint, "Save"): "fo.checkpoint.save",
}


@pytest.mark.parametrize("home, name", FOREIGN_NAMES, ids=lambda value: getattr(value, "__name__", value))
def test_a_name_of_another_library_is_answered_with_ours(home, name):
    with pytest.raises(AttributeError) as stopped:
        getattr(home, name)
    assert str(stopped.value).endswith(f"; it is {FOREIGN_NAMES[home, name]}")


def test_what_nobody_calls_so_is_a_plain_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'funcopt' has no attribute 'quxxyzzy'$"):
        fo.quxxyzzy  # noqa: B018
    assert not hasattr(fo, "__path_to_nowhere__")


def test_every_name_that_is_told_exists():
    for ours in words.NAMES.values():
        path = ours.split("(")[0].split(",")[0].split(" ")[0]
        if ours.startswith((*set(words.NOT_OURS) - {"torch."}, "schedule_free, ")):
            continue
        if path == "torch.amp.GradScaler" and not hasattr(torch.amp, "GradScaler"):  # torch 2.1 and 2.2
            continue
        value = torch if path.startswith("torch.") else fo
        for part in path.removeprefix("torch.").split("."):
            value = getattr(value, part)


FOREIGN_WORDS = [
    (lambda: fo.adam(learning_rate=0.1), "learning_rate is lr here"),
    (lambda: fo.adam(0.1, betas=(0.9, 0.99)), "betas is b1 and b2 here"),
    (lambda: fo.adam(0.1, epsilon=1e-8), "epsilon is eps here"),
    (lambda: fo.adamw(0.1, mask=None), "mask is weight_decay_mask here"),
    (lambda: fo.adam(0.1, amsgrad=True), "AMSGrad is fo.amsgrad"),
    (lambda: fo.sgd(0.1, dampening=0.1), "fo.scale_by_schedule"),
    (lambda: fo.sgd(0.1, maximize=True), "to go uphill"),
    (lambda: fo.sgd(0.1, foreach=True), "compile=True"),
    (lambda: fo.es.cma_es(pop_size=8, sigma=0.1), "pop_size is popsize here"),
    (lambda: fo.es.snes(8, stdev_init=0.1), "stdev_init is sigma here"),
    (lambda: fo.clip_by_global_norm(max_grad_norm=1.0), "max_grad_norm is max_norm here"),
    (lambda: fo.multi_steps(fo.sgd(0.1), k=2), "k is every_k_schedule here"),
    (
        lambda: fo.lookahead(optimizer=fo.sgd(0.1), k=5, alpha=0.5),
        "optimizer is fast_optimizer here; k is sync_period here; alpha is slow_step_size here",
    ),
    (lambda: fo.make_step(lambda w: w, optimizer=fo.sgd(0.1)), "optimizer is tx here"),
    (lambda: fo.make_step(lambda w: w, fo.sgd(0.1), jit=True), "jit is compile here"),
    (lambda: fo.schedules.cosine_decay_schedule(0.1, T_max=10), "T_max is decay_steps here"),
    (lambda: fo.schedules.exponential_decay(0.1, 10, gamma=0.9), "gamma is decay_rate here"),
    (lambda: fo.torch_optim.adamw([torch.nn.Parameter(torch.zeros(1))], learning_rate=0.1), "learning_rate is lr here"),
    (lambda: fo.Member(optimizer=fo.sgd(0.1)), "optimizer is transformation here"),
]


@pytest.mark.parametrize("call, told", FOREIGN_WORDS, ids=[told for _, told in FOREIGN_WORDS])
def test_a_keyword_of_another_library_is_answered_with_ours(call, told):
    with pytest.raises(TypeError, match="takes no ") as stopped:
        call()
    assert told in str(stopped.value)


def test_what_is_missing_and_what_is_too_much_are_told():
    with pytest.raises(TypeError, match=r"adam: needs lr, got nothing for it; write adam\(lr, b1=\.\.\."):
        fo.adam()
    with pytest.raises(TypeError, match="clip: takes 1 arguments without a name: max_delta, got 2"):
        fo.clip(1.0, 2.0)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (fo.adam, r"got the function adam; call it: adam\(\.\.\.\)"),
        (partial(fo.adam, 0.1), "call it: adam"),
        (torch.optim.Adam, r"got the class Adam; fo.torch_optim.from_torch\(torch.optim.Adam, lr="),
        (torch.optim.SGD([torch.zeros(1)], 0.1), r"got the optimizer torch.SGD; fo.torch_optim.from_torch\(torch.optim.SGD"),
        ([fo.sgd(0.1)], r"got a list of 1 of them; write chain\(\*links\)"),
        ((lambda params: (), lambda updates, state: (updates, state)), "got a tuple of two functions; write GradientTransformation"),
        (torch.nn.Linear(1, 1), "got the module Linear"),
        (None, "got None"),
    ],
    ids=["factory", "partial", "torch class", "torch optimizer", "list", "pair", "module", "None"],
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: fo.chain(tx),
        lambda tx: fo.named_chain(("a", tx)),
        lambda tx: fo.lookahead(tx, 5, 0.5),
        lambda tx: fo.apply_if_finite(tx, 3),
        lambda tx: fo.multi_steps(tx, 2),
        lambda tx: fo.masked(tx, True),
        lambda tx: fo.scoped("a", tx),
        lambda tx: fo.partition({"a": tx}, "a"),
        lambda tx: fo.flatten(tx),
        lambda tx: fo.schedule_free(tx, 0.1),
        lambda tx: fo.aees(tx),
        lambda tx: fo.Member(tx, lr=0.1),
        lambda tx: fo.make_step(lambda w: w.sum(), tx),
        lambda tx: fo.split_real_and_imaginary(tx),
        lambda tx: fo.conditionally_transform(tx, lambda **extra: True),
        lambda tx: fo.es.only_selected(tx),
        lambda tx: fo.es.openai_es(4, 0.1, optimizer=tx),
    ],
    ids=[
        *(
            "chain",
            "named_chain",
            "lookahead",
            "apply_if_finite",
            "multi_steps",
            "masked",
            "scoped",
            "partition",
            "flatten",
            "schedule_free",
            "aees",
            "Member",
        ),
        *("make_step", "split_real_and_imaginary", "conditionally_transform", "only_selected", "openai_es"),
    ],
)
def test_what_is_no_transformation_is_refused_by_whoever_takes_one(wrap, wrong, told):
    if wrong is None and wrap.__code__.co_names[-1] == "openai_es":
        return  # None is its default
    with pytest.raises(TypeError, match="must be a GradientTransformation") as stopped:
        wrap(wrong)
    stopped.match(told)


NO_NUMBERS = {
    "b2 must be in": lambda: fo.adam(0.1, b2=torch.tensor(0.999, dtype=torch.bfloat16)),  # 1 in bfloat16
    "lr must be >= 0, got nan": lambda: fo.sgd(torch.tensor(torch.nan)),
    "lr must be >= 0, got -1": lambda: fo.chain(fo.clip(1.0), fo.lion(lr=torch.tensor(-1))),
    "decay must be in": lambda: fo.sgd(0.1, momentum=torch.tensor(1.5)),
    "decay_steps must be > 0": lambda: fo.schedules.cosine_decay_schedule(0.1, torch.tensor(0)),
    "a number or a real 0-dim tensor, got a bool tensor": lambda: fo.adam(torch.tensor(True)),
    "a number or a real 0-dim tensor, got a complex64 tensor": lambda: fo.adam(0.1, eps=torch.tensor(1e-8 + 0j)),
    "got a tensor on meta, which holds no number": lambda: fo.adamw(0.1, weight_decay=torch.zeros((), device="meta")),
}


@pytest.mark.parametrize("said", NO_NUMBERS)
def test_a_number_in_a_tensor_is_held_to_what_numbers_are(said):
    with pytest.raises((TypeError, ValueError), match=said):
        NO_NUMBERS[said]()


def test_where_a_number_is_differentiated_or_a_step_makes_a_transformation_nobody_reads_it():
    def after(lr):
        return fo.sgd(lr).update(torch.ones(2), fo.sgd(lr).init(torch.ones(2)))[0].sum()

    assert torch.func.grad(after)(torch.tensor(-0.5)) == -2
    assert torch.func.vmap(after)(torch.tensor([0.5, -1.0])).tolist() == [-1, 2]
    rate = torch.tensor(0.5, requires_grad=True)
    assert torch.autograd.grad(after(rate), rate)[0] == -2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_hyperparameter_in_half_precision_is_the_number_that_it_holds(dtype):
    decay, g = torch.tensor(0.1, dtype=dtype), torch.tensor([1.0])  # 1 - decay in bfloat16 is 0.8984
    state = fo.ema(decay).init(g)
    mean, _ = fo.ema(decay, debias=False).update(g, state)
    torch.testing.assert_close(mean, torch.tensor([1 - float(decay)]), rtol=1e-6, atol=0)


def test_a_transformation_that_is_made_in_a_step_is_not_read_there(monkeypatch):
    read = []
    monkeypatch.setattr(front, "_as_numbers", lambda *args: read.append(args))
    tx, params = fo.inject_hyperparams(lambda lr, b1: fo.chain(fo.clip(1.0), fo.adam(lr, b1)))(0.1, b1=0.9), torch.ones(2)
    tx.update(params, tx.init(params), params)
    assert not read
    fo.adam(torch.tensor(0.1))
    assert read
