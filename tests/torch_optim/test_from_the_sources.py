"""The quick-starts of docs/from-the-sources.md: the sources' run where their packages are installed, and train as ours do."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.torch_optim.runs import assert_close, copies, gradients, model

PAGE = (Path(__file__).parents[2] / "docs" / "from-the-sources.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# source: (\w+)\n(.*?)```", PAGE, re.DOTALL))


def test_every_source_has_its_quick_start():
    assert set(BLOCKS) == {"pilot", "optiroulette", "pulseopt", "adaptive_optimizer"}


@pytest.mark.parametrize("package", ["none of them", *(package for package in BLOCKS if find_spec(package))])
def test_the_quick_start_of_a_source_runs_where_it_is_installed(package):
    if package == "none of them":
        return
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(6)]
    exec(
        BLOCKS[package], {"torch": torch, "model": torch.nn.Linear(4, 2), "batches": batches, "loss_of": torch.nn.functional.cross_entropy}
    )


def test_one_candidate_is_the_plain_optimizer():
    nets = [model(), model()]
    opt = fo.torch_optim.aees(nets[0].parameters(), lr=0.01, lr_candidates=[1.0], episode_length=2)
    theirs = torch.optim.AdamW(nets[1].parameters(), lr=0.01)
    for step in range(5):
        opt.step_end(gradients(nets[0], step))
        gradients(nets[1], step)
        theirs.step()
    assert_close(copies(nets[0]), copies(nets[1]))


def test_the_log_has_an_entry_for_every_episode():
    net = model()
    opt = fo.torch_optim.aees(net.parameters(), lr=0.01, lr_candidates=[0.5, 1.0, 2.0], episode_length=3, seed=0)
    opt.step_end(1.0)  # without a gradient, nothing happens
    for step in range(10):
        opt.step_start(step)
        opt.step_end(gradients(net, step))
    opt.finalize()
    logs = opt.get_logs()
    assert logs["episode_start_steps"] == [0, 3, 6, 9]
    assert set(logs["selected_lr_values"]) <= {0.5, 1.0, 2.0}


def test_classes_are_the_transformations():
    settings = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.005), "episode_length": 2, "seed": 0}
    pairs = [
        (lambda p: fo.torch_optim.pilot(p, lr=0.01), lambda: fo.pilot(0.01)),
        (lambda p: fo.torch_optim.aees(p, lr=0.01, **settings), lambda: fo.aees(fo.adamw(0.01, weight_decay=0.01), **settings)),
        (
            lambda p: fo.torch_optim.adaptive(
                p, lr=0.01, weight_decay=0.01, lr_rule="trend+variance", betas_rule=("relative", "variance"), wd_rule="trend"
            ),
            lambda: fo.adaptive(
                fo.adamw,
                lr=fo.rules.trend(0.01) * fo.rules.variance(),
                betas=(fo.rules.relative(0.9), fo.rules.variance(0.999)),
                weight_decay=fo.rules.trend(0.01),
            ),
        ),
    ]
    for make, transformation in pairs:
        nets = [model(), model()]
        for net, opt in (
            (nets[0], make(nets[0].parameters())),
            (nets[1], fo.torch_optim.Optimizer(nets[1].parameters(), transformation())),
        ):
            for step in range(8):
                opt.step(loss=gradients(net, step))
        assert_close(copies(nets[0]), copies(nets[1]), rtol=1e-10)


def test_a_scheduler_halves_the_steps_of_an_adaptive_optimizer():
    nets = [model(), model()]
    for net, factor in ((nets[0], 1.0), (nets[1], 0.5)):
        opt = fo.torch_optim.adaptive(net.parameters(), lr=0.01, inner="sgd", lr_rule="trend")
        opt.param_groups[0]["lr"] *= factor
        before = copies(net)
        opt.step(loss=gradients(net, 0))
        net.moved = [p.detach() - q for p, q in zip(net.parameters(), before, strict=True)]
        assert opt.lr == pytest.approx(0.01 * factor)
    assert_close([0.5 * x for x in nets[0].moved], nets[1].moved, rtol=1e-9)


def test_the_default_roulette_needs_nothing_but_this_library():
    net = model(torch.float32)
    opt = fo.torch_optim.optiroulette(net.parameters())
    opt.on_epoch_start(0)
    gradients(net, 0)
    opt.step()
    assert opt.effective_lrs() == [pytest.approx(0.1)]


def test_a_cycle_without_a_cosine_warns():
    with pytest.warns(UserWarning, match="cycle_length changes nothing"):
        fo.torch_optim.adaptive(model().parameters(), lr_rule="trend", cycle_length=500, cycle_mult=2)
    fo.torch_optim.adaptive(model().parameters(), lr_rule="cosine", cycle_length=500, cycle_mult=2)
