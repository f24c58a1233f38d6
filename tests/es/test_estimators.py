"""Orthogonal, guided, persistent, two-point: laws of each, unbiased where they promise it, and their errors."""

import weakref

import numpy as np
import pytest
import torch
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from funcopt.es.noise.guided import guide
from tests.helpers import assert_trees_close

F64 = torch.float64


def cosine(left, right):
    return fo.tree.vdot(left, right) / (fo.tree.norm(left) * fo.tree.norm(right))


def slope(D):
    return fo.random.normal(fo.random.key(99), D, F64)


# ------------------------------------------------------------------------------------------------------------- unbiased


LAWS = {
    "normal": "normal",
    "rank 1": fo.es.low_rank(1),
    "rank 2, built": fo.es.low_rank(2, lazy=False),
    "split": fo.es.split(),
    "split rademacher": fo.es.split("rademacher", lazy=True),
    "orthogonal": fo.es.orthogonal(),
    "orthogonal in small blocks": fo.es.orthogonal(7),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_estimate_is_unbiased_for_a_quadratic(name):
    # E[f(x + s e)] of a quadratic has the gradient of f itself, whatever the law, as long as its covariance is one
    w, x = torch.linspace(-1, 1, 60, dtype=F64).reshape(10, 6), fo.random.normal(fo.random.key(5), (4, 6), F64)
    params = {"w": w, "b": torch.linspace(0, 1, 10, dtype=F64)}

    def loss(p):
        return (torch.nn.functional.linear(x, p["w"], p["b"]) - 0.3).square().mean()

    grads, info = fo.es.grad(loss, popsize=16000, sigma=0.05, shaping="none", noise=LAWS[name])(params, key=1)
    true = torch.func.grad(loss)(params)
    # with H pairs the relative error is about sqrt(D / H) = 0.09; a wrong factor of 1.2 or a wrong direction would show
    for leaf in ("w", "b"):
        error = (grads[leaf] - true[leaf]).norm() / fo.tree.norm(true)
        assert error < 0.15, error
    assert info.n_failed == 0


@pytest.mark.parametrize("name", ["rank 1", "split", "orthogonal"])
def test_fitness_and_gradient_do_not_depend_on_chunks_memory_or_the_loop(name):
    params = {"w": torch.linspace(-1, 1, 60, dtype=F64).reshape(10, 6), "b": torch.zeros(10, dtype=F64)}
    x = torch.ones(3, 6, dtype=F64)
    results = [
        fo.es.grad(
            lambda p: torch.nn.functional.linear(x, p["w"], p["b"]).square().mean(), popsize=20, sigma=0.1, noise=LAWS[name], **options
        )(params, key=4)
        for options in ({}, {"chunk_size": 6}, {"memory": "store"}, {"memory": "regenerate"}, {"vectorize": "loop"})
    ]
    for grads, info in results[1:]:
        torch.testing.assert_close(info.fitness, results[0][1].fitness, rtol=1e-12, atol=0)
        assert_trees_close(grads, results[0][0], rtol=0, atol=0)


@pytest.mark.parametrize("lazy", [True, False])
def test_what_an_objective_hands_out_of_its_weights_is_perturbed(lazy):
    params = {"w": torch.zeros(10, 6, dtype=F64)}

    def objective(p):
        return p["w"].sum(), {"w": p["w"]}

    noise = fo.es.low_rank(1, lazy=lazy)
    _, info = fo.es.grad(objective, popsize=4, sigma=0.1, has_aux=True, noise=noise)(params, key=2)
    for i in range(4):
        torch.testing.assert_close(info.user_aux["w"][i], info.member(i)["w"])
    _, stacked = fo.es.grad(lambda p: p["w"].sum((1, 2)), popsize=4, sigma=0.1, vectorize="external", noise=noise)(params, key=2)
    torch.testing.assert_close(stacked.fitness, info.fitness)


@pytest.mark.parametrize("noise", ["normal", fo.es.low_rank(1)], ids=["dense", "rank 1"])
def test_half_precision_estimates_as_well(noise):
    net = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4))
    params = {name: 0.3 * fo.random.normal(fo.random.key(i), p.shape) for i, (name, p) in enumerate(net.named_parameters())}
    x = fo.random.normal(fo.random.key(77), (8, 16))

    def loss(p, x):
        return torch.func.functional_call(net, p, (x,)).float().square().mean()

    true = torch.func.grad(loss)(params, x)
    exact, _ = fo.es.grad(loss, popsize=1000, sigma=0.02, noise=noise)(params, x, key=3)
    half, _ = fo.es.grad(loss, popsize=1000, sigma=0.02, noise=noise, dtype=torch.bfloat16)(params, x.bfloat16(), key=3)
    assert fo.tree.dtype(half) == torch.float32
    assert abs(cosine(half, true) - cosine(exact, true)) < 0.02 < cosine(exact, true)


# ----------------------------------------------------------------------------------------------------------- orthogonal


def test_blocks_are_orthogonal_and_lengths_are_those_of_normal_vectors():
    noise = fo.es.orthogonal(20).draw(fo.random.key(0), torch.zeros(30, dtype=F64), range(2000))
    for block in noise.split(20)[:3]:
        gram = block @ block.T
        torch.testing.assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-12)
    lengths = noise.square().sum(1)  # chi squared with 30 degrees: mean 30, variance 60
    assert abs(lengths.mean() - 30) < 5 * (60 / 2000) ** 0.5 and abs(lengths.var() - 60) < 12
    covariance = noise.T @ noise / 2000
    assert (covariance - torch.eye(30)).abs().max() < 0.2 and noise.mean(0).abs().max() < 0.1
    assert (noise[0] @ noise[20]).abs() > 1e-3  # blocks are independent of each other


def test_no_more_than_all_directions_are_orthogonal():
    noise = fo.es.orthogonal().draw(fo.random.key(0), torch.zeros(5, dtype=F64), range(7))
    gram = noise @ noise.T
    assert gram[:5, :5].fill_diagonal_(0).abs().max() < 1e-12 < gram[:5, 5:].abs().max()


@pytest.mark.parametrize("block", [40, 1024])
def test_orthogonal_noise_does_not_depend_on_how_it_is_asked_for(block):
    law, leaf = fo.es.orthogonal(block), torch.zeros(70)
    whole = law.draw(fo.random.key(3), leaf, range(100))
    for cut in (range(0, 1), range(15, 17), range(35, 90), range(99, 100)):
        assert torch.equal(law.draw(fo.random.key(3), leaf, cut), whole[cut.start : cut.stop])


def test_orthogonal_directions_see_a_linear_function_whole():
    c = slope(40)
    errors = {}
    for name in ("normal", "orthogonal"):
        grads, _ = fo.es.grad(lambda x: c @ x, popsize=80, sigma=0.1, shaping="none", noise=LAWS[name])(torch.zeros(40, dtype=F64), key=0)
        errors[name] = (grads - c).norm() / c.norm()
    assert errors["orthogonal"] < 0.4 < 0.7 < errors["normal"]  # lengths differ by 1 / sqrt(2 D) x 2; independent ones by sqrt((D + 1) / H)


# --------------------------------------------------------------------------------------------------------------- guided


def test_guided_estimate_expects_what_the_paper_says():
    D, k, alpha, beta = 6, 2, 0.3, 1.7
    c, U = slope(D), fo.random.normal(fo.random.key(4), (k, D), F64)
    law = fo.es.guided(U, alpha=alpha, beta=beta)
    grads, _ = fo.es.grad(lambda x: c @ x, popsize=200000, sigma=0.1, shaping="none", noise=law)(torch.zeros(D, dtype=F64), key=0)
    Q = torch.linalg.qr(U.T).Q
    expected = beta * (alpha / D * c + (1 - alpha) / k * Q @ (Q.T @ c))
    torch.testing.assert_close(grads, expected, rtol=0, atol=0.02)


def test_guided_noise_has_the_basis_and_length_of_the_paper():
    U = torch.tensor([[3.0, 0.0, 0.0, 4.0]], dtype=F64)
    inside = fo.es.guided(U, alpha=0.0).draw(fo.random.key(1), torch.zeros(4, dtype=F64), range(5000))
    torch.testing.assert_close(
        inside / inside.norm(dim=1, keepdim=True), inside.sign()[:, :1] * torch.tensor([[0.6, 0.0, 0.0, 0.8]], dtype=F64)
    )
    mixed = fo.es.guided(U, alpha=0.5).draw(fo.random.key(1), torch.zeros(4, dtype=F64), range(5000))
    assert abs(mixed.square().sum(1).mean() - 1) < 0.05  # alpha + (1 - alpha)
    plain = fo.es.guided(U, alpha=1.0).draw(fo.random.key(1), torch.zeros(4, dtype=F64), range(3))
    torch.testing.assert_close(2 * plain, fo.es.law_of("normal").draw(fo.random.key(1), torch.zeros(4, dtype=F64), range(3)))
    e1, e2, Q = torch.ones(2, 4), torch.ones(2, 1), torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    torch.testing.assert_close(guide(e1, e2, Q, 0.5)[0], torch.tensor([0.5**0.5 * 1.5, 0.5**1.5, 0.5**1.5, 0.5**1.5]))


def test_guided_noise_over_a_tree_and_the_same_in_any_chunks():
    params = {"a": torch.zeros(3, dtype=F64), "b": torch.zeros(2, 2, dtype=F64)}
    state = fo.es.surrogates(params, k=3)
    for i in range(4):
        state = fo.es.push_surrogate(state, fo.tree.map(lambda p, i=i: p + torch.arange(p.numel()).reshape(p.shape) ** i, params))
    assert state.count == 4 and state.gradients["a"].tolist() == [[0, 1, 2], [0, 1, 4], [0, 1, 8]]
    grads = [
        fo.es.grad(lambda p: p["a"].sum() + p["b"][0, 0], popsize=12, sigma=0.1, noise=fo.es.guided(state), chunk_size=c)(params, key=0)[0]
        for c in (12, 4)
    ]
    assert_trees_close(*grads, rtol=0, atol=0)


def test_guided_follows_a_good_surrogate_better_than_plain_noise():
    D = 200
    c = slope(D)
    cosines = {}
    for name, law in (("guided", fo.es.guided((c + 0.5 * slope(D).flip(0)).unsqueeze(0))), ("normal", "normal")):
        cosines[name] = cosine(
            fo.es.grad(lambda x: c @ x, popsize=10, sigma=0.1, shaping="none", noise=law)(torch.zeros(D, dtype=F64), key=1)[0], c
        )
    assert cosines["guided"] > 0.5 > 0.4 > cosines["normal"]


# ----------------------------------------------------------------------------------------------------------- persistent


def add_and_square(T):
    """x_t = x_{t-1} + theta, loss x_t^2, T steps: the mean loss has the slope mean_t 2 t^2 theta; that of one step alone is 2 t theta."""

    def step(theta, inner, key):
        x, t = inner["x"] + theta, inner["t"] + 1
        return {"x": x, "t": t}, x.square(), t >= T

    def reset(key):
        return {"x": torch.zeros((), dtype=F64), "t": torch.zeros((), dtype=F64)}

    return step, reset


@pytest.mark.parametrize("reuse", [False, True], ids=["persistent", "noise reuse"])
@pytest.mark.parametrize("unroll", [1, 2, 4])
def test_truncations_leave_no_bias(reuse, unroll):
    T, theta = 4, torch.tensor(0.7, dtype=F64)
    strategy = fo.es.unrolled(*add_and_square(T), popsize=20000, sigma=0.1, unroll=unroll, reuse=reuse)
    state = strategy.init(theta, key=5)
    slopes = []
    for _ in range(2 * T // unroll):
        grads, state, info = strategy.estimate(theta, state)
        slopes.append(grads)
        assert info.counts.eq(unroll).all()
    true = sum(2 * t * t * 0.7 for t in range(1, T + 1)) / T
    truncated = sum(2 * t * 0.7 for t in range(1, T + 1)) / T
    assert abs(torch.stack(slopes).mean() - true) < 0.08 * true < true - truncated
    assert info.done.all() and state.noise.age.eq(0).all()


def test_pairs_of_different_length_have_their_own_clocks():
    def step(theta, inner, key):
        return {"left": inner["left"] - 1}, theta.sum() * 0 + inner["left"].double(), inner["left"] <= 1

    def reset(key):
        return {"left": fo.random.randint(key, (), 2, 6)}

    strategy = fo.es.unrolled(step, reset, popsize=40, sigma=0.1, unroll=3)
    theta = torch.zeros(2, dtype=F64)
    state = strategy.init(theta, key=0)
    ages = []
    for _ in range(4):
        lefts = state.inner["left"]
        assert torch.equal(lefts[0], lefts[1])  # both of a pair begin alike
        e, _ = strategy_noise(state, theta)
        _, state, info = strategy.estimate(theta, state)
        steps = lefts[0].clamp(max=3)
        assert torch.equal(info.counts.reshape(2, -1), torch.stack([steps, steps]))
        assert torch.equal(info.done, lefts[0] <= 3)
        assert state.noise.age[info.done].eq(0).all() and state.noise.age[~info.done].ge(1).all()
        torch.testing.assert_close(info.fitness.reshape(2, -1)[0], lefts[0] - (steps - 1) / 2, check_dtype=False)
        ages.append(state.noise.age)
        # what has begun anew remembers nothing, the others all that they were moved by
        torch.testing.assert_close(state.noise.xi[:3], e[:3])
    assert len({tuple(age.tolist()) for age in ages}) > 1


def strategy_noise(state, theta):
    """The perturbations that pairs will remember after the next truncation."""
    strategy = fo.es.persistent(popsize=2 * len(state.noise.age), sigma=0.1)
    _, told = strategy.ask(state.noise, theta)
    return told.xi, told


def test_a_member_that_ends_first_waits_for_its_partner():
    def step(theta, x, key):
        x = x + 1 + theta.sum()
        return x, x * 0 + 1, x >= 3

    strategy = fo.es.unrolled(step, lambda key: torch.zeros((), dtype=F64), popsize=2, sigma=0.5, unroll=2)
    theta = torch.zeros(1, dtype=F64)
    state = strategy.init(theta, key=1)
    for _ in range(20):
        _, state, info = strategy.estimate(theta, state)
        assert info.done.item() == (not state.ended.any().item() and state.noise.age.item() == 0)
        if state.ended.any():
            break
    first = int(state.ended[:, 0].int().argmax())
    _, _, info = strategy.estimate(theta, state)
    assert info.counts[first] == 0 and info.counts[1 - first] > 0


def test_noise_reuse_moves_a_pair_the_same_way_through_an_episode():
    for reuse in (False, True):
        strategy = fo.es.persistent(popsize=6, sigma=torch.tensor(0.5), reuse=reuse)
        params = {"w": torch.zeros(3)}
        state = strategy.init(params, key=3)
        moved = []
        for done in ([False] * 3, [True, False, False], [False] * 3):
            e, state = strategy.ask(state, params)
            moved.append(e["w"])
            _, state = strategy.tell(state, torch.arange(6.0), torch.tensor(done))
        same = [[torch.equal(moved[i][j], moved[i + 1][j]) for j in range(3)] for i in range(2)]
        assert same == ([[True] * 3, [False, True, True]] if reuse else [[False] * 3] * 2)


def test_a_member_that_fails_is_counted_and_its_episode_ends():
    def step(theta, x, key):
        return x + 1, torch.where(theta.sum() > 0, torch.nan, 1.0).double(), x >= 99

    strategy = fo.es.unrolled(step, lambda key: torch.zeros(()), popsize=8, sigma=0.5, unroll=2)
    grads, state, info = strategy.estimate(torch.zeros(1, dtype=F64), strategy.init(torch.zeros(1, dtype=F64), key=1))
    assert info.n_failed == 4 and grads.isfinite().all() and state.ended.sum() == 4


def test_fitness_in_a_list_keeps_the_differences_that_its_numbers_have():
    strategy, theta = fo.es.persistent(popsize=4, sigma=0.1), torch.zeros(2, dtype=F64)
    e, state = strategy.ask(strategy.init(theta, 0), theta)
    fitness = [1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 5]
    grads, _ = strategy.tell(state, fitness, [False, False])
    assert torch.equal(grads, strategy.tell(state, torch.tensor(fitness, dtype=F64), torch.zeros(2, dtype=torch.bool))[0])
    assert grads.any()


def test_persistent_state_is_tensors_that_vmap_and_come_back():
    strategy = fo.es.unrolled(*add_and_square(3), popsize=8, sigma=0.1, unroll=2, chunk_size=2)
    theta = torch.tensor([0.5, 0.7], dtype=F64)
    keys = fo.random.split(fo.random.key(0), 2)
    states = [strategy.init(t, k) for t, k in zip(theta, keys, strict=True)]
    whole = fo.es.unrolled(*add_and_square(3), popsize=8, sigma=0.1, unroll=2)
    stacked = fo.tree.map_plain(lambda *x: torch.stack(x), *states)
    grads, moved, _ = vmap(whole.estimate)(theta, stacked)
    for i in range(2):
        alone, state, _ = strategy.estimate(theta[i], states[i])
        torch.testing.assert_close(grads[i], alone)
        torch.testing.assert_close(moved.noise.xi[i], state.noise.xi)


# ------------------------------------------------------------------------------------------------------------ two points


def test_two_point_step_by_hand():
    # f = x^2 along eps: p = 2 x eps exactly, so theta - lr p eps = x - 2 lr x eps^2
    x = torch.tensor([3.0], dtype=F64)
    step = fo.es.spsa_step(
        lambda p: p.square().sum(), lr=0.1, sigma=0.01, noise=lambda key, leaf, pairs: torch.full((len(pairs), 1), 2.0, dtype=F64)
    )
    moved, info = step(x, key=0)
    torch.testing.assert_close(info.projected, torch.tensor([12.0], dtype=F64))
    torch.testing.assert_close(moved, torch.tensor([3 - 0.1 * 12 * 2], dtype=F64))
    assert x.item() == 3.0 and info.n_failed == 0
    torch.testing.assert_close(info.loss.item(), 9 + 0.02**2)


@pytest.mark.parametrize(
    "noise", ["normal", "rademacher", fo.es.low_rank(1), fo.es.split()], ids=["normal", "rademacher", "rank 1", "split"]
)
def test_two_point_step_is_the_estimate_of_two_members(noise):
    net = torch.nn.Sequential(
        torch.nn.Embedding(9, 6), torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    )
    params = {name: fo.random.normal(fo.random.key(i), p.shape, F64) for i, (name, p) in enumerate(net.named_parameters())} | {
        "steps": torch.tensor(3)
    }
    idx = torch.arange(9)

    def loss(p):
        weights = {name: leaf for name, leaf in p.items() if name != "steps"}
        return torch.func.functional_call(net, weights, (idx,)).square().mean()

    moved, info = fo.es.spsa_step(loss, lr=0.1, sigma=0.01, pairs=3, noise=noise)(params, key=8)
    grads, estimate = fo.es.grad(loss, popsize=6, sigma=0.01, shaping="none", noise=noise)(params, key=8)
    torch.testing.assert_close(info.fitness, estimate.fitness)
    assert_trees_close(moved, fo.tree.map(lambda p, g: p - 0.1 * g if p.is_floating_point() else p, params, grads), rtol=1e-9, atol=1e-12)


class Peak(TorchDispatchMode):
    """The most bytes that results of operations hold at a time, beside what was there."""

    def __init__(self, there):
        super().__init__()
        self.alive, self.most, self.seen = 0, 0, {leaf.untyped_storage().data_ptr() for leaf in fo.tree.leaves(there)}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()).data_ptr() not in self.seen and storage.nbytes():
                self.seen.add(storage.data_ptr())
                self.alive += storage.nbytes()
                weakref.finalize(tensor, self.freed, storage.data_ptr(), storage.nbytes())
                self.most = max(self.most, self.alive)
        return result

    def freed(self, pointer, size):
        self.seen.discard(pointer)
        self.alive -= size


def test_evaluations_hold_one_leaf_and_leave_params_alone():
    def loss(p):
        x = torch.ones(2, 128)
        for name in sorted(p):
            x = torch.tanh(x @ p[name])
        return x.mean()

    peaks = []
    for layers in (3, 12):
        params = {f"layer{i}": torch.full((128, 128), 0.1 * i) for i in range(layers)}
        before = fo.tree.clone(params)
        with Peak(params) as peak:
            fo.es.spsa_step(loss, lr=0.0, donate=True)(params, key=0)
        peaks.append(peak.most)
        moved, _ = fo.es.spsa_step(loss, lr=0.1)(params, key=0)
        assert_trees_close(params, before, rtol=0, atol=0)
        assert not torch.equal(moved["layer2"], params["layer2"])
    assert peaks[1] < peaks[0] + 128 * 128 * 4  # nine layers more, and not one more is held


def test_weights_that_the_loss_writes_into_are_its_own():
    w = torch.ones(3, 3, dtype=F64)

    def loss(p):
        p.mul_(2)
        p[0] = 1.0
        return p.square().sum()

    _, info = fo.es.spsa_step(loss, lr=0.1, sigma=0.01)(w, key=0)
    _, expected = fo.es.spsa_step(lambda p: 4 * p[1:].square().sum() + 3, lr=0.1, sigma=0.01)(w, key=0)
    torch.testing.assert_close(info.fitness, expected.fitness)
    assert torch.equal(w, torch.ones(3, 3, dtype=F64))


def test_half_precision_params_do_not_drift():
    w = fo.random.normal(fo.random.key(0), 1000).bfloat16()
    step = fo.es.spsa_step(lambda p: p.float().square().mean(), lr=0.0)
    moved = w
    for i in range(20):
        moved, _ = step(moved, key=i)
    assert torch.equal(moved, w)


def test_two_point_steps_go_down_up_and_around_what_is_masked():
    params = {"w": torch.ones(4, dtype=F64), "b": torch.ones(4, dtype=F64)}

    def loss(p):
        return (p["w"].square() + p["b"].square()).sum()

    for maximize in (False, True):
        moved = params
        for i in range(50):
            moved, _ = fo.es.spsa_step(loss, lr=0.01, maximize=maximize, mask="w")(moved, key=i)
        assert torch.equal(moved["b"], params["b"]) and bool(moved["w"].norm() > 2) is maximize
    still, info = fo.es.spsa_step(lambda p: loss(p) * torch.nan, lr=0.1, weight_decay=0.5, weight_decay_mask={"w": True, "b": False})(
        params, key=0
    )
    assert info.n_failed == 2 and torch.equal(still["w"], 0.95 * params["w"]) and torch.equal(still["b"], params["b"])


# --------------------------------------------------------------------------------------------------------------- errors


def few(law, **options):
    return lambda: fo.es.grad(lambda x: x.sum(), popsize=4, sigma=0.1, noise=law, **options)(torch.zeros(5), key=0)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: fo.es.orthogonal(0), ValueError, "es.orthogonal: block must be >= 1, got 0"),
        (lambda: fo.es.guided(torch.ones(2, 5), alpha=1.5), ValueError, r"es.guided: alpha must be in \[0, 1\], got 1.5"),
        (lambda: fo.es.guided(torch.ones(2, 5), beta=0), ValueError, "es.guided: beta must be > 0, got 0"),
        (
            lambda: fo.es.guided(torch.ones(())),
            ValueError,
            "es.guided: every leaf of gradients must begin with one and the same axis k >= 1",
        ),
        (
            few(fo.es.guided(torch.ones(2, 4))),
            ValueError,
            "es.guided: the surrogate gradients have 4 elements, the leaves that are perturbed by this law 5",
        ),
        (
            few(fo.es.guided(torch.ones(6, 5))),
            ValueError,
            "es.guided: k must be at most the 5 elements that are perturbed, got 6 surrogate gradients",
        ),
        (lambda: fo.es.surrogates(torch.ones(3), 0), ValueError, "es.surrogates: k must be >= 1, got 0"),
        (lambda: fo.es.push_surrogate(fo.es.surrogates(torch.ones(3)), torch.ones(4)), ValueError, "es.push_surrogate: "),
        (lambda: fo.es.persistent(popsize=5, sigma=0.1), ValueError, "es.persistent: popsize must be even, members come in pairs, got 5"),
        (lambda: fo.es.persistent(popsize=4, sigma=0.0), ValueError, "es.persistent: sigma must be > 0, got 0.0"),
        (
            lambda: fo.es.persistent(popsize=4, sigma=0.1, noise="sphere"),
            ValueError,
            "es.persistent: noise must be one of 'normal', 'rademacher'",
        ),
        (lambda: fo.es.unrolled(*add_and_square(3), popsize=4, sigma=0.1, unroll=0), ValueError, "es.unrolled: unroll must be >= 1, got 0"),
        (lambda: fo.es.spsa_step(torch.sum, lr=0.1, sigma=0), ValueError, "es.spsa_step: sigma must be > 0, got 0"),
        (lambda: fo.es.spsa_step(torch.sum, lr=0.1, pairs=0), ValueError, "es.spsa_step: pairs must be >= 1, got 0"),
        (
            lambda: fo.es.spsa_step(torch.sum, lr=0.1, noise="sphere")(torch.ones(3), key=0),
            ValueError,
            "es.spsa_step: noise must be a law that looks at one",
        ),
        (
            lambda: fo.es.spsa_step(lambda p: p, lr=0.1)(torch.ones(3), key=0),
            ValueError,
            r"es.spsa_step: loss must return one number as a tensor, got \(3,\)",
        ),
        (lambda: fo.es.spsa_step(torch.sum, lr=0.1)(torch.ones(3), key=0.5), TypeError, "es.spsa_step: seed must be an int"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_says_what_shapes_it_is_told():
    strategy = fo.es.persistent(popsize=4, sigma=0.1)
    state = strategy.init(torch.zeros(2), key=0)
    with pytest.raises(ValueError, match=r"es.persistent: fitness must have shape \(4,\) and done \(2,\), got \(2,\) and \(2,\)"):
        strategy.tell(state, torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    unrolled = fo.es.unrolled(lambda theta, x, key: (x, theta, x > 0), lambda key: torch.zeros(()), popsize=4, sigma=0.1, unroll=1)
    with pytest.raises(
        ValueError, match=r"es.unrolled: step must return \(inner, loss, done\) with a 0-dim loss, got a tensor of shape \(2,\)"
    ):
        unrolled.estimate(torch.zeros(2), unrolled.init(torch.zeros(2), key=0))


def test_what_is_told_may_be_a_list_or_an_array_and_else_gets_a_sentence():
    strategy = fo.es.persistent(popsize=4, sigma=0.1)
    state = strategy.init(torch.zeros(3), 0)
    _, state = strategy.ask(state, torch.zeros(3))
    fitness, done = [0.3, -1.0, 2.0, 0.5], [False, True]
    expected, _ = strategy.tell(state, torch.tensor(fitness), torch.tensor(done))
    for form in (lambda x: x, np.array):
        grads, _ = strategy.tell(state, form(fitness), form(done), counts=form([1, 2, 1, 0]))
        torch.testing.assert_close(grads.float(), expected)
    for arguments, error, message in [
        ((None, done), TypeError, "es.persistent: fitness must be a tensor, or what torch.as_tensor makes one of, got NoneType"),
        ((fitness, [0, 1]), TypeError, "es.persistent: done must hold True or False for each pair, got torch.int64"),
        ((fitness, done, 4), ValueError, r"es.persistent: counts must have shape \(4,\)"),
        ((fitness[:2], done), ValueError, r"es.persistent: fitness must have shape \(4,\) and done \(2,\)"),
    ]:
        with pytest.raises(error, match=message):
            strategy.tell(state, *arguments)
