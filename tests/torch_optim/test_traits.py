"""The shim decides how groups step by what a transformation declares, and by no name."""

import pytest
import torch

import funcopt as fo


def global_norm(name, **declared):
    """Divides by the norm of all updates."""

    def update(updates, state, params=None, **extra):
        return fo.tree.scale(1 / fo.tree.norm(updates), updates), state

    return fo.GradientTransformation(lambda params: fo.EmptyState(), update, name=name, **declared)


@pytest.mark.parametrize("name", ["clip", "scale_by_adam", "norm", "lr_scale"])
def test_a_link_that_sees_all_groups_is_not_run_group_by_group_whatever_its_name(name):
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    opt = fo.torch_optim.Optimizer([{"params": [a]}, {"params": [b]}], fo.chain(global_norm(name), fo.lr_scale()), lr=1.0)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    opt.step()
    torch.testing.assert_close(torch.cat([a.detach(), b.detach()]), torch.tensor([-0.6, -0.8]))


def test_a_link_of_ones_own_that_declares_it_has_its_groups_step_apart():
    def update(updates, state, params=None, **extra):
        return updates, state + 1

    mine = fo.GradientTransformation(
        lambda params: torch.zeros((), dtype=torch.int64), update, name="mine", flattenable=True, per_leaf=True, turns=False
    )
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    opt = fo.torch_optim.Optimizer([{"params": [a]}, {"params": [b]}], fo.chain(mine, fo.lr_scale()), lr=1.0)
    for _ in range(2):
        a.grad = torch.ones(1)
        opt.step()
    b.grad = torch.ones(1)
    opt.step()
    assert [int(state[0]) for state in opt.functional()] == [3, 1]


@pytest.mark.parametrize(
    "make",
    [lambda: fo.lookahead(fo.adam(None), 2, 0.5), lambda: fo.schedule_free(fo.adam(None, b1=0.0))],
    ids=["lookahead", "schedule_free"],
)
def test_groups_in_a_wrapper_step_as_optimizers_of_their_own_would(make):
    def run(split):
        w = [torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)) for _ in range(2)]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(w, (0.1, 0.4), strict=True)]
        opts = [fo.torch_optim.Optimizer(part, make(), lr=0.1) for part in ([[g] for g in groups] if split else [groups])]
        for _ in range(5):
            for p in w:
                p.grad = 2 * p.detach()
            for opt in opts:
                opt.step()
        return torch.stack([p.detach() for p in w])

    torch.testing.assert_close(run(split=False), run(split=True), rtol=0, atol=0)


def test_schedule_free_takes_groups_with_numbers_of_their_own():
    a, b = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    opt = fo.torch_optim.schedule_free_adamw([{"params": [a], "betas": (0.9, 0.99)}, {"params": [b], "betas": (0.8, 0.95)}], lr=0.1)
    c = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    alone = fo.torch_optim.schedule_free_adamw([c], lr=0.1, betas=(0.8, 0.95))
    for _ in range(3):
        for p in (a, b, c):
            p.grad = 2 * p.detach()
        opt.step()
        alone.step()
    torch.testing.assert_close(b.detach(), c.detach(), rtol=0, atol=0)
    assert not torch.equal(a.detach(), b.detach())


def test_what_was_saved_when_all_groups_of_schedule_free_stepped_as_one_is_gone_on_from():
    def run(steps, opt, *params):
        for _ in range(steps):
            for p in params:
                p.grad = 2 * p.detach()
            opt.step()

    def made():
        params = [torch.nn.Parameter(torch.tensor([1.0, -2.0]) * scale) for scale in (1, 3)]
        return fo.torch_optim.schedule_free_adamw([{"params": [p]} for p in params], lr=0.1), *params

    opt, *params = made()
    run(3, opt, *params)
    saved, there = opt.state_dict(), [p.detach().clone() for p in params]
    del saved["param_groups"][1]["funcopt"]  # as it was saved: counters stood with the first group alone
    again, *loaded = made()
    with torch.no_grad():
        for p, value in zip(loaded, there, strict=True):
            p.copy_(value)
    again.load_state_dict(saved)
    run(3, opt, *params)
    run(3, again, *loaded)
    for p, q in zip(params, loaded, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=0, atol=0)


def test_control_finds_the_functions_of_wrapped_controllers_and_refuses_internals():
    w = torch.nn.Parameter(torch.zeros(2))
    bandit = fo.aees(fo.sgd(0.1), (0.5, 1.0), episode_length=10, seed=0)
    opt = fo.torch_optim.Optimizer([w], fo.apply_if_finite(fo.chain(fo.clip(1.0), bandit), 2))
    w.grad = torch.ones(2)
    opt.step(loss=1.0)
    opt.control("finalize")
    assert fo.find(opt.functional(), "episode") == 1
    before = opt.functional()
    for word in ("relink", "init", "grouping"):
        with pytest.raises(ValueError, match=f"has no function {word!r} for the loop; it has finalize"):
            opt.control(word)
    assert fo.find(opt.functional(), "episode") == fo.find(before, "episode")
