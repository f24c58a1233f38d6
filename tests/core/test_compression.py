"""The three formats in which trees of floats are held: bounds of the error, what stays exact, and the maps of torchao."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from funcopt.core.compression.blocks import BLOCK, SIGNED, UNSIGNED, codes, decoded
from funcopt.core.compression.correction import LARGEST, corrected, parts
from funcopt.core.compression.rounding import chances, stochastically_rounded

NORMAL = 2.0**-126  # smaller numbers of float32 have fewer digits
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
numbers = st.lists(floats, min_size=1, max_size=40).map(torch.tensor)
quick = settings(max_examples=50, deadline=None)


def gaps(m):
    return torch.tensor(m[1:], dtype=torch.float64) - torch.tensor(m[:-1], dtype=torch.float64)


# --- bf16, by chance ---


@given(numbers, st.integers(0, 2**16 - 1))
@quick
def test_a_chance_rounds_to_one_of_the_two_neighbours(x, r):
    y = stochastically_rounded(x, torch.full(x.shape, r, dtype=torch.int32)).float()
    toward = x.view(torch.int32) & -(1 << 16)  # cut off: the neighbour toward zero
    away = (toward + (1 << 16)).view(torch.float32).clamp(-3.3895313892515355e38, 3.3895313892515355e38)
    assert ((y == toward.view(torch.float32)) | (y == away)).all()


@given(floats)
@quick
def test_over_all_chances_the_mean_is_the_number(x):
    if abs(x) > 3.38e38:  # the last number of bfloat16 has no neighbour
        return
    every = torch.arange(0, 2**16, dtype=torch.int32)
    y = stochastically_rounded(torch.full((2**16,), x), every).double()
    assert y.mean().item() == pytest.approx(torch.tensor(x).double().item(), rel=1e-12, abs=0)


def test_what_bfloat16_holds_and_what_is_not_finite_stays():
    x = torch.tensor([0.0, -0.0, 1.0, -1.5, 3.3895313892515355e38, 1e-40, torch.inf, -torch.inf, torch.nan]).bfloat16()
    for r in (0, 2**16 - 1):
        y = stochastically_rounded(x.float(), torch.full(x.shape, r, dtype=torch.int32))
        torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)
    assert stochastically_rounded(torch.tensor([1e300, -1e300], dtype=torch.float64), torch.ones(2, dtype=torch.int32)).isfinite().all()


def test_chances_of_leaves_are_those_of_the_vector_of_them():
    key, leaves = fo.random.key(3), [torch.zeros(3), torch.zeros(2, 2), torch.zeros(()), torch.zeros(0)]
    drawn = chances(key, leaves)
    assert [x.shape for x in drawn] == [x.shape for x in leaves]
    (together,) = chances(key, [torch.zeros(8)])
    torch.testing.assert_close(torch.cat([x.reshape(-1) for x in drawn]), together, rtol=0, atol=0)
    (many,) = chances(key, [torch.zeros(20000)])
    counts = torch.bincount(many >> 12, minlength=16)  # 16 cells of 1250; standard deviation 34
    assert 0 <= many.min() and many.max() < 2**16 and (counts - 1250).abs().max() < 5 * 34


# --- bf16+8 ---


@given(numbers)
@quick
def test_a_correction_leaves_a_share_of_two_to_the_minus_sixteen(x):
    high, low = parts(x)
    y = corrected(high, low, torch.float32).double()
    held = x.double().clamp(-LARGEST, LARGEST)
    bound = 2.0**-16 * held.abs().clamp(min=NORMAL)
    assert ((y - held).abs() <= bound).all()


@given(numbers)
@quick
def test_the_first_part_alone_is_the_nearest_bfloat16_and_a_second_encoding_changes_nothing(x):
    high, low = parts(x)
    nearest = x.bfloat16().float()
    finite = nearest.isfinite()
    assert ((high.float() - x).abs() <= (nearest - x).abs() + 2.0**-16 * x.abs() + 2.0**-140)[finite].all()
    y = corrected(high, low, torch.float32)
    again = parts(y)
    torch.testing.assert_close(again[0], high, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(again[1], low, rtol=0, atol=0)


def test_a_correction_keeps_infinities_and_nans():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, 3.4028234663852886e38])
    x = torch.cat(
        [x, torch.tensor([0x7F800001, 0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)]
    )  # NaNs that differ in the bits that go
    y = corrected(*parts(x), torch.float32)
    torch.testing.assert_close(y, x, rtol=2.0**-16, atol=0, equal_nan=True)


# --- int8 ---


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=300).map(torch.tensor))
@quick
def test_a_code_is_within_half_a_gap_of_the_map_times_the_largest_of_its_block(x):
    c, s = codes(x)
    y = decoded(c, s, torch.float32)
    for start in range(0, len(x), BLOCK):
        block, held = x[start : start + BLOCK].double(), y[start : start + BLOCK].double()
        largest = block.abs().max()
        m = torch.tensor(SIGNED if (block < 0).any() else UNSIGNED, dtype=torch.float64)
        share = block / (largest if largest > 0 else 1.0)
        place = torch.bucketize(share, m).clamp(1, BLOCK - 1)
        half = (m[place] - m[place - 1]) / 2
        half = torch.where(share < m[0], m[0] + 1, half)  # -1 is no number of the map: its nearest is the first
        first = torch.where(share > 0, m[m > 0][0], -m[m < 0][-1] if (m < 0).any() else 0.0)
        half = torch.where(share.abs() < first, first, half)  # what is not zero never becomes zero
        assert ((held - block).abs() <= half * largest * (1 + 1e-5) + 1e-44).all()


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40).map(torch.tensor))
@quick
def test_no_sign_is_lost(x):
    y = decoded(*codes(x), torch.float64)
    assert torch.equal(y.sign(), x.double().sign())


def test_the_widest_gaps_are_those_that_the_page_names():
    assert gaps(SIGNED).max().item() == pytest.approx(0.9 / 64) and gaps(UNSIGNED).max().item() == pytest.approx(0.9 / 128)


@pytest.mark.parametrize("signed", [True, False])
def test_the_maps_are_those_of_the_source(signed):
    """In each decade the means of neighbours among equally spaced numbers, as the reference makes them."""
    found = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (i if signed else i + 1) + 1, dtype=torch.float64)
        means = 10.0 ** (i - 6) * (edges[:-1] + edges[1:]) / 2
        found += means.tolist() + (-means).tolist() * signed
    assert len(found) == 256
    torch.testing.assert_close(
        torch.tensor(SIGNED if signed else UNSIGNED, dtype=torch.float64), torch.tensor(sorted(found), dtype=torch.float64)
    )


def test_blocks_are_apart_and_what_is_not_finite_spoils_its_own():
    x = torch.ones(3 * BLOCK)
    x[:BLOCK] *= 1e-20
    x[BLOCK] = torch.nan
    y = decoded(*codes(x), torch.float32)
    torch.testing.assert_close(y[:BLOCK], x[:BLOCK])
    assert y[BLOCK : 2 * BLOCK].isnan().all() and (y[2 * BLOCK :] == 1).all()


def test_scales_of_float64_have_its_range():
    x = torch.tensor([1e300, -1e290], dtype=torch.float64)
    assert decoded(*codes(x), torch.float64)[0] == 1e300
