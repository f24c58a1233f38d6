"""What is saved, and that reading it back goes on bit for bit (C5 to C10)."""

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import funcopt as fo
from tests.torch_optim.runs import assert_equal, copies, gradients, model, through_a_file, train

ALLOWED = (torch.Tensor, int, float, bool, str, type(None))


def make_adamw():
    """A function of a module, by which an optimizer can be pickled."""
    return fo.adamw(None)


def sentence():
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=1e-2), "lion": fo.Member(fo.scale_by_lion(), lr=1e-3)}
    bandit = fo.ucb_episodes((0.5, 2.0), (0.0, 0.01, 0.02), episode_length=2, seed=1)
    return fo.chain(fo.clip_by_global_norm(1.0), fo.roulette(pool, every=2, seed=3), bandit, fo.lr_scale())


def walk(node, path=""):
    if isinstance(node, dict):
        for key, value in node.items():
            assert not (isinstance(key, str) and "." in key), f"a dot in {path}/{key}"
            walk(value, f"{path}/{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            walk(value, f"{path}/{index}")
    else:
        assert isinstance(node, ALLOWED), f"{type(node)} at {path}"


@pytest.mark.parametrize("flat", [False, "auto"])
def test_a_state_dict_holds_parameters_tensors_and_plain_containers(flat):
    net = model()
    opt = fo.torch_optim.Optimizer(net.parameters(), sentence(), flat=flat)
    train(net, opt, 5, loss=lambda loss: loss)
    saved = opt.state_dict()
    assert set(saved["state"]) <= {0, 1, 2, 3}
    assert all(isinstance(p, nn.Parameter) for p in opt.state)
    for own in saved["state"].values():
        walk(own)
    for group in saved["param_groups"]:
        walk({key: value for key, value in group.items() if key not in ("params", "betas")})
    again = through_a_file(saved)
    for index, own in saved["state"].items():
        for name, value in own.items():
            assert torch.equal(value, again["state"][index][name])
    assert saved["param_groups"][0]["funcopt"]["format"] == 1


def test_a_fresh_optimizer_saves_nothing_and_reads_it_back():
    net, other = model(), model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    assert opt.state_dict()["state"] == {}
    opt.load_state_dict(opt.state_dict())
    plain = fo.torch_optim.adamw(other.parameters(), lr=0.01)
    assert_equal(train(net, opt, 3), train(other, plain, 3))


MAKERS = {
    "adamw": lambda params: fo.torch_optim.adamw(params, lr=0.01),
    "leaf by leaf": lambda params: fo.torch_optim.adamw(params, lr=0.01, flat=False),
    "one vector": lambda params: fo.torch_optim.adamw(params, lr=0.01, flat=True),
    "sentence": lambda params: fo.torch_optim.Optimizer(params, sentence()),
    "pilot": lambda params: fo.torch_optim.pilot(params, lr=0.01),
    "aees": lambda params: fo.torch_optim.aees(
        params, lr=0.01, lr_candidates=(0.5, 2.0), noise_candidates=(0.0, 0.1, 0.2), episode_length=2, seed=0
    ),
    "adaptive": lambda params: fo.torch_optim.adaptive(params, lr=0.01, lr_rule="trend+variance", wd_rule="trend"),
    "muon and adam": lambda params: fo.torch_optim.Optimizer(params, fo.muon(None), lr=0.01),
    "schedule-free": lambda params: fo.torch_optim.schedule_free_adamw(params, lr=0.01),
}


@pytest.mark.parametrize("maker", MAKERS)
@given(n=st.integers(1, 4), m=st.integers(1, 4), way=st.sampled_from(["file", "deepcopy"]))
@settings(max_examples=6)
def test_a_resumed_run_continues_bit_for_bit(maker, n, m, way):
    net = model()
    opt = MAKERS[maker](net.parameters())
    train(net, opt, n, loss=lambda loss: loss)
    if way == "deepcopy":
        other, again = copy.deepcopy((net, opt))
    else:
        other = copy.deepcopy(net)
        again = MAKERS[maker](other.parameters())
        again.load_state_dict(through_a_file(opt.state_dict()))
    assert_equal(train(net, opt, m, n, loss=lambda loss: loss), train(other, again, m, n, loss=lambda loss: loss))


def test_pickles_of_classes_and_of_functions_of_a_module():
    for make in (lambda p: fo.torch_optim.adamw(p, lr=0.01), lambda p: fo.torch_optim.Optimizer(p, make_adamw, lr=0.01)):
        net = model()
        opt = make(net.parameters())
        train(net, opt, 2)
        other, again = pickle.loads(pickle.dumps((net, opt)))
        assert_equal(train(net, opt, 2, 2), train(other, again, 2, 2))


def test_a_transformation_that_cannot_be_pickled_says_what_can():
    opt = fo.torch_optim.Optimizer(model().parameters(), fo.adamw(None), lr=0.01)
    with pytest.raises(pickle.PicklingError, match="use a module-level function or the class form"):
        pickle.dumps(opt)


def odd(tx_dtype=torch.float32):
    """Keeps a count, bytes, a mask and a master copy for every parameter."""

    def init(params):
        return {
            "count": torch.full((), 257, dtype=torch.int64),
            "mask": fo.tree.map_plain(lambda p: torch.zeros(p.shape, dtype=torch.bool), params),
            "bytes": fo.tree.map_plain(lambda p: torch.full(p.shape, 200, dtype=torch.uint8), params),
            "master": fo.tree.map_plain(lambda p: p.to(tx_dtype) + 1e-4, params),
        }

    def update(updates, state, params=None, **extra):
        return fo.tree.scale(-0.1, updates), {**state, "count": state["count"] + 1, "mask": fo.tree.map_plain(lambda m: ~m, state["mask"])}

    return fo.GradientTransformation(init, update, name="odd")


def test_every_dtype_comes_back_as_it_was_in_a_model_of_half_precision():
    net = model(torch.bfloat16)
    opt = fo.torch_optim.Optimizer(net.parameters(), odd())
    train(net, opt, 1)
    again = fo.torch_optim.Optimizer(model(torch.bfloat16).parameters(), odd())
    seen = []
    again.register_load_state_dict_post_hook(lambda o: seen.append({x.dtype for own in o.state.values() for x in own.values()}))
    again.load_state_dict(through_a_file(opt.state_dict()))
    for own, theirs in zip(opt.state.values(), again.state.values(), strict=True):
        for name, value in own.items():
            assert value.dtype == theirs[name].dtype
            assert torch.equal(value, theirs[name])
            assert value.data_ptr() != theirs[name].data_ptr()
    assert again.param_groups[0]["funcopt"]["state"]["count"].item() == 258
    assert seen == [{torch.bool, torch.uint8, torch.float32}]


def test_narrowing_warns_once():
    wide, narrow = model(), model()
    opt = fo.torch_optim.Optimizer(wide.parameters(), odd(torch.float64))
    train(wide, opt, 1)
    again = fo.torch_optim.Optimizer(narrow.parameters(), odd(torch.float32))
    with pytest.warns(UserWarning, match="narrowed to the dtype") as caught:
        again.load_state_dict(opt.state_dict())
    assert len(caught) == 1


def test_the_state_of_another_transformation_is_refused_and_nothing_changes():
    net, other = model(), model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 2)
    again = fo.torch_optim.sgd(other.parameters(), lr=0.01, momentum=0.9)
    train(other, again, 2)
    before = copy.deepcopy(again.state_dict())
    with pytest.raises(ValueError, match=r"missing: parameter 0: momentum/trace.*\n.*\n.*\n.*\n.*unexpected: group 0: direction/count"):
        again.load_state_dict(opt.state_dict())
    after = again.state_dict()
    assert str(before) == str(after)


def test_a_newer_form_is_refused():
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 1)
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0]["funcopt"]["format"] = 7
    with pytest.raises(ValueError, match="at most 1, got 7"):
        opt.load_state_dict(saved)


DATA = Path(__file__).parents[1] / "data"
RELEASED = {
    "adamw": lambda p: fo.torch_optim.adamw(p, lr=0.01, weight_decay=0.1),
    "adamw flat": lambda p: fo.torch_optim.adamw(p, lr=0.01, weight_decay=0.1, flat=True),
    "aees": lambda p: fo.torch_optim.aees(
        p, lr=0.01, lr_candidates=(0.5, 1.0, 2.0), noise_candidates=(0.0, 0.05), episode_length=2, seed=0
    ),
    "pilot": lambda p: fo.torch_optim.pilot(p, lr=0.01),
}


def stepped(maker, params, opt=None, first=0, steps=3):
    """Parameters and optimizer after some steps from gradients that depend on the number of the step alone."""
    params = [nn.Parameter(p.clone()) for p in params]
    opt, given = maker(params), opt
    if given is not None:
        opt.load_state_dict(given)
    for step in range(first, first + steps):
        for index, p in enumerate(params):
            p.grad = torch.sin(torch.arange(p.numel(), dtype=p.dtype) + 7 * index + step).reshape(p.shape)
        opt.step(loss=torch.tensor(1.0 / (1 + step), dtype=torch.float64))
    return [p.detach() for p in params], opt


@pytest.mark.parametrize("name", RELEASED)
def test_files_of_every_form_that_there_was_go_on_where_they_stopped(name):
    """`{name: {params, optimizer, after}}`: saved after three steps, with the parameters after three more."""
    kept = torch.load(DATA / "optimizer-format-1.pt", weights_only=True)[name]
    assert kept["optimizer"]["param_groups"][0]["funcopt"]["format"] == 1
    after, _ = stepped(RELEASED[name], kept["params"], kept["optimizer"], first=3)
    for ours, theirs in zip(after, kept["after"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_hyperparameters_that_are_missing_come_from_the_defaults():
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 1)
    for name in ("betas", "eps", "weight_decay", "maximize", "capturable", "amsgrad"):
        saved = copy.deepcopy(opt.state_dict())
        del saved["param_groups"][0][name]
        opt.load_state_dict(saved)
        assert opt.param_groups[0][name] == opt.defaults[name]
        train(net, opt, 1)


def test_all_hooks_run_once_and_in_order():
    net, seen = model(), []
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    handles = [
        opt.register_step_pre_hook(lambda o, a, k: seen.append("step pre")),
        opt.register_step_post_hook(lambda o, a, k: seen.append("step post")),
        register_optimizer_step_pre_hook(lambda o, a, k: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda o, a, k: seen.append("global post")),
        opt.register_state_dict_pre_hook(lambda o: seen.append("save pre")),
        opt.register_state_dict_post_hook(lambda o, s: seen.append("save post")),
        opt.register_load_state_dict_pre_hook(lambda o, s: seen.append("load pre")),
        opt.register_load_state_dict_pre_hook(lambda o, s: seen.append("load first"), prepend=True),
        opt.register_load_state_dict_post_hook(lambda o: seen.append("load post")),
    ]
    train(net, opt, 1)
    opt.load_state_dict(opt.state_dict())
    for handle in handles:
        handle.remove()
    train(net, opt, 1)
    opt.load_state_dict(opt.state_dict())
    assert seen == ["global pre", "step pre", "step post", "global post", "save pre", "save post", "load first", "load pre", "load post"]


def test_saved_tensors_are_copied_and_saving_twice_is_the_same():
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 2)
    one, two = io.BytesIO(), io.BytesIO()
    torch.save(opt.state_dict(), one)
    torch.save(opt.state_dict(), two)
    assert one.getvalue() == two.getvalue()
    again = fo.torch_optim.adamw(model().parameters(), lr=0.01)
    saved = opt.state_dict()
    again.load_state_dict(saved)
    pointers = {x.data_ptr() for own in saved["state"].values() for x in own.values()}
    assert not pointers & {x.data_ptr() for own in again.state.values() for x in own.values()}


def test_functional_and_back_is_the_identity():
    net = model()
    opt = fo.torch_optim.pilot(net.named_parameters(), lr=0.01)
    train(net, opt, 3)
    state = opt.functional()
    assert set(fo.find(state, "last_grad")) == {name for name, _ in net.named_parameters()}
    before = copy.deepcopy(opt.state_dict())
    train(net, opt, 1)
    opt.set_functional(state)
    assert str(before["state"]) == str(opt.state_dict()["state"])
    with pytest.raises(ValueError, match="must be like that of functional"):
        opt.set_functional({"w": torch.zeros(1)})


def test_the_functional_loop_goes_on_where_the_optimizer_stopped():
    net = model()
    opt = fo.torch_optim.Optimizer(net.named_parameters(), fo.adamw(0.01))
    train(net, opt, 2)
    tx, state = fo.adamw(0.01), opt.functional()
    params = {name: p.detach().clone() for name, p in net.named_parameters()}
    gradients(net, 2)
    updates, state = tx.update({name: p.grad.clone() for name, p in net.named_parameters()}, state, params)
    opt.step()
    assert_equal(fo.apply_updates(params, updates).values(), copies(net))


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_moments_saved_as_numbers_of_another_kind_are_refused_and_nothing_changes(kind):
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    train(net, opt, 2)
    saved = opt.state_dict()
    saved["state"][0] = {name: value.to(kind) if name.endswith("mu") else value for name, value in saved["state"][0].items()}
    before = str(opt.state_dict())
    with pytest.raises(ValueError, match=f"of another kind: parameter 0: direction/mu is torch.float64, saved {kind}"):
        opt.load_state_dict(saved)
    assert str(opt.state_dict()) == before


NO_STATES = {
    "of a model": (lambda saved: torch.nn.Linear(2, 1).state_dict(), "got 'weight', 'bias', ..., which is the state of a model"),
    "nothing": (lambda saved: None, "must be given what state_dict\\(\\) of an optimizer returns, got None"),
    "empty": (lambda saved: {}, "with 'state' and 'param_groups', got nothing"),
    "groups of words": (lambda saved: {**saved, "param_groups": "all"}, "'param_groups' must be a list of dicts with 'params', got 'all'"),
    "no states": (lambda saved: {**saved, "state": [1]}, "'state' must be a dict of one dict for each parameter, got list"),
    "no form": (
        lambda saved: entry_with(saved, format="new"),
        "'funcopt' of group 0: the form must be a whole number from 1 to 1, got 'new'",
    ),
    "no structure": (lambda saved: entry_with(saved, structure=None), "the structure must be a list of paths, got None"),
    "nothing shared": (lambda saved: entry_with(saved, state=None), "the state must be a dict of tensors, got None"),
    "a list": (lambda saved: leaf_of(saved, [1.0, 2.0]), "'direction/mu' of parameter 0 must be a tensor, got list"),
    "sparse": (
        lambda saved: leaf_of(saved, torch.ones(2).to_sparse()),
        "must be a dense tensor of numbers, got one of the layout torch.sparse_coo",
    ),
    "meta": (lambda saved: leaf_of(saved, torch.ones(2, device="meta")), "must be a dense tensor of numbers, got one on no device"),
}


def entry_with(saved, **changed):
    saved["param_groups"][0]["funcopt"] |= changed
    return saved


def leaf_of(saved, value):
    saved["state"][0]["direction/mu"] = value
    return saved


@pytest.mark.parametrize("change, words", NO_STATES.values(), ids=list(NO_STATES))
def test_what_is_no_state_of_an_optimizer_is_refused_in_a_sentence_and_nothing_has_changed(change, words):
    w = torch.nn.Parameter(torch.ones(2))
    opt = fo.torch_optim.adamw([w], lr=0.1)
    w.grad = torch.ones(2)
    opt.step()
    before = str(opt.state_dict())
    with pytest.raises(ValueError, match=f"adamw.load_state_dict: .*{words}"):
        opt.load_state_dict(change(copy.deepcopy(opt.state_dict())))
    assert str(opt.state_dict()) == before
    opt.step()
