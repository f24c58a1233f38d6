"""AdaMuon against its formula written out: entries that move equally far over time, at the size that was asked for."""

import pytest
import torch

import funcopt as fo


def noise(step, shape=(4, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("consistent_rms", [0.2, None])
@pytest.mark.parametrize("signs", [False, True])
def test_is_the_formula_of_the_paper(consistent_rms, signs):
    b1, b2, eps = 0.8, 0.9, 1e-6
    tx = fo.adamuon(1.0, b1, b2, eps, consistent_rms=consistent_rms, signs=signs)
    muon = fo.scale_by_muon(beta=0.0, eps=eps, nesterov=False)
    p, m, v = noise(0), torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    state = tx.init(p)
    for step in range(4):
        m = b1 * m + (1 - b1) * noise(step)
        o, _ = muon.update(m.sign() if signs else m, muon.init(p))
        v = b2 * v + (1 - b2) * o.square()
        u = o / (v.sqrt() + eps)
        size = 0.2 * 12**0.5 if consistent_rms else o.norm() * (4 / 3) ** 0.5
        ours, state = tx.update(noise(step), state, p)
        torch.testing.assert_close(ours, -u * size / (u.norm() + eps))


def test_first_step_goes_by_signs():
    # v = (1 - b2) O^2, so that every entry of O / sqrt(v) is as long as the others.
    tx, g = fo.adamuon(1.0), noise(2)
    updates, _ = tx.update(g, tx.init(g), g)
    torch.testing.assert_close(updates.abs(), torch.full_like(g, 0.2), rtol=1e-5, atol=0.0)


def test_the_bias_correction_of_the_reference_leaves_nothing_but_beside_eps():
    b2, o = 0.9, [noise(step) for step in range(3)]
    tx = fo.scale_by_entry_rms(b2, 1e-30, 1.0)
    state, v = tx.init(o[0]), torch.zeros_like(o[0])
    for t, x in enumerate(o, 1):
        v = b2 * v + (1 - b2) * x.square()
        u = x / ((v / (1 - b2**t)).sqrt() + 1e-30)
        ours, state = tx.update(x, state)
        torch.testing.assert_close(ours, u * 12**0.5 / u.norm())


@pytest.mark.parametrize(
    "arguments, message",
    [({"b2": 1.0}, "b2 must be in"), ({"eps": 0.0}, "eps must be > 0"), ({"consistent_rms": 0.0}, "consistent_rms must be")],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"scale_by_entry_rms: {message}"):
        fo.scale_by_entry_rms(**arguments)
