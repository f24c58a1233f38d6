"""from_torch: bit for bit what the class does, pure from outside, and a sentence for what cannot be."""

import gc
import random
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.core.versions import TORCH, default_rate
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, quartic, rollout, small_params

from_torch = fo.torch_optim.from_torch
STEPS = 6
MATRICES = {"w": small_params(torch.float32)["w"], "v": torch.linspace(-1, 1, 10).reshape(5, 2)}

CLASSES = {name: value for name, value in vars(torch.optim).items() if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)}
ELSEWHERE = {
    "Optimizer": "the base of all",
    "LBFGS": "a test of its own: takes a closure",
    "SparseAdam": "refuses dense gradients",
    "Muon": "matrices only",
}


def beside(make, params, steps=STEPS, **settings):
    """Runs a class and what from_torch makes of it; yields the params of both after every step, and the state."""
    tx = from_torch(make, **settings)
    state = tx.init(params)
    trained = [torch.nn.Parameter(p.clone()) for p in fo.tree.leaves(params)]
    optimizer = make(trained, **{**default_rate(make), **settings})
    for step in range(steps):
        gradients = gradients_at(step, params)
        for parameter, gradient in zip(trained, fo.tree.leaves(gradients), strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        updates, state = tx.update(gradients, state, params)
        params = fo.apply_updates(params, updates)
        yield params, fo.tree.unflatten(params, [p.detach() for p in trained]), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(set(CLASSES) - set(ELSEWHERE)))
def test_equals_the_class_bit_for_bit(name, dtype):
    for ours, theirs, _ in beside(CLASSES[name], small_params(dtype)):
        assert_trees_equal(ours, theirs)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1, "maximize": True}),
        ("AdamW", {"lr": 0.1, "foreach": True}),
        ("AdamW", {"lr": 0.1, "fused": True}),
        ("RMSprop", {"lr": 0.1, "centered": True, "momentum": 0.5}),
    ],
)
def test_settings_are_those_of_the_class(name, settings):
    if "fused" in settings and TORCH < (2, 4):
        pytest.skip("this torch fuses on GPUs alone")
    for ours, theirs, _ in beside(CLASSES[name], small_params(torch.float32), **settings):
        assert_trees_equal(ours, theirs)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon():
    for ours, theirs, _ in beside(torch.optim.Muon, MATRICES):
        assert_trees_equal(ours, theirs)


def test_complex_leaves():
    for ours, theirs, _ in beside(torch.optim.Adam, {"z": torch.tensor([1 + 2j, -0.5j])}, lr=0.1):
        assert torch.equal(ours["z"], theirs["z"])


@pytest.mark.parametrize("settings", [{}, {"line_search_fn": "strong_wolfe", "max_iter": 4}], ids=str)
def test_a_closure_is_made_of_value_fn(settings):
    params = small_params()
    tx = from_torch(torch.optim.LBFGS, lr=0.5, **settings)
    state = tx.init(params)
    trained = [torch.nn.Parameter(p.clone()) for p in fo.tree.leaves(params)]
    optimizer = torch.optim.LBFGS(trained, lr=0.5, **settings)

    def closure():
        optimizer.zero_grad()
        loss = quartic(trained)
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
        updates, state = tx.update(torch.func.grad(quartic)(params), state, params, value_fn=quartic)
        params = fo.apply_updates(params, updates)
        assert_trees_close(params, fo.tree.unflatten(params, [p.detach() for p in trained]), rtol=0, atol=1e-15)


def test_several_groups_are_made_by_a_function_which_gets_dicts_in_their_order():
    def make(params):
        assert [tuple(p.shape) for p in params] == [(3,), (2,)]
        return torch.optim.AdamW([{"params": params[:1], "lr": 0.1}, {"params": params[1:], "weight_decay": 0.0}], lr=0.01)

    params = {"z": torch.ones(3), "a": torch.ones(2)}
    _, ours, state = rollout(from_torch(make), params, 4)
    alone = {
        name: rollout(from_torch(torch.optim.AdamW, **how), {name: params[name]}, 4)[1]
        for name, how in (("z", {"lr": 0.1}), ("a", {"lr": 0.01, "weight_decay": 0.0}))
    }
    assert_trees_equal(ours, alone["z"] | alone["a"])
    assert len(state.groups) == 2 and fo.read_signals(state)["lr"] == 0.1


# --- the state --------------------------------------------------------------------------------------------------------------------


class Thing:
    """An object with a memory."""

    def __init__(self):
        self.kind, self.seen = "a thing", torch.zeros(2)


class Everywhere(torch.optim.Optimizer):
    """Keeps something in every place and of every kind there is, and uses all of it."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "mode": "up", "pair": (1, 2.5), "nothing": None})
        self.total, self.flag, self.list, self.thing = 0, False, [], Thing()
        self.generator = torch.Generator().manual_seed(3)
        self.state["shared"] = {"steps": 0, "half": torch.tensor(0.5, dtype=torch.float64)}

    @torch.no_grad()
    def step(self, closure=None):
        self.total += 1
        self.flag = not self.flag
        self.state["shared"]["steps"] += 1
        self.state["shared"]["half"] *= 0.5
        self.list = [*self.list[-2:], float(self.total)]
        self.thing.seen += self.total
        for group in self.param_groups:
            group["pair"] = (group["pair"][0] + 1, group["pair"][1] * 0.9)
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["count"], state["mean"], state["made"] = 0, torch.zeros_like(p), Thing()
                state["count"] += 1
                state["mean"].mul_(0.5).add_(p.grad)
                state["made"].seen[0] += state["count"]
                size = group["lr"] * group["pair"][1] * (2 if self.flag else 1) * float(self.state["shared"]["half"] + 1)
                noise = torch.randn(p.shape, generator=self.generator) + torch.rand(p.shape) + random.random() + float(np.random.rand())
                p.sub_(size * state["mean"] * (1 + sum(self.list) + float(self.thing.seen.sum() + state["made"].seen.sum())) + 0.01 * noise)


def test_memory_is_found_wherever_it_hides():
    params = {"w": torch.ones(2, 3)}
    tx = from_torch(Everywhere)
    state = tx.init(params)
    _, _, state = rollout(tx, params, 3, state=state)
    assert set(state.param["w"]) == {"count", "mean", "made"} and state.param["w"]["count"] == 3
    assert state.groups[0]["pair"][0] == 4 and state.groups[0]["nothing"] is None and "mode" not in state.groups[0]
    assert state.extra["shared"]["steps"] == 3 and state.extra["shared"]["half"].tensor == 0.5**4
    assert [float(x) for x in state.attrs["list"]] == [1.0, 2.0, 3.0]
    assert torch.equal(state.attrs["thing"].attributes["seen"], torch.full((2,), 6.0))
    assert list(state.attrs["generator"].attributes) == ["words"]
    for path, leaf in zip(fo.tree.paths(state), fo.tree.leaves(state), strict=True):
        assert isinstance(leaf, torch.Tensor), path


@settings(max_examples=15, deadline=None)
@given(at=st.integers(0, 4), more=st.integers(1, 3), again=st.booleans())
def test_any_state_can_be_replayed_and_resumed_elsewhere(at, more, again):
    params = {"w": torch.ones(2, 3)}
    tx = from_torch(Everywhere)
    _, there, state = rollout(tx, params, at)
    straight = rollout(tx, there, more, state=state, start=at)
    if again:
        assert_trees_equal(rollout(tx, there, more, state=state, start=at), straight)
    fresh = from_torch(Everywhere)
    loaded = fo.checkpoint.load_state_dict(fresh.init(params), fo.checkpoint.state_dict(state))
    assert_trees_equal(rollout(fresh, there, more, state=loaded, start=at), straight)


def test_lists_are_loaded_as_long_as_they_were():
    params = small_params()
    tx = from_torch(torch.optim.LBFGS, max_iter=4)
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(params, state, params, value_fn=quartic)
        params = fo.apply_updates(params, updates)
    fresh = from_torch(torch.optim.LBFGS, max_iter=4)
    loaded = fo.checkpoint.load_state_dict(fresh.init(params), fo.checkpoint.state_dict(state))
    assert_trees_equal(fresh.update(params, loaded, params, value_fn=quartic), tx.update(params, state, params, value_fn=quartic))


@pytest.mark.parametrize("make", [Everywhere, torch.optim.NAdam], ids=lambda make: make.__name__)
def test_an_empty_state_takes_what_was_saved(make):
    params = small_params()
    tx, fresh = from_torch(make), from_torch(make)
    _, params, state = rollout(tx, params, 3)
    loaded = fo.checkpoint.load_state_dict(fresh.init(params, warm=False), fo.checkpoint.state_dict(state))
    assert_trees_equal(rollout(fresh, params, 2, state=loaded, start=3), rollout(tx, params, 2, state=state, start=3))


def test_a_state_of_another_class_does_not_fit():
    params = small_params()
    _, _, state = rollout(from_torch(torch.optim.Adagrad), params, 1)
    with pytest.raises(ValueError, match="missing: param.b.exp_avg"):
        fo.checkpoint.load_state_dict(from_torch(torch.optim.Adam).init(params), fo.checkpoint.state_dict(state))


def test_a_warm_state_has_its_form_from_the_start_and_the_same_numbers():
    params = small_params(torch.float32)
    tx = from_torch(torch.optim.NAdam, lr=0.1)
    warm, lazy = tx.init(params), tx.init(params, warm=False)
    assert lazy.param["w"] == {} and warm.param["w"]["exp_avg"].abs().max() == 0
    from_warm, from_lazy = rollout(tx, params, 3, state=warm), rollout(tx, params, 3, state=lazy)
    assert_trees_equal(from_warm, from_lazy)
    assert fo.tree.structure(from_lazy[2]) == fo.tree.structure(warm)


def test_text_that_changes_cannot_be_held():
    class Moody(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            self.mood = "bad" if getattr(self, "mood", "bad") == "good" else "good"

    params = torch.ones(2)
    tx = from_torch(Moody, lr=0.1)
    with pytest.raises(TypeError, match=r"from_torch\(Moody\): keeps text that changes.*attrs.mood was 'good' and is 'bad'"):
        rollout(tx, params, 3)


def test_params_and_state_of_a_call_are_forgotten_after_it():
    tx = from_torch(torch.optim.AdamW)
    params = {"w": torch.ones(1000)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
    watched = [weakref.ref(leaf) for leaf in fo.tree.leaves((params, state, updates))]
    storages = [weakref.ref(leaf.untyped_storage()) for leaf in fo.tree.leaves((params, state))]
    del params, state, updates
    assert all(watch() is None for watch in watched)
    assert all(watch() is None for watch in storages)
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is torch.nn.Parameter and x.numel() == 1000]


# --- randomness and threads -------------------------------------------------------------------------------------------------------


def test_random_numbers_follow_from_the_key_and_others_go_on_as_they_were():
    params = {"w": torch.ones(3)}

    def draws():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def seeded():
        torch.manual_seed(1), np.random.seed(1), random.seed(1)

    seeded()
    expected = draws()
    seeded()
    first = rollout(from_torch(Everywhere), params, 2)
    assert draws() == expected
    assert_trees_equal(rollout(from_torch(Everywhere), params, 2), first)
    assert not torch.equal(rollout(from_torch(Everywhere, key=1), params, 2)[1]["w"], first[1]["w"])


def test_threads_do_not_disturb_each_other():
    params = {"w": torch.ones(2, 3)}
    tx = from_torch(Everywhere)
    alone = [rollout(tx, fo.tree.scale(1.0 + lane, params), 8) for lane in range(2)]
    together = [None, None]

    def work(lane):
        together[lane] = rollout(tx, fo.tree.scale(1.0 + lane, params), 8)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_trees_equal(together, alone)


# --- rates ------------------------------------------------------------------------------------------------------------------------


def test_tensors_among_the_settings_are_read_at_every_call():
    params, lr, b1 = small_params(), torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    tx = from_torch(torch.optim.Adam, lr=lr, betas=(b1, 0.999))
    trained = [torch.nn.Parameter(p.clone()) for p in fo.tree.leaves(params)]
    optimizer, state = torch.optim.Adam(trained, lr=0.1), tx.init(params)
    for step in range(4):
        lr.mul_(0.5), b1.mul_(0.9)
        optimizer.param_groups[0].update(lr=lr.item(), betas=(b1.item(), 0.999))
        gradients = gradients_at(step, params)
        for parameter, gradient in zip(trained, fo.tree.leaves(gradients), strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        updates, state = tx.update(gradients, state, params)
        params = fo.apply_updates(params, updates)
        assert_trees_equal(params, fo.tree.unflatten(params, [p.detach() for p in trained]))
        assert fo.read_signals(state)["lr"] == lr


def test_a_schedule_a_rate_that_is_heard_and_one_in_the_state():
    params = torch.zeros(2)
    scheduled = from_torch(torch.optim.SGD, lr=lambda count: 0.5 / (count.double() + 1))
    history, _, _ = rollout(scheduled, params, 2)
    gradients = [gradients_at(step, params) for step in range(2)]
    torch.testing.assert_close(history[1], -0.25 * gradients[1].double())
    heard = from_torch(torch.optim.SGD, lr=None)
    state = heard.init(params)
    updates, state = heard.update(gradients[0], state, params, signals={"base_lr": torch.tensor(2.0)})
    assert torch.equal(updates, -2.0 * gradients[0].double()) and fo.read_signals(state)["lr"] == 2
    with pytest.raises(ValueError, match="needs 'base_lr' and nobody to its left says it"):
        heard.update(gradients[0], state, params)
    plain = from_torch(torch.optim.SGD, lr=1.0)
    state = fo.replace(plain.init(params), "lr", torch.tensor(0.25, dtype=torch.float64))
    assert torch.equal(plain.update(gradients[0], state, params)[0], -0.25 * gradients[0].double())


def test_adaptive_steers_it():
    params = small_params()
    steered = fo.adaptive(lambda **h: from_torch(torch.optim.SGD, **h), lr=fo.rules.trend(0.1), momentum=fo.rules.variance(0.9))
    native = fo.adaptive(fo.sgd, lr=fo.rules.trend(0.1), momentum=fo.rules.variance(0.9))
    losses = [1.0, 0.5, 0.7, 0.6, 0.9]
    ours, theirs = (rollout(tx, params, 5, lambda step: {"loss": torch.tensor(losses[step])}) for tx in (steered, native))
    assert_trees_close(ours[1], theirs[1], rtol=1e-12)


def test_members_of_a_pool():
    params = small_params()
    pool = {"torch": fo.Member(from_torch(torch.optim.AdamW, lr=0.1)), "ours": fo.Member(fo.scale_by_lion(), lr=0.02)}
    tx = fo.chain(fo.roulette(pool, every=2, seed=0), fo.lr_scale())
    state, picks = tx.init(params), set()
    for step in range(12):
        updates, state = tx.update(gradients_at(step, params), state, params)
        params = fo.apply_updates(params, updates)
        words = fo.read_signals(state)
        picks.add(int(words["pick"]))
        assert words["lr"] == (0.1 if words["pick"] == 0 else 0.02)
    assert picks == {0, 1}
    alone = fo.chain(fo.roulette({"torch": pool["torch"]}), fo.lr_scale())
    assert_trees_close(rollout(alone, params, 4)[1], rollout(from_torch(torch.optim.AdamW, lr=0.1), params, 4)[1], rtol=1e-14)


def test_in_a_chain_and_a_step():
    params = small_params(torch.float32)
    tx = fo.chain(fo.clip_by_global_norm(0.5), from_torch(torch.optim.AdamW, lr=0.1))
    for compile in (False, True):
        step = fo.make_step(quartic, tx, compile=compile)
        held, state = step.init(params)
        start = quartic(params)
        for _ in range(20):
            held, state, loss = step(held, state)
        assert loss < 0.7 * start
        assert {p.dtype for p in fo.tree.leaves(step.params(held))} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_there_and_back_through_the_shim(dtype):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).to(dtype)

    torch.manual_seed(0)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    optimizers = (
        fo.torch_optim.Optimizer(ours.parameters(), from_torch(torch.optim.NAdam, lr=0.1)),
        torch.optim.NAdam(theirs.parameters(), lr=0.1),
    )
    data = torch.sin(torch.arange(15.0)).reshape(5, 3).to(dtype)
    for _ in range(5):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net.layers(data).square().mean().backward()
            optimizer.step()
        for x, y in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0 if dtype == torch.float32 else 1e-16)


# --- what cannot be ---------------------------------------------------------------------------------------------------------------


class WantsModule(torch.optim.SGD):
    def __init__(self, model, lr=0.1):
        super().__init__(model.parameters(), lr)


class WantsHessian(torch.optim.SGD):
    def step(self, closure=None, hessian=None):
        for p, h in zip(self.param_groups[0]["params"], hessian, strict=True):
            p.data.sub_(p.grad / h)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: from_torch(torch.optim.SGD([torch.zeros(1)], lr=0.1)),
            TypeError,
            r"must be a class or a function of the params, got an instance; call from_torch\(SGD, lr=",
        ),
        (lambda: from_torch("adamw"), TypeError, "must be a class such as torch.optim.AdamW, or a function of the params, got 'adamw'"),
        (lambda: from_torch(WantsModule), TypeError, r"from_torch\(WantsModule\): takes the module itself"),
        (
            lambda: rollout(from_torch(lambda params: "an optimizer"), torch.ones(1), 1),
            TypeError,
            "must make a torch.optim.Optimizer, got 'an optimizer'",
        ),
        (
            lambda: rollout(from_torch(torch.optim.LBFGS), torch.ones(1), 1),
            ValueError,
            r"from_torch\(LBFGS\): evaluates the loss anew within a step; call .*value_fn",
        ),
        (
            lambda: rollout(from_torch(WantsHessian), torch.ones(1), 1),
            ValueError,
            r"from_torch\(WantsHessian\): needs the diagonal of the Hessian; call",
        ),
        (
            lambda: from_torch(torch.optim.SGD).update(torch.ones(1), from_torch(torch.optim.SGD).init(torch.ones(1))),
            ValueError,
            "needs the params",
        ),
        (lambda: from_torch(torch.optim.SGD, lr=-1.0).init(torch.ones(1)), ValueError, "Invalid learning rate: -1.0"),
        (
            lambda: from_torch(torch.optim.SGD).init({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}),
            ValueError,
            "two params have the path 'a.b'",
        ),
        (lambda: from_torch(torch.optim.SGD, key=0.5), TypeError, "key must be an int, a tensor or None"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_hessian_is_handed_on_in_the_order_of_the_parameters():
    params = {"z": torch.ones(2), "a": torch.ones(3)}
    tx = from_torch(WantsHessian)
    updates, _ = tx.update(params, tx.init(params), params, hessian={"z": torch.full((2,), 2.0), "a": torch.full((3,), 4.0)})
    assert torch.equal(updates["z"], torch.full((2,), -0.5, dtype=torch.float64))
    assert torch.equal(updates["a"], torch.full((3,), -0.25, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_params_arrive_wherever_the_class_puts_them(dtype):
    """A class that throws params anywhere; float64 arrives where an entry is at most halved or doubled."""
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(10_000, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    if dtype == torch.float64:
        new = old * (0.5 + 1.5 * torch.rand(10_000, dtype=torch.float64, generator=generator))

    class Jump(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.copy_(new)

    tx = from_torch(Jump)
    updates, _ = tx.update(old, tx.init(old), old)
    assert torch.equal(fo.apply_updates(old, updates), new)
