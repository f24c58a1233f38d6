"""The methods of OptiRoulette's pool: two steps of each by hand, and what makes each what it is."""

import math

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, gradients_at, small_params


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def two_steps(tx, first, second, params=None):
    """The updates of two steps, from zeros unless told."""
    params = torch.zeros_like(first) if params is None else params
    one, state = tx.update(first, tx.init(params), params)
    two, state = tx.update(second, state, params + one)
    return one, two


# --- entry by entry -------------------------------------------------------------------------------------------------------------


def test_qhadam_by_hand():
    # b1 = b2 = 1/2, nu1 = 3/4, nu2 = 1/4; gradients 2 and 4: m = 2, 10/3; v = 4, (2 + 8) / (3/4) = 12 of nu = 1, 9 ...
    one, two = two_steps(fo.scale_by_qhadam(0.5, 0.5, 0.75, 0.25, eps=0.0), vector(2.0), vector(4.0))
    m, v = (0.5 * 1 + 0.5 * 4) / 0.75, (0.5 * 2 + 0.5 * 16) / 0.75
    torch.testing.assert_close(one, vector(1.0))
    torch.testing.assert_close(two, vector((0.75 * m + 0.25 * 4) / math.sqrt(0.25 * v + 0.75 * 16)))


@pytest.mark.parametrize("nu1, other", [(1.0, lambda: fo.scale_by_adam(0.9, 0.99)), (0.0, lambda: fo.chain(fo.scale_by_adam(0.0, 0.99)))])
def test_qhadam_lies_between_rmsprop_and_adam(nu1, other):
    params = small_params()
    ours, theirs = fo.scale_by_qhadam(0.9, 0.99, nu1), other()
    state, held = ours.init(params), theirs.init(params)
    for step in range(3):
        mine, state = ours.update(gradients_at(step, params), state)
        expected, held = theirs.update(gradients_at(step, params), held)
        assert_trees_close(mine, expected)


def test_aggmo_is_the_mean_of_momentums():
    params = small_params()
    aggmo, parts = fo.scale_by_aggmo((0.0, 0.5, 0.9)), [fo.trace(decay) for decay in (0.0, 0.5, 0.9)]
    state, held = aggmo.init(params), [part.init(params) for part in parts]
    for step in range(3):
        mine, state = aggmo.update(gradients_at(step, params), state)
        pairs = [part.update(gradients_at(step, params), one) for part, one in zip(parts, held, strict=True)]
        held = [one for _, one in pairs]
        assert_trees_close(mine, fo.tree.map(lambda *x: sum(x) / 3, *[direction for direction, _ in pairs]))


def test_accsgd_by_hand():
    # a = 10 / 100 * 1/4 = 1/40, z = 1/2 / (21/40) = 20/21; lr = 1, gradient 1, then 0: b = -5, then 39/40 of it and 1/40 of p.
    one, two = two_steps(fo.accsgd(1.0, kappa=100.0, xi=10.0, c=0.5), vector(1.0), vector(0.0))
    b = -1 / 40 * 200
    p = -20 / 21 + b / 21
    torch.testing.assert_close(one, vector(p))
    torch.testing.assert_close(two, vector((39 / 40 * b + p / 40 - p) / 21))


def test_adai_by_hand():
    # b1 = 1/2, b2 = 0: v = (1, 9) of mean 5, so b = (0.9, 0.1); then (0, 0): v = 0, b = 1 - eps.
    one, two = two_steps(fo.scale_by_adai(0.5, 0.0, eps=0.25), vector(1.0, 3.0), vector(0.0, 0.0))
    torch.testing.assert_close(one, vector(1.0, 3.0))  # (1 - b) g over 1 - b; b is 0.75 at most
    b = vector(0.75, 0.1)
    torch.testing.assert_close(two, 0.75 * (1 - b) * vector(1.0, 3.0) / (1 - 0.75 * b))


def test_adai_goes_on_where_a_square_overflows():
    tx, params = fo.scale_by_adai(), torch.zeros(3)
    _, state = tx.update(torch.tensor([1.0, 1e30, 1.0]), tx.init(params))
    direction, _ = tx.update(torch.tensor([1.0, 1.0, 1.0]), state)
    assert direction.isfinite().all() and direction[1] == 1  # an entry without a past


# --- leaf by leaf ---------------------------------------------------------------------------------------------------------------


def test_adanorm_stretches_what_is_shorter_than_of_late():
    # Norms 10, then 1; r = 1/2: e = 5, then 3. b1 = b2 = 0: u = s / |g|.
    adanorm = fo.scale_by_adanorm(0.0, 0.0, 0.0, r=0.5)
    one, two = two_steps(adanorm, vector(6.0, 8.0), vector(0.6, -0.8))
    torch.testing.assert_close((one, two), (vector(1.0, 1.0), vector(3.0, -3.0)))


def test_adanorm_stretches_a_tiny_gradient_beside_a_huge_mean():
    tx = fo.scale_by_adanorm(b1=0.0)
    _, state = tx.update(torch.tensor([1e25, 0.0]), tx.init(torch.zeros(2)))
    _, state = tx.update(torch.tensor([1e-35, 0.0]), state)
    torch.testing.assert_close(state.mu[0], state.e.float())


def test_tam_by_hand():
    # beta = gamma = 1/2. Nothing to agree with: half of the gradient. Then cos = 0.6, s = 0.3.
    one, two = two_steps(fo.scale_by_tam(0.5, 0.5, 0.0), vector(2.0, 0.0), vector(0.6, 0.8))
    torch.testing.assert_close(one, vector(1.0, 0.0))
    torch.testing.assert_close(two, 0.5 * one + 0.65 * vector(0.6, 0.8))


def test_tam_entry_by_entry_counts_the_first_gradient_twice():
    # Of a vector: b = g, s = (0.36, 0.64) / 2, b = g / 2 + (1 + s) / 2 g.
    one, _ = two_steps(fo.scale_by_tam(0.5, 0.5, 0.0, entrywise=True), vector(3.0, 4.0), vector(0.0, 0.0))
    torch.testing.assert_close(one, vector(3.0, 4.0) * (0.5 + (1 + vector(0.18, 0.32)) / 2))


def test_adamp_turns_what_would_only_make_weights_longer():
    tx, params = (
        fo.scale_by_adamp(0.0, 0.0, 0.0, delta=0.1, wd_ratio=0.5, weight_decay=1.0),
        {"w": vector(3.0, 4.0)[None], "b": vector(1.0)},
    )
    gradients = {"w": vector(4.0, -3.0)[None], "b": vector(2.0)}  # at a right angle
    direction, _ = tx.update(gradients, tx.init(params), params)
    n = params["w"] / 5
    u = vector(1.0, -1.0)[None]
    torch.testing.assert_close(direction["w"], u - n * (n * u).sum() + 0.5 * params["w"])
    torch.testing.assert_close(direction["b"], vector(2.0))  # a vector: Adam's 1, and the whole decay of 1
    along, _ = tx.update({**gradients, "w": params["w"]}, tx.init(params), params)
    torch.testing.assert_close(along["w"], 1 + params["w"])


def test_apollo_dqn_by_hand():
    # One entry, beta = 0: B is the slope of the gradient over the last direction, which is not its sign.
    one, two = two_steps(fo.scale_by_apollo_dqn(0.0, 1e-12, 0.1), vector(2.0), vector(-6.0))
    torch.testing.assert_close((one, two), (vector(20.0), vector(-6.0 / 0.4)))


def test_gravity_by_hand():
    # beta = 0.9: b = 1.9 / 3, then 2.8 / 4; z = g / (1 + (g * 2)^2) of a leaf with maximum 2.
    z = vector(2.0, 1.0) / (1 + vector(4.0, 2.0) ** 2)
    one, two = two_steps(fo.gravity(0.5, alpha=0.0), vector(2.0, 1.0), vector(2.0, 1.0))
    V = 1.1 / 3 * z
    torch.testing.assert_close((one, two), (-0.5 * V, -0.5 * (0.7 * V + 0.3 * z)))


def test_gravity_begins_with_steps_of_alpha_whatever_the_rate():
    params = torch.zeros(2000, dtype=torch.float64)
    for lr in (1e-5, 10.0):
        step, _ = fo.gravity(lr, alpha=0.5, key=1).update(params, fo.gravity(lr, alpha=0.5, key=1).init(params))
        assert abs(step.std() / (0.5 * 1.9 / 3) - 1) < 0.1


def test_nero_keeps_neurons_on_the_sphere():
    params = {"w": small_params()["w"], "b": small_params()["b"]}
    tx = fo.nero(0.1)
    state = tx.init(params)
    for step in range(3):
        updates, state = tx.update(gradients_at(step, params), state, params)
        params = fo.apply_updates(params, updates)
        torch.testing.assert_close(params["w"].norm(dim=1), torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(params["w"].mean(dim=1), torch.zeros(3, dtype=torch.float64))


def test_nero_by_hand():
    # Without constraints: 0.1 * (mean length 5) * g / |g| in the first step; then v = (25 / 2 + 100) / (3/2 / 2) ...
    params = vector(3.0, 4.0)[None]
    one, two = two_steps(fo.nero(0.1, 0.5, 1e-300, constraints=False), vector(0.0, 5.0)[None], vector(10.0, 0.0)[None], params)
    v = (0.5 * 0.5 * 25 + 0.5 * 100) / 0.75
    torch.testing.assert_close((one, two), (vector(0.0, -0.5)[None], vector(-0.5 * 10 / math.sqrt(v), 0.0)[None]))


# --- the whole tree -------------------------------------------------------------------------------------------------------------


def test_adgd_takes_the_inverse_of_the_curvature_along_its_way():
    # Half of 4 x^2: the gradient changes by 4 for each unit of x, so the second step goes to the minimum.
    tx, x = fo.adgd(0.01, amplifier=0.0, eps=0.0), vector(2.0)
    step, state = tx.update(4 * x, tx.init(x), x)
    torch.testing.assert_close(step, -0.01 * 4 * x)
    x = x + step
    tx = fo.adgd(0.01, amplifier=1e6, eps=0.0)
    step, state = tx.update(4 * x, state, x)
    torch.testing.assert_close(x + step, vector(0.0))
    assert fo.read_signals(state)["lr"].item() == pytest.approx(0.25)


def test_adgd_compares_norms_apart_where_it_is_told_to():
    # The params turn: they move, and their norm stays. The class sees no move, and lets the rate grow.
    for norms, bounded in (("of differences", True), ("apart", False)):
        tx, p = fo.adgd(1.0, amplifier=1.0, eps=0.0, norms=norms), vector(1.0, 0.0)
        _, state = tx.update(vector(1.0, 0.0), tx.init(p), p)
        _, state = tx.update(vector(0.0, 100.0), state, vector(0.0, 1.0))
        assert (fo.read_signals(state)["lr"] < 1) == bounded


def test_ranger_walks_uphill_only_when_asked():
    g = vector(2.0, -1.0)
    for uphill, sign in ((False, -1.0), (True, 1.0)):
        tx = fo.ranger(0.1, uphill=uphill, sync_period=10)
        state = tx.init(g)
        for step in range(8):
            update, state = tx.update(g, state, torch.zeros_like(g))
            assert bool((update * g * (sign if step < 5 else -1.0) > 0).all())  # five steps with b2 = 0.999


def test_ranger21_rates_rise_and_fall():
    tx, params = fo.ranger21(1.0, 100, b2=0.75, min_lr=0.1), vector(1.0, 2.0)
    state, seen = tx.init(params), []
    for _ in range(101):
        _, state = tx.update(params, state, params)
        seen.append(fo.read_signals(state)["lr"].item())
    assert seen[:8] == pytest.approx([(t + 1) / 8 for t in range(8)])  # 2 / (1 - 0.75)
    assert set(seen[8:71]) == {1.0}
    assert seen[71] == pytest.approx(1 - 0.9 / 29) and seen[99] == pytest.approx(0.1) and seen[100] == pytest.approx(0.1)


def test_ranger21_leaves_a_small_rate_where_it_is():
    tx, params = fo.ranger21(1e-6, 10), vector(1.0, 2.0)
    state = tx.init(params)
    for _ in range(12):
        _, state = tx.update(params, state, params)
    assert fo.read_signals(state)["lr"].item() == pytest.approx(1e-6)


def test_ranger21_by_hand():
    # Two entries (no standard deviation), no decay, softplus(y) is y: u is g / |g| times (1 + b0) (1 - b1^2) / (1 - b1) / noise.
    params = vector(100.0, 100.0)
    tx = fo.ranger21(0.1, weight_decay=0.0, norm_loss=0.0, eps=1e-12, clipping=1e9)
    one, two = two_steps(tx, vector(1.0, -2.0), vector(1.0, -2.0), params)
    noise = math.sqrt(1.9**2 + 0.9**2)
    first = 1.9 * 0.19 / 0.1 / noise
    second = (1.9 * 0.19 - 0.9 * 0.19) / 0.19 / noise
    torch.testing.assert_close(one, 0.1 * first * vector(-1.0, 1.0), rtol=1e-6, atol=0)
    torch.testing.assert_close(two, 0.1 * second * vector(-1.0, 1.0), rtol=1e-6, atol=0)


# --- matrices -------------------------------------------------------------------------------------------------------------------


def test_splus_whitens_in_the_directions_it_has_found():
    g = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    tx = fo.scale_by_splus(b1=0.0)
    one, two = two_steps(tx, g, g)
    torch.testing.assert_close(one, g.sign() / 2)
    torch.testing.assert_close(two, torch.eye(2, dtype=torch.float64) / 2)  # the signs of positive eigenvalues
    torch.testing.assert_close(tx.update(vector(2.0), tx.init(vector(0.0)))[0], vector(1e-3))


def test_splus_decays_where_the_step_leads_and_averages():
    params = torch.ones(2, 2, dtype=torch.float64)
    tx = fo.splus(0.5, weight_decay=0.1, ema=0.5)
    update, state = tx.update(params, tx.init(params), params)
    torch.testing.assert_close(update, (params - 0.25) * (1 - 0.25 * 0.1) - params)
    torch.testing.assert_close(fo.averaged_params(state, params), params + update)


@pytest.mark.parametrize(
    "make", [lambda: fo.scale_by_splus(every=3), lambda: fo.scale_by_fira(1, every=3), lambda: fo.scale_by_apollo(1, every=3, key=0)]
)
def test_what_is_dear_is_found_in_some_steps_only(make):
    params, tx = {"w": small_params()["w"]}, make()
    state, changed = tx.init(params), []
    for step in range(6):
        before = state
        _, state = tx.update(gradients_at(step, params), state, params)
        kept = "Q_L" if hasattr(state, "Q_L") else "P"
        changed.append(getattr(before, kept) is not getattr(state, kept))
        assert tx.plan(before) == changed[-1]
    assert changed == [True, False, True, False, False, True]


def test_fira_is_adam_where_it_sees_everything_and_galore_without_the_rest():
    # A matrix of rank one is seen whole from one direction: Adam of G, and nothing is left.
    g = torch.outer(vector(0.6, -0.8, 2.0), vector(1.0, 0.0))
    for residual in (True, False):
        tx = fo.scale_by_fira(1, 0.0, 0.0, 0.0, residual=residual)
        expected = torch.outer(vector(1.0, -1.0, 1.0), vector(1.0, 0.0))
        torch.testing.assert_close(tx.update(g, tx.init(g))[0], expected, rtol=0, atol=1e-7)


def test_fira_adds_what_it_does_not_see_in_proportion():
    # G = (4, 0) as rows; N = (1, 0). The second row is unseen: its |N| / |G| is 0 / 0, the first row has no rest.
    g = torch.tensor([[4.0, 0.0], [0.0, 0.5]], dtype=torch.float64) + torch.tensor([[0.0, 0.0], [0.3, 0.0]], dtype=torch.float64)
    tx = fo.scale_by_fira(1, 0.0, 0.0, 0.0)
    u, state = tx.update(g, tx.init(g))
    P = state.P
    G = g @ P
    torch.testing.assert_close(u, G.sign() @ P.mT + (g - G @ P.mT) / G.abs())


def test_a_rest_grows_by_one_percent_at_most():
    g = torch.eye(2, dtype=torch.float64)
    tx = fo.scale_by_apollo(1, 0.0, 0.0, by="leaf", key=0)
    _, state = tx.update(g, tx.init(g))
    direction, grown = tx.update(100 * g, state)
    assert grown.size.item() <= 1.0101 * state.size.item()
    torch.testing.assert_close(direction.norm(), grown.size.to(direction.dtype))


def test_apollo_gives_rows_the_length_of_adams_steps():
    g = (
        torch.randn(40, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        * torch.linspace(0.1, 10, 40, dtype=torch.float64)[:, None]
    )
    tx = fo.scale_by_apollo(16, key=0)
    direction, _ = tx.update(g, tx.init(g))
    length = direction.norm(dim=1)  # Adam's would be sqrt(20); seen from 16 directions of variance 1 / 16, about the same
    assert ((length > 2.5) & (length < 8)).all()
    torch.testing.assert_close(direction / length[:, None], g / g.norm(dim=1, keepdim=True))


# --- errors ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fo.qhadam(0.1, nu1=1.5), r"scale_by_qhadam: nu1 must be in \[0, 1\], got 1.5"),
        (lambda: fo.aggmo(0.1, betas=()), "scale_by_aggmo: betas must hold at least one number"),
        (lambda: fo.aggmo(0.1, betas=(0.9, 1.0)), r"scale_by_aggmo: betas\[1\] must be in \[0, 1\), got 1.0"),
        (lambda: fo.adai(0.1, eps=0.0), "scale_by_adai: eps must be > 0, got 0.0"),
        (lambda: fo.accsgd(0.1, kappa=1.0), "scale_by_accsgd: kappa must be > xi c"),
        (lambda: fo.adgd(0.1, norms="both"), "scale_by_adgd: norms must be one of 'of differences', 'apart', got 'both'"),
        (lambda: fo.ranger21(0.1, 1), "ranger21: num_iterations must be >= 2, got 1"),
        (lambda: fo.splus(0.1, every=0), "scale_by_splus: every must be >= 1, got 0"),
        (lambda: fo.fira(0.1, rank=0), "scale_by_fira: rank must be >= 1, got 0"),
        (lambda: fo.apollo(0.1, by="row"), "scale_by_apollo: by must be one of 'channel', 'leaf', got 'row'"),
        (lambda: fo.nero(0.1, eps=0.0), "scale_by_nero: eps must be > 0, got 0.0"),
        (lambda: fo.adamp(0.1).update(torch.ones(1), fo.adamp(0.1).init(torch.ones(1))), "scale_by_adamp: needs the params"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
