"""add_noise and add_gaussian_noise: their size, and what the noise depends on. The recorded optax runs are in tests/parity."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, rollout, small_params

ZEROS = torch.zeros(20000, dtype=torch.float64)


def stds(tx, steps, **extra):
    state, seen = tx.init(ZEROS), []
    for _ in range(steps):
        noise, state = tx.update(ZEROS, state, **extra)
        seen.append(noise.std().item())
    return seen


def test_the_variance_fades_as_eta_over_t_to_the_gamma():
    assert stds(fo.add_noise(0.04, 0.5, key=0), 4) == pytest.approx([0.2 / t**0.25 for t in (1, 2, 3, 4)], rel=0.02)


def test_the_standard_deviation_is_a_number_a_tensor_a_schedule_or_a_word():
    assert stds(fo.add_gaussian_noise(0.5, key=0), 2) == pytest.approx([0.5, 0.5], rel=0.02)
    assert stds(fo.add_gaussian_noise(torch.tensor(0.5), key=0), 1) == pytest.approx([0.5], rel=0.02)
    assert stds(fo.add_gaussian_noise(lambda count: 1.0 + count, key=0), 3) == pytest.approx([1, 2, 3], rel=0.02)
    heard = {"signals": {"noise_std": torch.tensor(0.25)}}
    assert stds(fo.add_gaussian_noise("noise_std", key=0), 1, **heard) == pytest.approx([0.25], rel=0.02)


def test_it_is_a_function_of_key_step_and_leaf():
    params = {"a": torch.zeros(6), "b": torch.zeros(6)}
    tx = fo.add_gaussian_noise(1.0, key=3)
    first, state = tx.update(params, tx.init(params))
    second, _ = tx.update(params, state)
    again, _ = fo.add_gaussian_noise(1.0, key=torch.tensor(3)).update(params, tx.init(params))
    other, _ = fo.add_gaussian_noise(1.0, key=4).update(params, fo.add_gaussian_noise(1.0, key=4).init(params))
    assert_trees_equal(first, again)
    different = [first["a"], first["b"], second["a"], other["a"]]
    assert len({tuple(noise.tolist()) for noise in different}) == 4


def test_a_resumed_run_sees_the_noise_of_the_whole_one():
    tx, params = fo.add_noise(0.1, 0.55, key=0), small_params()
    whole, _, _ = rollout(tx, params, 5)
    _, halfway, state = rollout(tx, params, 2)
    rest, _, _ = rollout(tx, halfway, 3, state=state, start=2)
    assert_trees_equal(rest, whole[2:])


def test_none_draws_a_key_when_it_is_made():
    torch.manual_seed(0)
    first, second = fo.add_noise(0.1, 0.5), fo.add_noise(0.1, 0.5)
    assert not torch.equal(first.init(ZEROS).key, second.init(ZEROS).key)
    assert torch.equal(first.init(ZEROS).key, first.init(ZEROS).key)


def test_a_schedule_under_vmap_with_a_key_for_each_lane():
    def lane(seed):
        tx = fo.add_gaussian_noise(0.1, key=seed)
        return tx.update(torch.zeros(4), tx.init(torch.zeros(4)))[0]

    together = torch.func.vmap(lane)(torch.tensor([1, 2]))
    assert_trees_equal(list(together), [lane(torch.tensor(1)), lane(torch.tensor(2))])


@pytest.mark.parametrize(
    "factory, arguments, message",
    [
        (fo.add_noise, (-0.1, 0.5), "add_noise: eta must be >= 0, got -0.1"),
        (fo.add_noise, (0.1, -0.5), "add_noise: gamma must be >= 0, got -0.5"),
        (fo.add_gaussian_noise, (-1.0,), "add_gaussian_noise: std must be >= 0, got -1.0"),
    ],
)
def test_says_what_is_wrong(factory, arguments, message):
    with pytest.raises(ValueError, match=message):
        factory(*arguments)


def test_a_word_that_nobody_says_is_an_error():
    with pytest.raises(ValueError, match="add_gaussian_noise: no link says 'noise_std'"):
        fo.chain(fo.add_gaussian_noise("noise_std"), fo.sgd(0.1)).init(torch.zeros(1))
    with pytest.raises(TypeError, match="add_noise: seed must be an int, a 0-dim integer tensor or a key"):
        fo.add_noise(0.1, 0.5, key=0.5)
