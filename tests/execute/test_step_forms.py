"""make_step beyond the plain step: accumulation, modules with buffers, what is said while compiling, and what never compiles anew."""

import logging
import re
import subprocess
import sys
import threading

import pytest
import torch

import funcopt as fo
from funcopt.execute.engines import dynamo
from tests.helpers import assert_trees_close, assert_trees_equal, needs_compiler

X = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5)
Y = torch.sin(3 * X[:, :3])


def params():
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (5, 3), "b": (3,), "gain": ()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def loss_fn(params, x, y):
    return (((x @ params["w"] + params["b"]) * params["gain"] - y) ** 2).mean()


def trained(tx, steps=4, loss=loss_fn, extra=lambda step: {}, **form):
    step = fo.make_step(loss, tx, **form)
    held, state = step.init(params())
    value = None
    for index in range(steps):
        held, state, value = step(held, state, X, Y, **extra(index))
    return step.params(held), step.state(state), value


# --- accumulation


@pytest.mark.parametrize("form", [{}, {"flat": True}, {"donate": True}, {"flat": True, "donate": True}], ids=str)
def test_the_mean_over_parts_is_the_step_on_the_whole_batch(form):
    assert_trees_close(trained(fo.adam(0.1), accumulate=4, **form), trained(fo.adam(0.1)))


def test_accumulation_inside_the_step_equals_multi_steps_around_the_optimizer():
    micro = fo.make_step(loss_fn, fo.multi_steps(fo.adam(0.1), 2))
    held, state = micro.init(params())
    for _ in range(3):
        for part in (slice(0, 4), slice(4, 8)):
            held, state, _ = micro(held, state, X[part], Y[part])
    assert_trees_close(trained(fo.adam(0.1), 3, accumulate=2)[0], held)


def test_what_is_not_cut_reaches_every_part_whole_and_aux_comes_back_stacked():
    def with_table(params, x, y, table):
        return loss_fn(params, x, y) + table.sum(), {"rows": table.shape[0] + 0 * x[:, 0].sum(), "first": x[0, 0]}

    step = fo.make_step(with_table, fo.sgd(0.1), has_aux=True, accumulate=2, in_dims=(0, 0, None))
    held, state = step.init(params())
    _, _, (loss, aux) = step(held, state, X, Y, torch.ones(3, dtype=torch.float64))
    assert loss == pytest.approx(loss_fn(params(), X, Y) + 3.0)
    assert_trees_equal(aux, {"rows": torch.full((2,), 3.0, dtype=torch.float64), "first": X[::4, 0]})


def test_half_precision_is_summed_in_single():
    step = fo.make_step(lambda p, x: (p * x).sum(), fo.sgd(1.0), accumulate=4)
    held, state = step.init(torch.zeros((), dtype=torch.bfloat16))
    held, _, _ = step(held, state, torch.tensor([1.0, 2.0**-8, 2.0**-8, 2.0**-7], dtype=torch.bfloat16))
    assert held == -torch.tensor((1 + 2.0**-6) / 4, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "form, message",
    [
        ({"accumulate": 3}, r"accumulate=3 must divide axis 0 of batch argument 0, got shape \(8, 5\); pass in_dims"),
        ({"accumulate": 2, "in_dims": (0,)}, "in_dims must have one entry for each of the 2 batch arguments, got 1"),
    ],
)
def test_says_which_argument_cannot_be_cut(form, message):
    with pytest.raises(ValueError, match=message):
        trained(fo.sgd(0.1), 1, **form)


# --- modules


class Normed(torch.nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
        self.double()


@pytest.mark.parametrize("form", [{}, {"flat": True, "donate": True}, {"compile": True}], ids=str)
def test_a_module_trains_as_it_does_in_a_plain_loop_and_its_buffers_move(form, monkeypatch):
    monkeypatch.setattr(torch, "compile", with_backend(torch.compile, "aot_eager"))
    module, twin = Normed(), Normed()
    model = fo.functional(module)

    def module_loss(params, buffers, x, y):
        output, buffers = model(params, buffers, x)
        return ((output - y) ** 2).mean(), buffers

    torch._dynamo.reset()
    step = fo.make_step(module_loss, fo.sgd(0.1), has_aux=True, **form)
    held, state = step.init(dict(module.named_parameters()))
    buffers = dict(module.named_buffers())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(3):
        held, state, (loss, buffers) = step(held, state, buffers, X, Y)
        optimizer.zero_grad()
        expected = ((twin(X) - Y) ** 2).mean()
        expected.backward()
        optimizer.step()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    assert_trees_close(step.params(held), {name: p.detach() for name, p in twin.named_parameters()}, rtol=1e-8)
    assert_trees_close(buffers, dict(twin.named_buffers()), rtol=1e-8)
    assert module[1].num_batches_tracked == 0
    module.load_state_dict({**step.params(held), **buffers})
    assert_trees_close(module(X), twin(X), rtol=1e-8)


def test_functional_wants_a_module():
    with pytest.raises(TypeError, match="functional: needs an nn.Module, got the class"):
        fo.functional(torch.nn.Linear)


# --- compiled once


def sentence():
    """A chain with everything that changes from step to step: rates, counts, picks, losses, episodes."""
    pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "momentum": fo.Member(fo.trace(0.9), lr=0.01)}
    roulette = fo.roulette(pool, every=2, seed=0, dispatch="select")
    return fo.chain(fo.clip_by_global_norm(1.0), roulette, fo.ucb_episodes(episode_length=2, seed=0, dispatch="select"), fo.lr_scale())


def scheduled():
    return fo.chain(fo.ucb_episodes(episode_length=2, seed=0, dispatch="select"), fo.adamw(lambda count: 0.1 / (count + 1.0)))


@needs_compiler
@pytest.mark.parametrize("make", [scheduled, pytest.param(sentence, marks=pytest.mark.long)])
def test_one_graph_while_counts_rates_picks_and_losses_change(make, monkeypatch):
    monkeypatch.setattr(torch, "compile", with_backend(torch.compile, "aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    extra = lambda step: {"reward": 0.1 * step, "metric": 1.0 / (step + 1), "epoch": step}  # noqa: E731
    compiled = trained(make(), 6, compile=True, extra=extra)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_trees_close(compiled, trained(make(), 6, extra=extra), rtol=1e-9, atol=1e-11)


@needs_compiler
def test_other_tensors_of_the_same_form_run_on_the_same_graph(monkeypatch):
    monkeypatch.setattr(torch, "compile", with_backend(torch.compile, "aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    step = fo.make_step(loss_fn, fo.adam(0.1), compile=True, donate=True)
    first = step.init(params())
    for held, state in (first, fo.tree.clone(first)):
        step(held, state, X, Y)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_module_that_changes_its_mode_is_compiled_anew(monkeypatch):
    """What guards are left out are those of our own code; those of a loss function stay."""
    monkeypatch.setattr(torch, "compile", with_backend(torch.compile, "aot_eager"))
    torch._dynamo.reset()
    module = torch.nn.Dropout(0.999)
    step = fo.make_step(lambda p: torch.func.functional_call(module, {}, (p,)).sum(), fo.sgd(0.0), compile=True)
    held, state = step.init(torch.ones(64))
    assert step(held, state)[2] != 64
    module.eval()
    assert step(held, state)[2] == 64


def with_backend(compile, backend):
    def compiled(f, **settings):
        settings["options"] = {"guard_filter_fn": settings["options"]["guard_filter_fn"]}
        return compile(f, backend=backend, **settings)

    return compiled


def test_extras_like_params_are_given_to_links_in_the_form_they_run_on():
    def told(updates, state, params=None, *, hessian, **extra):
        return fo.tree.map(lambda g, h: g / h, updates, hessian), state

    def make(flattenable):
        return fo.GradientTransformation(lambda params: fo.EmptyState(), told, name="newton", flattenable=flattenable)

    hessian = fo.tree.full_like(params(), 2.0)
    plain = trained(make(True), 2, extra=lambda step: {"hessian": hessian})
    for flattenable in (True, False):
        flat = trained(fo.chain(fo.clip(1e9), make(flattenable)), 2, extra=lambda step: {"hessian": hessian}, flat=True)
        assert_trees_close(flat[0], plain[0])


# --- what is said while compiling


@pytest.fixture
def quiet_backend(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, **settings: f)


@needs_compiler
def test_the_log_is_told_when_compiling_begins_and_ends(quiet_backend, caplog):
    with caplog.at_level(logging.INFO, logger="funcopt"):
        trained(fo.chain(fo.clip(1.0), fo.adam(0.1)), 2, compile=True)
    begins, ends = [record.getMessage() for record in caplog.records]
    assert begins == "compiling a step of clip, scale_by_adam, add_decayed_weights, lr_scale on 3 leaves ..."
    assert re.fullmatch(r"compiled a step of clip, scale_by_adam, add_decayed_weights, lr_scale on 3 leaves in \d+\.\d s", ends)


def test_long_compilations_speak_up_where_nobody_listens_to_the_log(monkeypatch, capsys):
    say, spoken = dynamo._say, threading.Event()
    monkeypatch.setattr(dynamo.log, "hasHandlers", lambda: False)
    monkeypatch.setattr(dynamo, "_say", lambda line: (say(line), spoken.set()))
    monkeypatch.setattr(dynamo, "PATIENCE", 1000.0)
    with dynamo.told("a short one"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(dynamo, "PATIENCE", 0.05)
    with dynamo.told("a long one"):
        spoken.wait()
    begins, ends = capsys.readouterr().err.splitlines()
    assert begins == "funcopt: compiling a long one ..."
    assert re.fullmatch(r"funcopt: compiled a long one in \d+\.\d s", ends)


TWICE = """
import torch, funcopt as fo
from torch._dynamo.utils import counters
step = fo.make_step(lambda p: (p * p).sum(), fo.sgd(0.1), compile=True, donate=True)
p, state = step.init(torch.ones(3))
p, state, loss = step(p, state)
found = counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"]
print("hit" if found else "miss", float(loss))
"""


@pytest.mark.long
def test_the_next_process_loads_what_this_one_compiled(tmp_path):
    def run():
        environment = {**__import__("os").environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True, env=environment).stdout.split()

    assert run() == ["miss", "3.0"]
    assert run() == ["hit", "3.0"]


# --- CUDA graphs


def test_a_mode_of_cuda_graphs_says_where_it_has_no_effect(quiet_backend):
    step = fo.make_step(loss_fn, fo.adam(0.1), compile=True, donate=True, mode="reduce-overhead")
    with pytest.warns(
        UserWarning, match="make_step: mode='reduce-overhead' replays CUDA graphs and has no effect on an eager step or on a CPU"
    ):
        held, state = step.init(params())
    step(held, state, X, Y)
    with pytest.raises(
        ValueError, match=r"mode='reduce-overhead' replays a graph on buffers that stay where they are; pass compile=True, donate=True"
    ):
        fo.make_step(loss_fn, fo.adam(0.1), compile=True, mode="reduce-overhead")
    with pytest.raises(ValueError, match="mode must be one of None, 'reduce-overhead', got 'max-autotune'"):
        fo.make_step(loss_fn, fo.adam(0.1), mode="max-autotune")
