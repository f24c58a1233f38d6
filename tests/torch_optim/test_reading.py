"""Hyperparameters that change after construction: looked at again, refused in a sentence, and nothing has been written then."""

import copy

import pytest
import torch
from torch import nn

import funcopt as fo
from funcopt.torch_optim.classes.make import FromFactory
from tests.torch_optim.runs import assert_close, assert_equal, copies, gradients, model, train

WRONG = [
    ("adamw", "lr", float("nan"), ValueError, "Invalid learning rate: nan"),
    ("adamw", "lr", -1.0, ValueError, "Invalid learning rate: -1.0"),
    ("adamw", "lr", "fast", TypeError, "lr must be a number or a tensor of one element, got 'fast'"),
    ("adamw", "lr", None, TypeError, "lr must be a number or a tensor of one element, got None"),
    ("adamw", "betas", (2.0, 0.9), ValueError, "Invalid beta parameter at index 0: 2.0"),
    ("adamw", "betas", (0.9, float("nan")), ValueError, "Invalid beta parameter at index 1: nan"),
    ("adamw", "betas", (0.9,), TypeError, r"Invalid betas: \(0.9,\); it must be a pair of numbers"),
    ("adamw", "betas", 0.9, TypeError, "Invalid betas: 0.9; it must be a pair of numbers"),
    ("adamw", "betas", None, TypeError, "Invalid betas: None; it must be a pair of numbers"),
    (
        "adamw",
        "betas",
        (torch.ones(2), torch.ones(2)),
        ValueError,
        r"a tensor of shape \(2,\); it must be a number or a tensor of one element",
    ),
    ("adamw", "eps", -1, ValueError, "Invalid epsilon value: -1"),
    ("adamw", "eps", "small", TypeError, "Invalid epsilon value: 'small'; it must be a number or a tensor"),
    ("adamw", "weight_decay", float("nan"), ValueError, "Invalid weight_decay value: nan"),
    ("adamw", "amsgrad", "no", TypeError, "Invalid amsgrad value: 'no'; it must be True or False"),
    ("adamw", "maximize", "no", TypeError, "maximize must be True or False, got 'no'"),
    ("sgd", "momentum", "x", TypeError, "Invalid momentum value: 'x'; it must be a number or a tensor"),
    ("sgd", "dampening", "x", TypeError, "Invalid dampening value: 'x'"),
    ("sgd", "dampening", float("nan"), ValueError, "Invalid dampening value: nan"),
    (
        "sgd",
        "dampening",
        torch.ones(3),
        ValueError,
        r"Invalid dampening value: a tensor of shape \(3,\); it must be a number or a tensor of one element",
    ),
    ("adagrad", "lr_decay", torch.ones(3), ValueError, "Invalid lr_decay value: a tensor of shape"),
    ("sgd", "nesterov", True, ValueError, "Nesterov momentum requires a momentum and zero dampening"),
    ("rmsprop", "alpha", -0.1, ValueError, "Invalid alpha value: -0.1"),
    ("rmsprop", "centered", "yes", TypeError, "Invalid centered value: 'yes'"),
    ("adadelta", "rho", 1.5, ValueError, "Invalid rho value: 1.5"),
    ("rprop", "etas", (1.5, 2.0), ValueError, "Invalid eta values: 1.5, 2.0"),
    ("adafactor", "d", 0.5, ValueError, "Clipping threshold d should be >= 1 but is: 0.5"),
    ("lion", "betas", (0.9, 1.5), ValueError, r"b2 must be in \[0, 1\), got 1.5"),
    ("lion", "betas", None, TypeError, r"lion: betas must be a tuple of 2 numbers \(b1, b2\), got None"),
    ("adan", "betas", (0.9, 0.9), TypeError, r"adan: betas must be a tuple of 3 numbers \(b1, b2, b3\), got \(0.9, 0.9\)"),
    ("pilot", "gamma", -3.0, ValueError, "gamma must be"),
]


@pytest.mark.parametrize("kind, name, value, error, words", WRONG, ids=[f"{kind}-{name}-{value}" for kind, name, value, _, _ in WRONG])
def test_a_value_that_cannot_be_is_refused_at_the_next_step_and_nothing_has_moved(kind, name, value, error, words):
    net = model()
    opt = getattr(fo.torch_optim, kind)([{"params": net[0].parameters()}, {"params": net[2].parameters()}], lr=0.01)
    train(net, opt, 2)
    before, state = copies(net), copy.deepcopy(opt.state_dict()["state"])
    good = opt.param_groups[1][name]
    opt.param_groups[1][name] = value
    gradients(net, 2)
    with pytest.raises(error, match=words):
        opt.step()
    assert_equal(before, copies(net))
    assert str(opt.state_dict()["state"]) == str(state)
    opt.param_groups[1][name] = good
    opt.step()
    assert not torch.equal(before[0], copies(net)[0])


@pytest.mark.parametrize("name", ["maximize", "capturable"])
def test_a_flag_of_a_group_is_refused_when_the_group_is_made(name):
    net = model()
    with pytest.raises(TypeError, match=f"adamw: {name} must be True or False, got 'no'"):
        fo.torch_optim.adamw([{"params": net[0].parameters(), name: "no"}])
    opt = fo.torch_optim.adamw(net[0].parameters())
    with pytest.raises(TypeError, match=f"adamw: {name} must be True or False, got 'no'"):
        opt.add_param_group({"params": net[2].parameters(), name: "no"})
    assert len(opt.param_groups) == 1


def test_a_value_that_is_refused_at_construction_is_refused_when_it_is_loaded():
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 1)
    saved = opt.state_dict()
    saved["param_groups"][0]["betas"] = (22.0, 0.9)
    with pytest.raises(ValueError, match="Invalid beta parameter at index 0: 22.0"):
        opt.load_state_dict(saved)
    assert opt.param_groups[0]["betas"] == (0.9, 0.999)
    train(net, opt, 1)


KINDS = {name: kind for name, kind in vars(fo.torch_optim).items() if isinstance(kind, type) and issubclass(kind, FromFactory)}
# Where a value matters only beside others.
BESIDE = {
    "sgd": {"momentum": 0.9, "weight_decay": 0.1},
    **dict.fromkeys(("adam", "nadam", "radam"), {"weight_decay": 0.1}),
    "adaptive": {"lr_rule": "trend+variance", "wd_rule": "trend"},
    "adaptive sgd": {"inner": "sgd", "lr_rule": "trend+variance", "momentum": 0.9},
    "adaptive rmsprop": {"inner": "rmsprop", "lr_rule": "trend+variance"},
    "adamp": {"delta": 2.0, "weight_decay": 0.1},  # the bound on a cosine that always turns matrices
    "aees": {"lr_candidates": (0.5, 2.0), "seed": 0},
    **dict.fromkeys(("apollo", "fira"), {"rank": 1}),  # below both sides of the matrix
    "apollo_dqn": {"lr": 0.1},  # so that gradients change enough for the diagonal to rise above its floor
    "lion": {"mode": "smooth"},
    "momo_adam": {"lr": 10.0},
    "noisy_sgd": {"key": 0},
    "optiroulette": {"optimizer_specs": {"sgd": {"lr": 0.5}}},
    "prodigy": {"estim_lr_coef": 1e4},
    "ranger21": {"num_iterations": 6},  # so that the rate falls in the last three
    "schedule_free_sgd": {"lr": 0.1},
    "shampoo": {"every": 1},  # until the first roots it is the method that is grafted
}
# Values far enough from the default to be seen in a step; of the others half.
FAR = {
    "betas": (0.3, 0.7),
    "betas of adan": (0.3, 0.5, 0.7),
    "betas of ademamix": (0.3, 0.7, 0.9),
    "betas of came": (0.3, 0.5, 0.7),
    "beta3 of prodigy": 0.5,
    "d": 2.0,
    "damping of adgd": 2.0,
    "delta of adamp": 0.0,
    "eps": 0.5,
    "eps of adafactor": (None, 2.0),
    **dict.fromkeys(("eps1 of came", "eps2 of came"), 0.5),
    "estim_lr_coef": 1e6,
    "etas": (0.3, 2.0),
    "lr of momo": 1e-3,
    "lr of momo_adam": 1e-3,
    "max_lr": 1e-3,
    "gamma of sophia": 1e3,
    "eps of sophia": 1e3,
    "meta_clip": 1e-6,
    "min_norm": 100.0,
    "momentum_decay": 0.1,
    "r of adanorm": 0.1,
    "step_sizes": (0.02, 0.05),
    "threshold of ranger": 4.0,
}
UNHEARD = {  # by the formula
    "lr of rprop": "the first step size, in torch too",
    "alpha of gravity": "the first velocity",
    "scale of psgd": "the first preconditioner",
    "eps of cocob": "the first of the largest gradients",
    "estim_lr0 of prodigy": "the first estimate",
    "estim_lr0 of dadapt_adamw": "the first estimate",
    "init_estim_sq_dist of dowg": "the first distance",
    "b2_sure of rate_free": "gradients that are sure, as these are before they have been compared",
}
REFUSED = {"b2_sure of nadamw": "no link says 'sureness'", "momentum_decay of rate_free": "takes momentum_decay or b2_sure"}
AVERAGED = {"ema of splus"}  # by the formula no step hears it, but the average that eval() swaps in


def other(name, kind, value):
    if f"{name} of {kind}" in FAR or name in FAR:
        return FAR.get(f"{name} of {kind}", FAR.get(name))
    return not value if isinstance(value, bool) else 0.5 * value if value else 0.25


def steps(opt, params, start):
    kind = type(opt).__name__
    for step in range(start, start + 3):
        for index, p in enumerate(params):
            p.grad = torch.cos(torch.arange(p.numel(), dtype=p.dtype) * 1.3 + 0.9 * step + index).reshape(p.shape) + 0.2 * p.detach()
        told = {"hessian": [p.grad.abs() + 0.1 for p in params]} if kind in ("adahessian", "sophia") else {}
        opt.step(loss=torch.tensor(1.0 / (1 + step), dtype=torch.float64), epoch=0, **told)
    return [p.detach() for p in params]


def parameters():
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)) for shape in ((3, 2), (4,))]


@pytest.mark.parametrize("label", sorted({*KINDS, *BESIDE} - {"muon"}))
@pytest.mark.filterwarnings("ignore")
def test_every_hyperparameter_that_a_group_shows_is_read_when_it_changes(label):
    kind = label.split()[0]
    params = parameters()
    opt = KINDS[kind](params, **BESIDE.get(label, {}))
    steps(opt, params, 0)
    still, unchanged = copy.deepcopy((params, opt))
    same = steps(unchanged, still, 3)
    assert all(map(torch.equal, steps(*reversed(copy.deepcopy((params, opt))), 3), same))
    for name, value in opt.param_groups[0].items():
        if name in ("params", "capturable", "funcopt") or f"{name} of {kind}" in UNHEARD:
            continue
        others, again = copy.deepcopy((params, opt))
        again.param_groups[0][name] = other(name, kind, value)
        if f"{name} of {kind}" in REFUSED:
            with pytest.raises(ValueError, match=REFUSED[f"{name} of {kind}"]):
                steps(again, others, 3)
            assert all(map(torch.equal, others, params)), name
            continue
        if f"{name} of {kind}" in AVERAGED:
            assert all(map(torch.equal, steps(again, others, 3), same)), name
            averages = copy.deepcopy((still, unchanged)), (others, again)
            for _, one in averages:
                one.eval()
            assert not all(map(torch.equal, *(places for places, _ in averages))), name
            continue
        assert not all(map(torch.equal, steps(again, others, 3), same)), name


@pytest.mark.parametrize("label", sorted(UNHEARD))
@pytest.mark.filterwarnings("ignore")
def test_what_only_the_first_step_hears_is_read_when_it_changes_before_it(label):
    name, kind = label.split(" of ")
    params = parameters()
    opt = KINDS[kind](params, **BESIDE.get(kind, {}))
    others, again = copy.deepcopy((params, opt))
    again.param_groups[0][name] = other(name, kind, opt.param_groups[0][name])
    same = steps(*reversed(copy.deepcopy((params, opt))), 0)
    assert all(map(torch.equal, steps(opt, params, 0), same))
    assert not all(map(torch.equal, steps(again, others, 0), same))


def test_schedule_free_moves_on_between_its_places_when_b1_changes():
    # z = -0.5, -1, -1.5, whose mean is x = -1; y = 0.9 x + 0.1 z. With b1 = 0.5, as it was, y would be -1.25.
    w = nn.Parameter(torch.zeros(1))
    opt = fo.torch_optim.schedule_free_sgd([w], lr=0.5, b1=0.5)
    for b1 in (0.5, 0.5, 0.9):
        opt.param_groups[0]["b1"] = b1
        w.grad = torch.ones(1)
        opt.step()
    torch.testing.assert_close(w.detach(), torch.tensor([-1.05]))
    opt.eval()
    torch.testing.assert_close(w.detach(), torch.tensor([-1.0]))


def test_a_list_that_is_written_in_place_is_read():
    nets = [model(), model()]
    opts = [
        fo.torch_optim.adam(nets[0].parameters(), lr=0.01, betas=[0.9, 0.99]),
        torch.optim.Adam(nets[1].parameters(), lr=0.01, betas=[0.9, 0.99]),
    ]
    for step in range(4):
        for net, opt in zip(nets, opts, strict=True):
            if step == 2 and opt is opts[0]:
                opt.param_groups[0]["betas"][0] = 0.3
            elif step == 2:
                opt.param_groups[0]["betas"] = (0.3, 0.99)
            gradients(net, step)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_method_that_sees_the_whole_tree_refuses_another_value_in_one_group():
    net = model()
    opt = fo.torch_optim.pilot([{"params": net[0].parameters()}, {"params": net[2].parameters()}], lr=0.01)
    train(net, opt, 1)
    opt.param_groups[1]["gamma"] = 0.7
    with pytest.raises(ValueError, match="so gamma must be the same in all groups, got 0.7 beside"):
        train(net, opt, 1)
    opt.param_groups[0]["gamma"] = 0.7
    train(net, opt, 1)


def test_one_of_two_betas_may_become_zero_and_come_back():
    nets = [model(), model()]
    opts = [fo.torch_optim.adamw(nets[0].parameters(), lr=0.01), torch.optim.AdamW(nets[1].parameters(), lr=0.01)]
    for step in range(6):
        for net, opt in zip(nets, opts, strict=True):
            opt.param_groups[0]["betas"] = (0.0 if step in (2, 3) else 0.9, 0.999)
            gradients(net, step)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_warm_up_of_rprop_from_zero_is_that_of_torch():
    nets = [model(), model()]
    opts = [fo.torch_optim.rprop(nets[0].parameters(), lr=0.0), torch.optim.Rprop(nets[1].parameters(), lr=0.0)]
    for step in range(8):
        for net, opt in zip(nets, opts, strict=True):
            opt.param_groups[0]["lr"] = 0.01 * step
            gradients(net, 0)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


@pytest.mark.parametrize("kind, setting, later", [("adagrad", "lr_decay", 0.5), ("sgd", "dampening", 0.5)])
def test_an_option_that_is_switched_on_later_counts_from_the_first_step(kind, setting, later):
    nets = [model(), model()]
    theirs = {"adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[kind]
    given = {"momentum": 0.9} if kind == "sgd" else {}
    opts = [getattr(fo.torch_optim, kind)(nets[0].parameters(), lr=0.01, **given), theirs(nets[1].parameters(), lr=0.01, **given)]
    for step in range(6):
        for net, opt in zip(nets, opts, strict=True):
            opt.param_groups[0][setting] = later if step >= 3 else 0.0
            gradients(net, step)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_states_in_the_form_they_once_had_are_read():
    """As 0.1.0.dev0 wrote them: the count of the dampening in a link of its own, none for a decay of 0."""
    for kind, given, old, new in (
        ("sgd", {"momentum": 0.9, "dampening": 0.5}, "damp/count", "momentum/count"),
        ("adagrad", {}, None, "fade/count"),
    ):
        nets = [model(), model()]
        opts = [getattr(fo.torch_optim, kind)(net.parameters(), lr=0.01, **given) for net in nets]
        train(nets[0], opts[0], 3)
        nets[1].load_state_dict(nets[0].state_dict())
        saved = copy.deepcopy(opts[0].state_dict())
        shared = saved["param_groups"][0]["funcopt"]["state"]
        count = shared.pop(new)
        if old:
            shared[old] = count
        opts[1].load_state_dict(saved)
        assert_equal(train(nets[0], opts[0], 2, 3), train(nets[1], opts[1], 2, 3))
