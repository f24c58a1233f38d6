"""The torch optimizer without a rate: the functional one, through groups that freeze, schedulers, averages and checkpoints."""

import copy

import pytest
import torch

import funcopt as fo

F64 = torch.float64


def model_and_data(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    x = torch.randn(64, 3, dtype=F64)
    return model, x, torch.sin(x.sum(1, keepdim=True))


def train(model, opt, x, y, steps, start=0):
    for step in range(start, start + steps):
        batch = slice(16 * (step % 4), 16 * (step % 4) + 16)
        opt.zero_grad()
        torch.nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
        opt.step()


@pytest.mark.parametrize("flat", [False, True])
def test_it_is_the_functional_one(flat):
    model, x, y = model_and_data()
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    opt = fo.torch_optim.rate_free(model.named_parameters(), inner="nadamw", weight_decay=1e-3, flat=flat)
    train(model, opt, x, y, 60)
    tx = fo.rate_free(fo.nadamw, weight_decay=1e-3)
    state = tx.init(params)
    for step in range(60):
        batch = slice(16 * (step % 4), 16 * (step % 4) + 16)
        grads = torch.func.grad(lambda p, b: torch.nn.functional.mse_loss(torch.func.functional_call(model, p, x[b]), y[b]))(params, batch)
        updates, state = tx.update(grads, state, params)
        params = fo.apply_updates(params, updates)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), params[name], rtol=1e-9, atol=1e-12)
    assert float(opt.signals()["rate_multiplier"]) == pytest.approx(float(fo.read_signals(state)["rate_multiplier"]), rel=1e-9)
    assert opt.effective_lrs()[0] == pytest.approx(float(fo.read_signals(state)["lr"]), rel=1e-9)
    opt.eval()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), fo.averaged_params(state, params)[name], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="the parameters are those of evaluation; call train"):
        opt.step()
    opt.train()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), params[name], rtol=1e-9, atol=1e-12)


def test_a_part_that_is_frozen_and_comes_back_does_no_harm():
    model, x, y = model_and_data()
    body, head = list(model[0].parameters()), list(model[2].parameters())
    for p in body:
        p.requires_grad_(False)
    opt = fo.torch_optim.rate_free([{"params": body}, {"params": head}])
    train(model, opt, x, y, 80)
    before = opt.signals()["rate_multiplier"].clone()
    assert before > 10
    for p in body:
        p.requires_grad_(True)
    train(model, opt, x, y, 80)
    assert torch.nn.functional.mse_loss(model(x), y) < 0.2


def test_resumed_it_goes_on_bit_for_bit():
    model, x, y = model_and_data()
    opt = fo.torch_optim.rate_free(model.parameters())
    train(model, opt, x, y, 30)
    other = copy.deepcopy(model)
    resumed = fo.torch_optim.rate_free(other.parameters())
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    train(model, opt, x, y, 20, 30)
    train(other, resumed, x, y, 20, 30)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_scheduler_moves_the_rate_that_is_multiplied():
    model, x, y = model_and_data()
    opt = fo.torch_optim.rate_free(model.parameters(), find={"after": "hold"})
    scheduler = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.0, total_iters=40)
    for step in range(40):
        train(model, opt, x, y, 1, step)
        scheduler.step()
    before = [p.detach().clone() for p in model.parameters()]
    train(model, opt, x, y, 3)
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)  # a rate of zero, whatever it is multiplied by


def test_says_what_is_wrong():
    w = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(TypeError, match="rate_free: takes no lr, since it finds its own; start="):
        fo.torch_optim.rate_free(w, lr=0.1)
    with pytest.raises(ValueError, match="rate_free: start must be > 0, got 0.0"):
        fo.torch_optim.rate_free(w, 0.0)
    with pytest.raises(ValueError, match="rate_free: scale_by_lion takes steps of one length"):
        fo.torch_optim.rate_free(w, inner="lion")
    with pytest.raises(ValueError, match="rate_free: scale_by_prodigy finds its own rate; use it as it is"):
        fo.torch_optim.rate_free(w, inner="prodigy")
    with pytest.raises(TypeError, match="rate_free: per_group must be True or False, got 1"):
        fo.torch_optim.rate_free(w, per_group=1)
    with pytest.raises(TypeError, match="rate_free: takes no 'momentum'; it takes start, inner"):
        fo.torch_optim.rate_free(w, momentum=0.9)


# --- each group by itself -----------------------------------------------------------------------------------------------------------


def leaf(*entries):
    return torch.nn.Parameter(torch.tensor(entries, dtype=F64))


def down(opt, curvatures, steps=1):
    """Steps down half the sum of h p^2; the gradient of a parameter is h p, and there is none where h is None."""
    for _ in range(steps):
        for p, h in curvatures.items():
            p.grad = None if h is None else h * p.detach()
        opt.step()


def test_each_group_finds_the_rate_of_its_curvature_and_all_together_that_of_the_steepest():
    # The rate of the greedy step is 1 / h: 1 for the flat group, 1e-4 for the steep one, which a longer step than that makes grow.
    flat, steep = leaf(1.0, -2.0), leaf(1.0, 3.0)
    opt = fo.torch_optim.rate_free([{"params": [flat]}, {"params": [steep]}], inner="sgd", per_group=True, find={"reopen": None})
    down(opt, {flat: 1.0, steep: 1e4}, 40)
    ours, theirs = opt.effective_lrs()
    assert 0.5 < ours < 2 and 0.5e-4 < theirs < 2e-4
    words = opt.signals()
    assert float(words["rate_multiplier"]) == pytest.approx(ours / 1e-6) and float(words["group1/rate_multiplier"]) == pytest.approx(
        theirs / 1e-6
    )
    assert {"group1/held", "group1/alignment", "group1/evidence", "group1/setbacks", "group1/lr"} <= set(words)
    flat, steep = leaf(1.0, -2.0), leaf(1.0, 3.0)
    opt = fo.torch_optim.rate_free([{"params": [flat]}, {"params": [steep]}], inner="sgd", find={"reopen": None})
    down(opt, {flat: 1.0, steep: 1e4}, 40)
    assert 0.5e-4 < opt.effective_lrs()[0] < 2e-4 and opt.effective_lrs()[1] == opt.effective_lrs()[0]


@pytest.mark.filterwarnings("error")  # no group counts the steps of another
def test_a_group_steps_as_if_it_were_trained_alone_whatever_others_do():
    def made(*params):
        return fo.torch_optim.rate_free([{"params": [p]} for p in params], per_group=True, weight_decay=0.01)

    start = [(1.0, -2.0), (0.5, 3.0), (2.0, 2.0)]
    a, b, c = (leaf(*entries) for entries in start)
    opt = made(a, b)
    down(opt, {a: 1.0, b: 30.0}, 12)
    down(opt, {a: 1.0, b: None}, 7)  # pauses
    opt.add_param_group({"params": [c]})
    down(opt, {a: None, b: 30.0, c: 5.0}, 9)
    down(opt, {a: 1.0, b: 30.0, c: 5.0}, 5)
    words = opt.signals()
    for evaluating in (False, True):
        if evaluating:
            opt.eval()
        for number, (p, h, steps) in enumerate(((a, 1.0, 24), (b, 30.0, 26), (c, 5.0, 14))):
            alone = leaf(*start[number])
            other = made(alone)
            down(other, {alone: h}, steps)
            prefix = f"group{number}/" if number else ""
            assert all(torch.equal(words[prefix + word], value) for word, value in other.signals().items())
            if evaluating:
                other.eval()
            assert torch.equal(p, alone)


def test_groups_resume_and_are_copied_bit_for_bit():
    a, b, c = leaf(1.0, -2.0), leaf(0.5, 3.0), leaf(2.0)
    opt = fo.torch_optim.rate_free([{"params": [a]}, {"params": [b, c]}], per_group=True)
    down(opt, {a: 1.0, b: None, c: None}, 5)
    down(opt, {a: 1.0, b: 20.0, c: None}, 15)  # group 1 begins later
    others = [copy.deepcopy(p) for p in (a, b, c)]
    resumed = fo.torch_optim.rate_free([{"params": others[:1]}, {"params": others[1:]}], per_group=True)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    (d, e, f), copied = copy.deepcopy(([a, b, c], opt))
    for group in (opt, a, b, c), (resumed, *others), (copied, d, e, f):
        down(group[0], dict(zip(group[1:], (1.0, 20.0, 7.0), strict=True)), 15)
    for p, q, r in zip((a, b, c), others, (d, e, f), strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)
    assert all(torch.equal(value, resumed.signals()[word]) for word, value in opt.signals().items())


def test_a_scheduler_moves_the_rate_of_its_group():
    a, b = leaf(1.0, -2.0), leaf(1.0, -2.0)
    opt = fo.torch_optim.rate_free([{"params": [a]}, {"params": [b]}], per_group=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, [lambda t: 1.0, lambda t: 1.0 if t < 10 else 0.0])
    for _ in range(10):
        down(opt, {a: 1.0, b: 1.0})
        scheduler.step()
    assert torch.equal(a, b)
    before = b.detach().clone()
    down(opt, {a: 1.0, b: 1.0}, 3)
    assert torch.equal(b, before) and not torch.equal(a, before)
    assert opt.effective_lrs()[1] == 0 < opt.effective_lrs()[0]


def test_groups_may_say_different_decays_where_each_is_by_itself():
    a, b = leaf(1.0), leaf(1.0)
    groups = [{"params": [a], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.2}]
    opt = fo.torch_optim.rate_free(copy.deepcopy(groups), per_group=True)
    down(opt, {opt.param_groups[0]["params"][0]: 1.0}, 2)
    with pytest.raises(
        ValueError, match="rate_free: looks at all parameters as one, so a group's weight_decay must be 0 or that of the others"
    ):
        fo.torch_optim.rate_free(groups)


def test_what_was_found_for_all_groups_together_is_not_taken_for_each():
    a, b = leaf(1.0), leaf(1.0)
    groups = [{"params": [a]}, {"params": [b]}]
    states = {}
    for per_group in (False, True):
        opt = fo.torch_optim.rate_free(groups, per_group=per_group)
        down(opt, {a: 1.0, b: 1.0}, 3)
        states[per_group] = opt.state_dict()
    for per_group in (False, True):
        with pytest.raises(ValueError, match="the saved state must be that of this transformation"):
            fo.torch_optim.rate_free(groups, per_group=not per_group).load_state_dict(states[per_group])


def test_a_parameter_that_moves_to_a_new_group_begins_anew_there():
    a, b = leaf(1.0, -2.0), leaf(0.5)
    opt = fo.torch_optim.rate_free([{"params": [a, b]}], per_group=True)
    down(opt, {a: 1.0, b: 1.0}, 20)
    opt.param_groups[0]["params"].pop()
    opt.add_param_group({"params": [b]})
    alone = copy.deepcopy(b)
    other = fo.torch_optim.rate_free([alone], per_group=True)
    down(opt, {a: 1.0, b: 1.0}, 10)
    down(other, {alone: 1.0}, 10)
    assert torch.equal(b, alone)


def test_only_the_weights_of_which_an_average_is_kept_change_for_evaluation():
    model, x, y = model_and_data()
    tx = fo.partition({"*.bias": fo.sgd(0.1), "*": fo.average_params(fo.sgd(0.1))}, by="path")
    opt = fo.torch_optim.Optimizer(model.named_parameters(), tx)
    train(model, opt, x, y, 5)
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    opt.eval()
    assert {name for name, p in model.named_parameters() if not torch.equal(p, trained[name])} == {"0.weight", "2.weight"}
    opt.train()
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())
