"""What is special to one search: its options, by hand or against the formula written out member by member."""

import math

import pytest
import torch
from torch.func import vmap

import funcopt as fo
from funcopt.es.shaping.recombination import recombination
from tests.helpers import assert_trees_close

Z = torch.tensor([[1.0, -0.5], [0.2, 0.7], [-1.1, 0.3], [0.4, 1.6]], dtype=torch.float64)
F = torch.tensor([3.0, 1.0, 2.0, 4.0], dtype=torch.float64)
START = torch.tensor([1.0, -2.0], dtype=torch.float64)


def told(search, fitness=F, noise=Z, start=START):
    return search.tell(search.init(start, 0), fitness, noise=noise)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale, factor", [("inverse_sigma", 1 / 0.5), ("openai", 1.0), ("sigma", 0.5)])
def test_openai_es_normalises_as_it_is_told(scale, factor):
    search = fo.es.openai_es(4, 0.5, lr=0.1, antithetic=False, shaping="none", scale=scale)
    close(told(search).mean, START - 0.1 * factor * (F @ Z) / 4)


def test_openai_es_with_pairs_takes_differences():
    search = fo.es.openai_es(4, 0.5, lr=0.1, shaping="none")
    plus, minus = F[:2], F[2:]
    close(told(search, noise=torch.cat([Z[:2], -Z[:2]])).mean, START - 0.1 * ((plus - minus) @ Z[:2]) / (4 * 0.5))
    close(told(search, noise=Z[:2]).mean, START - 0.1 * ((plus - minus) @ Z[:2]) / (4 * 0.5))


def test_openai_es_decays_and_steps_by_any_chain():
    plain = told(fo.es.openai_es(4, 0.5, lr=0.1, antithetic=False, shaping="none"))
    decayed = told(fo.es.openai_es(4, 0.5, lr=0.1, antithetic=False, shaping="none", weight_decay=0.3))
    close(decayed.mean, plain.mean - 0.1 * 0.3 * START)
    chain = fo.chain(fo.clip_by_global_norm(1.0), fo.scale_by_adam(), fo.add_decayed_weights(0.1), fo.lr_scale(0.01))
    state = told(fo.es.openai_es(4, 0.5, optimizer=chain))
    assert (state.mean != START).all()


def test_the_optimizer_of_the_center_is_told_the_mean_loss():
    losses = []

    def update(updates, state, params=None, *, loss, **extra):
        losses.append(loss)
        return updates, state

    listener = fo.GradientTransformation(lambda params: fo.EmptyState(), update)
    failed = torch.where(F == 4, math.nan, F)
    told(fo.es.openai_es(4, 0.5, optimizer=listener, antithetic=False), failed)
    told(fo.es.snes(4, optimizer=listener, maximize=True))
    assert [loss.item() for loss in losses] == [(3 + 1 + 2 + 3) / 4, -2.5]


def test_sigma_may_be_a_schedule_or_a_tree():
    search = fo.es.openai_es(4, lambda count: 0.5 * 0.5**count, antithetic=False)
    state = search.init(START, 0)
    wide = search.ask(state)[0].spread
    narrow = search.ask(search.tell(state, F))[0].spread
    assert (wide, narrow) == (0.5, 0.25)
    params = {"a": torch.zeros(2), "b": torch.zeros(())}
    spread = fo.es.openai_es(4, {"a": torch.tensor([0.1, 0.2]), "b": 0.3}).ask
    state = fo.es.openai_es(4).init(params, 0)
    assert spread(state)[0].spread.tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("dim, size, even", [(1, 4, 4), (5, 8, 8), (10, 10, 10), (20, 12, 12), (7, 9, 10)])
def test_populations_have_the_usual_size(dim, size, even):
    for factory in (fo.es.snes, fo.es.xnes, fo.es.cem, fo.es.simple_es, fo.es.cma_es, fo.es.sep_cma_es):
        search = factory()
        assert search.ask(search.init(torch.zeros(dim), 0))[0].popsize == size
    for factory in (fo.es.openai_es, fo.es.pgpe, fo.es.ars):
        search = factory()
        assert search.ask(search.init(torch.zeros(dim), 0))[0].popsize == even


def test_snes_by_hand():
    search = fo.es.snes(4, 0.5, lr=0.9, sigma_lr=0.3)
    utilities = fo.es.shaping("nes")(-F)
    state = told(search)
    close(state.mean, START + 0.9 * 0.5 * (utilities @ Z))
    close(state.sigma, 0.5 * torch.exp(0.15 * (utilities @ (Z.square() - 1))))


def test_snes_does_not_depend_on_the_scale_of_raw_utilities():
    search = fo.es.snes(4, shaping="none")
    assert_trees_close(told(search)._replace(common=()), told(search, 1000 * F)._replace(common=()))
    still = told(search, torch.zeros(4))
    close(still.mean, START)


def test_pgpe_limits_the_change_of_sigma():
    fitness = torch.tensor([1.0, 3.0, 2.0, 4.0])
    free, held = (told(fo.es.pgpe(4, 0.5, sigma_lr=5.0, sigma_max_change=limit), fitness) for limit in (None, 0.2))
    assert ((free.sigma / 0.5 - 1).abs() > 0.2).any()
    assert ((held.sigma / 0.5 - 1).abs() <= 0.2 + 1e-12).all()


def test_pgpe_steps_by_clipup_unless_told_otherwise():
    step = told(fo.es.pgpe(4, 0.5, lr=0.25)).mean - START
    close(step.norm(), torch.tensor(0.25, dtype=torch.float64))


def test_cem_by_hand():
    elites = START + 0.5 * Z[[1, 2]]
    state = told(fo.es.cem(4, 0.5))
    close(state.mean, elites.mean(0))
    close(state.sigma, elites.std(0))
    close(told(fo.es.cem(4, 0.5, ddof=0)).sigma, elites.std(0, correction=0))
    slow = told(fo.es.cem(4, 0.5, momentum=0.8, sigma_min=0.45))
    close(slow.mean, 0.8 * START + 0.2 * elites.mean(0))
    close(slow.sigma, (0.8 * 0.5 + 0.2 * elites.std(0)).clamp(min=0.45))


def test_cem_sees_small_spreads_of_far_elites():
    noise = torch.tensor([[3.0, 3.0], [3.0 + 1e-4, 3.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    state = told(fo.es.cem(4, 1.0), torch.tensor([0.0, 0.0, 1.0, 1.0]), noise)
    torch.testing.assert_close(state.sigma[0], torch.tensor(1e-4 / 2**0.5, dtype=torch.float64))


def test_simple_es_moves_to_the_mean_of_the_parents():
    close(told(fo.es.simple_es(4, 0.5)).mean, START + 0.5 * Z[[1, 2]].mean(0))


def test_ars_by_hand():
    # Pairs (3, 2) and (1, 4); minimised, so the better of each is -2 and -1, and one direction keeps the second pair.
    state = told(fo.es.ars(4, 0.5, directions=1, lr=0.1), noise=Z[:2])
    close(state.mean, START + 0.1 * (-1 - -4) / 1.5 * Z[1])


def cma_by_members(variant, active, steps, popsize=6, dim=3):
    """CMA-ES written out with sums over members, as in the tutorial; yields the noise, the fitness and what follows from them."""
    c = recombination(popsize, dim, variant=variant, active=active)
    generator = torch.Generator().manual_seed(0)
    mean, sigma = torch.zeros(dim, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    C, p_sigma, p_c = torch.eye(dim, dtype=torch.float64), mean.clone(), mean.clone()
    for t in range(1, steps + 1):
        values, B = torch.linalg.eigh(C)
        root = B @ torch.diag(values.sqrt()) @ B.T
        z = torch.randn(popsize, dim, dtype=torch.float64, generator=generator)
        fitness = torch.randn(popsize, dtype=torch.float64, generator=generator)
        y = (z @ root)[fitness.argsort()]
        w = torch.tensor(c.weights, dtype=torch.float64)
        y_w = sum(w[k] * y[k] for k in range(popsize) if w[k] > 0)
        mean = mean + sigma * y_w
        inverse = torch.linalg.inv(root)
        p_sigma = (1 - c.c_sigma) * p_sigma + math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * inverse @ y_w
        h = float(p_sigma.norm() / math.sqrt(1 - (1 - c.c_sigma) ** (2 * t)) < (1.4 + 2 / (dim + 1)) * c.chi)
        sigma = sigma * math.exp(c.c_sigma / c.d_sigma * (p_sigma.norm() / c.chi - 1))
        p_c = (1 - c.c_c) * p_c + h * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * y_w
        C = (1 + c.c_1 * (1 - h) * c.c_c * (2 - c.c_c) - c.c_1 - c.c_mu * w.sum()) * C + c.c_1 * torch.outer(p_c, p_c)
        for k in range(popsize):
            weight = w[k] if w[k] >= 0 else w[k] * dim / (inverse @ y[k]).square().sum()
            C = C + c.c_mu * weight * torch.outer(y[k], y[k])
        yield z, fitness, mean, sigma, C, p_sigma, p_c


@pytest.mark.parametrize("active", [True, False])
def test_cma_es_against_the_tutorial_member_by_member(active):
    search = fo.es.cma_es(6, 0.5, active=active)
    state = search.init(torch.zeros(3, dtype=torch.float64), 0)
    for z, fitness, *expected in cma_by_members("tutorial", active, 12):
        state = search.tell(state, fitness, noise=z)
        ours = (state.mean, state.sigma, state.covariance, state.p_sigma, state.p_c)
        for x, y in zip(ours, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(state.factor @ state.factor, state.covariance)


def test_cma_es_takes_scales_as_its_first_covariance():
    params = {"a": torch.zeros(2), "b": torch.zeros(())}
    search = fo.es.cma_es(sigma={"a": 0.1, "b": torch.tensor(0.8)})
    state = search.init(params, 0)
    scales = (state.sigma * state.covariance.sqrt().diagonal()).tolist()
    assert scales == pytest.approx([0.1, 0.1, 0.8])
    assert state.sigma.item() == pytest.approx((0.1 * 0.1 * 0.8) ** (1 / 3))
    torch.testing.assert_close(torch.linalg.det(state.covariance), torch.ones((), dtype=torch.float64))
    separable = fo.es.sep_cma_es(sigma={"a": 0.1, "b": 0.8}).init(params, 0)
    assert (separable.sigma * separable.covariance.sqrt()).tolist() == pytest.approx([0.1, 0.1, 0.8])


def test_cma_es_decomposes_now_and_then():
    def bowl(x):
        return (x * torch.arange(1.0, 4.0, dtype=x.dtype)).square().sum(-1)

    search = fo.es.cma_es(8, decompose_every=3)

    def generation(state):
        population, state = search.ask(state)
        return search.tell(state, bowl(population.stacked()))

    state = search.init(torch.ones(3, dtype=torch.float64), 0)
    many = fo.tree.map(lambda leaf: leaf[None], state)
    changed = []
    for _ in range(6):
        new, many = generation(state), vmap(generation)(many)
        changed.append(not torch.equal(new.factor, state.factor))
        state = new
        torch.testing.assert_close(many.factor[0], state.factor)
    assert changed == [False, False, True] * 2


def test_pycma_waits_with_the_decomposition_in_many_dimensions():
    search = fo.es.cma_es(6, variant="pycma")
    state = search.init(torch.zeros(100), 0)
    for waits in (True, False):  # 1 / (10 D (c_1 + c_mu)) = 2.9
        population, state = search.ask(state)
        state = search.tell(state, population.stacked().square().sum(1))
        assert torch.equal(state.factor, torch.eye(100, dtype=torch.float64)) == waits


def test_a_covariance_that_is_not_positive_is_not_decomposed():
    search = fo.es.cma_es(4)
    state = search.init(START, 0)
    broken = state._replace(covariance=torch.tensor([[1.0, 0.0], [0.0, -5.0]], dtype=torch.float64))
    for variant in ("tutorial", "pycma"):
        kept = fo.es.cma_es(4, variant=variant).tell(broken, F, noise=Z)
        close(kept.factor, state.factor)


def evaluations(search, weights, target=1e-6, limit=400):
    """Until a member of a weighted sphere of as many elements is below the target."""
    state, popsize = search.init(torch.ones(len(weights), dtype=torch.float64), 0), 0
    for generation in range(limit):
        population, state = search.ask(state)
        fitness = (weights * population.stacked().square()).sum(1)
        if fitness.min() < target:
            return (generation + 1) * len(fitness)
        popsize, state = len(fitness), search.tell(state, fitness)
    return limit * popsize


def test_sep_cma_es_arrives_by_default():
    ellipsoid = torch.logspace(0, 6, 20, dtype=torch.float64)
    published = evaluations(fo.es.sep_cma_es(sigma=0.5, active=False, accelerate=False), ellipsoid, limit=450)
    assert published == 450 * 12  # not yet there
    assert evaluations(fo.es.sep_cma_es(sigma=0.5), ellipsoid) < 4800


@pytest.mark.parametrize("dim, popsize", [(2, 4), (10, 10), (60, 16)])
def test_accelerated_negative_weights_leave_the_diagonal_positive(dim, popsize):
    # The worst that can happen: all of |z|^2 of every bad member lies in one element, and nothing is added to it.
    c = recombination(popsize, dim, active=True, separable=True, accelerate=True)
    kept = 1 - c.c_1 - c.c_mu * sum(c.weights)
    assert kept + c.c_mu * sum(w * dim for w in c.weights if w < 0) >= -1e-12


def test_xnes_shrinks_as_fast_as_its_size_alone_allows():
    sphere, dim = torch.ones(10, dtype=torch.float64), 10
    published = (9 + 3 * math.log(dim)) / (5 * dim**1.5)
    assert 1.5 * evaluations(fo.es.xnes(sigma=0.5), sphere) < evaluations(fo.es.xnes(sigma=0.5, factor_lr=published), sphere, limit=800)


def test_xnes_starts_from_a_matrix():
    factor = torch.tensor([[0.5, 0.1], [-0.2, 0.3]], dtype=torch.float64)
    search = fo.es.xnes(4, factor)
    population, _ = search.ask(search.init(START, 0))
    close(population.members(Z), START + Z @ factor.T)


def test_xnes_keeps_the_volume_when_utilities_say_nothing_about_it():
    # The trace of M is the change of the logarithm of the volume, so equal lengths of z keep it.
    noise = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64) * 2**0.5
    state = told(fo.es.xnes(4), noise=noise)
    close(torch.linalg.det(state.factor), torch.ones((), dtype=torch.float64))
