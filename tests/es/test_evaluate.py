"""Members by vmap, in a loop, stacked, in processes, on devices, compiled: always the same fitness in the same order."""

import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call

import funcopt as fo
from tests.es import programs
from tests.helpers import assert_trees_close, assert_trees_equal

PARAMS = {"w": torch.linspace(-1, 1, 4)}
TARGET = torch.full((4,), 0.5)
LSTM = "the operation lstm" if fo.core.versions.TORCH >= (2, 4) else "reading or writing .data"


def make(objective, **options):
    return fo.es.grad(objective, **{"popsize": 8, "sigma": 0.1, **options})


# ------------------------------------------------------------------------------------------------ loop, stacked, processes


def test_a_loop_takes_python_numbers():
    grads, info = make(lambda p, t: float(programs.bowl(p, t)), vectorize="loop")(PARAMS, TARGET, key=0)
    others, told = make(programs.bowl)(PARAMS, TARGET, key=0)
    assert info.fitness.dtype == torch.float64  # what a number of Python has
    torch.testing.assert_close(info.fitness.float(), told.fitness)
    assert_trees_close(grads, others, rtol=1e-5)


def test_auto_falls_back_to_the_loop_with_one_warning_that_names_the_operation():
    cell = nn.LSTM(3, 2)
    params, x = dict(cell.named_parameters()), torch.ones(4, 1, 3)
    grad_fn = make(lambda p, x: functional_call(cell, p, (x,))[0].square().mean())
    with pytest.warns(UserWarning, match=rf"vmap does not take {LSTM}; members are evaluated one after the other"):
        first, _ = grad_fn(params, x, key=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_trees_equal(grad_fn(params, x, key=0)[0], first)
    with pytest.warns(UserWarning, match="vmap does not take reading a number of a tensor"):
        make(lambda p, t: programs.bowl(p, t).item())(PARAMS, TARGET, key=0)
    with pytest.warns(UserWarning, match="vmap does not take a Python branch on the value of a tensor"):
        make(lambda p, t: p["w"].sum() if p["w"][0] > 0 else p["w"].sum() * 2)(PARAMS, TARGET, key=0)


def test_auto_notices_when_vmap_gives_other_numbers():
    def objective(p):
        inside = fo.core.versions.transforming()
        return p["w"].sum() * (2.0 if inside else 1.0)

    with pytest.warns(UserWarning, match="an operation that gives other numbers inside vmap"):
        _, info = make(objective)(PARAMS, key=0)
    torch.testing.assert_close(info.fitness[0], info.member(0)["w"].sum())


@pytest.mark.parametrize("chunk_size", ["auto", 4])
@pytest.mark.parametrize("antithetic", [True, False])
def test_an_objective_of_the_stacked_population(chunk_size, antithetic):
    shapes = []

    def stacked(p, target):
        shapes.append(p["w"].shape)
        return (p["w"] - target).square().sum(1)

    options = {"antithetic": antithetic, "popsize": 8}
    grads, info = make(stacked, vectorize="external", chunk_size=chunk_size, **options)(PARAMS, TARGET, key=0)
    others, told = make(programs.bowl, **options)(PARAMS, TARGET, key=0)
    torch.testing.assert_close(info.fitness, told.fitness)
    assert_trees_close(grads, others, rtol=1e-5)
    assert shapes == ([(8, 4)] if chunk_size == "auto" else [(4, 4)] * 2)
    with pytest.raises(
        ValueError, match=r"with vectorize='external' the objective must return one value for each of 8 members, got \(3,\)"
    ):
        make(lambda p, t: torch.ones(3), vectorize="external", **options)(PARAMS, TARGET, key=0)


@pytest.fixture(scope="module")
def crew():
    """One worker."""
    return make(programs.moody, vectorize="processes", workers=1, has_aux=True, popsize=4)


def test_worker_processes_give_what_the_loop_gives(crew):
    for key in (0, 1):
        grads, info = crew(PARAMS, TARGET, "fine", key=key)
        others, told = make(programs.moody, vectorize="loop", has_aux=True, popsize=4)(PARAMS, TARGET, "fine", key=key)
        assert torch.equal(info.fitness, told.fitness)
        assert_trees_equal(grads, others)
        assert torch.equal(info.user_aux["half"], told.user_aux["half"])
    assert set(info.user_aux["process"].tolist()).isdisjoint(told.user_aux["process"].tolist())


def test_a_member_that_fails_in_its_worker_is_nan(crew):
    with pytest.warns(
        UserWarning, match=r"2 members failed in their workers and count as NaN; member \d+ said(.|\n)*ArithmeticError: not here"
    ):
        grads, info = crew({"w": torch.zeros(4)}, TARGET, "fails", key=0)
    assert info.n_failed == 2 == info.fitness.isnan().sum()
    assert grads["w"][0] > 0
    with pytest.raises(RuntimeError, match=r"every member failed in its worker; the first said(.|\n)*ArithmeticError: not here"):
        crew(PARAMS, TARGET, "always fails", key=0)


@pytest.mark.long
def test_a_worker_that_dies_takes_its_member_along_and_is_replaced(crew):
    with pytest.warns(UserWarning, match="2 members failed in their workers and count as NaN; member . said\nits worker died"):
        _, info = crew({"w": torch.zeros(4)}, TARGET, "dies", key=0)
    assert info.n_failed == 2
    assert crew(PARAMS, TARGET, "fine", key=0)[1].n_failed == 0


def test_what_worker_processes_cannot_do():
    with pytest.raises(TypeError, match="sends the objective to other processes, and cannot pickle it"):
        make(lambda p: p, vectorize="processes", workers=1)(PARAMS, key=0)


# ---------------------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("shared, kinds", [(True, 1), ("pairs", 4), (False, 8)])
def test_keys_of_the_objective(shared, kinds):
    seen = {}
    for how in ("vmap", "loop", "external"):
        objective = programs.keyed if how != "external" else lambda p, t, key: p["w"].sum(1) + key[..., 0].remainder(1000).to(torch.float32)
        for chunk_size in (2, 8):
            grad_fn = make(
                objective,
                common_random_numbers=shared,
                vectorize=how,
                chunk_size=chunk_size,
                noise=lambda key, leaf, pairs: torch.zeros(len(pairs), 4),
            )
            seen[how, chunk_size] = grad_fn(PARAMS, TARGET, key=0)[1].fitness
    values = list(seen.values())
    assert all(torch.equal(value, values[0]) for value in values)
    assert len(values[0].unique()) == kinds
    if shared == "pairs":
        assert torch.equal(values[0][:4], values[0][4:])


def test_torchs_randomness_on_request():
    drop = nn.Dropout(0.5)

    def objective(p, t):
        return drop(p["w"] * 0 + 1).sum()

    same = [make(objective, randomness="same", chunk_size=size)(PARAMS, TARGET, key=0)[1].fitness for size in (2, 8)]
    assert torch.equal(*same) and len(same[0].unique()) == 1
    assert len(make(objective, randomness="different", popsize=32)(PARAMS, TARGET, key=0)[1].fitness.unique()) > 1
    looped = make(objective, randomness="different", vectorize="loop", popsize=32)
    assert torch.equal(looped(PARAMS, TARGET, key=0)[1].fitness, looped(PARAMS, TARGET, key=0)[1].fitness)


# ------------------------------------------------------------------------------------------------------------- buffers


def normalized():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    x = fo.random.normal(fo.random.key(3), (6, 3))

    def objective(params, buffers, x):
        return functional_call(model, (params, buffers), (x,)).square().sum(1).mean()

    return model, dict(model.named_parameters()), {name: b.clone() for name, b in model.named_buffers()}, x, objective


@pytest.mark.parametrize("policy", ["per_member", "center"])
def test_batch_norm_in_training_mode_with_buffers_of_their_own(policy):
    _, params, buffers, x, objective = normalized()
    before = fo.tree.clone(buffers)
    results = [
        make(objective, buffers=policy, vectorize=how, chunk_size=size)(params, buffers, x, key=0)
        for how in ("vmap", "loop")
        for size in (1, 6)
    ]
    for _, info in results[1:]:
        torch.testing.assert_close(info.fitness, results[0][1].fitness, rtol=1e-5, atol=1e-6)
    assert_trees_equal(buffers, before)
    if policy == "center":
        after = results[0][1].buffers
        assert after["1.num_batches_tracked"] == 1 and not torch.equal(after["1.running_mean"], before["1.running_mean"])
        assert results[0][1].center.isfinite()
    else:
        assert results[0][1].buffers == ()


def test_frozen_buffers_in_evaluation_mode():
    model, params, buffers, x, objective = normalized()
    model.eval()
    by_vmap, by_loop = (make(objective, vectorize=how)(params, buffers, x, key=0)[1].fitness for how in ("vmap", "loop"))
    torch.testing.assert_close(by_vmap, by_loop)


@pytest.mark.skipif(fo.core.versions.TORCH < (2, 6), reason="this torch has no attention inside vmap")
def test_attention_and_encoder_layers_run_under_vmap():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    x = fo.random.normal(fo.random.key(0), (2, 5, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grads, _ = make(lambda p, x: functional_call(layer, p, (x,)).square().mean())(dict(layer.named_parameters()), x, key=0)
    assert fo.tree.all_finite(grads)
    assert torch.backends.mha.get_fastpath_enabled()


# ------------------------------------------------------------------------------------------------------------ compiled


@pytest.mark.parametrize("law", ["normal", pytest.param(fo.es.low_rank(1), marks=pytest.mark.long)], ids=str)
def test_compiled_chunks_are_traced_whole(law):
    params, x = {"w": torch.ones(6, 5)}, fo.random.normal(fo.random.key(0), (7, 6))
    settings = {"popsize": 12, "chunk_size": 4, "rng": "generator", "noise": law}

    def objective(p, x):
        return (x @ p["w"]).tanh().square().mean()

    grads, info = make(objective, compile={"backend": "aot_eager", "fullgraph": True}, **settings)(params, x, key=0)
    others, told = make(objective, **settings)(params, x, key=0)
    torch.testing.assert_close(info.fitness, told.fitness, rtol=1e-5, atol=1e-6)
    assert_trees_close(grads, others, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_compiled_tiles_give_the_same_noise_however_they_are_cut():
    from funcopt.es.noise.sources import EAGER, Philox

    compiled, key = Philox(compile=True), fo.random.key(4)
    for size in (10, 300, 8192, 20000):
        whole = compiled.normal(key, size, range(40))
        torch.testing.assert_close(whole, EAGER.normal(key, size, range(40)), rtol=1e-5, atol=2e-6)
        assert torch.equal(compiled.normal(key, size, range(7, 9)), whole[7:9])
    part = compiled.normal(key, 8192, range(40), start=8192)
    assert torch.equal(part, whole[:, 8192:16384])
