"""Laws of perturbations and the tiles of their noise: how members are cut changes no bit, and every element has mean 0 and variance 1."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.es.noise import distributions, sources
from funcopt.es.noise.distributions import law_of

KEY = fo.random.key(11)
KINDS = ["normal", "rademacher", "binomial32"]
LAWS = [*KINDS, fo.es.sphere(), fo.es.sparse(3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(size=st.sampled_from([1, 5, 131, 8192, 8197, 20000]), start=st.integers(0, 60), length=st.integers(1, 40))
def test_rows_do_not_depend_on_how_members_are_cut(kind, dtype, size, start, length):
    draw = getattr(sources.EAGER, kind)
    whole = draw(KEY, size, range(0, 100), dtype)
    assert torch.equal(draw(KEY, size, range(start, start + length), dtype), whole[start : start + length])
    assert torch.equal(draw(KEY, size // 2, range(3), dtype, None, size // 3), whole[:3, size // 3 : size // 3 + size // 2])


@pytest.mark.parametrize("kind", ["normal", "rademacher"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_stream_of_its_member(kind, dtype):
    rows = getattr(sources.EAGER, kind)(KEY, 300, range(2**24 - 2, 2**24 + 2), dtype)
    for row, j in zip(rows, range(2**24 - 2, 2**24 + 2), strict=True):
        assert torch.equal(row, getattr(fo.random, kind)(fo.random.member(KEY, j), 300, dtype))


def test_binomial32_counts_bits():
    row = sources.EAGER.binomial32(KEY, 50, range(4, 5), torch.float64)[0]
    counts = torch.tensor([bin(word).count("1") for word in fo.random.bits(fo.random.member(KEY, 4), 50).tolist()])
    torch.testing.assert_close(row, (counts - 16).double() / 8**0.5, rtol=1e-15, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_vmapping_over_keys_gives_each_its_numbers(kind):
    keys = fo.random.split(KEY, 3)
    rows = torch.func.vmap(lambda key: getattr(sources.EAGER, kind)(key, 70, range(5, 9)))(keys)
    for key, row in zip(keys, rows, strict=True):
        torch.testing.assert_close(row, getattr(sources.EAGER, kind)(key, 70, range(5, 9)), rtol=1e-6, atol=2e-6)


def test_generators_give_every_member_its_own_row():
    source = sources.Generator()
    whole = source.normal(KEY, 50, range(10))
    assert torch.equal(source.normal(KEY, 50, range(3, 6)), whole[3:6])
    assert torch.equal(source.normal(KEY, 20, range(10), torch.float32, None, 30), whole[:, 30:])
    with pytest.raises(ValueError, match="rng='generator' seeds torch's generators from keys on the CPU"):
        torch.func.vmap(lambda key: source.normal(key, 5, range(2)))(KEY[None])


@pytest.mark.parametrize("noise", LAWS, ids=str)
def test_elements_have_mean_zero_and_variance_one(noise):
    eps = law_of(noise).draw(KEY, torch.zeros(24), range(20000))
    assert eps.mean(0).abs().max() < 0.05
    assert (eps.var(0) - 1).abs().max() < 0.12
    covariance = eps.t() @ eps / len(eps) - torch.eye(24)
    assert covariance.abs().max() < 0.12


def test_sphere_and_sparse_take_all_leaves_for_one_vector():
    seen = []

    def objective(params):
        return sum(leaf.sum() for leaf in params.values())

    params = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    for law in (fo.es.sphere(), fo.es.sparse(2)):
        _, info = fo.es.grad(objective, popsize=6, sigma=1.0, noise=law)(params, key=0)
        seen.append([torch.cat([info.member(i)["a"].reshape(-1), info.member(i)["b"]]) for i in range(6)])
    for member in seen[0]:
        torch.testing.assert_close(member.square().sum().item(), 10.0, rtol=1e-5, atol=0)
    assert all((member != 0).sum() == 2 for member in seen[1])


# sparse(3) needs three elements
CASES = [(noise, shape) for shape in [(), (7,), (33, 300)] for noise in LAWS if shape or noise != LAWS[-1]]


@pytest.mark.parametrize("noise, shape", CASES, ids=str)
def test_combine_sums_the_dense_noise(noise, shape):
    law, leaf = law_of(noise), torch.zeros(shape, dtype=torch.float64)
    like = leaf.reshape(-1) if law.joint else leaf
    eps = law.draw(KEY, like, range(9))
    weights = torch.linspace(-1, 2, 9, dtype=torch.float64)
    expected = sum(w * law.dense(like, e) for w, e in zip(weights, eps, strict=True))
    torch.testing.assert_close(law.combine(weights, eps, like), expected, rtol=1e-12, atol=1e-12)


def test_a_function_is_a_law_whose_shape_is_checked():
    law = law_of(lambda key, leaf, pairs: torch.zeros(len(pairs), 2))
    assert law.draw(KEY, torch.zeros(2), range(3)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"noise must return a tensor of shape \(3, 5\), one row for each of range\(0, 3\), got \(3, 2\)"):
        law.draw(KEY, torch.zeros(5), range(3))


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="noise must be one of 'normal', 'rademacher', 'binomial32', 'sphere', a law such as"):
        law_of("gauss")
    with pytest.raises(TypeError, match="noise must be a name, a law or a function"):
        law_of(3)
    with pytest.raises(ValueError, match="es.sparse: k must be >= 1, got 0"):
        fo.es.sparse(0)
    with pytest.raises(ValueError, match="es.sparse: k must be at most the 4 elements that are perturbed, got 9"):
        fo.es.sparse(9).draw(KEY, torch.zeros(4), range(2))


def test_blocks_are_a_matter_of_the_leaf_alone():
    law = distributions.Dense()
    assert law.block(torch.zeros(10**6)) == 32
    assert law.block(torch.zeros(8192)) == 32
    assert law.block(torch.zeros(1000)) == 256
    assert law.block(torch.zeros(())) == 2048
