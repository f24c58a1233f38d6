"""Whatever happens to an optimizer between two steps: our classes beside torch's own, under random sequences.

A machine for each method and form draws what happens next: a step, in which some parameters pause; freezing; a new
group, a new parameter in a group's list, one that moves to another group, one that leaves for a while; a state that
somebody deletes; another value of any hyperparameter; saving and loading in a new object; a deep copy; a pickle. After
each step all parameters are those of torch.
"""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import funcopt as fo
from funcopt.core.versions import default_rate

RATES = (0.0, 0.01, 0.1)
BETAS = ((0.9, 0.999), (0.8, 0.99), (0.0, 0.5))
DECAY = (0.0, 0.1)
FLAG = (False, True)
ADAM = {"lr": RATES, "betas": BETAS, "eps": (1e-8, 1e-3), "weight_decay": DECAY, "maximize": FLAG}
# Hyperparameters that have to fit one another are changed together.
METHODS = {
    "sgd": {
        "lr": RATES,
        "momentum dampening nesterov": ((0.0, 0.0, False), (0.9, 0.0, False), (0.5, 0.3, False), (0.8, 0.0, True)),
        "weight_decay": DECAY,
        "maximize": FLAG,
    },
    "adam": {**ADAM, "amsgrad": FLAG, "decoupled_weight_decay": FLAG},
    "adamw": {**ADAM, "amsgrad": FLAG},
    "nadam": {**ADAM, "momentum_decay": (4e-3, 0.1), "decoupled_weight_decay": FLAG},
    "radam": {**ADAM, "decoupled_weight_decay": FLAG},
    "adamax": ADAM,
    "adagrad": {"lr": RATES, "lr_decay": (0.0, 0.5), "eps": (1e-10, 1e-3), "weight_decay": DECAY, "maximize": FLAG},
    "adadelta": {"lr": RATES, "rho": (0.9, 0.5), "eps": (1e-6, 1e-3), "weight_decay": DECAY, "maximize": FLAG},
    "rmsprop": {
        "lr": RATES,
        "alpha": (0.99, 0.5),
        "eps": (1e-8, 1e-3),
        "momentum": (0.0, 0.9, 0.5),
        "centered": FLAG,
        "weight_decay": DECAY,
        "maximize": FLAG,
    },
    "rprop": {"lr": RATES, "etas": ((0.5, 1.2), (0.3, 2.0)), "step_sizes": ((1e-6, 50.0), (0.02, 0.05)), "maximize": FLAG},
    "adafactor": {
        "lr": RATES,
        "beta2_decay": (-0.8, -0.5),
        "eps": ((None, 1e-3), (None, 0.5), (1e-3, 1e-3), (0.5, 1e-3)),
        "d": (1.0, 2.0),
        "weight_decay": DECAY,
        "maximize": FLAG,
    },
    "muon": {"lr": RATES, "momentum": (0.95, 0.5), "weight_decay": DECAY},
}
NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop"}


def of_torch(method: str) -> type | None:
    return getattr(torch.optim, NAMES.get(method, method.capitalize()), None)


def has(kind: type, names: str) -> bool:
    return set(names.split()) <= set(inspect.signature(kind).parameters)


# Of the classes and options those that this torch has.
METHODS = {
    method: {names: values for names, values in changes.items() if has(kind, names)}
    for method, changes in METHODS.items()
    if (kind := of_torch(method)) is not None
}
# Where torch's arithmetic is coarser than float64 (test_against_torch.py says where).
COARSE = {"nadam": 2e-5, "muon": 5e-2}
WITHOUT = tuple(getattr(torch.optim, name) for name in ("SGD", "Muon") if hasattr(torch.optim, name))  # any of these buffers
# What torch makes at a parameter's first step, and misses where the option that reads it is switched on later: zeros, as at a first step.
BUFFERS = {"amsgrad": "max_exp_avg_sq", "centered": "grad_avg", "momentum": "momentum_buffer"}


def completed(opt: torch.optim.Optimizer) -> None:
    """Gives a torch optimizer the state with which it would have begun, where it expects one that it never made."""
    for group in opt.param_groups:
        for p in group["params"]:
            if isinstance(opt, torch.optim.Adagrad) and not opt.state.get(p):
                opt.state[p] = {"step": torch.tensor(0.0), "sum": torch.full_like(p, group["initial_accumulator_value"])}
            if isinstance(opt, WITHOUT) or not opt.state.get(p):
                continue
            for option, name in BUFFERS.items():
                if group.get(option) and name not in opt.state[p]:
                    opt.state[p][name] = torch.zeros_like(p)


class World:
    """Parameters and their optimizer, with torch's class or with ours."""

    def __init__(self, make, shapes):
        self.make = make
        generator = torch.Generator().manual_seed(3)
        self.params = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]

    def at(self, index):
        """The group of a parameter, and its place in the list; None while it is in none."""
        for group in self.opt.param_groups:
            for place, p in enumerate(group["params"]):
                if p is self.params[index]:
                    return group, place
        return None

    def begin(self, indices, given):
        self.opt = self.make([self.params[index] for index in indices], **given)

    def step(self, count, pausing):
        for index, p in enumerate(self.params):
            wave = torch.cos(torch.arange(p.numel(), dtype=torch.float64) * 1.3 + 2.1 * count + index).reshape(p.shape)
            p.grad = 0.3 * p.detach() + wave if index not in pausing and p.requires_grad else None
        if isinstance(self.opt, torch.optim.Optimizer) and type(self.opt).__module__.startswith("torch."):
            completed(self.opt)
        self.opt.step()

    def whole(self):
        """Whether it can be saved: torch finds no number for a state whose parameter is in no group."""
        return not any(self.at(index) is None and p in self.opt.state for index, p in enumerate(self.params))

    def reload(self):
        """The state in a new object, whose groups are those of the old one."""
        saved = copy.deepcopy(self.opt.state_dict())
        sizes = [len(group["params"]) for group in self.opt.param_groups]
        groups = [{"params": list(group["params"]) or [torch.nn.Parameter(torch.zeros(1, 1))]} for group in self.opt.param_groups]
        self.opt = self.make(groups, **default_rate(self.make))
        for group, size in zip(self.opt.param_groups, sizes, strict=True):
            del group["params"][size:]
        self.opt.load_state_dict(saved)


def machine(method, **form):
    changes = METHODS[method]
    shapes = [(2, 3), (4, 2), (3, 3), (2, 2)] if method == "muon" else [(2, 3), (4,), (1, 2), (3,)]
    theirs = of_torch(method)

    def named(name, value):
        return dict(zip(name.split(), value if " " in name else (value,), strict=True))

    def ours(params, **given):
        return getattr(fo.torch_optim, method)(params, **given, **form)

    kinds = st.sampled_from(sorted(changes))

    class Machine(RuleBasedStateMachine):
        @initialize(data=st.data())
        def begin(self, data):
            self.worlds, self.count = [World(ours, shapes), World(theirs, shapes)], 0
            given = {}
            for name in sorted(changes):
                given |= named(name, data.draw(st.sampled_from(changes[name]), label=name))
            for world in self.worlds:
                world.begin([0, 1], given)

        @rule(pausing=st.sets(st.integers(0, 3), max_size=2))
        def step(self, pausing):
            self.count += 1
            for world in self.worlds:
                world.step(self.count, pausing)
            tolerance = COARSE.get(method, 1e-9)
            for index, (x, y) in enumerate(zip(self.worlds[0].params, self.worlds[1].params, strict=True)):
                torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance, msg=lambda text, index=index: f"parameter {index}: {text}")

        @rule(index=st.integers(0, 3), trained=st.booleans())
        def freeze_or_unfreeze(self, index, trained):
            for world in self.worlds:
                world.params[index].requires_grad_(trained)

        @rule(index=st.integers(2, 3), data=st.data())
        def add_a_group(self, index, data):
            name = data.draw(kinds)
            value = data.draw(st.sampled_from(changes[name]))
            for world in self.worlds:
                if world.at(index) is None:
                    world.opt.add_param_group({"params": [world.params[index]], **named(name, value)})

        @rule(index=st.integers(0, 3), first=st.booleans())
        def append_to_a_group(self, index, first):
            for world in self.worlds:
                if world.at(index) is None:
                    world.opt.param_groups[0 if first else -1]["params"].append(world.params[index])

        @rule(index=st.integers(0, 3))
        def leave(self, index):
            for world in self.worlds:
                if (found := world.at(index)) is not None:
                    found[0]["params"].pop(found[1])

        @rule(index=st.integers(0, 3))
        def move(self, index):
            for world in self.worlds:
                if (found := world.at(index)) is not None and len(world.opt.param_groups) > 1:
                    found[0]["params"].pop(found[1])
                    groups = world.opt.param_groups
                    groups[0 if found[0] is groups[-1] else -1]["params"].append(world.params[index])

        @rule(index=st.integers(0, 3))
        def delete_the_state(self, index):
            for world in self.worlds:
                if world.params[index] in world.opt.state:
                    del world.opt.state[world.params[index]]

        @rule(name=kinds, first=st.booleans(), data=st.data())
        def change(self, name, first, data):
            value = data.draw(st.sampled_from(changes[name]))
            for world in self.worlds:
                world.opt.param_groups[0 if first else -1].update(named(name, value))

        @rule()
        def save_and_load(self):
            if all(world.whole() for world in self.worlds):
                for world in self.worlds:
                    world.reload()

        @rule(pickled=st.booleans())
        def copied(self, pickled):
            for world in self.worlds:
                pair = (world.params, world.opt)
                if not pickled:
                    world.params, world.opt = copy.deepcopy(pair)
                elif world is not self.worlds[0] or not form.get("compile"):
                    world.params, world.opt = pickle.loads(pickle.dumps(pair))

    return Machine


def held(method, examples, steps=14, **form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_state_machine_as_test(
            machine(method, **form),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


WHOLE = ("muon", "adafactor")  # look at a leaf as a whole, and have no flat form
FORMS = [(method, flat) for method in METHODS for flat in (False, True, "auto") if flat is not True or method not in WHOLE]


@pytest.mark.parametrize("method, flat", [form for form in FORMS if form[1] != "auto"])
def test_a_class_is_that_of_torch_whatever_happens_between_steps(method, flat):
    held(method, 6, flat=flat)


@pytest.mark.long
@pytest.mark.parametrize("method, flat", FORMS)
def test_a_class_is_that_of_torch_in_long_sequences(method, flat):
    held(method, 100, 30, flat=flat)


def beside(make, theirs, happen):
    """Parameters after some steps, of ours and of torch's."""
    ends = []
    for kind in (make, theirs):
        world = World(kind, [(2, 3), (4,), (1, 2), (3,)])
        happen(world)
        ends.append([p.detach() for p in world.params])
    for x, y in zip(*ends, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


def moved(world):
    """A parameter goes from the head of the second group to the end of the first, which leaves the order of all as it was."""
    world.begin([0, 1], {"lr": 0.1})
    world.step(1, {2})
    world.opt.add_param_group({"params": [world.params[2], world.params[3]], "betas": (0.8, 0.99)})
    world.step(2, {3})
    world.opt.param_groups[0]["params"].append(world.opt.param_groups[1]["params"].pop(0))
    world.reload()
    world.step(3, set())


def deleted(world):
    """The state of a parameter is deleted that has a cohort to itself; another one, with which it then counts, pauses."""
    world.begin([0, 1, 2], {"lr": 0.1})
    for step in range(1, 6):
        world.step(step, {0} if step < 4 else set())
    del world.opt.state[world.params[0]]
    world.step(6, set())
    world.step(7, {1})
    world.step(8, set())


@pytest.mark.parametrize("happen", [moved, deleted])
@pytest.mark.parametrize("flat", [False, True], ids=["eager", "flat"])
def test_stateful_counters_go_with_whoever_moves_and_not_to_others_whose_state_is_deleted(happen, flat):
    beside(lambda params, **given: fo.torch_optim.adam(params, flat=flat, **given), torch.optim.Adam, happen)


def appended_where_another_left(opt, params):
    opt.param_groups[0]["params"].remove(params[1])
    opt.param_groups[0]["params"].append(params[2])
    return params[2]


def unfrozen_where_another_lost_its_state(opt, params):
    del opt.state[params[1]]
    return params[2].requires_grad_(True)


def deleted_where_nobody_else_counts_so(opt, params):
    del opt.state[params[1]]
    return params[1]


BEGINNINGS = (appended_where_another_left, unfrozen_where_another_lost_its_state, deleted_where_nobody_else_counts_so)


@pytest.mark.parametrize("happen", BEGINNINGS)
@pytest.mark.parametrize("flat", [False, True], ids=["eager", "flat"])
def test_stateful_first_step_of_adam_is_the_rate_whoever_counted_before(happen, flat):
    params = [torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(3)]
    params[2].requires_grad_(happen is not unfrozen_where_another_lost_its_state)
    opt = fo.torch_optim.adam(params[: 2 if happen is appended_where_another_left else 3], lr=0.1, flat=flat)

    def step(*moving):
        for p in params:
            p.grad = torch.ones_like(p) if any(p is other for other in moving) else None
        opt.step()

    step(params[0])
    for _ in range(11):
        step(*params[:2])  # the second one, a step late, counts alone
    newcomer = happen(opt, params)
    before = newcomer.item()
    step(params[0], newcomer)
    assert newcomer.item() == pytest.approx(before - 0.1, abs=1e-8)  # the count of the second gave 0.048


def test_stateful_momentum_that_is_off_for_a_while_goes_on_from_what_it_was():
    def happen(world):
        world.begin([0, 1], {"lr": 0.1, "momentum": 0.9})
        for step in range(1, 7):
            world.opt.param_groups[0]["momentum"] = 0.0 if step in (3, 4) else 0.9
            world.step(step, {1} if step == 5 else set())

    beside(lambda params, **given: fo.torch_optim.sgd(params, **given), torch.optim.SGD, happen)


@pytest.mark.parametrize("flat", [False, True])
def test_an_option_that_changes_after_all_states_were_deleted_is_that_of_a_new_optimizer(flat):
    ends = []
    for kind, options in ((fo.torch_optim.rmsprop, {"flat": flat}), (torch.optim.RMSprop, {})):
        params = [torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)) for _ in range(2)]
        opt = kind(params, lr=0.1, **options)
        for step in range(3):
            for index, p in enumerate(params):
                p.grad = torch.sin(p.detach() + step + index)
            opt.step()
            if step == 0:
                for p in params:
                    del opt.state[p]
                opt.param_groups[0]["centered"] = True
        ends.append([p.detach() for p in params])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)  # a variance of few numbers is a difference of near ones
