"""What one member leaves behind for the next: refused where the next would see it, left alone where nobody reads it."""

import copy

import pytest
import torch
from torch import library, nn
from torch.func import functional_call
from torch.nn import functional as F

import funcopt as fo
from tests.es import programs

X = fo.random.normal(fo.random.key(0), (5, 4))
PARAMS = {name: p.detach() for name, p in programs.power.named_parameters()}
SEEN = "the objective writes into a tensor that is the same for all members .*, and reads it, so that each sees what those before it left"


def estimate(f, *args, **options):
    return fo.es.grad(f, **{"popsize": 6, "sigma": 0.1, "shaping": "none", "vectorize": "loop", **options})(*args, key=0)


@pytest.mark.parametrize("noise", ["normal", fo.es.low_rank(1)], ids=str)
def test_a_power_iteration_that_members_share_is_refused_and_undone(noise):
    before = copy.deepcopy(dict(programs.power.named_buffers()))
    with pytest.raises(ValueError, match=f"es.grad: {SEEN}"):
        estimate(programs.spectral, PARAMS, X, noise=noise)
    assert all(torch.equal(buffer, before[name]) for name, buffer in programs.power.named_buffers())
    with pytest.raises(ValueError, match=f"es.spsa_step: {SEEN}"):
        fo.es.spsa_step(programs.spectral, lr=0.1, noise=noise)(PARAMS, X, key=0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in programs.power.named_buffers())


@pytest.mark.long
def test_a_worker_refuses_for_the_whole_call():
    with pytest.raises(ValueError, match=f"es.grad: {SEEN}"):
        estimate(programs.spectral, PARAMS, X, vectorize="processes", workers=1)


def test_with_buffers_of_their_own_members_begin_alike():
    buffers = {name: b.clone() for name, b in programs.power.named_buffers()}

    def f(params, buffers):
        return functional_call(programs.power, (params, buffers), (X,)).square().sum()

    _, info = estimate(f, PARAMS, buffers, buffers="per_member")
    alone = [f(info.member(j), {name: b.clone() for name, b in buffers.items()}).detach() for j in range(6)]
    torch.testing.assert_close(info.fitness, torch.stack(alone))


def test_memory_that_every_member_writes_before_it_reads_is_its_own_affair():
    scratch, calls = torch.empty(5, 3), torch.zeros(())

    def f(params):
        calls.add_(1)
        torch.mm(X, params["w"].mT, out=scratch)
        return scratch.square().sum()

    params = {"w": torch.ones(3, 4)}
    _, info = estimate(f, params)
    torch.testing.assert_close(info.fitness, estimate(lambda p: (X @ p["w"].mT).square().sum(), params)[1].fitness)
    assert calls == 6  # what was tried is put back


def test_the_arguments_of_the_objective_count_too():
    def f(params, x):
        return (x.mul_(1.5) @ params["w"]).square().sum()

    x = X.clone()
    with pytest.raises(ValueError, match=SEEN):
        estimate(f, {"w": torch.ones(4, 3)}, x)
    assert torch.equal(x, X)


def test_a_fitness_that_is_another_at_every_call_is_not_blamed_on_what_it_writes():
    log, draws = torch.zeros(()), iter(range(100))

    def f(params):
        log.add_(1)
        return params["w"].sum() + next(draws)

    assert estimate(f, {"w": torch.ones(3)})[1].fitness.isfinite().all()


def test_a_compiled_function_inside_stays_compiled():
    runs = []

    def counting(graph, examples):
        return lambda *inputs: runs.append(1) or graph.forward(*inputs)

    torch._dynamo.reset()
    net = torch.compile(lambda w: (X @ w).square().mean(), backend=counting)
    params = {"w": torch.ones(4, 3)}
    plain = estimate(lambda p: (X @ p["w"]).square().mean(), params)[1].fitness
    for _ in range(2):
        torch.testing.assert_close(estimate(lambda p: net(p["w"]), params)[1].fitness, plain)
    assert len(runs) == 8  # of two times six members; the first two of each call are watched
    net(params["w"])
    assert len(runs) == 9


@pytest.mark.skipif(fo.core.versions.TORCH < (2, 6), reason="torch.cond bears no other mode of dispatch before torch 2.6")
def test_torch_cond_is_taken_and_goes_on_working_elsewhere():
    def f(p):
        return torch.cond(p["w"].sum() > 12, lambda w: 2 * w.sum(), lambda w: w.sum() - 1, (p["w"],))

    torch._dynamo.reset()
    fitness = estimate(f, {"w": torch.ones(4, 3)})[1].fitness
    sums = estimate(lambda p: p["w"].sum(), {"w": torch.ones(4, 3)})[1].fitness
    torch.testing.assert_close(fitness, torch.where(sums > 12, 2 * sums, sums - 1))
    assert f({"w": torch.ones(4, 3)}) == 11


# ------------------------------------------------------------------------------------------------------ two-point steps

CONV = nn.Conv1d(2, 3, 3)
SOUND = fo.random.normal(fo.random.key(1), (2, 2, 9))
W = {"w": fo.random.normal(fo.random.key(2), (3, 4))}


@torch.jit.script
def scripted(x, w):
    return (x @ w.t()).square().sum()


def written(through):
    def loss(p):
        through(p["w"])
        return F.linear(X, p["w"]).square().sum()

    return loss


def doubled(w: torch.Tensor) -> None:
    w.mul_(2)


if hasattr(library, "custom_op"):  # from torch 2.4 on
    doubled = library.custom_op("funcopt_tests::doubled", mutates_args=("w",))(doubled)

LOSSES = {
    "convolution": ({name: p.detach() for name, p in CONV.named_parameters()}, lambda p: functional_call(CONV, p, (SOUND,)).square().sum()),
    "scripted": (W, lambda p: scripted(X, p["w"])),
    "inner grad": (W, lambda p: torch.func.grad(lambda w: F.linear(X, w).square().sum())(p["w"]).square().sum()),
    "torch.tensor": (W, lambda p: F.linear(X, torch.tensor(p["w"].tolist())).square().sum()),
    "written through t()": (W, written(lambda w: w.t().mul_(2))),
    "written through T of T": (W, written(lambda w: w.T.T.mul_(2))),
    "written through an item": (W, written(lambda w: w[0].fill_(0.0))),
    "written through data": (W, written(lambda w: w.data.mul_(2))),
    "written through numpy": (W, written(lambda w: w.numpy().__imul__(2))),
    "written through dlpack": (W, written(lambda w: torch.from_dlpack(w).mul_(2))),
    "other data": (W, written(lambda w: setattr(w, "data", 3 * w))),
    "an operation of one's own": (W, written(doubled)),
    "written in a list": (W, written(lambda w: torch._foreach_mul_([w], 2.0))),
}


@pytest.mark.parametrize("noise", ["normal", fo.es.low_rank(1)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_two_point_steps_see_the_perturbed_weights_everywhere(name, noise):
    params, loss = LOSSES[name]
    info = fo.es.spsa_step(loss, lr=0.1, sigma=0.1, noise=noise)(fo.tree.clone(params), key=3)[1]
    law = fo.es.law_of(noise)
    for fitness, sign in zip(info.fitness, (1.0, -1.0), strict=True):
        placed = {}
        for i, leaf in enumerate(fo.tree.leaves(params)):
            eps = law.draw(fo.random.fold_in(fo.random.key(3), i), leaf, range(1))
            placed[sorted(params)[i]] = leaf + sign * 0.1 * law.dense(leaf, fo.tree.map_plain(lambda x: x[0], eps))
        torch.testing.assert_close(fitness, loss(placed), rtol=1e-5, atol=1e-6)


def test_a_two_point_step_refuses_draws_that_differ_between_its_evaluations_or_makes_them_the_same():
    def loss(p):
        return F.dropout(p["w"]).square().sum()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="es.spsa_step: the loss draws random numbers from torch's generator"):
        fo.es.spsa_step(loss, lr=0.1)(W, key=0)
    step = fo.es.spsa_step(loss, lr=0.1, sigma=1e-12, pairs=3, randomness="same")
    fitness = step(W, key=0)[1].fitness
    assert fitness.unique().numel() == 1 and not torch.equal(fitness, step(W, key=1)[1].fitness)
    assert torch.equal(torch.get_rng_state(), before)


def test_unrolled_problems_draw_from_their_key():
    pes = fo.es.unrolled(
        lambda p, x, key: (x, (x + torch.rand(()) - p).square(), x > 1), lambda key: torch.zeros(()), popsize=4, sigma=0.1, unroll=2
    )
    with pytest.raises(ValueError, match="es.unrolled: step draws random numbers from torch's generator"):
        pes.estimate(torch.zeros(()), pes.init(torch.zeros(()), key=0))


def test_the_center_is_a_copy_as_members_are():
    params = {"w": torch.ones(4)}
    for dtype in (None, torch.float64):
        _, info = fo.es.grad(lambda p: p["w"].mul_(2).sum(), popsize=4, sigma=0.1, baseline="center", shaping="none", dtype=dtype)(
            params, key=0
        )
        assert params["w"].tolist() == [1.0] * 4 and info.center == 8
