"""Keys and draws against Philox in Python's unbounded integers, their laws, their distributions and their errors."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import vmap

import funcopt as fo
from funcopt.core.random import philox

DRAWS = {
    "bits": fo.random.bits,
    "uniform": fo.random.uniform,
    "uniform64": lambda *a, **k: fo.random.uniform(*a, dtype=torch.float64, **k),
    "uniform16": lambda *a, **k: fo.random.uniform(*a, dtype=torch.bfloat16, **k),
    "normal": fo.random.normal,
    "normal64": lambda *a, **k: fo.random.normal(*a, dtype=torch.float64, **k),
    "normal16": lambda *a, **k: fo.random.normal(*a, dtype=torch.float16, **k),
    "rademacher": fo.random.rademacher,
    "randint": lambda key, shape, **k: fo.random.randint(key, shape, -3, 1000, **k),
}
EXACT = [name for name in DRAWS if not name.startswith("normal")]
# on both sides of every way through the cipher: Python numbers, blocks, more than one block
SIZES = [0, 1, 3, 4 * philox.SMALL, 4 * philox.SMALL + 5, 4 * philox.BLOCK + 6]

uint64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 3, 2**64 - 1])
everything = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
exact = pytest.mark.parametrize("draw", [DRAWS[name] for name in EXACT], ids=EXACT)


def key_of(seed, offset):
    return torch.tensor([(x + 2**63) % 2**64 - 2**63 for x in (seed, offset)])


keys = st.builds(key_of, uint64, uint64)


def reference_words(seed, offset, count):
    """Words by the textbook formula, with products as long as they come."""
    words = []
    for n in range((count + 3) // 4):
        counter = (offset + n) % 2**64
        c0, c1, c2, c3 = counter % 2**32, counter >> 32, 0, 0
        for r in range(10):
            k0, k1 = (seed + r * 0x9E3779B9) % 2**32, ((seed >> 32) + r * 0xBB67AE85) % 2**32
            p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
            c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        words += [c0, c1, c2, c3]
    return words[:count]


def close_enough(draw):
    """Exact for integers and uniforms, to rounding for normals, whose logarithm and cosine depend on who computes them."""
    return {"rtol": 0, "atol": 0} if any(draw is DRAWS[name] for name in EXACT) else {"rtol": 1e-6, "atol": 1e-6}


@given(uint64, uint64)
@settings(max_examples=30)
def test_every_way_through_the_cipher_gives_the_words_of_the_textbook(seed, offset):
    words, key = torch.tensor(reference_words(seed, offset, 400)), key_of(seed, offset)
    assert torch.equal(fo.random.bits(key, 400), words)  # blocks
    assert torch.equal(fo.random.bits(key, 4 * philox.SMALL), words[: 4 * philox.SMALL])  # Python numbers
    assert torch.equal(vmap(lambda key: fo.random.bits(key, 400))(key[None])[0], words)  # tensor expressions


@pytest.mark.parametrize("offset", [2**32 - 7, 2**64 - 9, 2**63 - 5, 3 * 2**40 - 1])
def test_counters_carry_and_wrap_in_the_middle_of_a_draw(offset):
    words, key = torch.tensor(reference_words(2**64 - 1, offset, 1000)), key_of(2**64 - 1, offset)
    assert torch.equal(fo.random.bits(key, 1000), words)
    assert torch.equal(fo.random.bits(key, 60), words[:60])
    assert torch.equal(vmap(lambda key: fo.random.bits(key, 1000))(key[None])[0], words)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_products_never_overflow(c0, c2):
    # one round of tensors against the long products; -2^62 <= c (M - 2^32) <= 0 is what the head of philox.py promises
    assert -(2**62) <= (2**32 - 1) * (philox.M1 - 2**32) < 0
    got = philox.rounds(*torch.tensor([c0, 0, c2, 0]), [(0, 0)])
    p0, p1 = philox.M0 * c0, philox.M1 * c2
    assert [word.item() for word in got] == [p1 >> 32, p1 % 2**32, p0 >> 32, p0 % 2**32]


@given(keys, st.integers(1, 2 * philox.SMALL))
@settings(max_examples=30)
def test_split_and_fold_in_agree(key, n):
    split = fo.random.split(key, n)
    assert split.shape == (n, 2) and split.dtype == torch.int64
    assert torch.equal(split, torch.stack([fo.random.fold_in(key, i) for i in range(n)]))
    assert torch.equal(split, torch.stack([fo.random.fold_in(key, torch.tensor(i)) for i in range(n)]))
    assert torch.equal(split, vmap(fo.random.fold_in, in_dims=(None, 0))(key, torch.arange(n)))
    assert torch.equal(split, vmap(lambda key: fo.random.split(key, n))(key[None])[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_an_index_may_be_of_any_integer_dtype(dtype):
    key, index = fo.random.key(1), torch.tensor(100, dtype=dtype)
    for derive in (fo.random.fold_in, fo.random.advance, fo.random.member):
        assert torch.equal(derive(key, index), derive(key, 100))
        assert torch.equal(vmap(derive, in_dims=(None, 0))(key, index[None])[0], derive(key, 100))


@everything
@given(key=keys, start=st.integers(0, 500), count=st.integers(0, 300))
@settings(max_examples=20)
def test_any_range_can_be_drawn_alone(draw, key, start, count):
    whole = draw(key, 800)
    torch.testing.assert_close(draw(key, count, start=start), whole[start : start + count], **close_enough(draw))


@exact
def test_ranges_of_large_draws_agree_with_the_whole(draw):
    key, whole = fo.random.key(3), draw(fo.random.key(3), 150_000)
    for start, stop in [(0, 70_000), (65_533, 150_000), (131_072, 131_073), (99_999, 100_200)]:
        assert torch.equal(draw(key, stop - start, start=start), whole[start:stop])


@everything
@pytest.mark.parametrize("size", SIZES)
def test_vmap_equals_a_loop(draw, size):
    batch = fo.random.split(fo.random.key(5), 2)
    one_by_one = torch.stack([draw(key, size) for key in batch])
    torch.testing.assert_close(vmap(lambda key: draw(key, size))(batch), one_by_one, **close_enough(draw))


@everything
def test_shape_is_filled_row_by_row(draw):
    key = fo.random.key(1)
    torch.testing.assert_close(draw(key, (3, 0, 2)).shape, torch.Size([3, 0, 2]))
    torch.testing.assert_close(draw(key, (3, 5, 7)), draw(key, 105).reshape(3, 5, 7))
    assert draw(key, ()).shape == ()


@everything
def test_traces_whole_and_gives_the_same(draw):
    torch._dynamo.reset()
    key = fo.random.key(7)
    step = torch.compile(lambda key, i: draw(fo.random.fold_in(key, i), (3, 50)), backend="aot_eager", fullgraph=True)
    for i in range(3):  # the index is a tensor: one graph for all steps
        torch.testing.assert_close(step(key, torch.tensor(i)), draw(fo.random.fold_in(key, i), (3, 50)), **close_enough(draw))


def test_keys_trace_whole_and_give_the_same():
    def derive(key, i):
        return fo.random.split(key, 40), fo.random.member(key, i), fo.random.advance(key, i), fo.random.key(i), fo.random.key(5)

    compiled = torch.compile(vmap(derive, in_dims=(None, 0)), backend="aot_eager", fullgraph=True)
    key, indices = key_of(2**64 - 1, 2**64 - 1), torch.tensor([0, 3, 2**24 - 1, 2**24, 2**40 + 1])
    for lane, i in zip(zip(*compiled(key, indices), strict=True), indices.tolist(), strict=True):
        for got, expected in zip(lane, derive(key, i), strict=True):
            assert torch.equal(got, expected)


def test_inductor_gives_the_same_integers_and_close_normals():
    def draws(key):
        return fo.random.bits(key, 1000), fo.random.normal(key, 1000), fo.random.fold_in(key, 3)

    key = key_of(2**64 - 2, 2**32 - 100)
    bits, normal, folded = torch.compile(draws, fullgraph=True)(key)
    assert torch.equal(bits, fo.random.bits(key, 1000))
    assert torch.equal(folded, fo.random.fold_in(key, 3))
    torch.testing.assert_close(normal, fo.random.normal(key, 1000), rtol=0, atol=2e-6)


@given(keys, st.integers(0, 2**20), st.integers(0, 100))
@settings(max_examples=30)
def test_advance_moves_along_the_stream(key, n, count):
    assert torch.equal(fo.random.bits(fo.random.advance(key, n), count), fo.random.bits(key, count, start=4 * n))
    assert torch.equal(fo.random.advance(key, n), fo.random.advance(key, torch.tensor(n)))
    assert torch.equal(fo.random.advance(key, n), vmap(fo.random.advance)(key[None], torch.tensor([n]))[0])


@given(keys, st.integers(0, 2**40))
@settings(max_examples=50)
def test_member_ranges_lie_2_to_the_40_counters_apart(key, j):
    seed, offset = key.tolist()
    expected = key_of(seed, offset + j * 2**40) if j < 2**24 else fo.random.member(fo.random.fold_in(key, j - j % 2**24), j % 2**24)
    assert torch.equal(fo.random.member(key, j), expected)
    assert torch.equal(fo.random.member(key, torch.tensor(j)), expected)
    assert torch.equal(vmap(fo.random.member, in_dims=(None, 0))(key, torch.tensor([j]))[0], expected)


# Distributions. Fixed seeds: the bounds are 4 standard errors or the 1e-4 quantile, and hold for good once they hold.


def kolmogorov_smirnov(sorted_cdf):
    """sqrt(n) times the greatest distance between an empirical distribution and the one whose function was applied."""
    n = sorted_cdf.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * max((steps[1:] - sorted_cdf).max().item(), (sorted_cdf - steps[:-1]).max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_uniforms_are_uniform(seed, dtype):
    u = fo.random.uniform(fo.random.key(seed), 200_000, dtype).double()
    assert 0 <= u.min() and u.max() < 1
    for power in (1, 2, 3, 4):
        assert abs(u.pow(power).mean() - 1 / (power + 1)) < 4 * 0.35 / math.sqrt(200_000)
    assert kolmogorov_smirnov(u.sort().values) < 2.23


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_normals_are_normal(seed, dtype):
    n = 200_000
    z = fo.random.normal(fo.random.key(seed), n, dtype).double()
    # (moment of z^k, its standard error sqrt(E z^2k - (E z^k)^2))
    for power, moment, spread in [(1, 0, 1), (2, 1, math.sqrt(2)), (3, 0, math.sqrt(15)), (4, 3, math.sqrt(96))]:
        assert abs(z.pow(power).mean() - moment) < 4 * spread / math.sqrt(n)
    assert kolmogorov_smirnov(torch.special.ndtr(z.sort().values)) < 2.23
    pairs = z.view(-1, 2)  # cosine and sine of one radius: independent all the same
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 4 / math.sqrt(n / 2)
    assert abs((pairs[:, 0].square() * pairs[:, 1].square()).mean() - 1) < 4 * math.sqrt(8) / math.sqrt(n / 2)


def test_signs_are_balanced_and_independent():
    signs = fo.random.rademacher(fo.random.key(11), 320_000)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / math.sqrt(320_000)
    for lag in (1, 31, 32, 33, 128):
        assert abs((signs[lag:] * signs[:-lag]).mean()) < 4 / math.sqrt(320_000)


def test_signs_are_the_bits_of_the_words():
    words = fo.random.bits(fo.random.key(2), 10).tolist()
    expected = [1.0 if word >> place & 1 else -1.0 for word in words for place in range(32)]
    assert fo.random.rademacher(fo.random.key(2), 320).tolist() == expected


@pytest.mark.parametrize("low, high", [(0, 1), (0, 2), (-5, 5), (7, 10), (0, 1000)])
def test_integers_are_in_range_and_equally_likely(low, high):
    n, span = 100_000, high - low
    drawn = fo.random.randint(fo.random.key(13), n, low, high)
    assert low <= drawn.min() and drawn.max() < high
    counts = torch.bincount(drawn - low, minlength=span).double()
    chi_squared = ((counts - n / span).square() / (n / span)).sum().item()
    assert abs(chi_squared - (span - 1)) < 4 * math.sqrt(2 * (span - 1)) + 1e-9


@given(keys, st.integers(-(2**40), 2**40), st.integers(1, 2**31))
def test_integers_are_the_floor_of_the_exact_product(key, low, span):
    words = fo.random.bits(key, 8).tolist()
    expected = [low + ((words[2 * e] + (words[2 * e + 1] << 32)) * span >> 64) for e in range(4)]
    assert fo.random.randint(key, 4, low, low + span).tolist() == expected
    assert fo.random.randint(key, 4, torch.tensor(low), torch.tensor(low + span)).tolist() == expected


def test_keys_leaves_and_members_get_independent_streams():
    root, n = fo.random.key(17), 20_000
    several = [
        root,
        fo.random.key(18),
        *fo.random.split(root, 4),
        fo.random.fold_in(root, 2**31),
        fo.random.member(root, 1),
        fo.random.member(root, 2**24),
    ]
    draws = torch.stack([fo.random.normal(key, n) for key in several])
    correlations = torch.corrcoef(draws) - torch.eye(len(several))
    assert correlations.abs().max() < 4.5 / math.sqrt(n)
    assert len({tuple(key.tolist()) for key in several}) == len(several)


def test_shorter_floats_stay_below_one_and_are_rounded_normals():
    key = fo.random.key(19)
    for dtype in (torch.float16, torch.bfloat16):
        u = fo.random.uniform(key, 100_000, dtype)
        assert u.dtype == dtype and u.max() < 1 and abs(u.float().mean() - 0.5) < 5e-3
        assert torch.equal(fo.random.normal(key, 1000, dtype), fo.random.normal(key, 1000).to(dtype))


def test_draws_do_not_touch_the_global_generator_nor_the_key():
    key, before = fo.random.key(23), torch.get_rng_state()
    for draw in DRAWS.values():
        draw(key, 100)
    assert torch.equal(torch.get_rng_state(), before)
    assert key.tolist() == [23, 0]


def test_a_run_resumed_from_its_key_and_count_goes_on_with_the_same_numbers(tmp_path):
    key = fo.random.fold_in(fo.random.key(29), 4)
    whole = [fo.random.uniform(fo.random.fold_in(key, step)).item() for step in range(10)]
    torch.save({"key": key, "count": torch.tensor(6)}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    count = fo.random.host_int(saved["count"])
    assert [fo.random.uniform(fo.random.fold_in(saved["key"], step)).item() for step in range(count, 10)] == whole[6:]


def test_large_draws_hold_the_words_of_one_block_at_a_time():
    sizes = []

    def law(words):
        sizes.append(words.shape[-1])
        return words.float()

    m = 5 * philox.BLOCK + 1
    assert philox.draw(fo.random.key(31), law, 0, m, torch.device("cpu")).shape == (m, 4)
    assert sum(sizes) == m and max(sizes) <= philox.BLOCK


# Seeds


@pytest.mark.parametrize("seed, expected", [(0, 0), (42, 42), (-1, -1), (2**64 - 1, -1), (2**63, -(2**63)), (-(2**63), -(2**63))])
def test_a_seed_is_64_bits(seed, expected):
    assert fo.random.key(seed).tolist() == [expected, 0]


def test_keys_are_made_of_whatever_can_be_a_seed():
    assert torch.equal(fo.random.key(torch.tensor(7, dtype=torch.int32)), fo.random.key(7))
    key = fo.random.fold_in(fo.random.key(7), 1)
    assert torch.equal(fo.random.key(key), key)
    assert torch.equal(vmap(fo.random.key)(torch.arange(3)), torch.stack([fo.random.key(i) for i in range(3)]))


def test_no_seed_means_one_from_torch():
    torch.manual_seed(5)
    first, second = fo.random.key(None), fo.random.as_key(None, "roulette")
    torch.manual_seed(5)
    assert torch.equal(fo.random.key(None), first)
    assert not torch.equal(first, second)


def test_no_seed_is_drawn_under_vmap():
    params = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"add_noise: needs a key, since none can be drawn within torch.func.vmap; pass one"):
        vmap(lambda p: fo.noisy_sgd(0.1).init(p))(params)


def test_default_device_and_dtype_do_not_reach_the_numbers():
    key, expected = fo.random.key(3), [draw(fo.random.key(3), 200) for draw in DRAWS.values()]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert fo.random.key(3).device.type == fo.random.fold_in(key, 1).device.type == "cpu"
            for draw, values in zip(DRAWS.values(), expected, strict=True):
                torch.testing.assert_close(draw(key, 200), values)
                torch.testing.assert_close(draw(key, 20), values[:20])
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_int_stands_for_its_key():
    key = fo.random.key(7)
    assert torch.equal(fo.random.fold_in(7, 3), fo.random.fold_in(key, 3))
    assert torch.equal(fo.random.split(7, 2), fo.random.split(key, 2))
    assert torch.equal(fo.random.normal(7, 5), fo.random.normal(key, 5))
    assert torch.equal(fo.random.randint(7, 5, 0, 9), fo.random.randint(key, 5, 0, 9))


def test_values_are_made_where_device_says():
    for size in (3, 1000):
        assert fo.random.normal(fo.random.key(1), size, device="meta").shape == (size,)
        assert fo.random.normal(fo.random.key(1), size, device="meta").device.type == "meta"


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fo.random.key(1.0), TypeError, r"random.key: seed must be an int, .* got 1.0"),
        (lambda: fo.random.key(True), TypeError, r"random.key: seed must be an int, .* got True"),
        (lambda: fo.random.key("7"), TypeError, r"random.key: seed must be an int, .* got '7'"),
        (lambda: fo.random.key(torch.tensor(1.0)), TypeError, r"random.key: seed must be .* got a tensor of torch.float32"),
        (lambda: fo.random.key(torch.tensor(True)), TypeError, r"random.key: seed must be .* got a tensor of torch.bool"),
        (lambda: fo.random.key(2**64), ValueError, r"random.key: seed must be in \[-2\*\*63, 2\*\*64\), got 18446744073709551616"),
        (
            lambda: fo.random.key(torch.zeros(3, dtype=torch.int64)),
            ValueError,
            r"random.key: key must be an int64 tensor of shape \(2,\), .* got torch.int64 of shape \(3,\)",
        ),
        (lambda: fo.random.as_key(None and 0 or 0.5, "roulette"), TypeError, r"roulette: seed must be an int"),
        (lambda: fo.random.uniform("3"), TypeError, r"random.uniform: key must be an int64 tensor .* or an int, got '3'"),
        (lambda: fo.random.normal(torch.zeros(2)), ValueError, r"random.normal: key must be .* got torch.float32 of shape \(2,\)"),
        (lambda: fo.random.bits(torch.zeros(4, 2, dtype=torch.int64)), ValueError, r"random.bits: key must be .* of shape \(4, 2\)"),
        (lambda: fo.random.bits(fo.random.key(1), 3, start=-1), ValueError, r"random.bits: start must be in \[0, 2\*\*64\), got -1"),
        (
            lambda: fo.random.uniform(fo.random.key(1), 3, torch.int64),
            TypeError,
            r"random.uniform: dtype must be one of .* got torch.int64",
        ),
        (
            lambda: fo.random.normal(fo.random.key(1), 3, torch.complex64),
            TypeError,
            r"random.normal: dtype must be one of .* got torch.complex64",
        ),
        (
            lambda: fo.random.rademacher(fo.random.key(1), 3, torch.bool),
            TypeError,
            r"random.rademacher: dtype must be real and signed, got torch.bool",
        ),
        (
            lambda: fo.random.randint(fo.random.key(1), 3, 5, 5),
            ValueError,
            r"random.randint: high - low must be in \[1, 2147483649\), got 0",
        ),
        (
            lambda: fo.random.randint(fo.random.key(1), 3, 0, 2.5),
            TypeError,
            r"random.randint: high must be an int or an integer .*, got 2.5",
        ),
        (lambda: fo.random.split(fo.random.key(1), -1), ValueError, r"random.split: n must be in \[0, 2\*\*64\), got -1"),
        (lambda: fo.random.fold_in(fo.random.key(1), 1.0), TypeError, r"random.fold_in: i must be an int or an integer tensor, got 1.0"),
        (
            lambda: fo.random.fold_in(fo.random.key(1), torch.tensor(1.0)),
            TypeError,
            r"random.fold_in: i must be .* got a tensor of torch.float32",
        ),
        (lambda: fo.random.fold_in(fo.random.key(1), -1), ValueError, r"random.fold_in: i must be in \[0, 2\*\*64\), got -1"),
        (
            lambda: fo.random.host_int(torch.tensor(1.5)),
            TypeError,
            r"random.host_int: needs a 0-dim integer tensor to read, got torch.float32",
        ),
        (
            lambda: fo.random.host_int(torch.zeros(2, dtype=torch.int64), "roulette"),
            TypeError,
            r"roulette: needs a 0-dim integer tensor .* shape \(2,\)",
        ),
        (
            lambda: fo.random.host_int(torch.tensor(1, device="meta")),
            ValueError,
            r"random.host_int: needs a tensor on the CPU to read, got one on meta",
        ),
    ],
)
def test_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Reading on the host


def test_host_int_reads_integers_and_bools():
    assert fo.random.host_int(torch.tensor(-5)) == -5
    assert fo.random.host_int(torch.tensor(True)) == 1
    assert fo.random.readable(torch.tensor(1))


def test_host_int_refuses_where_there_is_no_number_yet():
    def read(x):
        assert not fo.random.readable(x)
        return x + fo.random.host_int(x, "roulette")

    for refused in (
        lambda: vmap(read)(torch.arange(3)),
        lambda: torch.func.grad(lambda w: w * read(torch.tensor(2)))(torch.tensor(1.0)),
        lambda: torch.fx.experimental.proxy_tensor.make_fx(read)(torch.tensor(2)),
    ):
        with pytest.raises(ValueError, match="roulette: a value cannot be read inside vmap, grad or a traced graph.*dispatch='select'"):
            refused()


def test_host_int_refuses_in_a_compiled_graph():
    with pytest.raises(Exception, match="a value cannot be read inside vmap, grad or a traced graph"):
        torch.compile(lambda x: x + fo.random.host_int(x), backend="aot_eager", fullgraph=True)(torch.tensor(2))


def test_tracing_with_make_fx_does_not_bake_the_key_in():
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda key: fo.random.uniform(fo.random.fold_in(key, 2), 3))(fo.random.key(1))
    other = fo.random.key(2)
    assert torch.equal(graph(other), fo.random.uniform(fo.random.fold_in(other, 2), 3))
