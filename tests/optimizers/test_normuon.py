"""NorMuon against its formula written out: neurons that move equally far, at the size that was asked for."""

import pytest
import torch

import funcopt as fo


def noise(step, shape=(4, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("consistent_rms", [0.2, None])
def test_is_the_formula_of_the_paper(consistent_rms):
    b2, eps = 0.9, 1e-6
    tx, muon = fo.normuon(1.0, 0.8, b2, eps, consistent_rms=consistent_rms), fo.scale_by_muon(beta=0.8, eps=eps, bias_correction=False)
    p, v = noise(0), torch.zeros(4, 1, dtype=torch.float64)
    state, inner = tx.init(p), muon.init(p)
    for step in range(4):
        o, inner = muon.update(noise(step), inner)
        v = b2 * v + (1 - b2) * o.square().mean(1, keepdim=True)
        u = o / (v.sqrt() + eps)
        size = 0.2 * 12**0.5 if consistent_rms else o.norm() * (4 / 3) ** 0.5
        ours, state = tx.update(noise(step), state, p)
        torch.testing.assert_close(ours, -u * size / (u.norm() + eps))


def test_neurons_of_a_tall_matrix_move_equally_far():
    muon, normuon = fo.scale_by_muon(beta=0.0, nesterov=False), fo.normuon(1.0, 0.0, 0.0, nesterov=False)
    g = noise(5, (32, 4))
    plain, even = muon.update(g, muon.init(g))[0].norm(dim=1), normuon.update(g, normuon.init(g), g)[0].norm(dim=1)
    assert plain.max() / plain.min() > 2 and even.max() / even.min() < 1.001


@pytest.mark.parametrize("scaled", [fo.scale_by_neuron_rms, fo.scale_by_entry_rms])
def test_a_mean_square_that_overflows_stops_what_it_divides(scaled):
    tx, huge = scaled(consistent_rms=None), torch.full((2, 2), 1e300, dtype=torch.float64)
    assert torch.equal(tx.update(huge, tx.init(huge))[0], torch.zeros(2, 2, dtype=torch.float64))


def test_vectors_are_adams():
    params = {"b": torch.zeros(3)}
    tx, adam = fo.normuon(0.1), fo.adamw(0.1, weight_decay=0.0)
    torch.testing.assert_close(
        tx.update(params | {"b": torch.ones(3)}, tx.init(params), params)[0],
        adam.update({"b": torch.ones(3)}, adam.init(params), params)[0],
    )


@pytest.mark.parametrize(
    "arguments, message",
    [({"b2": 1.0}, "b2 must be in"), ({"eps": 0.0}, "eps must be > 0"), ({"consistent_rms": 0.0}, "consistent_rms must be")],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_neuron_rms: {message}"):
        fo.scale_by_neuron_rms(**arguments)
