"""Fitness shaping: by hand, its laws, NaN and ties, under vmap and in a graph, its errors."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.es.shaping.shaping import SHAPINGS

NAN, INF = float("nan"), float("inf")
EVERY = [(name, {"group_zscore": {"group_size": 2}, "ars": {"directions": 2}}.get(name, {})) for name in SHAPINGS]
BY_SHAPING = pytest.mark.parametrize("name, options", EVERY, ids=[name for name, _ in EVERY])
CENTERED = ["centered_rank", "zscore", "minmax", "nes", "sign", "group_zscore", "ars"]
BY_RANK = ["centered_rank", "linear_rank", "nes", "cma", "top_k"]


def shaped(name, values, **options):
    return fo.es.shaping(name, **options)(torch.tensor(values, dtype=torch.float64))


def close(ours, expected):
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)


def test_by_hand():
    close(shaped("none", [3.0, -1.0]), [3.0, -1.0])
    close(shaped("linear_rank", [3.0, -1.0, 0.0]), [1.0, 0.0, 0.5])
    close(shaped("minmax", [3.0, -1.0, 0.0]), [1.0, -1.0, -0.5])
    close(shaped("zscore", [1.0, 3.0]), [-1.0, 1.0])
    close(shaped("zscore", [1.0, 3.0], ddof=1), [-(0.5**0.5), 0.5**0.5])
    close(shaped("top_k", [1.0, 4.0, 3.0, 2.0, 0.0], rho=0.5), [0.0, 0.5, 0.5, 0.0, 0.0])
    close(shaped("sign", [1.0, 4.0, 7.0, 3.0, 4.0, 2.0]), [-0.5, 0.0, 0.5, 0.5, 0.0, -0.5])
    # Groups (1, 3) and (6, 6): means 2 and 6, the variance of all four 4.5.
    close(shaped("group_zscore", [1.0, 3.0, 6.0, 6.0], group_size=2), [-(4.5**-0.5), 4.5**-0.5, 0.0, 0.0])


def test_ars_by_hand():
    # Pairs (5, 1), (0, 2), (3, 3.5), (-4, 1): their best are 5, 2, 3.5, 1, and the 50th percentile is 2.75.
    # Kept are the first and the third, of variance 2.046875; each weight is 4 (f+ - f-) / (2 sigma).
    utilities = shaped("ars", [5.0, 0.0, 3.0, -4.0, 1.0, 2.0, 3.5, 1.0], directions=2)
    sigma = torch.tensor([5.0, 1.0, 3.0, 3.5], dtype=torch.float64).std(correction=0).item()
    close(utilities, [8 / sigma, 0.0, -1 / sigma, 0.0, -8 / sigma, 0.0, 1 / sigma, 0.0])


def test_ars_keeps_pairs_that_tie_unless_told_the_number():
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert (shaped("ars", values, directions=2) != 0).sum() == 6
    assert (shaped("ars", values, directions=2, exact=True) != 0).sum() == 4


@pytest.mark.parametrize(
    "tie, expected",
    [("average", [-1 / 6, -1 / 6, -1 / 6, 0.5]), ("ordinal", [-0.5, -1 / 6, 1 / 6, 0.5]), ("last", [1 / 6, 1 / 6, 1 / 6, 0.5])],
)
def test_ties(tie, expected):
    close(shaped("centered_rank", [1.0, 1.0, 1.0, 2.0], tie=tie), expected)


def test_members_that_tie_share_their_places():
    close(shaped("top_k", [1.0, 1.0, 2.0, 0.0], rho=0.5), [0.25, 0.25, 0.5, 0.0])
    nes = shaped("nes", [1.0, 2.0, 2.0, 0.0])
    apart = shaped("nes", [1.0, 2.0, 3.0, 0.0])
    close(nes, [apart[0], (apart[1] + apart[2]) / 2, (apart[1] + apart[2]) / 2, apart[3]])


@BY_SHAPING
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_nan_is_never_better_than_anybody(name, options, data):
    values = data.draw(
        st.lists(st.sampled_from([NAN, -INF, INF, -2.0, 0.0, 0.5, 3.0]), min_size=4, max_size=8).filter(lambda v: len(v) % 2 == 0)
    )
    utilities = shaped(name, values, **options)
    if name == "none":
        utilities = fo.es.bounded(utilities)
    assert utilities.isfinite().all()
    missing = torch.tensor(values).isnan()
    if missing.all():
        assert (utilities == 0).all()
    elif missing.any() and name not in ("sign", "group_zscore", "ars"):  # these compare within pairs and groups
        assert utilities[missing].max() <= utilities[~missing].min() + 1e-12


def test_nan_is_below_minus_infinity():
    close(shaped("centered_rank", [-INF, NAN, 0.0, INF, NAN]), [0.0, -0.375, 0.25, 0.5, -0.375])
    close(shaped("sign", [NAN, -1.0]), [-0.5, 0.5])
    close(shaped("none", [NAN, 2.0, -1.0]), [-1.0, 2.0, -1.0])


@pytest.mark.parametrize("name", CENTERED)
@pytest.mark.parametrize("value", [0.1, -1e30, NAN])
def test_equal_fitness_gives_exactly_nothing(name, value):
    utilities = shaped(name, [value] * 6, **dict(EVERY)[name])
    torch.testing.assert_close(utilities, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-15)


@BY_SHAPING
def test_one_member_has_nothing_to_be_compared_with(name, options):
    assert shaped(name, [3.0], **options).tolist() == ([3.0] if name == "none" else [0.0])


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=9), st.randoms())
@settings(max_examples=20, deadline=None)
def test_order_of_the_members_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    for name in (*BY_RANK, "none", "zscore", "minmax"):
        torch.testing.assert_close(shaped(name, [values[i] for i in order]), shaped(name, values)[order])


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=9))
@settings(max_examples=20, deadline=None)
def test_ranks_see_the_order_alone(values):
    distinct = [round(value, 2) for value in values]
    for name in BY_RANK:
        assert torch.equal(shaped(name, distinct), shaped(name, [value**3 + value for value in distinct]))
    assert abs(shaped("centered_rank", values).sum()) < 1e-12 and abs(shaped("nes", values).sum()) < 1e-12


@BY_SHAPING
def test_batches_and_graphs(name, options):
    shape = fo.es.shaping(name, **options)
    fitness = torch.tensor([[1.0, NAN, 1.0, 4.0, -INF, 2.0], [0.0, 0.0, 5.0, 4.0, 1.0, 2.0]])
    each = torch.stack([shape(row) for row in fitness])
    assert each.dtype == torch.float32
    torch.testing.assert_close(torch.func.vmap(shape)(fitness), each, equal_nan=True)
    torch.compiler.reset()  # the limit of recompilations counts the closures of one function together
    torch.testing.assert_close(torch.compile(shape, backend="aot_eager", fullgraph=True)(fitness[0]), each[0], equal_nan=True)


def test_integers_and_halves_become_floats():
    assert fo.es.shaping("none")(torch.tensor([2**24, 2**24 + 1])).tolist() == [2**24, 2**24 + 1]  # in float32 they are one number
    assert fo.es.shaping("sign")(torch.tensor([True, False])).tolist() == [0.5, -0.5]
    assert fo.es.shaping("zscore")(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).dtype == torch.float32


def test_a_function_is_its_own_shaping():
    assert fo.es.shaping(torch.tanh) is torch.tanh


def test_baselines():
    fitness = torch.tensor([1.0, 2.0, 6.0])
    assert fo.es.baseline()(fitness) is fitness
    assert fo.es.baseline("mean")(fitness).tolist() == [-2.0, -1.0, 3.0]
    assert fo.es.baseline("loo")(fitness).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    assert fo.es.baseline("center")(fitness, torch.tensor(2.0)).tolist() == [-1.0, 0.0, 4.0]
    assert fo.es.baseline("mean")(torch.tensor([NAN, 2.0, 4.0, INF])).tolist() == [-1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fo.es.shaping("ranks"), r"es.shaping: how must be one of 'none', 'centered_rank', .*, got 'ranks'"),
        (lambda: fo.es.shaping("nes", tie="first"), r"es.shaping: tie must be one of 'average', 'ordinal', 'last', got 'first'"),
        (lambda: fo.es.shaping("nes", rho=0.5), r"es.shaping: 'nes' has no options, got rho"),
        (lambda: fo.es.shaping(torch.tanh, rho=0.5), r"es.shaping: rho is an option of a named shaping"),
        (lambda: fo.es.shaping("top_k", rho=0.0), r"es.shaping: rho must be in \(0, 1\], got 0.0"),
        (lambda: fo.es.shaping("group_zscore"), r"es.shaping: group_size must be >= 1, got 0"),
        (lambda: shaped("group_zscore", [1.0, 2.0, 3.0], group_size=2), r"group_size must divide the popsize 3, got 2"),
        (lambda: shaped("sign", [1.0, 2.0, 3.0]), r"works on pairs and needs an even popsize, got 3"),
        (lambda: shaped("ars", [1.0, 2.0], directions=2), r"directions must be <= 1, half the popsize, got 2"),
        (lambda: fo.es.baseline("median"), r"es.baseline: how must be one of 'none', 'mean', 'loo', 'center', got 'median'"),
        (lambda: fo.es.baseline("center")(torch.ones(2)), r"'center' needs the fitness of the unperturbed parameters"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_utilities_of_float64_are_as_precise():
    fitness = torch.arange(7, dtype=torch.float64)
    assert fo.es.shaping("top_k")(fitness)[-1].item() == 1 / 3
    assert fo.es.compat.centered_rank_shared_ties(fitness)[1].item() == 1 / 6 - 0.5
