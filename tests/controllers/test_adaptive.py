"""adaptive: what a run of losses does to the hyperparameters, the laws of the controller, and around what it may stand.

The worked examples are replayed in tests/parity/test_adaptive.py.
"""

from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from funcopt.rules import absolute, cosine, cosine_restart, inverse, normalized, relative, scaling, stable, trend, variance

PARAMS = {"w": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), "b": torch.tensor(0.3, dtype=torch.float64)}
GRADS = {"w": torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64), "b": torch.tensor(-0.1, dtype=torch.float64)}


def steps(tx, losses, rewards=None, state=None, params=PARAMS):
    """Runs one update for each loss, on constant gradients; returns params, state and the hyperparameters used."""
    state = tx.init(params) if state is None else state
    used = []
    for index, loss in enumerate(losses):
        extra = {} if rewards is None else {"reward": rewards[index]}
        updates, state = tx.update(GRADS, state, params, loss=loss, **extra)
        params = fo.apply_updates(params, updates)
        used.append(dict(state.hyperparams))
    return params, state, used


def assert_same(left, right, rtol=0.0, atol=0.0):
    assert fo.tree.paths(left) == fo.tree.paths(right)
    for path, x, y in zip(fo.tree.paths(left), fo.tree.leaves(left), fo.tree.leaves(right), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text, path=path: f"{path}: {text}")


def everything(**settings):
    """Rules of every kind on SGD with momentum and decay."""
    return fo.adaptive(
        fo.sgd,
        lr=trend(0.1) * variance() * cosine_restart(length=4),
        momentum=relative(0.9) * normalized() * inverse(),
        weight_decay=trend(0.01),
        reward=trend() * scaling() * variance(),
        **settings,
    )


# --- what it does ---------------------------------------------------------------------------------------------------------------


def test_without_rules_it_is_the_optimizer_itself():
    plain = fo.adamw(1e-3, weight_decay=0.01)
    params, state = PARAMS, plain.init(PARAMS)
    for _ in range(5):
        updates, state = plain.update(GRADS, state, params)
        params = fo.apply_updates(params, updates)
    for tx in (
        fo.adaptive(partial(fo.adamw, lr=1e-3, weight_decay=0.01)),
        fo.adaptive(fo.adamw, lr=1e-3, betas=(0.9, 0.999), weight_decay=torch.tensor(0.01, dtype=torch.float64)),
    ):
        # A rate that is a tensor rounds in another order than a number: one operation more.
        assert_same(steps(tx, [3.0, 2.0, 4.0, 1.0, float("nan")])[0], params, rtol=1e-14)


def test_the_published_trend_by_hand():
    # m = 2, then 0.9 * 2 + 0.1 * 1.8 = 1.98 (better), then 1.972 (better): 0.1, 0.101, 0.10201.
    _, _, used = steps(fo.adaptive(fo.sgd, lr=trend(0.1), loss_stats={"scale": "relative"}), [2.0, 1.8, 1.9])
    assert [step["lr"].item() for step in used] == pytest.approx([0.1, 0.101, 0.10201], rel=1e-12)


def test_the_pair_by_hand():
    # ema 1/2, band 1/2. Loss 2: m = slow = 2, S = 0. Loss 1: e = -1, m = 1.5, slow = 2 - 1/2 = 1.5, S = 1: no gap, neutral.
    # Loss 0.2: e = -1.3, m = 0.85, slow = 1.5 + (0.2 - 1.5) / 3 = 1.0667, S = 1 + 0.3 / 2 = 1.15: gap 0.2167 < 0.575, neutral.
    # Losses 0.2 from here: e = -0.65, m = 0.525, slow = 0.85, S = 0.9833: gap 0.325;
    # e = -0.325, m = 0.3625, slow = 0.72, S = 0.8188: 0.3575;
    # e = -0.1625, m = 0.28125, slow = 0.6333, S = 0.6875: gap 0.352 > 0.34375: better.
    tx = fo.adaptive(fo.sgd, lr=trend(1.0, up=2.0), loss_stats={"ema": 0.5})
    _, state, used = steps(tx, [2.0, 1.0, 0.2, 0.2, 0.2, 0.2])
    assert [step["lr"].item() for step in used] == [1, 1, 1, 1, 1, 2]
    numbers = [state.loss.number(name).item() for name in ("mean", "slow", "spread")]
    assert numbers == pytest.approx([0.28125, 0.2 + 1.3 / 3, 0.6875], rel=1e-12)
    assert fo.read_signals(state)["loss_trend"] == 1


STREAMS = {
    "stationary": lambda n, g: 1 + 0.3 * torch.randn(n, generator=g, dtype=torch.float64),
    "lognormal": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64).exp(),
    "falling": lambda n, g: 3 - 2 * torch.linspace(0, 1, n, dtype=torch.float64) + 0.3 * torch.randn(n, generator=g, dtype=torch.float64),
    "rising": lambda n, g: 1 + 2 * torch.linspace(0, 1, n, dtype=torch.float64) + 0.3 * torch.randn(n, generator=g, dtype=torch.float64),
    "spiked": lambda n, g: torch.where(torch.arange(n) == n // 2, 1e6, 1 + 0.3 * torch.randn(n, generator=g, dtype=torch.float64)),
}
# How far the rate may be after 1500 losses, in its base, for the pair and for the published verdict, which reads the shape of the noise.
EXPECTED = {
    "stationary": ((0.5, 1.3), (0.0, 0.05)),
    "lognormal": ((0.3, 1.3), (3.0, 10.0)),
    "falling": ((1.5, 2.0), (0.0, 0.1)),
    "rising": ((0.1, 0.2), (0.0, 0.05)),
    "spiked": ((0.5, 1.3), (0.0, 0.2)),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_what_each_verdict_makes_of_a_stream_of_losses(stream):
    losses = STREAMS[stream](1500, torch.Generator().manual_seed(0))
    found = []
    for stats, bounds in (({}, (0.1, 2.0)), ({"scale": "relative"}, (0.01, 10.0))):
        tx = fo.adaptive(fo.sgd, lr=trend(1.0), loss_stats=stats, bounds={"lr": bounds})
        state = tx.init(PARAMS)
        for loss in losses:
            state = tx.observe_loss(state, loss)
        found.append(tx.update(GRADS, state, PARAMS)[1].hyperparams["lr"].item())
    for lr, (low, high) in zip(found, EXPECTED[stream], strict=True):
        assert low <= lr <= high, f"{stream}: pair {found[0]:.3g}, relative {found[1]:.3g}"


def test_one_spike_moves_the_pair_little_and_the_published_verdict_much():
    losses = STREAMS["stationary"](400, torch.Generator().manual_seed(1)).tolist()
    ratios = []
    for stats in ({}, {"scale": "relative"}):
        tx = fo.adaptive(fo.sgd, lr=trend(1.0), loss_stats=stats, bounds={"lr": (0.001, 100.0)})
        calm = steps(tx, losses)[2][-1]["lr"]
        spiked = steps(tx, [*losses[:200], 1e6, *losses[201:]])[2][-1]["lr"]
        ratios.append((spiked / calm).item())
    pair, published = ratios
    assert 0.9 < pair < 1.1 and published > 2.5, f"pair {pair:.3g}, relative {published:.3g}"


def test_momentum_and_rate_keep_the_length_of_the_step():
    falling = [3.0 - 0.05 * t for t in range(50)]
    kept = steps(fo.adaptive(fo.sgd, lr=0.1, momentum=relative(0.9)), falling)[2][-1]
    bare = steps(fo.adaptive(fo.sgd, lr=0.1, momentum=relative(0.9), compensate=False), falling)[2][-1]
    assert kept["momentum"] == bare["momentum"] and kept["momentum"] > 0.97
    assert (kept["lr"] / (1 - kept["momentum"])).item() == pytest.approx(1.0, rel=1e-12)  # 0.1 / (1 - 0.9)
    assert (bare["lr"] / (1 - bare["momentum"])).item() > 3


def test_the_compensation_finds_the_default_rate():
    used = steps(fo.adaptive(partial(fo.sgd, lr=0.1), momentum=relative(0.9)), [3.0 - 0.05 * t for t in range(50)])[2]
    assert used[-1]["lr"] < 0.05
    with pytest.raises(
        ValueError, match="a rule for momentum changes the length of the step, which lr makes up for; give lr=, or compensate=False"
    ):
        fo.adaptive(lambda momentum: fo.sgd(0.1, momentum), momentum=relative(0.9))
    fo.adaptive(lambda momentum: fo.sgd(0.1, momentum), momentum=relative(0.9), compensate=False)


def test_a_schedule_is_a_base():
    tx = fo.adaptive(fo.sgd, lr=trend(lambda count: 0.1 / (count.double() + 1), up=1.5), loss_stats={"scale": "relative"})
    _, state, used = steps(tx, [3.0, 2.0, 1.0])
    assert [step["lr"].item() for step in used] == pytest.approx([0.1, 0.05 * 1.5, 0.1 / 3 * 2.0], rel=1e-12)
    assert state.base == {}


def test_the_clock_of_cosine_goes_on_without_losses():
    tx = fo.adaptive(fo.sgd, lr=cosine(1.0, length=4, floor=0.0))
    used = steps(tx, [None] * 6)[2]
    assert [step["lr"].item() for step in used] == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.1, 0.1], abs=1e-12)


def test_words_are_what_was_used():
    _, state, used = steps(everything(), [3.0, 2.0, 1.5], [0.1, 0.5, 0.9])
    words = fo.read_signals(state)
    assert list(words) == ["momentum", "weight_decay", "loss_trend", "loss_variance", "lr"]
    assert_same({name: words[name] for name in ("lr", "momentum", "weight_decay")}, used[-1])


def test_a_name_lets_two_stand_side_by_side():
    def part(name):
        return fo.adaptive(fo.adamw, lr=trend(0.1), name=name)

    tx = part("slow")
    state = tx.observe_loss(tx.init(PARAMS), 2.0)
    assert fo.read_signals(state)["slow/loss_trend"] == 0 and state.inner["slow"].loss.seen == 1
    _, state = tx.update(GRADS, state, PARAMS, loss=1.0)
    assert state.inner["slow"].loss.seen == 2
    both = fo.chain(part("slow"), part("fast"))
    assert {"slow/lr", "fast/lr"} <= set(fo.read_signals(both.init(PARAMS)))
    with pytest.raises(ValueError, match="said twice"):
        fo.chain(part(None), part(None)).init(PARAMS)


def test_the_words_of_the_source_mean_the_same():
    losses, rewards = [0.7, 0.65, 0.9, 0.6, 0.58], [0.1, 0.3, 0.2, 0.4, 0.5]
    ours = fo.adaptive(
        fo.adamw, lr=trend(1e-3) * variance(), betas=(relative(0.9), variance(0.999)), weight_decay=trend(0.01), reward=trend()
    )
    words = fo.adaptive(
        partial(fo.adamw, lr=1e-3, weight_decay=0.01),
        lr="variance + trend",
        b1="relative",
        b2="variance",
        weight_decay="trend",
        reward="trend",
    )
    assert_same(steps(ours, losses, rewards)[0], steps(words, losses, rewards)[0])
    alpha = fo.adaptive(fo.rmsprop, lr=0.01, alpha="stable")
    decay = fo.adaptive(fo.rmsprop, lr=0.01, decay=stable(0.9))
    assert_same(steps(alpha, losses)[0], steps(decay, losses)[0])


# --- what may be missing --------------------------------------------------------------------------------------------------------


def test_rules_for_what_is_not_there_are_dropped_or_refused():
    losses = [3.0, 2.0, 1.5, 1.0]
    plain = steps(fo.adaptive(fo.adamw, lr=1e-3), losses)[0]
    absent = {"momentum": "relative", "decay": stable(0.99), "weight_decay": trend(0.0)}
    assert_same(steps(fo.adaptive(partial(fo.adamw, weight_decay=1e-4), lr=1e-3, momentum="relative", alpha="stable"), losses)[0], plain)
    for knob, rule in absent.items():
        with pytest.raises(ValueError, match=rf"adaptive: strict, and \w+ would steer {knob}, whi?ch|whose"):
            fo.adaptive(fo.adamw, lr=1e-3, strict=True, **{knob: rule})
    with pytest.raises(ValueError, match="would steer momentum, which is off by default; give the rule a base"):
        fo.adaptive(fo.sgd, lr=1e-3, momentum="relative", strict=True)


def test_a_missing_signal_leaves_everything_but_the_clock():
    tx = everything()
    _, state, _ = steps(tx, [3.0, 2.0, 1.5], [0.1, 0.5, 0.9])
    _, after = tx.update(GRADS, state, PARAMS)
    assert_same(after.loss, state.loss)
    assert_same(after.reward, state.reward)
    assert_same(after.integrators, state.integrators)
    assert after.count == 4 and after.cycle.tolist() == [0, 8]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_counts_as_worse_or_not_at_all(value):
    for nonfinite, moved in (("worse", 0.985), ("ignore", 1.0)):
        tx = fo.adaptive(fo.sgd, lr=trend(1.0), loss_stats={"nonfinite": nonfinite})
        assert steps(tx, [value, 1.0])[2][-1]["lr"] == 1  # nothing came before it
        _, state, used = steps(tx, [1.0, value])
        assert used[-1]["lr"].item() == moved
        assert state.loss.bad == 1 and state.loss.seen == 1 and state.loss.number("mean") == 1
    tx = fo.adaptive(fo.sgd, lr=0.1, reward=trend() * scaling())
    assert_same(steps(tx, [None] * 2, [2.0, value])[2][-1]["lr"], steps(tx, [None], [2.0])[2][-1]["lr"])


def test_a_tensor_of_zero_momentum_stays_zero():
    tx = fo.adaptive(fo.sgd, lr=0.1, momentum=relative(torch.tensor(0.0, dtype=torch.float64)))
    _, _, used = steps(tx, [3.0 - 0.05 * t for t in range(40)])
    assert used[-1]["momentum"] == 0 and used[-1]["lr"] == 0.1


# --- laws -----------------------------------------------------------------------------------------------------------------------

LOSSES = st.lists(st.floats(0.125, 128.0, width=32), min_size=2, max_size=12)
SIGNALS = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=12)
KNOBS = ("lr", "momentum", "weight_decay")


@settings(max_examples=25)
@given(losses=LOSSES, scale=st.sampled_from([2.0**-20, 0.25, 8.0, 2.0**30]), verdict=st.sampled_from(["pair", "relative", "deviation"]))
def test_the_unit_of_the_loss_does_not_matter(losses, scale, verdict):
    tx = fo.adaptive(
        fo.sgd,
        lr=trend(0.1) * variance(),
        momentum=relative(0.9) * inverse() * normalized(),
        weight_decay=trend(0.01),
        loss_stats={"scale": verdict, "tol": 0.0},
    )
    ours, theirs = steps(tx, losses)[2], steps(tx, [scale * loss for loss in losses])[2]
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other, rtol=1e-6)  # the 1e-12 that guard divisions


@settings(max_examples=25)
@given(losses=st.lists(st.integers(1, 1000), min_size=2, max_size=12), shift=st.integers(-(2**20), 2**20))
def test_the_zero_of_the_loss_does_not_matter_to_the_pair(losses, shift):
    # Dyadic settings and losses: every mean is exact, so that no verdict can turn by rounding.
    tx = fo.adaptive(
        fo.sgd, lr=trend(0.1), momentum=relative(0.9), weight_decay=trend(0.01), loss_stats={"ema": 0.5, "slow": 0.0, "clip": 4.0}
    )
    ours, theirs = steps(tx, [loss / 64 for loss in losses])[2], steps(tx, [(loss + shift) / 64 for loss in losses])[2]
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


@given(level=st.floats(-1e6, 1e6))
def test_a_constant_loss_changes_nothing(level):
    tx = fo.adaptive(fo.sgd, lr=trend(0.1), momentum=relative(0.9), weight_decay=trend(0.01))
    used = steps(tx, [level] * 4)[2]
    assert_same(used[-1], used[0], rtol=1e-15)


def assert_inside(used, compensated=True):
    lr = used["lr"] * 0.1 / (1 - used["momentum"]) if compensated else used["lr"]
    for value, low, high in ((lr, 0.01, 0.2), (used["momentum"], 0.5, 0.99), (used["weight_decay"], 0.001, 0.1)):
        assert ((value >= low * (1 - 1e-12)) & (value <= high * (1 + 1e-12))).all()


@settings(max_examples=30)
@given(losses=SIGNALS, rewards=SIGNALS)
def test_values_stay_within_their_bounds(losses, rewards):
    rewards = (rewards * len(losses))[: len(losses)]
    tx = everything()
    for used in steps(tx, losses, rewards)[2]:
        assert_inside(used)


@pytest.mark.parametrize("compensate, scale", [(True, "pair"), (False, "relative"), (True, "deviation"), (False, "absolute")])
def test_ten_thousand_signals_of_every_kind_stay_within_the_bounds(compensate, scale):
    lanes, length = 100, 100
    tx = everything(compensate=compensate, loss_stats={"scale": scale})
    state = torch.func.vmap(lambda _: tx.init(PARAMS))(torch.zeros(lanes))
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(2, length, lanes, generator=generator, dtype=torch.float64) * 10 ** (
        600 * torch.rand(2, length, lanes, generator=generator, dtype=torch.float64) - 300
    )
    kind = torch.rand(2, length, lanes, generator=generator)
    for share, value in ((0.05, torch.nan), (0.10, torch.inf), (0.15, -torch.inf), (0.2, 0.0)):
        signals = torch.where((share - 0.05 < kind) & (kind < share), value, signals)
    for loss, reward in zip(*signals, strict=True):
        state = torch.func.vmap(lambda state, loss, reward: tx.update(GRADS, state, PARAMS, loss=loss, reward=reward)[1])(
            state, loss, reward
        )
        assert_inside(state.hyperparams, compensate)


@settings(max_examples=10)
@given(losses=LOSSES, order=st.permutations(["trend", "variance", "cosine"]))
def test_the_order_of_a_product_does_not_matter(losses, order):
    rules = {"trend": trend(0.1), "variance": variance(), "cosine": cosine(length=5)}
    product = rules[order[0]] * rules[order[1]] + rules[order[2]]
    assert product == trend(0.1) * variance() * cosine(length=5)
    ours, theirs = fo.adaptive(fo.sgd, lr=product), fo.adaptive(fo.sgd, lr=trend(0.1) * variance() * cosine(length=5))
    assert_same(steps(ours, losses)[2], steps(theirs, losses)[2])


@settings(max_examples=15)
@given(losses=SIGNALS, rewards=SIGNALS)
def test_observing_apart_is_the_same(losses, rewards):
    tx = everything()
    state = apart = tx.init(PARAMS)
    for loss, reward in zip(losses, rewards, strict=False):
        updates, state = tx.update(GRADS, state, PARAMS, loss=loss, reward=torch.tensor(reward, dtype=torch.float64))
        apart = tx.observe_reward(tx.observe_loss(apart, torch.tensor(loss, dtype=torch.float64)), reward)
        others, apart = tx.update(GRADS, apart, PARAMS)
        assert_same(updates, others)
    assert_same(state, apart)


@settings(max_examples=10)
@given(losses=LOSSES, cut=st.integers(0, 12))
def test_a_resumed_run_is_the_run(losses, cut):
    tx, cut = everything(), min(cut, len(losses))
    rewards = [0.1 * loss for loss in losses]
    params, state, _ = steps(tx, losses, rewards)
    halfway, saved, _ = steps(tx, losses[:cut], rewards[:cut])
    restored = fo.checkpoint.load_state_dict(tx.init(PARAMS), fo.checkpoint.state_dict(saved))
    resumed, end, _ = steps(tx, losses[cut:], rewards[cut:], state=restored, params=halfway)
    assert_same(resumed, params)
    assert_same(end, state)


def test_lanes_are_runs_of_their_own():
    losses = torch.tensor([[3.0, 1.0, float("nan")], [2.0, 1.5, 0.2], [1.0, 4.0, 0.1], [0.5, 0.2, float("inf")]], dtype=torch.float64)
    rewards = losses.flip(0).nan_to_num(0.3, 0.1)
    bases = torch.tensor([0.1, 0.01, 0.3], dtype=torch.float64)

    def make(lr):
        return fo.adaptive(
            fo.sgd,
            lr=trend(lr) * variance() * cosine_restart(length=2),
            momentum=relative(0.9),
            reward="trend+scaling",
            loss_stats={"nonfinite": "ignore"},
        )

    def run(lr, losses, rewards):
        params, state, _ = steps(make(lr), losses.unbind(), rewards.unbind())
        return params, state

    lanes = torch.func.vmap(run, in_dims=(0, 1, 1))(bases, losses, rewards)
    assert all(word.shape == (3,) for word in fo.read_signals(lanes[1]).values())
    for lane in range(3):
        assert_same(fo.tree.map(lambda x, lane=lane: x[lane], lanes), run(bases[lane], losses[:, lane], rewards[:, lane]), rtol=1e-13)


def test_traces_in_one_graph_and_once():
    tx = everything()
    step = torch.compile(
        lambda state, loss, reward: tx.update(GRADS, state, PARAMS, loss=loss, reward=reward), backend="eager", fullgraph=True
    )
    state = eager = tx.init(PARAMS)
    for number in range(20):
        loss, reward = (torch.tensor(value, dtype=torch.float64) for value in (3 / (number + 1), 0.1 * (number % 4)))
        with torch._dynamo.config.patch(error_on_recompile=True):
            updates, state = step(state, loss, reward)
        expected, eager = tx.update(GRADS, eager, PARAMS, loss=loss, reward=reward)
        assert_same(updates, expected, rtol=1e-12)
    assert_same(state, eager, rtol=1e-12)


def test_nothing_differentiates_through_the_signals_and_all_through_the_bases():
    lr, decay = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.1, 0.02))
    loss = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    tx = fo.adaptive(fo.sgd, lr=trend(lr) * variance(), weight_decay=trend(decay))
    params, _, used = steps(tx, [3 * loss, 2 * loss, loss])
    slopes = torch.autograd.grad(params["w"].sum(), [lr, decay, loss], allow_unused=True)
    assert slopes[0] != 0 and slopes[1] != 0 and slopes[2] is None
    assert torch.isfinite(torch.stack(slopes[:2])).all()


class NoHostReads(TorchDispatchMode):
    """Fails where a value is read on the host, which waits for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(function), "a value is read on the host"
        return function(*args, **(kwargs or {}))


def test_nothing_is_read_on_the_host():
    tx = everything(loss_stats={"scale": "deviation", "deadband": True})
    state = tx.init(PARAMS)
    loss, reward = (torch.tensor(value, dtype=torch.float32) for value in (2.0, 0.5))
    with NoHostReads():
        for _ in range(3):
            _, state = tx.update(GRADS, state, PARAMS, loss=loss, reward=reward)


def test_a_base_in_the_state_can_be_replaced():
    tx = fo.adaptive(fo.sgd, lr=trend(0.1, up=1.5), loss_stats={"scale": "relative"})
    _, state, _ = steps(tx, [2.0, 1.0])
    state = state._replace(base={"lr": torch.tensor(1.0, dtype=torch.float64)})
    assert steps(tx, [None], state=state)[2][-1]["lr"] == 1.5


def test_a_bfloat16_model_is_steered_in_float64():
    params, grads = fo.tree.cast(PARAMS, torch.bfloat16), fo.tree.cast(GRADS, torch.bfloat16)
    tx = fo.adaptive(fo.adamw, lr=trend(1e-2), betas=(0.9, variance(0.999)))
    updates, state = tx.update(grads, tx.init(params), params, loss=torch.tensor(1.0, dtype=torch.bfloat16))
    assert state.hyperparams["b2"] == 0.999 and state.hyperparams["b2"].dtype == torch.float64
    assert all(leaf.dtype == torch.bfloat16 for leaf in fo.tree.leaves(updates))


def test_make_step_hands_the_loss_over():
    def loss_fn(params, target):
        return sum((leaf - target).square().sum() for leaf in fo.tree.leaves(params))

    step = fo.make_step(loss_fn, fo.adaptive(fo.sgd, lr=trend(0.05)))
    params, state = step.init(PARAMS)
    for _ in range(40):
        params, state, loss = step(params, state, torch.tensor(0.2, dtype=torch.float64))
    assert step.state(state).loss.seen == 40 and loss < 1e-2


def test_arguments_are_left_as_they_are():
    tx = everything()
    _, state, _ = steps(tx, [3.0, 2.0], [0.1, 0.5])
    before = fo.tree.clone(state)
    tx.update(GRADS, state, PARAMS, loss=1.0, reward=1.0)
    assert_same(state, before)


# --- around what --------------------------------------------------------------------------------------------------------------


def test_around_a_chain():
    tx = fo.adaptive(lambda **h: fo.chain(fo.clip(0.2), fo.sgd(**h)), lr=trend(0.5), momentum=0.9)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, loss=1.0)
    assert_same(
        updates, {"w": torch.tensor([-0.1, 0.1, -0.1], dtype=torch.float64), "b": torch.tensor(0.05, dtype=torch.float64)}, rtol=1e-15
    )


@pytest.mark.parametrize("dispatch", ["branch", "select"])
def test_around_a_roulette(dispatch):
    # A roulette keeps the rates of its members in its state; what is steered is a factor on all of them.
    def wheel(lr):
        pool = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "momentum": fo.Member(fo.trace(0.9), lr=0.01)}
        return fo.chain(fo.roulette(pool, every=2, dispatch=dispatch, seed=3), fo.scale(lr), fo.lr_scale())

    tx = fo.adaptive(wheel, lr=trend(1.0, up=1.5), loss_stats={"scale": "relative"})
    alone = wheel(1.0)
    state, other = tx.init(PARAMS), alone.init(PARAMS)
    for loss in [3.0 - 0.2 * t for t in range(12)]:
        updates, state = tx.update(GRADS, state, PARAMS, loss=loss)
        expected, other = alone.update(GRADS, other, PARAMS)
        assert fo.read_signals(state)["pick"] == fo.read_signals(other)["pick"]
        assert_same(updates, fo.tree.scale(state.hyperparams["lr"], expected), rtol=1e-12)
    assert state.hyperparams["lr"] == 2


def test_a_roulette_without_a_seed_draws_it_once():
    def wheel(lr):
        return fo.chain(
            fo.roulette({"adam": fo.Member(fo.scale_by_adam(), lr=lr), "sgd": fo.Member(fo.trace(0.0), lr=lr)}, every=1), fo.lr_scale()
        )

    tx = fo.adaptive(wheel, lr=0.1)
    generator = torch.get_rng_state()
    first, second = (steps(tx, [1.0] * 6)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert_same(first, second)


def test_every_step_of_a_compiled_roulette_has_its_plan():
    def wheel(lr):
        pool = {"adam": fo.Member(fo.scale_by_adam(), lr=lr), "sgd": fo.Member(fo.trace(0.0), lr=lr)}
        return fo.chain(fo.roulette(pool, every=1, dispatch="branch", seed=0), fo.lr_scale())

    tx, alone = fo.adaptive(wheel, lr=0.1), wheel(0.1)
    assert tx.plan(tx.init(PARAMS)) == alone.plan(alone.init(PARAMS))
    assert fo.adaptive(fo.adamw, lr=0.1).plan is None


# --- bounds and errors ----------------------------------------------------------------------------------------------------------


def test_bounds_are_multiples_or_absolute():
    falling = [5.0 - 0.1 * t for t in range(40)]
    multiples = fo.adaptive(fo.sgd, lr=trend(0.1, up=2.0), bounds={"lr": (0.5, 4.0)})
    own_units = fo.adaptive(fo.sgd, lr=trend(0.1, up=2.0), bounds={"lr": absolute(0.05, 0.4)})
    for tx in (multiples, own_units):
        assert steps(tx, falling)[2][-1]["lr"].item() == pytest.approx(0.4, rel=1e-12)
    widened = fo.adaptive(fo.sgd, lr=0.1, momentum=relative(0.2), bounds={"momentum": (0.5, 0.6)})
    assert steps(widened, [1.0])[2][-1]["momentum"].item() == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (
            lambda: fo.adaptive(fo.adamw(1e-3)),
            TypeError,
            "adaptive: factory must be the function that makes a transformation, not what it returns",
        ),
        (lambda: fo.adaptive(fo.adamw, lr="trand"), ValueError, "rules: the rules are cosine, .* got 'trand'"),
        (
            lambda: fo.adaptive(fo.adamw, lr=relative(0.1)),
            ValueError,
            "adaptive: relative is a rule for momentum, b1, b2, decay, got it for lr",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=trend()),
            ValueError,
            r"adaptive: lr needs a base and the factory has no default for it; write trend\(base\)",
        ),
        (lambda: fo.adaptive(fo.adamw, lr=trend), TypeError, r"adaptive: lr must be a rule, got the function trend; call it: trend\(\)"),
        (lambda: fo.adaptive(fo.adamw, lr=-1.0), ValueError, "adaptive: lr must be >= 0, got -1.0"),
        (lambda: fo.adaptive(fo.adamw, lr=1e-3, b1=1.0), ValueError, r"adaptive: b1 must be in \(0, 1\), got 1.0"),
        (lambda: fo.adaptive(fo.adamw, lr=1e-3, b1=0.0), ValueError, r"adaptive: b1 must be in \(0, 1\), got 0.0"),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, momentum=0.9),
            ValueError,
            "adaptive: momentum is given and the factory takes none; it takes lr, b1",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, betas=(0.9, 0.99), b1=0.9),
            ValueError,
            r"adaptive: betas is \(b1, b2\); give one spelling, got both",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, betas="relative"),
            TypeError,
            "adaptive: betas must be a pair, for b1 and b2, got 'relative'",
        ),
        (
            lambda: fo.adaptive(fo.rmsprop, lr=1e-3, alpha=0.9, decay=0.9),
            ValueError,
            "adaptive: alpha is decay; give one spelling, got both",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, reward=0.5),
            TypeError,
            "adaptive: reward must be a rule, a product of rules or their names, got 0.5",
        ),
        (lambda: fo.adaptive(fo.adamw, lr=1e-3, reward=trend(0.1)), ValueError, "adaptive: reward rules carry no base; give it to lr"),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, reward="relative"),
            ValueError,
            "adaptive: relative is a rule for momentum, b1, b2, decay, got it for reward",
        ),
        (lambda: fo.adaptive(fo.adamw, reward="scaling"), ValueError, "adaptive: lr needs a base"),
        (
            lambda: fo.adaptive(fo.adamw, lr=variance(1e-3, sense="smooth")),
            ValueError,
            "adaptive: sense is for averaging coefficients, and lr is none",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=trend(1e-3), bounds={"lr": (2.0, 3.0)}),
            ValueError,
            "the bounds of lr are multiples of its base and must hold 1",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=trend(1e-3), bounds={"lr": 2.0}),
            TypeError,
            "the bounds of lr must be a pair of numbers, got 2.0",
        ),
        (lambda: fo.adaptive(fo.adamw, lr=1e-3, b1=relative(), bounds={"b1": (0.5, 1.0)}), ValueError, "the bounds of b1 must be below 1"),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, bounds={"eps": (0, 1)}),
            ValueError,
            "bounds are for lr, momentum, b1, b2, decay, weight_decay, got 'eps'",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, loss_stats={"beta": 0.9}),
            ValueError,
            "adaptive: loss_stats: the settings are ema, window, .* got 'beta'",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, loss_stats={"scale": "log"}),
            ValueError,
            "scale must be one of 'pair', 'relative', 'deviation', 'absolute'",
        ),
        (
            lambda: fo.adaptive(fo.adamw, lr=1e-3, reward_stats={"scale": "deviation"}),
            ValueError,
            "scale must be one of 'pair', 'relative', got 'deviation'",
        ),
        (lambda: fo.adaptive(lambda **h: 3, lr=1e-3), TypeError, "adaptive: the factory must return a GradientTransformation, got 3"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_signal_must_be_a_number():
    tx = fo.adaptive(fo.sgd, lr=trend(0.1))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"adaptive: loss must be a number or a 0-dim tensor, got a tensor of shape \(2,\)"):
        tx.update(GRADS, state, PARAMS, loss=torch.ones(2))
    with pytest.raises(TypeError, match="adaptive: reward must be a number or a 0-dim tensor, got 'high'"):
        tx.observe_reward(state, "high")
