"""Parameters of every kind, and what may happen to them and to their state (C11 to C13, C15 to C18)."""

import warnings

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import funcopt as fo
from tests.torch_optim.runs import assert_close, assert_equal, copies, gradients, model, train


def pair(**settings):
    """Ours and torch's AdamW on equal models."""
    nets = [model(), model()]
    return nets, [fo.torch_optim.adamw(nets[0].parameters(), lr=0.01, **settings), torch.optim.AdamW(nets[1].parameters(), lr=0.01)]


@pytest.mark.parametrize("flat", [False, "auto", True])
@given(pauses=st.lists(st.sets(st.integers(0, 3)), min_size=3, max_size=8))
def test_parameters_that_pause_stay_as_they_are_and_keep_their_count(flat, pauses):
    nets, opts = pair(flat=flat)
    for step, frozen in enumerate(pauses):
        for net, opt in zip(nets, opts, strict=True):
            gradients(net, step, frozen)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_parameter_that_is_unfrozen_late_starts_from_its_own_first_step():
    nets, opts = pair()
    for step in range(60):
        for net, opt in zip(nets, opts, strict=True):
            gradients(net, step, {0} if step < 50 else ())
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_controller_goes_on_and_a_paused_parameter_does_not_move():
    net = model()
    opt = fo.torch_optim.pilot(net.parameters(), lr=0.01)
    train(net, opt, 3)
    before, state = copies(net)[1], {name: x.clone() for name, x in opt.state[net[0].bias].items()}
    gradients(net, 3, {1})
    opt.step()
    assert torch.equal(before, net[0].bias)
    assert all(torch.equal(x, opt.state[net[0].bias][name]) for name, x in state.items())


def test_groups_may_be_added_at_any_time():
    nets, opts = pair()
    extra = [nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in opts]
    for step in range(6):
        for net, opt, p in zip(nets, opts, extra, strict=True):
            if step == 3:
                opt.add_param_group({"params": p, "lr": 0.1, "weight_decay": 0.3})
            gradients(net, step)
            p.grad = p.detach() * (step + 1)
            opt.step()
    assert_close([*copies(nets[0]), extra[0]], [*copies(nets[1]), extra[1]])


def test_parameters_may_be_swapped_before_and_after_the_first_step():
    net, other = model(), model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    opt.param_groups[0]["params"] = list(other.parameters())
    beside = model()
    plain = fo.torch_optim.adamw(beside.parameters(), lr=0.01)
    assert_equal(train(other, opt, 2), train(beside, plain, 2))
    third = model()
    opt.param_groups[0]["params"][:] = list(third.parameters())  # a fresh start for them
    again = fo.torch_optim.adamw(model().parameters(), lr=0.01)
    fourth = model()
    again.param_groups[0]["params"] = list(fourth.parameters())
    assert_equal(train(third, opt, 2), train(fourth, again, 2))


def test_keys_of_others_in_the_state_are_kept():
    net, other = model(), model()
    opt, plain = fo.torch_optim.adamw(net.parameters(), lr=0.01), fo.torch_optim.adamw(other.parameters(), lr=0.01)
    for p in net.parameters():
        opt.state[p]["z"] = p.detach().clone()
    assert_equal(train(net, opt, 2), train(other, plain, 2))
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    assert all("z" in own for own in opt.state.values())


def test_what_somebody_writes_into_the_state_is_used():
    nets, opts = pair()
    for net, opt in zip(nets, opts, strict=True):
        train(net, opt, 2)
    for p in nets[0].parameters():
        opts[0].state[p]["direction/mu"] = torch.zeros_like(p)
    for p in nets[1].parameters():
        opts[1].state[p]["exp_avg"] = torch.zeros_like(p)
    for net, opt in zip(nets, opts, strict=True):
        train(net, opt, 2, 2)
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_step_that_only_materialises_counts_nothing():
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=1e-2), "lion": fo.Member(fo.scale_by_lion(), lr=1e-3)}

    def tx():
        return fo.chain(
            fo.add_noise(0.1, 0.5, 7),
            fo.roulette(pool, every=2, seed=3),
            fo.ucb_episodes((0.5, 2.0), episode_length=2, seed=1),
            fo.lr_scale(),
        )

    runs = []
    for asked in (False, True):
        net = model()
        opt = fo.torch_optim.Optimizer(net.parameters(), tx())
        if asked:
            dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")
            saved = dcp.get_optimizer_state_dict(net, opt)
            assert saved["state"]
            counters = {
                name: x for name, x in opt.param_groups[0]["funcopt"]["state"].items() if name.endswith(("count", "step", "episode"))
            }
            assert len(counters) >= 3
            assert not any(counters.values())
        runs.append(train(net, opt, 5, loss=lambda loss: loss))
    assert_equal(*runs)


@pytest.mark.parametrize("flat", [False, "auto"])
def test_gradients_are_never_written_and_parameters_stay_where_they_are(flat):
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01, maximize=True, flat=flat)
    where = [p.data_ptr() for p in net.parameters()]
    for step in range(3):
        gradients(net, step)
        grads = [(p.grad, p.grad.clone(), p.grad._version) for p in net.parameters()]
        opt.step()
        for p, (grad, value, version) in zip(net.parameters(), grads, strict=True):
            assert p.grad is grad
            assert torch.equal(grad, value)
            assert grad._version == version
    assert where == [p.data_ptr() for p in net.parameters()]


def strange(kind):
    generator = torch.Generator().manual_seed(1)

    def rand(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    if kind == "complex":
        return [nn.Parameter(rand(3, 2, dtype=torch.complex128)), nn.Parameter(rand(2))]
    if kind == "0-dim":
        return [nn.Parameter(rand()), nn.Parameter(rand(3))]
    if kind == "empty":
        return [nn.Parameter(rand(0, 3)), nn.Parameter(rand(2))]
    if kind == "non-contiguous":
        return [nn.Parameter(rand(4, 3).t()), nn.Parameter(rand(8)[::2])]
    if kind == "channels last":
        return [nn.Parameter(rand(2, 3, 4, 4).to(memory_format=torch.channels_last)), nn.Parameter(rand(2))]
    return [nn.Parameter(rand(3, dtype=torch.float32)), nn.Parameter(rand(2)), nn.Parameter(rand(2, 2))]


@pytest.mark.parametrize("kind", ["complex", "0-dim", "empty", "non-contiguous", "channels last", "mixed dtypes"])
@pytest.mark.parametrize("method", ["adamw", "sgd"])
@pytest.mark.parametrize("flat", [False, "auto"])
def test_parameters_of_every_kind(kind, method, flat):
    runs = []
    settings = {"lr": 0.05} | ({"momentum": 0.9} if method == "sgd" else {})
    for make in (getattr(fo.torch_optim, method), {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[method]):
        params = strange(kind)
        opt = make(params, **settings) if make.__module__.startswith("torch.") else make(params, flat=flat, **settings)
        for step in range(5):
            for p in params:
                p.grad = (p.detach() * (0.5 + 0.2 * step)).clone()
            opt.step()
        runs.append(params)
    for ours, theirs in zip(*runs, strict=True):
        assert ours.stride() == theirs.stride()
        tolerance = 2e-6 if ours.dtype == torch.float32 else 1e-12
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=tolerance, atol=tolerance)


def test_sparse_gradients_are_made_dense():
    runs = []
    for make in (fo.torch_optim.sgd, torch.optim.SGD):
        torch.manual_seed(0)
        net = nn.Embedding(6, 3, sparse=True, dtype=torch.float64)
        opt = make(net.parameters(), lr=0.1)
        for step in range(3):
            opt.zero_grad()
            net(torch.tensor([step, step, 5])).square().sum().backward()
            assert net.weight.grad.is_sparse
            opt.step()
        runs.append(copies(net))
    assert_close(*runs)


def test_half_precision_has_its_state_in_float32_and_rounds_once():
    net = model(torch.bfloat16)
    opt = fo.torch_optim.adamw(net.parameters(), lr=0.01)
    before = copies(net)
    gradients(net, 0)
    grads = [p.grad.float() for p in net.parameters()]
    opt.step()
    for p, old, grad in zip(net.parameters(), before, grads, strict=True):
        assert {x.dtype for name, x in opt.state[p].items()} == {torch.float32}
        step = 0.01 * (grad / (grad.abs() + 1e-8) + 0.01 * old.float())
        torch.testing.assert_close(p.detach(), (old.float() - step).bfloat16(), rtol=8e-3, atol=1e-8)
    kept = fo.torch_optim.adamw(model(torch.bfloat16).parameters(), lr=0.01, state_dtype=None)
    train_net = model(torch.bfloat16)
    kept.param_groups[0]["params"] = list(train_net.parameters())
    gradients(train_net, 0)
    kept.step()
    assert {x.dtype for own in kept.state.values() for x in own.values()} == {torch.bfloat16}


@pytest.mark.parametrize("flat", [False, "auto"])
def test_a_link_that_raises_leaves_everything_as_it_was(flat):
    fail = []

    def update(updates, state, params=None, **extra):
        if fail:
            raise RuntimeError("as planned")
        return updates, state

    faulty = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="faulty", flattenable=True)
    net = model()
    opt = fo.torch_optim.Optimizer(net.parameters(), fo.chain(fo.scale_by_adam(), faulty, fo.lr_scale()), lr=0.1, flat=flat)
    train(net, opt, 3)
    params, state = copies(net), str(opt.state_dict())
    fail.append(True)
    gradients(net, 3)
    with pytest.raises(RuntimeError, match="as planned"):
        opt.step()
    assert_equal(params, copies(net))
    assert state == str(opt.state_dict())
    fail.clear()
    opt.step()


def test_whatever_is_not_finite_changes_nothing_until_patience_ends():
    net = model()
    opt = fo.torch_optim.Optimizer(net.parameters(), fo.apply_if_finite(fo.adamw(0.01), 2))
    train(net, opt, 2)
    params, inner = copies(net), str(fo.find(opt.functional(), "inner_state"))
    gradients(net, 2)
    net[0].weight.grad[0, 0] = float("nan")
    for _ in range(2):
        opt.step()
        assert_equal(params, copies(net))
        assert inner == str(fo.find(opt.functional(), "inner_state"))
    opt.step()
    assert not torch.isfinite(net[0].weight).all()


def test_names_come_with_the_parameters():
    net = model()
    opt = fo.torch_optim.adamw(net.named_parameters(), lr=0.01)
    train(net, opt, 1)
    assert opt.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    with pytest.raises(ValueError, match="names of parameters must differ"):
        bad = fo.torch_optim.adamw([("w", net[0].weight), ("w", net[2].weight)])
        bad.step()
        train(net, bad, 1)


def test_a_word_about_what_a_method_does_not_take():
    with pytest.warns(UserWarning, match="does not take momentum, weight_decay"):
        fo.torch_optim.rprop([{"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.1, "momentum": 0.9}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fo.torch_optim.rprop([{"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.0, "mine": 3}])


def test_a_method_that_sees_the_whole_tree_takes_one_value_but_masks_its_decay():
    net = model()
    groups = [{"params": net[0].parameters(), "weight_decay": 0.1}, {"params": net[2].parameters(), "weight_decay": 0.0}]
    opt = fo.torch_optim.pilot(groups, lr=0.01)
    beside = model()
    mask = {name: name.startswith("0") for name, _ in beside.named_parameters()}
    plain = fo.torch_optim.Optimizer(beside.named_parameters(), fo.pilot(None, weight_decay=0.1, weight_decay_mask=mask), lr=0.01)
    assert_close(train(net, opt, 3), train(beside, plain, 3))
    with pytest.raises(ValueError, match="so gamma must be the same in all groups"):
        fo.torch_optim.pilot([{"params": net[0].parameters(), "gamma": 0.8}, {"params": net[2].parameters()}])
    with pytest.raises(ValueError, match="weight_decay must be 0 or that of the others"):
        fo.torch_optim.pilot([{"params": net[0].parameters(), "weight_decay": 0.2}, {"params": net[2].parameters()}])


def test_one_group_and_two_alike_groups_give_the_same():
    runs = []
    for cut in (False, True):
        net = model()
        params = [{"params": net[0].parameters()}, {"params": net[2].parameters()}] if cut else net.parameters()
        runs.append(train(net, fo.torch_optim.pilot(params, lr=0.01), 4))
    assert_close(*runs)


@pytest.mark.parametrize("compile", [False, True])
def test_parameters_that_are_given_other_memory_are_those_that_move(compile):
    """As `vector_to_parameters` does, and whoever swaps in averages: with flat=True they were views of our vector."""
    nets, opts = pair(flat=True, compile=compile)
    for step in range(4):
        for net, opt in zip(nets, opts, strict=True):
            if step == 2:
                halves = torch.cat([p.detach().flatten() for p in net.parameters()]) / 2
                nn.utils.vector_to_parameters(halves, net.parameters())
            gradients(net, step)
            opt.step()
    assert_close(copies(nets[0]), copies(nets[1]))


@pytest.mark.parametrize("compile", [False, True])
def test_gradients_that_are_conjugated_or_negated_when_they_are_read(compile):
    turned = torch.tensor([1 + 2j, -3j])
    params = [nn.Parameter(torch.zeros(2, dtype=torch.complex64)), nn.Parameter(torch.zeros(2))]
    opt = fo.torch_optim.sgd(params, lr=0.5, compile=compile)
    for step in range(1, 3):
        (params[0].conj() * turned).sum().real.backward()
        params[1].grad = turned.conj().imag
        assert params[0].grad.is_conj() and params[1].grad.is_neg()
        opt.step()
        opt.zero_grad()
        assert torch.equal(params[0].detach(), -0.5 * step * turned)
        assert torch.equal(params[1].detach(), 0.5 * step * turned.imag)


def test_leaves_of_the_state_that_are_made_one_tensor_go_their_own_ways():
    def run(compile):
        params = [nn.Parameter(torch.full((3,), float(index), dtype=torch.float64)) for index in range(2)]
        opt = fo.torch_optim.adamw(params, lr=0.1, compile=compile, flat=False)
        for step in range(4):
            if step == 2:
                opt.state[params[1]].update(opt.state[params[0]])
            for index, p in enumerate(params):
                p.grad = torch.full_like(p, 1.0 + index - step)
            opt.step()
        return [p.detach() for p in params]

    assert_close(run(True), run(False))
