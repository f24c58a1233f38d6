"""find_rate: the walk by hand, what it must survive, its laws, its words."""

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

import funcopt as fo
from funcopt.controllers.rate import walk as walks

F64 = torch.float64
DEFAULT = walks.Settings(0.3, 1.0, 8.0, 10, 24.0, True, math.log(1e-4), math.log(1e12), 0.8, 2.0)


NOT_STEEP = torch.zeros((), dtype=torch.bool)


def by_hand(cosines, slow=0.3, fast=1.0, evidence=8.0, patience=10, reopen=24.0, stretch=0.8, hurry=2.0, margins=None):
    """The recurrence of the method's description in Python numbers: ln s and held after each cosine.

    margins: a list for how near each number came to a threshold, where rounding decides.
    """
    log = back = N = P = M = S = D = mean = square = 0.0
    f, q, held, wary, history = 1.0, 1.0, False, False, []
    for t, c in enumerate(cosines, 1):
        f = 0.7 * f + 0.3 * c
        mean, square = 0.9 * mean + 0.1 * c, 0.9 * square + 0.1 * c * c
        m, r = mean / (1 - 0.9**t), math.sqrt(square / (1 - 0.9**t))
        M = max(M, m) if t >= 5 else M
        unit = max(r, 0.05 * M, 1e-300)
        hurried = 1 + hurry * max(0.0, 1 - 2 * q) * min(1.0, P / 8)
        P = max(0.0, P + c / unit)
        if held:
            back = log
            if margins is not None:
                margins += [abs(P - reopen), abs(q - 0.5)]
            if P > reopen and q < 0.5:
                held, N, P = False, 0.0, 0.0
        else:
            N = max(0.0, N - c / unit)
            back = log if N == 0 else back
            log += (fast if f > 0.5 and c > 0.5 and not wary else slow * (1 - 0.7 * q * wary) * hurried) * c
            P = 0.0 if N > 2 else P
            if t > 1:
                S, D = S + c * c, D + (abs(c) - abs(cosines[t - 2])) ** 2 / 2
            q = max(0.0, 1 - D / max(S * (1 - 2 / math.pi), 1e-300))
            if margins is not None:
                margins += [abs(q * N - 2), abs(N - 2), abs(N - evidence), abs(f - 0.5), abs(c - 0.5), abs(P - reopen)]
            wary = wary or q * N > 2
            if N > evidence and t >= patience:
                held, wary, log, P = True, wary or q > 0.5, back + math.log(1 + stretch * q), 0.0
        history.append((log, held))
    return history


def walked(cosines, settings=DEFAULT):
    walk, history = walks.first(torch.zeros((), dtype=F64)), []
    for c in cosines:
        walk = walks.step(walk, torch.tensor(c, dtype=F64), NOT_STEEP, settings)
        history.append((float(walk.log), bool(walk.held)))
    return history


@given(st.lists(st.floats(-1, 1), max_size=60), st.floats(-0.5, 0.5))
@settings(max_examples=60, deadline=None)
def test_the_walk_is_the_recurrence(noise, drift):
    cosines, margins = [max(-1.0, min(1.0, 0.3 * c + drift)) for c in noise], []
    steps = by_hand(cosines, margins=margins)
    assume(min(margins, default=1.0) > 1e-9)  # three equal cosines give an N of 2, or the number beside it
    for (log, held), (expected, expected_held) in zip(walked(cosines), steps, strict=True):
        assert log == pytest.approx(expected, abs=1e-9) and held == expected_held


def test_it_holds_at_the_change_point():
    history = walked([0.6] * 20 + [-0.1] * 40, DEFAULT._replace(stretch=0.0))
    first_held = next(i for i, (_, held) in enumerate(history) if held)
    assert first_held > 20
    assert history[first_held][0] == pytest.approx(history[18][0])  # the rate of the last step not seen to be too long


def test_what_noise_held_opens_again_and_what_sure_cosines_held_does_not():
    noise = (0.3 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=F64)).clamp(-1, 1).tolist() + [-0.3] * 12
    opened = walked(noise + [0.2] * 60)
    assert opened[len(noise) - 1][1] and not opened[-1][1] and opened[-1][0] > opened[len(noise) - 1][0]
    sure = [0.6] * 20 + [-0.1] * 40
    kept = walked(sure + [0.1] * 300)
    assert kept[len(sure) - 1][1] and kept[-1] == kept[len(sure) - 1]


@pytest.mark.parametrize(
    "start, loss", [((-1.0, 1.0), lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2), ((1.0, 1.0), lambda p: (p**4).sum())]
)
def test_a_run_without_noise_that_has_arrived_stays(start, loss):
    tx, params, gradient = (
        fo.rate_free(weight_decay=1e-4),
        torch.tensor(start),
        torch.func.grad(loss),
    )  # decay moves the minimum
    state = tx.init(params)
    for _ in range(700):  # the search opened again, and the loss was 280 at step 300, or 1e17
        updates, state = tx.update(gradient(params), state, params)
        params = fo.apply_updates(params, updates)
    assert loss(params) < 0.2 and loss(fo.averaged_params(state, params)) < 0.2


def test_a_search_that_was_too_long_once_is_not_hurried_again_where_cosines_are_sure():
    strides = [after - before for (before, _), (after, _) in itertools.pairwise(walked([0.8] * 10 + [-0.8] * 4 + [0.8] * 12))]
    assert strides[8] == pytest.approx(0.8) and 0.3 * 0.3 * 0.8 <= strides[-1] < 0.3 * 0.8


def test_a_gradient_longer_than_any_before_is_not_hurried_towards():
    def stride(steep):
        walk = walks.first(torch.zeros((), dtype=F64))
        for _ in range(3):
            before, walk = walk, walks.step(walk, torch.tensor(0.8, dtype=F64), torch.tensor(steep), DEFAULT)
        return float(walk.log - before.log)

    assert stride(False) == pytest.approx(0.8) and stride(True) == pytest.approx(0.3 * 0.8)


def test_what_was_found_is_stretched_where_cosines_are_no_noise_and_kept_where_they_are():
    def factor(cosines):
        one, other = walked(cosines, DEFAULT._replace(stretch=0.0)), walked(cosines)
        assert one[-1][1] and other[-1][1]
        return math.exp(other[-1][0] - one[-1][0])

    assert 1.7 < factor([0.4] * 100 + [-0.1] * 20) <= 1.8
    noise = (0.3 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=F64)).clamp(-1, 1).tolist()
    assert factor(noise + [-0.3] * 12) < 1.15


@pytest.mark.parametrize("alignment, power, noise, share", [
    (0.3, 1.0, 0.0, 1.0),  # downhill, sure
    (-0.1, 1.0, 0.0, 0.5),  # turned round a little
    (-0.4, 1.0, 0.0, 0.0),  # turned round
    (0.0, 1.0, 1.0, 0.5),  # all noise
    (0.0, 1.0, 0.75 * (1 - 2 / math.pi), 0.75),  # q = 1/4
    (-0.1, 1.0, 1.0, 0.25),
])  # fmt: skip
def test_weights_decay_less_where_steps_turn_round_and_where_cosines_are_noise(alignment, power, noise, share):
    state = fo.find_rate().init(torch.zeros(2, dtype=F64))
    given = {"alignment": alignment, "power": power, "noise": noise}
    state = state._replace(walk=state.walk._replace(**{name: torch.tensor(value, dtype=F64) for name, value in given.items()}))
    assert float(state.signals()["decay_share"]) == pytest.approx(share)
    assert float(state.signals()["sureness"]) == pytest.approx(max(0.0, 1 - noise / (1 - 2 / math.pi)))


@pytest.mark.parametrize("alignment, share", [(0.5, 1.0), (-0.2, 1.0), (-0.3, 8**-0.5), (-0.4, 1 / 8), (-1.0, 1 / 8)])
def test_the_average_reaches_back_less_where_every_step_turns_the_gradient_round(alignment, share):
    state = fo.find_rate().init(torch.zeros(2, dtype=F64))
    state = state._replace(walk=state.walk._replace(alignment=torch.tensor(alignment, dtype=F64)))
    assert float(state.signals()["average_share"]) == pytest.approx(share)


def test_the_default_direction_has_settings_of_its_own_which_may_be_given():
    params, g = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([0.3, 1.0], dtype=F64)
    own = fo.average_params(
        fo.chain(fo.find_rate(hurry=3.0, stretch=1.2), fo.clip_by_mean_norm(), fo.nadamw(1e-6, b2=0.995, b2_sure=0.9, weight_decay=0.2))
    )
    given = fo.average_params(fo.chain(fo.find_rate(hurry=0.0, stretch=0.8), fo.nadamw(1e-6, b2=0.99, weight_decay=0.0)))
    pairs = [
        (fo.rate_free(), own),
        (fo.rate_free(fo.nadamw), own),
        (fo.rate_free(b2=0.99, weight_decay=0.0, find={"hurry": 0.0, "stretch": 0.8}), given),
    ]
    pairs.append((fo.rate_free(fo.adamw), fo.average_params(fo.chain(fo.find_rate(hurry=3.0), fo.adamw(1e-6)))))
    for one, other in pairs:
        for mine, theirs in zip(path_of(one, params, g), path_of(other, params, g), strict=True):
            assert torch.equal(mine, theirs)


def path_of(tx, params, g, steps=30):
    """Params after every step, along gradients of one direction that grow shorter."""
    state, path = tx.init(params), []
    for t in range(steps):
        updates, state = tx.update(g / (1 + t) + 0.1 * params, state, params)
        params = fo.apply_updates(params, updates)
        path.append(params)
    return path


def descend(tx, params, gradient, steps, **extra):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradient(params), state, params, **extra)
        params = fo.apply_updates(params, updates)
    return params, state, fo.read_signals(state)


@pytest.mark.parametrize("power", range(-5, 6))
def test_the_rate_of_a_quadratic_is_found_within_a_factor_of_two(power):
    """Curvature h over ten decades; the gradient after a step of rate r is (1 - r h) g, which turns at r = 1 / h."""
    h = 10.0**power
    _, _, words = descend(fo.chain(fo.find_rate(), fo.sgd(1e-7)), torch.tensor([1.0, -2.0, 0.3], dtype=F64), lambda p: h * p, 120)
    assert 0.5 / h < words["lr"] < 2.0 / h


def test_the_first_steps_by_hand():
    # Gradient 1 everywhere: the step of 1 goes on downhill, c = 1, so that the multiplier becomes e, then e^2.
    tx = fo.chain(fo.find_rate(), fo.sgd(1.0))
    params = torch.zeros(1, dtype=F64)
    state, sizes = tx.init(params), []
    for _ in range(3):
        updates, state = tx.update(torch.ones(1, dtype=F64), state, params)
        params = params + updates
        sizes.append(-float(updates))
    assert sizes == pytest.approx([1.0, math.e, math.e**2])


def problem(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -1, n, dtype=F64)
    noise = 0.1 * torch.randn(80, n, generator=generator, dtype=F64)
    start = torch.randn(n, generator=generator, dtype=F64)
    return scales, noise, start


def run(tx, start, gradient, steps=60):
    params, state, path = start, tx.init(start), []
    for t in range(steps):
        updates, state = tx.update(gradient(params, t), state, params)
        params = fo.apply_updates(params, updates)
        path.append(float(fo.read_signals(state)["rate_multiplier"]))
    return params, path


@given(seed=st.integers(0, 100), scale=st.sampled_from([1e-6, 1e-2, 1e3, 1e8]))
@settings(max_examples=10, deadline=None)
def test_the_scale_of_the_loss_does_not_matter(seed, scale):
    scales, noise, start = problem(seed)
    tx = fo.chain(fo.find_rate(), fo.scale_by_adam(eps=0.0), fo.lr_scale(1e-6))
    _, one = run(tx, start, lambda p, t: scales * p + noise[t])
    _, other = run(tx, start, lambda p, t: scale * (scales * p + noise[t]))
    assert other == pytest.approx(one, rel=1e-6)


@given(seed=st.integers(0, 100), scale=st.sampled_from([1e-3, 10.0, 1e4]))
@settings(max_examples=10, deadline=None)
def test_params_and_rate_may_be_measured_in_another_unit(seed, scale):
    scales, noise, start = problem(seed)

    def tx(rate):
        return fo.chain(fo.find_rate(), fo.scale_by_adam(eps=0.0), fo.lr_scale(rate))

    params, one = run(tx(1e-6), start, lambda p, t: scales * p + noise[t])
    scaled, other = run(tx(scale * 1e-6), scale * start, lambda p, t: (scales * p / scale + noise[t]) / scale)
    assert other == pytest.approx(one, rel=1e-6)
    torch.testing.assert_close(scaled, scale * params, rtol=1e-6, atol=1e-11 * scale)  # a mean of params near 0 has its last digits alone


@given(seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_the_order_of_entries_does_not_matter(seed):
    scales, noise, start = problem(seed)
    order = torch.randperm(len(start), generator=torch.Generator().manual_seed(seed))
    tx = fo.rate_free(fo.adamw)
    params, one = run(tx, start, lambda p, t: scales * p + noise[t])
    shuffled, other = run(tx, start[order], lambda p, t: scales[order] * p + noise[t][order])
    assert other == pytest.approx(one, rel=1e-6)
    torch.testing.assert_close(shuffled, params[order], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "gradient", [torch.zeros(2), torch.tensor([float("nan"), 1.0]), torch.tensor([float("inf"), 1.0])], ids=["zero", "nan", "inf"]
)
def test_a_gradient_that_says_nothing_leaves_the_multiplier_where_it_is(gradient):
    tx = fo.chain(fo.find_rate(), fo.scale(-1e-3), fo.scale_by_signal("rate_multiplier"))
    params, state, before = descend(tx, torch.tensor([1.0, -2.0]), lambda p: p, 5)
    _, after = tx.update(gradient, state, params)
    assert torch.equal(before["rate_multiplier"], fo.read_signals(after)["rate_multiplier"])
    assert torch.equal(state[0].walk.seen, after[0].walk.seen)


def test_params_that_do_not_move_leave_it_where_it_is():
    tx = fo.chain(fo.find_rate(), fo.set_to_zero(), fo.lr_scale(1e-3))
    _, _, words = descend(tx, torch.ones(3), lambda p: p, 40)
    assert words["rate_multiplier"] == 1.0 and not words["held"]


def test_a_zero_gradient_at_first_and_decay_alone_do_no_harm():
    tx = fo.chain(fo.find_rate(), fo.adamw(1e-6, weight_decay=0.1))
    params, state = torch.tensor([1.0, -2.0]), None
    state = tx.init(params)
    for step in range(60):
        updates, state = tx.update(torch.zeros(2) if step < 10 else params, state, params)
        params = fo.apply_updates(params, updates)
        if step == 9:
            assert fo.read_signals(state)["rate_multiplier"] == 1.0
    assert fo.read_signals(state)["rate_multiplier"] > 100


def test_a_skipped_step_is_as_if_it_had_not_been():
    start = torch.tensor([1.0, -2.0], dtype=F64)
    tx = fo.apply_if_finite(fo.rate_free(fo.adamw), 5)
    params, state = start, tx.init(start)
    straight, plain = start, tx.init(start)
    for step in range(40):
        if step % 3 == 1:
            updates, state = tx.update(torch.full((2,), float("nan"), dtype=F64), state, params)
            params = fo.apply_updates(params, updates)
        updates, state = tx.update(params, state, params)
        params = fo.apply_updates(params, updates)
        updates, plain = tx.update(straight, plain, straight)
        straight = fo.apply_updates(straight, updates)
    torch.testing.assert_close(params, straight, rtol=1e-12, atol=0.0)


def test_clipping_and_noise_to_its_left_do_no_harm():
    tx = fo.chain(fo.clip_by_global_norm(1.0), fo.add_noise(1e-3, 0.55, key=0), fo.find_rate(), fo.adam(1e-6))
    params, _, words = descend(tx, torch.tensor([10.0, -20.0], dtype=F64), lambda p: p, 300)
    assert params.abs().max() < 1.0 and words["rate_multiplier"] > 1e3


MEMBER = {"sgd": fo.Member(fo.identity(), start=1e-3)}


@pytest.mark.parametrize(
    "make, name",
    [(lambda: fo.chain(fo.find_rate(), fo.sgd(1e-3)), ""), (lambda: fo.chain(fo.roulette(MEMBER, seed=3), fo.lr_scale()), "sgd/")],
    ids=["a link", "a member of a pool"],
)
def test_a_loss_that_is_not_finite_goes_back_to_half_of_what_was_proven(make, name):
    tx = make()
    params = torch.zeros(1, dtype=F64)
    state, said = tx.init(params), []
    for loss in (1.0, 1.0, 1.0, float("nan"), 1.0):
        updates, state = tx.update(torch.ones(1, dtype=F64), state, params, loss=torch.tensor(loss))
        params = params + updates
        said.append(float(fo.read_signals(state)[f"{name}rate_multiplier"]))
    # Steps of 1, e, e^2; the loss after e^2 is NaN and that after e was finite: e / 2, and on from there.
    assert said == pytest.approx([1.0, math.e, math.e**2, math.e / 2, math.e**2 / 2])
    assert fo.read_signals(state)[f"{name}setbacks"] == 1


def test_what_diverges_while_held_is_shortened():
    tx = fo.chain(fo.find_rate(), fo.sgd(1e-7))
    curvature = torch.tensor([1.0, 0.3, 0.1], dtype=F64)
    params, _, words = descend(tx, torch.tensor([1.0, -2.0, 0.3], dtype=F64), lambda p: curvature * p, 400)
    assert params.abs().max() < 1e-6


def test_keep_goes_on_with_a_share_and_a_cosine_ends_at_nothing():
    def cosines(link):
        state = link.init(torch.zeros(2, dtype=F64))
        said, params = [], torch.zeros(2, dtype=F64)
        for step in range(60):
            c = 0.6 if step < 20 else -0.2
            moved = torch.tensor([1.0, 0.0], dtype=F64)
            gradient = torch.tensor([-c, math.sqrt(1 - c * c)], dtype=F64)
            state = state._replace(behind=params)
            params = params + moved
            _, state = link.update(gradient, state, params)
            said.append(float(state.rate_multiplier))
        return said

    whole, half = cosines(fo.find_rate()), cosines(fo.find_rate(keep=0.5))
    assert whole[:20] == half[:20] and half[-1] == pytest.approx(0.5 * whole[-1])
    sinking = cosines(fo.find_rate(after="cosine", horizon=59))
    assert sinking[-1] == pytest.approx(0.0, abs=1e-9) and 0 < sinking[45] < whole[45]
    walking = cosines(fo.find_rate(after="walk"))
    assert walking[-1] < whole[-1]


def test_two_multipliers_are_both_heard():
    tx = fo.chain(fo.find_rate(), fo.ucb_episodes((0.5,), episode_length=2), fo.sgd(0.1))
    _, _, words = descend(tx, torch.tensor([1.0]), lambda p: p, 1, loss=torch.tensor(1.0))
    assert words["lr"] == pytest.approx(0.05)


def test_where_the_params_have_been_lags_behind_where_cosines_are_noise_and_is_the_last_step_where_they_are_sure():
    start, tx = torch.zeros(1, dtype=F64), fo.find_rate(lag=5)
    state = tx.init(start)
    unsure = state._replace(walk=state.walk._replace(power=torch.ones((), dtype=F64), noise=torch.ones((), dtype=F64)))
    for before, expected in ((state, 1.0), (unsure, 0.2)):  # no gradient: the walk stays
        _, after = tx.update(torch.zeros(1, dtype=F64), before, start + 1.0)
        assert float(after.behind) == pytest.approx(expected)


def test_params_that_are_put_back_after_a_nan_are_searched_for_again():
    tx = fo.chain(fo.find_rate(), fo.sgd(1e-6))
    params, state, _ = descend(tx, torch.tensor([1.0, -2.0]), lambda p: p, 5)
    _, state = tx.update(params, state, params * float("nan"))
    before = int(state[0].walk.seen)
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        params = fo.apply_updates(params, updates)
    assert int(state[0].walk.seen) > before


def test_every_leaf_finds_its_own_where_each_is_a_group():
    params = {"steep": torch.ones(2, dtype=F64), "flat": torch.ones(2, dtype=F64)}
    tx = fo.partition({path: fo.chain(fo.find_rate(), fo.sgd(1e-7)) for path in params}, by="path")
    _, _, words = descend(tx, params, lambda p: {"steep": 100.0 * p["steep"], "flat": 0.01 * p["flat"]}, 100)
    assert 0.005 < words["steep/lr"] < 0.02 and 50 < words["flat/lr"] < 200


@pytest.mark.parametrize("form", ["eager", "traced", "mapped"])
def test_without_a_rate_every_leaf_finds_that_of_its_curvature(form):
    # The rate of the greedy step is 1 / h: 1 for the flat leaf, 1e-4 for the steep one; one rate for both would be near the steep one's.
    curvatures = {"flat": 1.0, "layer.steep": 1e4}
    tx = fo.rate_free(fo.sgd, per_leaf=True)
    params = {path: torch.tensor([1.0, -2.0], dtype=F64) for path in curvatures}
    state, update = tx.init(params), tx.update
    if form == "traced":
        update = torch.compile(tx.update, backend="eager", fullgraph=True)
    if form == "mapped":
        params, state = (fo.tree.map_plain(lambda x: torch.stack([x, x]), value) for value in (params, state))
        update = torch.vmap(tx.update)
    for _ in range(40):
        updates, state = update({path: h * params[path] for path, h in curvatures.items()}, state, params)
        params = fo.apply_updates(params, updates)
    words = fo.read_signals(state)
    for path, h in curvatures.items():
        assert bool(((0.5 / h < words[f"{path}/lr"]) & (words[f"{path}/lr"] < 2 / h)).all())
    if form != "mapped":
        average = fo.averaged_params(state, params)
        assert all(average[path].abs().max() < 0.1 for path in curvatures)


def test_every_label_of_a_partition_finds_its_own():
    labels = {"a": "steep", "b": "flat"}
    params = {"a": torch.ones(2, dtype=F64), "b": torch.ones(2, dtype=F64)}
    tx = fo.partition({label: fo.chain(fo.find_rate(), fo.sgd(1e-7)) for label in ("steep", "flat")}, labels)
    _, _, words = descend(tx, params, lambda p: {"a": 100.0 * p["a"], "b": 0.01 * p["b"]}, 100)
    assert 0.005 < words["steep/lr"] < 0.02 and 50 < words["flat/lr"] < 200


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"slow": 0.0}, ValueError, "find_rate: slow must be > 0, got 0.0"),
        ({"evidence": -1.0}, ValueError, "find_rate: evidence must be > 0"),
        ({"keep": 1.5}, ValueError, r"find_rate: keep must be in \[0, 1\], got 1.5"),
        ({"patience": 0}, ValueError, "find_rate: patience must be >= 1, got 0"),
        ({"after": "linear"}, ValueError, "find_rate: after must be one of 'hold', 'walk', 'cosine', got 'linear'"),
        ({"after": "cosine"}, ValueError, "find_rate: after='cosine' needs horizon=, the number of steps of the run"),
        ({"horizon": 10}, ValueError, "find_rate: horizon is for after='cosine' alone"),
        ({"lag": 0}, ValueError, "find_rate: lag must be >= 1, got 0"),
        ({"stretch": -0.1}, ValueError, "find_rate: stretch must be >= 0, got -0.1"),
        ({"bounds": (2.0, 3.0)}, ValueError, r"find_rate: bounds must enclose 1, where the search begins, got \(2.0, 3.0\)"),
        ({"bounds": 3.0}, TypeError, "find_rate: bounds must be a pair of multipliers"),
    ],
)
def test_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        fo.find_rate(**arguments)


def test_a_multiplier_that_nobody_hears_is_refused_at_init():
    with pytest.raises(ValueError, match="find_rate: says 'rate_multiplier' and nobody to its right hears it"):
        fo.chain(fo.find_rate(), fo.scale(-0.1)).init(torch.zeros(2))


def test_the_optimizer_without_a_rate_says_what_it_cannot_take():
    with pytest.raises(
        TypeError, match="rate_free: factory must be a function that makes an optimizer from a rate, such as fo.adamw, not yet called"
    ):
        fo.rate_free(fo.adamw(0.1))
    with pytest.raises(TypeError, match="rate_free: factory must take its rate as lr, which clip does not"):
        fo.rate_free(fo.clip)
    with pytest.raises(TypeError, match="rate_free: takes no lr, since it finds its own; start="):
        fo.rate_free(lr=0.1)
    with pytest.raises(TypeError, match="rate_free: per_leaf must be True or False, got 'yes'"):
        fo.rate_free(per_leaf="yes")
    with pytest.raises(ValueError, match="rate_free: start must be > 0"):
        fo.rate_free(start=0.0)


def signs(**declared):
    change = lambda updates, state, params=None, **extra: (fo.tree.map(torch.sign, updates), state)  # noqa: E731
    return fo.GradientTransformation(lambda params: fo.EmptyState(), change, name="signs", turns=False, **declared)


def test_what_has_one_length_or_a_rate_of_its_own_is_told_by_what_it_declares_whatever_its_name():
    for factory in (fo.lion, partial(fo.lion), fo.signum, fo.sign_sgd, lambda lr: fo.chain(signs(one_length=True), fo.lr_scale(lr))):
        with pytest.raises(ValueError, match=r"rate_free: \w+ takes steps of one length"):
            fo.rate_free(factory)
    fo.rate_free(fo.lion, mode="smooth")
    for factory in (fo.prodigy, fo.dog, fo.dadapt_adamw, fo.momo, fo.rprop, lambda lr: fo.mechanize(fo.adamw(lr))):
        with pytest.raises(ValueError, match=r"rate_free: .* finds its own rate; use it as it is"):
            fo.rate_free(factory)
    with pytest.raises(ValueError, match="find_rate: apply_if_finite chain takes steps of one length"):
        fo.chain(fo.clip(1.0), fo.find_rate(), fo.apply_if_finite(fo.lion(1e-6), 1))
    with pytest.raises(ValueError, match="find_rate: scale_by_prodigy finds its own rate"):
        fo.chain(fo.chain(fo.find_rate(), fo.clip(1.0)), fo.prodigy())


def test_signs_that_nobody_declared_are_noticed_by_whoever_takes_steps():
    tx = fo.rate_free(lambda lr: fo.chain(signs(), fo.lr_scale(lr)))
    with pytest.raises(ValueError, match="a rate is looked for, and its steps have one length"):
        fo.make_step(lambda p: (p["w"] ** 2).sum(), tx).init({"w": torch.ones(3)})


def test_a_loss_that_float32_does_not_hold_is_finite_all_the_same():
    tx, params = fo.chain(fo.find_rate(), fo.sgd(1.0)), torch.ones(2)
    state = tx.init(params)
    for loss in (1.0, 1e39):
        _, state = tx.update(params, state, params, loss=loss)
    assert fo.find(state, fo.FindRateState).setbacks == 0
