"""from_torch with every class of pytorch_optimizer, and OptiRoulette's whole pool: bit for bit, pure, replayed elsewhere."""

import importlib.util
import inspect
import random

import numpy as np
import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at

po = pytest.importorskip("pytorch_optimizer")
pytestmark = pytest.mark.filterwarnings("ignore")
from_torch = fo.torch_optim.from_torch

STEPS = 8
CLASSES = {
    name: value
    for name, value in vars(po).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value.__module__.startswith("pytorch_optimizer")
}
BASE = ("BaseOptimizer",)


def around(name, **settings):
    """A wrapper of pytorch_optimizer around AdamW."""
    return lambda params: getattr(po, name)(torch.optim.AdamW(params, lr=0.01), **settings)


def by_rank(name):
    """Matrices go to Muon's part, the rest to the Adam inside."""
    return lambda params: getattr(po, name)(
        [{"params": [p for p in params if (p.dim() > 1) == whether], "use_muon": whether} for whether in (True, False)]
    )


def training(make):
    """A schedule-free optimizer starts in evaluation mode."""

    def made(params):
        optimizer = make(params)
        optimizer.train()
        return optimizer

    return made


# How the classes are made that are not made by `C(params)`.
MADE = {
    **{name: by_rank(name) for name in ("Muon", "AdaMuon", "AdaGO", "NorMuon", "MuonClip")},
    **{name: around(name) for name in ("Lookahead", "TRAC", "OrthoGrad", "Magma")},
    "ScheduleFreeWrapper": training(around("ScheduleFreeWrapper")),
    "Ranger21": lambda params: po.Ranger21(params, num_iterations=400),
    "BSAM": lambda params: po.BSAM(params, num_data=10),
    **{
        name: (lambda params, name=name: getattr(po, name)(params, base_optimizer=torch.optim.SGD, lr=0.1))
        for name in ("SAM", "FriendlySAM", "LookSAM")
    },
}
CLOSURE = ("AliG", "BSAM", "SAM", "FriendlySAM", "LookSAM")
MATRICES = ("SpectralSphere",)
HESSIAN = ("AdaHessian", "SophiaH")

# What cannot be, and why.
CANNOT = {
    "LOMO": "takes the module itself",
    "AdaLOMO": "takes the module itself",
    "AdamMini": "takes the module itself",
    "WSAM": "takes the module itself",
    "GSAM": "missing 3 required positional arguments: 'base_optimizer', 'model'",  # looks into the model's batch norms
    "PCGrad": "'list' object has no attribute 'defaults'",  # no optimizer: it takes several losses and calls backward
    "SafeFP16Optimizer": "'list' object has no attribute 'param_groups'",  # scales losses before they are differentiated
    "DeMo": "",  # speaks to other processes
    "DistributedMuon": "",  # speaks to other processes
}


def params_of(name, dtype=torch.float32):
    params = {"w": torch.arange(48.0).sin().reshape(6, 8), "v": torch.arange(12.0).cos().reshape(3, 4), "b": torch.linspace(-1, 1, 8)}
    if name in MATRICES:
        del params["b"]
    if name == "LoRARite":  # pairs of a low rank
        params = {"A": torch.arange(24.0).sin().reshape(2, 12), "B": torch.arange(16.0).cos().reshape(8, 2)}
    return fo.tree.cast(params, dtype)


def loss_of(params):
    return sum(((p - 0.3).square() + 0.05 * p**4).sum() for p in params.values())


def seeded_as(state):
    """The class beside draws what the transformation will draw in its next step."""
    seed(fo.random.fold_in(state.key, int(state.count)))


def seed(key):
    first, second = (word % 2**63 for word in key.tolist())
    torch.manual_seed(first), random.seed(first), np.random.seed((first ^ second) % 2**32)


def told(name, gradients):
    return {"hessian": fo.tree.map(lambda g: g.abs() + 0.1, gradients)} if name in HESSIAN else {}


@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(CANNOT) - set(CLOSURE) - set(BASE)))
def test_equals_the_class_bit_for_bit_and_can_be_replayed_elsewhere(name):
    make, params = MADE.get(name, CLASSES[name]), params_of(name)
    tx = from_torch(make)
    state = tx.init(params)
    seed(fo.random.key(0))
    trained = {key: torch.nn.Parameter(p.clone()) for key, p in params.items()}
    optimizer = make(list(trained.values()))
    history = []
    for step in range(STEPS):
        gradients = gradients_at(step, params)
        extra = told(name, gradients)
        for key, p in trained.items():
            p.grad = gradients[key].clone()
        seeded_as(state)
        optimizer.step(**{key: list(value.values()) for key, value in extra.items()})
        before, arguments = state, fo.tree.clone((gradients, state, params))
        updates, state = tx.update(gradients, before, params, **extra)
        assert_trees_equal((gradients, before, params), arguments)
        history.append((gradients, before, params, extra, updates, state))
        params = fo.apply_updates(params, updates)
        assert_trees_equal(params, {key: p.detach() for key, p in trained.items()})
    fresh = from_torch(make)
    template = fresh.init(params_of(name))
    for index in (5, 0, 7, 1, 3):
        gradients, before, params, extra, updates, after = history[index]
        assert_trees_equal(tx.update(gradients, before, params, **extra), (updates, after))
        saved = fo.checkpoint.state_dict(before)
        loaded = fo.checkpoint.load_state_dict(template, saved)
        assert_trees_equal(fresh.update(gradients, loaded, params, **extra), (updates, after))


@pytest.mark.parametrize("name", CLOSURE)
def test_those_that_take_a_closure(name):
    make, params = MADE.get(name, CLASSES[name]), params_of(name)
    tx = from_torch(make)
    state = tx.init(params)
    trained = {key: torch.nn.Parameter(p.clone()) for key, p in params.items()}
    optimizer = make(list(trained.values()))

    def closure():
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = loss_of(trained)
            loss.backward()
        return loss

    with pytest.raises(ValueError, match=r"evaluates the loss anew within a step; call update\(..., value_fn=value_fn\)"):
        tx.update(params, state, params)
    for _ in range(STEPS):
        closure()
        seeded_as(state)
        optimizer.step(closure)
        updates, state = tx.update(torch.func.grad(loss_of)(params), state, params, value_fn=loss_of)
        params = fo.apply_updates(params, updates)
        assert_trees_equal(params, {key: p.detach() for key, p in trained.items()})


@pytest.mark.parametrize("name", sorted(CANNOT))
def test_the_others_say_why_not(name):
    with pytest.raises(Exception, match=CANNOT[name]):
        tx = from_torch(CLASSES[name])
        tx.update(params_of(name), tx.init(params_of(name)), params_of(name))


@pytest.mark.parametrize("name", HESSIAN)
def test_those_that_need_the_hessian_say_so(name):
    tx, params = from_torch(CLASSES[name]), params_of(name)
    with pytest.raises(ValueError, match=rf"from_torch\({name}\): needs the diagonal of the Hessian; call update\(..., hessian=hessian\)"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("name", ["Lion", "Ranger", "GaLore", "Prodigy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes(name, dtype):
    params, tx = params_of(name, dtype), from_torch(CLASSES[name])
    state = tx.init(params)
    trained = {key: torch.nn.Parameter(p.clone()) for key, p in params.items()}
    optimizer = CLASSES[name](list(trained.values()))
    for step in range(STEPS):
        gradients = gradients_at(step, params)
        for key, p in trained.items():
            p.grad = gradients[key].clone()
        seeded_as(state)
        try:
            optimizer.step()
        except RuntimeError as error:  # no decomposition of half matrices on a CPU
            with pytest.raises(RuntimeError, match=str(error)[:20]):
                tx.update(gradients, state, params)
            return
        updates, state = tx.update(gradients, state, params)
        params = fo.apply_updates(params, updates)
        assert_trees_close(params, {key: p.detach() for key, p in trained.items()}, rtol=0, atol=1e-15)


# --- OptiRoulette's pool ----------------------------------------------------------------------------------------------------------

PROFILE = fo.optiroulette_profile()


@pytest.mark.parametrize("name", PROFILE.pool)
def test_a_member_in_the_pool_steps_as_it_does_alone(name):
    """In float64: the roulette's factor and the member's rate are two products there and one here."""
    member, params = PROFILE.pool[name], params_of(name, torch.float64)
    alone = member.transformation if member.has_size else fo.chain(member.transformation, fo.lr_scale(member.lr))
    pooled = fo.chain(fo.roulette({name: member}), fo.lr_scale())
    ours, theirs = params, params
    state, other = pooled.init(params), alone.init(params)
    for step in range(5):
        gradients = gradients_at(step, params)
        extra = {"hessian": fo.tree.ones_like(gradients)}
        updates, state = pooled.update(gradients, state, ours, **extra)
        ours = fo.apply_updates(ours, updates)
        updates, other = alone.update(gradients, other, theirs, **extra)
        theirs = fo.apply_updates(theirs, updates)
    assert_trees_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert fo.read_signals(state)["lr"] > 0


def test_the_whole_profile_runs_and_goes_on_from_a_checkpoint(tmp_path):
    """With everybody active, so that all are drawn."""
    names = [name for name in PROFILE.pool if name != "AdaHessian"]
    settings = {"warmup": None, "active": names, "backup": [], "reserve": ["AdaHessian"], "seed": 3, "avoid_repeat": True}

    def make():
        return fo.optiroulette(fo.optiroulette_profile(), **settings)

    def advance(tx, params, state, epochs):
        picks = []
        for epoch in epochs:
            updates, state = tx.update(gradients_at(epoch, params), state, params, epoch=epoch, metric=0.5, reward=0.1)
            params = fo.apply_updates(params, updates)
            picks.append(int(fo.read_signals(state)["pick"]))
        return params, state, picks

    params, tx = params_of("w"), make()
    params, state, picks = advance(tx, params, tx.init(params), range(40))
    assert len(set(picks)) > 15
    fo.checkpoint.save(tmp_path / "run.pt", {"params": params, "state": state})
    again = make()
    loaded = fo.checkpoint.load(tmp_path / "run.pt", {"params": params, "state": again.init(params)})
    resumed, straight = (advance(*run, range(40, 60)) for run in ((again, loaded["params"], loaded["state"]), (tx, params, state)))
    assert resumed[2] == straight[2]
    assert_trees_equal(resumed[:2], straight[:2])


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("adamp", {"lr": 0.1, "speed": 2}, "AdamP takes lr, betas, .*, got speed"),
        ("nobody", {"lr": 0.1}, "neither torch.optim nor .* has a class 'nobody'"),
    ],
)
def test_a_member_that_cannot_be_made(name, settings, message):
    with pytest.raises(ValueError, match=message):
        fo.torch_optim.member_from_profile(name, settings)


if importlib.util.find_spec("bitsandbytes"):

    @pytest.mark.parametrize("name", ["Adam8bit", "AdamW8bit", "Lion8bit"])
    def test_bitsandbytes(name):
        import bitsandbytes

        make, params = getattr(bitsandbytes.optim, name), {"w": torch.arange(8192.0).sin()}
        assert "params" in inspect.signature(make).parameters
        tx, trained = from_torch(make), torch.nn.Parameter(params["w"].clone())
        optimizer, state = make([trained]), tx.init(params)
        for step in range(STEPS):
            gradients = gradients_at(step, params)
            trained.grad = gradients["w"].clone()
            optimizer.step()
            updates, state = tx.update(gradients, state, params)
            params = fo.apply_updates(params, updates)
            assert torch.equal(params["w"], trained)
