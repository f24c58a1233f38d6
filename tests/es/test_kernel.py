"""The loop of C++ that makes normal numbers: those of `fo.random`, the same bits however they are cut, and nothing without a compiler."""

import pytest
import torch

import funcopt as fo
from funcopt.es.noise import kernel, sources
from funcopt.es.noise.sources import EAGER, Philox
from funcopt.execute.engines import ahead


@pytest.fixture(scope="module")
def compiled():
    if kernel._built() is None:
        pytest.skip("no C++ compiler")
    return Philox(compile=True)


@pytest.mark.parametrize("n", [1, 3, 10, 63, 64, 68, 300, 8192])
def test_numbers_are_those_of_the_tensor_operations(compiled, n):
    key = fo.random.key(-(2**40) - 3)
    torch.testing.assert_close(compiled.normal(key, n, range(5, 25)), EAGER.normal(key, n, range(5, 25)), rtol=0, atol=1e-6)
    assert torch.equal(compiled.normal(key, n, range(5, 25)), compiled.normal(key, n, range(5, 25), start=0, device=torch.device("cpu")))


@pytest.mark.parametrize("n", [10, 64, 300, 40_000])
def test_the_same_bits_in_whatever_lane_and_thread(compiled, n):
    key = fo.random.key(4)
    whole = compiled.normal(key, n, range(20))
    assert torch.equal(compiled.normal(key, n, range(7, 9)), whole[7:9])
    assert torch.equal(compiled.normal(key, n - 8, range(20), start=8), whole[:, 8:])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(compiled.normal(key, n, range(20)), whole)
    finally:
        torch.set_num_threads(before)


def test_counters_wrap_round_at_their_end(compiled):
    key = fo.random.advance(fo.random.key(1), 2**64 - 3)
    torch.testing.assert_close(
        compiled.normal(key, 40, range(2**24 - 2, 2**24)), EAGER.normal(key, 40, range(2**24 - 2, 2**24)), rtol=0, atol=1e-6
    )


def test_nothing_is_written_without_a_compiler(monkeypatch):
    monkeypatch.setattr(kernel, "_built", lambda: None)
    out = torch.zeros(2, 8)
    assert not kernel.normals(out, 1, 0)
    assert torch.equal(out, torch.zeros(2, 8))


def test_another_torch_that_builds_otherwise_is_no_error(monkeypatch):
    from torch._inductor.codecache import CppCodeCache

    def refuse(*source):
        raise RuntimeError("no")

    monkeypatch.setattr(CppCodeCache, "load", refuse)
    kernel._built.cache_clear()
    try:
        assert kernel._built() is None
    finally:
        kernel._built.cache_clear()


@pytest.mark.skipif(ahead.missing() is not None, reason=f"no ahead-of-time engine: {ahead.missing()}")
def test_a_tile_on_a_cpu_is_compiled_ahead_of_time_since_guards_cost_a_sixth_of_it(monkeypatch):
    monkeypatch.setattr(sources, "_kernels", {})
    monkeypatch.setattr(sources, "by_dynamo", None)
    key = fo.random.key(4)
    assert torch.equal(Philox(compile=True).rademacher(key, 300, range(4)), EAGER.rademacher(key, 300, range(4)))


@pytest.mark.long
def test_tiles_of_the_compiler_stand_in_where_cpp_cannot_be_built(compiled, monkeypatch):
    key = fo.random.key(4)
    expected = compiled.normal(key, 300, range(4))
    monkeypatch.setattr(kernel, "_built", lambda: None)
    torch.testing.assert_close(compiled.normal(key, 300, range(4)), expected, rtol=0, atol=1e-6)
