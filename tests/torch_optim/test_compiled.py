"""Compiled steps: one graph whatever changes, the numbers of the eager step, addresses that stay (A2, A3, A5)."""

import logging

import pytest
import torch
from torch._dynamo.utils import counters

import funcopt as fo
from funcopt.core.versions import TORCH, compiler_missing
from tests.torch_optim.runs import assert_close, copies, gradients, model, train

pytestmark = pytest.mark.skipif(TORCH < (2, 10) or bool(compiler_missing(torch.device("cpu"))), reason="no compiler for this torch")


def graphs(run) -> int:
    """How many graphs a run compiles by torch.compile."""
    before = counters["stats"]["unique_graphs"]
    run()
    return counters["stats"]["unique_graphs"] - before


def compilations(run, caplog) -> int:
    """How many graphs of ours a run compiles, by either engine."""
    with caplog.at_level(logging.INFO, logger="funcopt"):
        run()
    return sum(record.getMessage().startswith("compiled ") for record in caplog.records if record.name == "funcopt")


@pytest.mark.parametrize("flat", [pytest.param(False, marks=pytest.mark.long), True])
def test_one_graph_while_rates_counts_and_gradients_change(flat, caplog):
    nets = [model(), model()]
    lrs = [torch.tensor(0.05, dtype=torch.float64) for _ in nets]
    opt = fo.torch_optim.adamw(nets[0].parameters(), lr=lrs[0], compile=True, flat=flat)
    theirs = torch.optim.AdamW(nets[1].parameters(), lr=lrs[1])

    def run():
        for step in range(20):
            for net, o, lr in ((nets[0], opt, lrs[0]), (nets[1], theirs, lrs[1])):
                gradients(net, step)
                o.step()
                lr.mul_(0.9)

    assert compilations(run, caplog) == 1
    assert_close(copies(nets[0]), copies(nets[1]))


def test_one_more_graph_once_hyperparameters_move_and_none_after(caplog):
    nets = [model(), model()]
    opt = fo.torch_optim.sgd(nets[0].parameters(), lr=0.01, momentum=0.9, compile=True)
    theirs = torch.optim.SGD(nets[1].parameters(), lr=0.01, momentum=0.9)

    def run():
        for step in range(10):
            for net, o in ((nets[0], opt), (nets[1], theirs)):
                o.param_groups[0]["lr"] = 0.01 / (step + 1)
                o.param_groups[0]["momentum"] = 0.9 - 0.02 * max(0, step - 2)
                gradients(net, step)
                o.step()

    assert compilations(run, caplog) == 2
    assert_close(copies(nets[0]), copies(nets[1]))


@pytest.mark.long
def test_a_controller_compiled_is_the_controller():
    nets = [model(), model()]
    opts = [
        fo.torch_optim.Optimizer(net.parameters(), fo.chain(fo.clip_by_global_norm(1.0), fo.pilot(None)), lr=0.01, compile=index == 0)
        for index, net in enumerate(nets)
    ]
    runs = [train(net, opt, 6) for net, opt in zip(nets, opts, strict=True)]
    assert_close(*runs, rtol=1e-9)
    for word, value in opts[0].signals().items():
        torch.testing.assert_close(value, opts[1].signals()[word], rtol=1e-9, atol=1e-12)


def test_a_compiled_state_is_saved_and_resumed():
    nets = [model(), model()]
    opts = [fo.torch_optim.adamw(net.parameters(), lr=0.01, compile=index == 0) for index, net in enumerate(nets)]
    train(nets[0], opts[0], 3)
    nets[1].load_state_dict(nets[0].state_dict())
    opts[1].load_state_dict(opts[0].state_dict())
    assert_close(train(nets[0], opts[0], 2, 3), train(nets[1], opts[1], 2, 3))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.long)])
def test_addresses_stay(compile):
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=torch.tensor(0.01), capturable=True, compile=compile)

    def addresses():
        shared = opt.param_groups[0]["funcopt"]["state"].values()
        return [x.data_ptr() for own in opt.state.values() for x in own.values()] + [x.data_ptr() for x in shared]

    train(net, opt, 1)
    before = addresses()
    train(net, opt, 4, 1)
    assert before == addresses()


@pytest.mark.parametrize("flat", [pytest.param(False, marks=pytest.mark.long), "auto"])
def test_a_step_inside_the_loop_that_somebody_compiles(flat):
    torch._dynamo.reset()
    nets = [model(), model()]
    opt = fo.torch_optim.Optimizer(nets[0].parameters(), fo.adamw(None, weight_decay=0.01), lr=0.05, flat=flat)
    theirs = torch.optim.AdamW(nets[1].parameters(), lr=0.05)
    train(nets[0], opt, 1)
    train(nets[1], theirs, 1)
    step_of = torch.compile(opt.step, backend="aot_eager", fullgraph=True)

    def run():
        for step in range(1, 8):
            for net, o, do in ((nets[0], opt, step_of), (nets[1], theirs, theirs.step)):
                o.zero_grad(set_to_none=True)
                gradients(net, step)
                do()
                o.param_groups[0]["lr"] *= 0.9

    assert graphs(run) <= 2
    assert_close(copies(nets[0]), copies(nets[1]))


def test_a_fresh_optimizer_and_a_scheduler_in_somebody_elses_compiled_step():
    torch._dynamo.reset()
    nets = [model(), model()]
    opts = [fo.torch_optim.adamw(nets[0].parameters(), lr=0.05), torch.optim.AdamW(nets[1].parameters(), lr=0.05)]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(opt, 0.9) for opt in opts]
    steps = [torch.compile(opts[0].step, backend="aot_eager"), opts[1].step]

    def run():
        for step in range(10):
            for net, opt, do, scheduler in zip(nets, opts, steps, schedulers, strict=True):
                opt.zero_grad(set_to_none=True)
                gradients(net, step)
                do()
                scheduler.step()

    assert graphs(run) <= 2
    assert_close(copies(nets[0]), copies(nets[1]))


@pytest.mark.long
def test_a_loss_that_is_missing_is_missed_in_words_and_held_as_in_eager_steps():
    def train(on_missing, compile):
        net = model()
        opt = fo.torch_optim.Optimizer(net.parameters(), fo.aees(fo.sgd(0.1), (0.5, 1.0), seed=0), compile=compile, on_missing=on_missing)
        for step in range(3):
            gradients(net, step)
            opt.step(**({"loss": 1.0} if step == 2 else {}))
        return copies(net)

    with pytest.raises(ValueError, match=r"needs the loss of this step; call step\(loss=loss\)"):
        train("raise", True)
    assert_close(train("hold", True), train("hold", False))


@pytest.mark.long
def test_large_leaves_of_a_compiled_state_lie_at_different_lines_and_go_on_from_a_checkpoint(tmp_path):
    def made(**form):
        params = [torch.nn.Parameter(torch.full((256, 256), 0.1 * (index + 1))) for index in range(2)]
        return params, fo.torch_optim.adamw(params, lr=0.1, **form)

    def stepped(params, optimizer, steps):
        for step in range(steps):
            for index, p in enumerate(params):
                p.grad = torch.full_like(p, 0.1 + step + index)
            optimizer.step()
        return [x for entry in optimizer.state_dict()["state"].values() for x in entry.values() if x.dim()]

    params, optimizer = made(compile=True)
    leaves = stepped(params, optimizer, 2)
    lines = [x.data_ptr() % 4096 for x in leaves]
    assert len(leaves) == 4 and len(set(lines)) == 4 and all(line % 64 == 0 for line in lines)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    others, again = made(compile=True)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        for other, p in zip(others, params, strict=True):
            other.copy_(p)
    plain = made()
    expected = [*stepped(*plain, 2), *plain[0]]
    torch.testing.assert_close([*leaves, *params], expected)
    torch.testing.assert_close(stepped(others, again, 1), stepped(params, optimizer, 1), rtol=0, atol=0)
