"""Noisy SGD: the size of its noise, where that comes from, and that it still descends."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, quartic, run


def test_without_noise_is_sgd():
    assert_trees_equal(run(fo.noisy_sgd(0.1, eta=0.0, key=0), steps=10), run(fo.sgd(0.1), steps=10))


def test_the_noise_fades_as_said():
    tx = fo.noisy_sgd(1.0, eta=0.04, gamma=1.0, key=0)
    params = torch.zeros(20_000, dtype=torch.float64)
    state = tx.init(params)
    for step in range(1, 5):
        updates, state = tx.update(params, state)
        torch.testing.assert_close(updates.std().item(), 0.2 / step**0.5, rtol=0.02, atol=0.0)


def test_the_same_key_gives_the_same_run():
    assert_trees_equal(run(fo.noisy_sgd(0.1, key=3), steps=5), run(fo.noisy_sgd(0.1, key=3), steps=5))
    assert quartic(run(fo.noisy_sgd(0.1, key=3), steps=5)) != quartic(run(fo.noisy_sgd(0.1, key=4), steps=5))


def test_comes_down_close_to_where_sgd_does():
    assert quartic(run(fo.noisy_sgd(0.1, key=0), steps=200)) < quartic(run(fo.sgd(0.1), steps=200)) + 0.1


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="add_noise: eta must be >= 0, got -1.0"):
        fo.noisy_sgd(0.1, eta=-1.0)
