"""ucb_episodes and aees: by hand, in every form, under bad input, and their laws. The recorded runs are in tests/parity/test_aees.py."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings as examples, strategies as st
from scipy.stats import linregress
from torch.utils._python_dispatch import TorchDispatchMode

import funcopt as fo
from funcopt.controllers.pulseopt.aees import PUBLISHED
from funcopt.controllers.pulseopt.bandits import VISITS, WARMED
from funcopt.controllers.pulseopt.episodic import REPORT
from tests.helpers import assert_trees_close, gradients_at, small_params

published = partial(fo.ucb_episodes, **PUBLISHED)
FULL = {"lr_candidates": (0.5, 1.0, 2.0), "noise_candidates": (0.0, 0.1), "episode_length": 3, "seed": 5}
FORMS = {
    "independent": {},
    "conditional": {"control": "conditional"},
    "joint": {"control": "joint"},
    "random": {"control": "random"},
    "trend": {"context": "trend", "trend_epsilon": 0.05},
    "conditional trend": {"control": "conditional", "context": "trend", "relative_trend": True, "trend_window": 2},
    "random trend": {"control": "random", "context": "trend"},
    "log": {"reward": "log"},
    "relative standardized": {"reward": "relative", "standardize": True, "instability": 0.5},
    "shifted": {"shift_credit": True, "start_losses": 2},
    "shifted, one step": {"shift_credit": True, "episode_length": 1},
    "one pair": {"lr_candidates": (0.5,), "noise_candidates": (0.1,), "context": "trend"},
    "noise alone": {"lr_candidates": (1.0,), "noise_candidates": (0.0, 0.1, 0.2), "control": "conditional"},
    "callable": {"reward": lambda losses: (losses.first - losses.last) / losses.n},
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


def quiet(factory, *arguments, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ucb_episodes: ")
        return factory(*arguments, **settings)


def losses_at(step: int) -> torch.Tensor:
    return torch.tensor(1.5 + math.cos(0.7 * step) + 0.3 * math.sin(2.9 * step), dtype=torch.float64)


def go(tx, steps, state=None, start=0, params=None, loss=losses_at):
    """Updates and states of some steps at gradients that do not depend on the params."""
    params = small_params() if params is None else params
    state = tx.init(params) if state is None else state
    updates, states = [], []
    for step in range(start, start + steps):
        u, state = tx.update(gradients_at(step, params), state, params, loss=loss(step))
        updates.append(u)
        states.append(state)
    return updates, states


def report(state) -> dict[str, float]:
    return dict(zip(REPORT, fo.find(state, fo.UcbEpisodesState).report.tolist(), strict=True))


# --- by hand ----------------------------------------------------------------------------------------------------------------------


def test_an_episode_by_hand():
    # Losses 4, 2, 1 with alpha = 1/2: e = 4, 3, 2, so the reward is ln 4 - ln 2; variance 14/9 about the mean 7/3.
    tx = published((0.5,), (0.0,), episode_length=3, ema_alpha=0.5, instability=0.1, reward_epsilon=1e-12)
    params = torch.zeros(2)
    _, states = go(tx, 3, params=params, loss=lambda step: (4.0, 2.0, 1.0)[step])
    expected = math.log(2) - 0.1 * (14 / 9) / (49 / 9)
    assert states[1].episode_reward == 0
    torch.testing.assert_close(states[2].episode_reward.item(), expected)
    row = report(states[2])
    assert (row["start"], row["ema"], row["first"], row["last"], row["first_step"], row["steps"]) == (4, 2, 4, 1, 0, 3)
    assert int(states[2].episode) == 1


def test_the_multiplier_scales_the_step_and_its_decay_and_never_accumulates():
    params, gradients = torch.tensor([2.0]), torch.tensor([3.0])
    plain = fo.chain(fo.trace(0.9), fo.add_decayed_weights(0.5), fo.lr_scale(0.1))
    halved = fo.aees(plain, (0.5,))
    ours, theirs = halved.init(params), plain.init(params)
    for _ in range(3):
        u, ours = halved.update(gradients, ours, params, loss=1.0)
        v, theirs = plain.update(gradients, theirs, params)
        torch.testing.assert_close(u, 0.5 * v)
        assert fo.read_signals(ours)["lr"] == 0.5 * fo.read_signals(theirs)["lr"]


def test_the_noise_is_what_passes_plus_its_size_times_a_standard_normal():
    params = torch.zeros(20000, dtype=torch.float64)
    tx = fo.ucb_episodes((1.0,), (0.3,), seed=0)
    first, state = tx.update(params, tx.init(params), loss=1.0)
    second, _ = tx.update(params, state, loss=1.0)
    for noise in (first, second):
        assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.3) < 0.01
    assert abs((first * second).mean()) < 0.003  # a new draw at every step


def test_equal_leaves_get_different_noise():
    # The reference without a seed gives all leaves of one shape the same noise.
    params = {"a": torch.zeros(4), "b": torch.zeros(4)}
    tx = fo.ucb_episodes((1.0,), (0.3,))
    noisy, _ = tx.update(params, tx.init(params), loss=1.0)
    assert not torch.equal(noisy["a"], noisy["b"])


def test_a_seed_gives_a_run_and_another_seed_another():
    def arms(seed):
        return [
            state.arms.tolist()
            for state in go(fo.ucb_episodes(episode_length=1, control="random", seed=seed), 20, params=torch.zeros(1))[1]
        ]

    assert arms(1) == arms(1) == arms(torch.tensor(1)) == arms(fo.random.key(1)) != arms(2)
    torch.manual_seed(0)
    first, second = fo.ucb_episodes(control="random"), fo.ucb_episodes(control="random")
    assert not torch.equal(first.init(torch.zeros(1)).key, second.init(torch.zeros(1)).key)
    torch.manual_seed(0)
    assert torch.equal(fo.ucb_episodes().init(torch.zeros(1)).key, first.init(torch.zeros(1)).key)


# --- the same in every form -------------------------------------------------------------------------------------------------------


@EVERY_FORM
def test_select_equals_branch(form):
    settings = FULL | FORMS[form]
    branch, select = (quiet(fo.aees, fo.adamw(0.1), **settings, dispatch=dispatch) for dispatch in ("branch", "select"))
    ours, theirs = go(branch, 25), go(select, 25)
    assert_trees_close(ours[0], theirs[0], rtol=0, atol=0)
    assert_trees_close(ours[1][-1], theirs[1][-1], rtol=0, atol=0)


@EVERY_FORM
def test_planned_equals_branch(form):
    """With a plan the state is not looked at: one graph for each phase of an episode."""
    settings = FULL | FORMS[form]
    tx = quiet(fo.ucb_episodes, **settings, dispatch="branch")
    params = small_params()
    planned = branched = tx.init(params)
    phases = set()
    for step in range(9):
        phases.add(tx.plan(planned))
        u, planned = tx.update(gradients_at(step, params), planned, params, loss=losses_at(step), plan=tx.plan(planned))
        v, branched = tx.update(gradients_at(step, params), branched, params, loss=losses_at(step))
        assert_trees_close((u, planned), (v, branched), rtol=0, atol=0)
    assert len(phases) <= 3


@EVERY_FORM
def test_lanes_under_vmap_equal_loops_with_their_seeds(form):
    settings = {**FULL, **FORMS[form]}
    settings.pop("seed")
    params = {"w": torch.ones(2, 2, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    losses = torch.rand(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    losses[1, 3] = torch.nan

    def lane(seed, losses):
        tx = quiet(fo.aees, fo.sgd(0.1), **settings, seed=seed)
        state, updates = tx.init(params), []
        for step in range(losses.shape[0]):
            u, state = tx.update(gradients_at(step, params), state, params, loss=losses[step])
            updates.append(u)
        return updates, state

    seeds = torch.tensor([3, 4, 5])
    together = torch.func.vmap(lane)(seeds, losses)
    for index in range(3):
        alone = lane(seeds[index], losses[index])
        assert_trees_close(fo.tree.map(lambda x, index=index: x[index], together), alone, rtol=1e-12, atol=1e-12)


@EVERY_FORM
def test_resumed_inside_an_episode_equals_uninterrupted(form, tmp_path):
    settings = FULL | FORMS[form]
    whole_updates, whole = go(quiet(fo.aees, fo.adam(0.1), **settings), 17)
    for stop in (1, 2, 3, 10):
        _, states = go(quiet(fo.aees, fo.adam(0.1), **settings), stop)
        torch.save(fo.checkpoint.state_dict(states[-1]), tmp_path / "state.pt")
        tx = quiet(fo.aees, fo.adam(0.1), **(settings | {"seed": 99}))  # the key is in the state
        saved = torch.load(tmp_path / "state.pt", weights_only=True)
        state = fo.checkpoint.load_state_dict(tx.init(small_params()), saved)
        updates, resumed = go(tx, 17 - stop, state, start=stop)
        assert_trees_close(updates, whole_updates[stop:], rtol=0, atol=0)
        assert_trees_close(resumed[-1], whole[-1], rtol=0, atol=0)


def test_traced_whole_equals_eager_without_recompilation():
    tx = quiet(fo.aees, fo.adamw(0.1), **(FULL | FORMS["shifted"]), dispatch="auto")
    torch._dynamo.reset()
    traced = torch.compile(lambda g, s, p, loss: tx.update(g, s, p, loss=loss), backend="eager", fullgraph=True)
    params = small_params()
    eager = compiled = tx.init(params)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(12):
            u, eager = tx.update(gradients_at(step, params), eager, params, loss=losses_at(step))
            v, compiled = traced(gradients_at(step, params), compiled, params, losses_at(step))
            assert_trees_close((v, compiled), (u, eager), rtol=1e-12, atol=1e-12)


# --- which losses, which rewards --------------------------------------------------------------------------------------------------


def test_losses_that_are_not_finite_are_ignored_and_counted():
    # The reference raises, and cannot go on after it.
    tx = published(episode_length=4, seed=0)
    _, clean = go(published(episode_length=2, seed=0), 2, params=torch.zeros(1), loss=lambda step: (2.0, 1.0)[step])
    _, states = go(tx, 4, params=torch.zeros(1), loss=lambda step: (math.nan, 2.0, math.inf, 1.0)[step])
    assert states[-1].ignored_losses == 2 and states[-1].discarded_episodes == 0
    assert int(states[-1].episode) == 1  # the boundary counts calls
    torch.testing.assert_close(states[-1].episode_reward, clean[-1].episode_reward)


def test_an_episode_without_a_finite_loss_pays_nothing():
    tx = published(episode_length=2, seed=0, context="trend")
    _, states = go(tx, 6, params=torch.zeros(1), loss=lambda step: math.nan if step in (2, 3) else 3.0 - 0.4 * step)
    assert states[3].discarded_episodes == 1 and int(states[3].episode) == 2
    assert torch.equal(states[3].bandits.statistics, states[2].bandits.statistics)
    assert torch.equal(states[3].ends, states[2].ends)
    assert states[3].episode_reward == states[2].episode_reward
    assert report(states[3])["reward"] == 0


@pytest.mark.parametrize("losses", [(3.0, 1.0, 2.5, 0.5), (-1.0, -1.5, -1.2, -4.0), (1.0, 2.0, 4.0, 3.0)])
@pytest.mark.parametrize("skipped", [False, True])
def test_the_slope_is_the_fall_in_units_of_its_standard_error(losses, skipped):
    y = np.array(losses)
    x = np.arange(len(y))
    line = linregress(x, y)
    told = (losses[0], math.nan, *losses[1:]) if skipped else losses
    state = go(
        fo.ucb_episodes((0.5,), episode_length=len(told), reward_clip=(-99, 99), seed=0),
        len(told),
        params=torch.zeros(1),
        loss=lambda step: told[step],
    )[1][-1]
    assert float(state.episode_reward) == pytest.approx(-line.slope / line.stderr, rel=1e-9)


@pytest.mark.parametrize(
    "losses, reward", [((2.0, 2.0, 2.0), 0.0), ((3.0, 2.0, 1.0), 5.0), ((1.0, 2.0), -5.0), ((1.0,), 0.0), ((math.nan, 1.0, math.nan), 0.0)]
)
def test_losses_on_a_line_have_no_noise_and_get_all_there_is(losses, reward):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of episodes of one step
        tx = fo.ucb_episodes((0.5,), episode_length=len(losses), seed=0)
    state = go(tx, len(losses), params=torch.zeros(1), loss=lambda step: losses[step])[1][-1]
    assert float(state.episode_reward) == reward


@examples(max_examples=25)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10), losses=st.lists(st.integers(0, 20), min_size=3, max_size=12))
def test_the_slope_depends_neither_on_the_scale_nor_on_the_zero_of_the_loss(scale, shift, losses):
    def reward(told):
        tx = fo.ucb_episodes((0.5,), episode_length=len(told), seed=0)
        return float(
            go(tx, len(told), params=torch.zeros(1), loss=lambda step: torch.tensor(told[step], dtype=torch.float64))[1][-1].episode_reward
        )

    assert reward([scale * loss + shift for loss in losses]) == pytest.approx(reward([float(loss) for loss in losses]), rel=1e-4, abs=1e-6)


def test_a_negative_loss_discards_the_episode_and_the_relative_reward_takes_it():
    # The reference ends the run: the logarithm is not defined.
    def run(reward):
        tx = published(episode_length=2, reward=reward, ema_alpha=0.5, seed=0)
        return go(tx, 2, params=torch.zeros(1), loss=lambda step: (-1.0, -2.0)[step])[1][-1]

    assert run("log").discarded_episodes == 1 and run("log").bandits.statistics.sum() == 0
    state = run("relative")
    torch.testing.assert_close(state.episode_reward.item(), 0.5)  # from -1 to -1.5, which is lower
    assert state.bandits.statistics[VISITS].sum() == 1


def test_a_reward_of_ones_own_that_is_a_number_is_not_rounded():
    tx = published(episode_length=2, reward=lambda losses: 0.1, instability=0.0, seed=0)
    assert go(tx, 2, params=torch.zeros(1), loss=lambda step: 1.0)[1][-1].episode_reward.item() == 0.1


def test_check_losses_raises_before_anything_is_applied():
    tx = fo.ucb_episodes(check_losses=True)
    params = torch.zeros(1)
    with pytest.raises(ValueError, match="ucb_episodes: loss must be finite, got nan"):
        tx.update(params, tx.init(params), loss=math.nan)


def test_the_graph_of_a_loss_is_not_kept():
    params = torch.zeros(2, requires_grad=True)
    tx = fo.ucb_episodes()
    _, state = tx.update(torch.ones(2), tx.init(params), loss=(params - 1).square().sum())
    assert not any(leaf.requires_grad for leaf in fo.tree.leaves(state))


def test_shifted_credit_is_for_the_losses_that_the_steps_have_caused():
    # Episodes of two steps; the reference pays the first for losses 0 and 1, the shifted one for 1 and 2.
    losses = (8.0, 4.0, 2.0, 1.0, 1.0, 1.0)

    def owned(shift):
        tx = published(episode_length=2, shift_credit=shift, ema_alpha=1.0, seed=0)
        rows = [report(state) for state in go(tx, 6, params=torch.zeros(1), loss=lambda step: losses[step])[1]]
        return [(row["first_step"], row["first"], row["last"]) for row in {row["episode"]: row for row in rows if row["steps"]}.values()]

    assert owned(False) == [(0, 8, 4), (2, 2, 1), (4, 1, 1)]
    assert owned(True) == [(0, 4, 2), (2, 1, 1)]


def test_the_start_of_an_episode_may_be_a_mean():
    tx = published((0.5,), episode_length=4, start_losses=2, ema_alpha=1.0, seed=0)
    state = go(tx, 4, params=torch.zeros(1), loss=lambda step: (3.0, 1.0, 5.0, 1.0)[step])[1][-1]
    torch.testing.assert_close(state.episode_reward.item(), math.log(2), atol=1e-7, rtol=0)


def test_standardized_rewards_are_counted_in_deviations_from_their_mean():
    tx = published((0.5,), episode_length=2, standardize=True, ema_alpha=1.0, reward_clip=(-9, 9), reward_epsilon=1e-12, seed=0)
    rewards = [0.1, 0.3, -0.2, 0.05]
    states = go(tx, 8, params=torch.zeros(1), loss=lambda step: 1.0 if step % 2 == 0 else math.exp(-rewards[step // 2]))[1][1::2]
    for count, state in enumerate(states, 1):
        seen = torch.tensor(rewards[:count], dtype=torch.float64)
        expected = torch.zeros(()).double() if count == 1 else (seen[-1] - seen.mean()) / seen.std(correction=0)
        torch.testing.assert_close(state.episode_reward, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("relative, small", [(False, [1, 1, 1, 1]), (True, [1, 1, 0, 2])])
def test_a_relative_trend_does_not_depend_on_the_size_of_the_loss(relative, small, scale):
    # Episodes of two equal losses, then the slope between the last two episodes: none, none, down by half, up by all.
    ends = (1.0, 1.0, 0.5, 1.0)
    tx = published((0.5, 1.0), episode_length=2, context="trend", relative_trend=relative, trend_window=2, seed=0)
    states = go(tx, 10, params=torch.zeros(1), loss=lambda step: scale * (*ends, 1.0)[step // 2])[1]
    buckets = [state.arms[2].item() for state in states[2::2]]
    assert buckets == ([1, 1, 0, 2] if scale == 1 else small)


# --- what steers what -------------------------------------------------------------------------------------------------------------


def visited(tx, steps, loss=losses_at):
    return {tuple(state.arms[:2].tolist()) for state in go(tx, steps, params=torch.zeros(1), loss=loss)[1]}


def test_axes_in_lock_step_try_only_some_of_the_pairs_and_joint_control_tries_all():
    settings = {
        "lr_candidates": (0.5, 1.0, 2.0),
        "noise_candidates": (0.0, 0.1, 0.2),
        "episode_length": 2,
        "reward": "log",
        "exploration": 1.0,
        "seed": 0,
    }
    with pytest.warns(UserWarning, match="3 LR and 3 noise candidates under independent control move in lock step: only 3 of the pairs"):
        locked = fo.ucb_episodes(**settings)
    assert len(visited(locked, 200)) == 3
    assert len(visited(fo.ucb_episodes(**settings, control="joint"), 200)) == 9
    assert len(visited(fo.ucb_episodes(**settings, control="conditional"), 200)) == 9
    assert len(visited(fo.ucb_episodes(**settings, control="random"), 200)) == 9


def test_an_axis_with_one_candidate_has_no_bandit():
    state = fo.ucb_episodes((1.0,), (0.1,)).init(torch.zeros(1))
    assert isinstance(state.bandits, fo.EmptyState)
    assert fo.ucb_episodes((0.5, 1.0), (0.1,)).init(torch.zeros(1)).bandits.statistics.shape == (5, 1, 1, 2)
    conditional = fo.ucb_episodes((0.5, 1.0), (0.1, 0.2, 0.3), control="conditional", context="trend").init(torch.zeros(1))
    assert conditional.bandits.statistics.shape == (5, 3, 4, 3)


def test_less_exploration_settles_on_the_better_arm():
    # Exploration dominates with the reference's 1.0: rewards of 0.2 and 0 hardly matter.
    def share(exploration):
        tx = published((0.5, 2.0), episode_length=2, exploration=exploration, ema_alpha=1.0, seed=0)
        params = torch.zeros(1)
        state, good = tx.init(params), 0
        for _ in range(100):
            _, state = tx.update(params, state, params, loss=1.0)
            better = int(state.arms[0]) == 1
            _, state = tx.update(params, state, params, loss=math.exp(-0.2) if better else 1.0)
            good += better
        return good / 100

    assert share(1.0) < 0.75 < 0.95 < share(0.05)


def test_what_is_next_to_it_is_checked_at_init():
    with pytest.raises(ValueError, match="ucb_episodes: says 'lr_multiplier' and nobody to its right hears it"):
        fo.chain(fo.ucb_episodes(), fo.scale(-0.1)).init(torch.zeros(1))
    fo.chain(fo.ucb_episodes((1.0,), (0.1,)), fo.scale(-0.1)).init(torch.zeros(1))  # noise alone needs no listener


def test_aees_multiplies_the_step_of_an_optimizer_that_hears_nothing():
    inner = fo.stateless(lambda updates, params: fo.tree.scale(-0.1, updates))
    tx = fo.aees(inner, (0.5,))
    params = torch.zeros(1)
    torch.testing.assert_close(tx.update(torch.tensor([2.0]), tx.init(params), params, loss=1.0)[0], torch.tensor([-0.1]))


def test_two_of_a_kind_stand_side_by_side_under_their_names():
    slow = fo.ucb_episodes((0.5,), episode_length=3, name="slow")
    tx = fo.chain(slow, fo.ucb_episodes((2.0,)), fo.lr_scale(0.1, hear=("lr_multiplier", "slow/lr_multiplier")))
    params = torch.zeros(1)
    updates, state = tx.update(torch.ones(1), tx.init(params), params, loss=1.0)
    torch.testing.assert_close(updates, torch.tensor([-0.1]))
    assert fo.read_signals(state)["slow/lr_multiplier"] == 0.5
    closed = slow.finalize(state[0])
    assert int(fo.find(closed, fo.UcbEpisodesState).episode) == 1
    with pytest.raises(ValueError, match="says 'slow/lr_multiplier' and nobody"):
        fo.chain(slow, fo.lr_scale(0.1)).init(params)


# --- finalize, logs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", ["branch", "select"])
def test_finalize_closes_a_partial_episode_once(dispatch):
    tx = fo.ucb_episodes(episode_length=4, dispatch=dispatch, seed=0)
    fresh = tx.init(torch.zeros(1))
    assert_trees_close(tx.finalize(fresh), fresh, rtol=0, atol=0)
    state = go(tx, 6, params=torch.zeros(1))[1][-1]
    closed = tx.finalize(state)
    assert int(state.episode) == 1 and int(closed.episode) == 2 and report(closed)["steps"] == 2
    assert_trees_close(tx.finalize(closed), closed, rtol=0, atol=0)
    following = go(tx, 4, closed, start=6, params=torch.zeros(1))[1]
    assert [int(s.episode) for s in following] == [2, 2, 2, 3]


@pytest.mark.parametrize("partial, weight", [("keep", 1.0), ("weigh", 0.5), ("discard", 0.0)])
def test_a_partial_episode_counts_as_asked(partial, weight):
    tx = fo.ucb_episodes(episode_length=4, partial=partial, seed=0)
    state = tx.finalize(go(tx, 2, params=torch.zeros(1))[1][-1])
    torch.testing.assert_close(state.bandits.statistics[0].sum().item(), weight)
    assert int(state.start) == 2


def test_finalize_under_vmap_closes_where_an_episode_is_open():
    tx = fo.ucb_episodes(episode_length=4, seed=0)
    opened, empty = go(tx, 2, params=torch.zeros(1))[1][-1], tx.init(torch.zeros(1))
    stacked = fo.tree.map(lambda *lanes: torch.stack(lanes), opened, empty)
    assert torch.func.vmap(tx.finalize)(stacked).episode.tolist() == [1, 0]


def test_a_log_needs_every_episode():
    tx = fo.ucb_episodes(episode_length=2, seed=0)
    states = go(tx, 6, params=torch.zeros(1))[1]
    assert fo.episode_log(states[1::2]) == fo.episode_log(states)
    with pytest.raises(ValueError, match="episode_log: needs a state of every episode, got none between episodes 0 and 2"):
        fo.episode_log([states[1], states[5]])
    with pytest.raises(KeyError):
        fo.episode_log([fo.sgd(0.1).init(torch.zeros(1))])


# --- laws -------------------------------------------------------------------------------------------------------------------------


class FirstOf:
    """Ties go to the arm that stands first in an order of its own for each bandit."""

    def __init__(self, orders):
        self.orders = torch.tensor(orders)

    def init(self):
        return fo.random.key(0)

    def priorities(self, key, episode, shape):
        return self.orders

    def noise(self, key, step, updates):
        return fo.tree.zeros_like(updates)


LOSSES = st.lists(st.floats(0.1, 10.0), min_size=4, max_size=24)
LOSSES_OR_NAN = st.lists(st.one_of(st.floats(0.1, 10.0), st.just(math.nan)), min_size=1, max_size=24)


@examples(max_examples=25)
@given(
    order=st.permutations([0, 1, 2]),
    losses=LOSSES,
    control=st.sampled_from(["independent", "joint"]),
    context=st.sampled_from([None, "trend"]),
)
def test_the_order_of_the_candidates_does_not_matter(order, losses, control, context):
    candidates = (0.5, 1.0, 2.0)
    settings = {"noise_candidates": (0.1,), "episode_length": 2, "control": control, "context": context}

    def multipliers(candidates, priorities):
        tx = fo.ucb_episodes(candidates, **settings, draw=FirstOf([priorities]))
        return [float(s.lr_multiplier) for s in go(tx, len(losses), params=torch.zeros(1), loss=lambda step: losses[step])[1]]

    renamed = multipliers([candidates[i] for i in order], [i + 1 for i in order])
    assert renamed == multipliers(candidates, [1, 2, 3])


@examples(max_examples=25)
@given(losses=LOSSES_OR_NAN, length=st.integers(1, 5), form=st.sampled_from(sorted(FORMS)))
def test_counts(losses, length, form):
    tx = quiet(fo.ucb_episodes, **(FULL | FORMS[form] | {"episode_length": length}))
    state = go(tx, len(losses), params=torch.zeros(1), loss=lambda step: losses[step])[1][-1]
    closed, shifted = int(state.episode), FORMS[form].get("shift_credit", False)
    assert int(state.step) == len(losses)
    assert closed == (len(losses) - shifted) // length  # the first loss of a shifted run belongs to nobody
    assert state.ignored_losses == sum(math.isnan(loss) for loss in losses[shifted:])
    if not isinstance(state.bandits, fo.EmptyState):
        learned = state.bandits.statistics[VISITS, 0, 0].sum()
        assert learned + state.discarded_episodes == closed
        assert torch.equal(state.bandits.statistics[WARMED, :, 0], state.bandits.statistics[VISITS, :, 0])


@examples(max_examples=25)
@given(scale=st.floats(1e-2, 1e2), losses=LOSSES)
def test_what_is_chosen_does_not_depend_on_the_scale_of_the_loss(scale, losses):
    def arms(scale):
        tx = fo.ucb_episodes(episode_length=2, reward_epsilon=1e-15, draw=FirstOf([[3, 2, 1]]))
        return [state.arms.tolist() for state in go(tx, len(losses), params=torch.zeros(1), loss=lambda step: scale * losses[step])[1]]

    assert arms(scale) == arms(1.0)


# --- no waiting -------------------------------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Counts operations, and those that wait for the device."""

    calls = waits = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.calls += function.__name__ not in ("detach.default", "alias.default")
        self.waits += function.__name__.startswith(("_local_scalar_dense", "nonzero", "is_nonzero", "equal"))
        return function(*arguments, **(keywords or {}))


def test_between_boundaries_a_step_is_a_few_small_operations():
    tx = fo.ucb_episodes(seed=0, dispatch="branch")
    state = go(tx, 3, params=torch.zeros(1))[1][-1]
    loss, phase = torch.tensor(1.0, dtype=torch.float64), tx.plan(state)
    with Watch() as watch:
        tx.update(torch.zeros(1), state, loss=loss, plan=phase)
    assert watch.calls <= 32  # of them the sums of a slope


@EVERY_FORM
@pytest.mark.parametrize("dispatch", ["branch", "select"])
def test_nothing_waits_for_the_device(form, dispatch):
    tx = quiet(fo.aees, fo.adamw(0.1), **(FULL | FORMS[form]), dispatch=dispatch)
    params = small_params()
    state = tx.init(params)
    for step in range(8):
        gradients, loss, plan = gradients_at(step, params), losses_at(step), tx.plan(state) if tx.plan else None
        with Watch() as watch:
            _, state = tx.update(gradients, state, params, loss=loss, plan=plan)
        assert watch.waits == 0


# --- errors -----------------------------------------------------------------------------------------------------------------------


def test_a_missing_loss_is_named():
    tx = fo.chain(fo.ucb_episodes(), fo.sgd(0.1))
    params = torch.zeros(1)
    with pytest.raises(ValueError, match=r"ucb_episodes: needs the loss of this step; call update\(\.\.\., loss=loss\)"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match=r"ucb_episodes: loss must be a number or a 0-dim tensor, got a tensor of shape \(2,\)"):
        tx.update(params, tx.init(params), params, loss=torch.zeros(2))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"lr_candidates": ()}, ValueError, "lr_candidates must not be empty"),
        ({"lr_candidates": (1.0, 0.0)}, ValueError, r"lr_candidates\[1\] must be > 0, got 0.0"),
        ({"lr_candidates": (math.nan,)}, ValueError, r"lr_candidates\[0\] must be > 0, got nan"),
        ({"lr_candidates": (1.0, 2.0, 1.0)}, ValueError, "lr_candidates must differ from each other, got 1.0 twice"),
        ({"lr_candidates": "0.5,1"}, TypeError, "lr_candidates must be a sequence of numbers, got '0.5,1'"),
        ({"lr_candidates": 2.0}, TypeError, "lr_candidates must be a sequence of numbers, got 2.0"),
        ({"lr_candidates": ("a",)}, TypeError, r"lr_candidates\[0\] must be a number, got 'a'"),
        ({"noise_candidates": (-0.1,)}, ValueError, r"noise_candidates\[0\] must be >= 0, got -0.1"),
        ({"noise_candidates": (math.inf,)}, ValueError, r"noise_candidates\[0\] must be >= 0 and finite, got inf"),
        ({"episode_length": 0}, ValueError, "episode_length must be >= 1, got 0"),
        ({"episode_length": 2.5}, TypeError, "episode_length must be an int, got 2.5"),
        ({"control": "adaptive"}, ValueError, "control must be one of 'independent', 'conditional', 'joint', 'random', got 'adaptive'"),
        ({"context": "loss"}, ValueError, "context must be one of None, 'trend', got 'loss'"),
        ({"trend_window": 0}, ValueError, "trend_window must be >= 1, got 0"),
        ({"trend_epsilon": -1.0}, ValueError, "trend_epsilon must be >= 0, got -1.0"),
        ({"reward": "linear"}, ValueError, "reward must be one of 'log', 'relative', 'slope', got 'linear'"),
        ({"instability": -0.1}, ValueError, "instability must be >= 0, got -0.1"),
        ({"reward_epsilon": 0.0}, ValueError, "reward_epsilon must be > 0, got 0.0"),
        ({"reward_clip": (1.0, -1.0)}, ValueError, r"reward_clip must be \(least, greatest\), got \(1.0, -1.0\)"),
        ({"reward_clip": (math.nan, 1.0)}, ValueError, "reward_clip must be finite, got nan"),
        ({"ema_alpha": 0.0}, ValueError, r"ema_alpha must be in \(0, 1\], got 0.0"),
        ({"ema_alpha": 1.5}, ValueError, r"ema_alpha must be in \(0, 1\], got 1.5"),
        ({"exploration": -1.0}, ValueError, "exploration must be >= 0, got -1.0"),
        ({"discount": 0.0}, ValueError, r"discount must be in \(0, 1\], got 0.0"),
        ({"warmup": 0.5}, TypeError, "warmup must be an int, got 0.5"),
        ({"partial": "half"}, ValueError, "partial must be one of 'keep', 'weigh', 'discard', got 'half'"),
        ({"dispatch": "gpu"}, ValueError, "dispatch must be one of 'auto', 'branch', 'select', got 'gpu'"),
        ({"seed": 0.5}, TypeError, "seed must be an int, a 0-dim integer tensor or a key"),
        ({"seed": "a"}, TypeError, "seed must be an int, a 0-dim integer tensor or a key"),
    ],
)
def test_says_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=f"ucb_episodes: {message}"):
        fo.ucb_episodes(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"episode_length": 1}, "with episode_length=1 a reward compares a loss with itself"),
        ({"context": "trend", "trend_window": 1}, "with trend_window=1 there is no slope"),
    ],
)
def test_warns_of_what_cannot_learn(arguments, message):
    with pytest.warns(UserWarning, match=f"ucb_episodes: {message}"):
        fo.ucb_episodes(**arguments)


def test_a_torch_optimizer_has_to_be_wrapped():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    with pytest.raises(
        TypeError,
        match=r"aees: inner must be a GradientTransformation, got the optimizer torch.AdamW; fo.torch_optim.from_torch\(torch.optim.AdamW",
    ):
        fo.aees(optimizer)


def test_branch_dispatch_refuses_what_it_cannot_look_at():
    tx = fo.ucb_episodes(dispatch="branch")
    params = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="ucb_episodes: a value cannot be read inside vmap, grad or a traced graph.*use dispatch='select'"):
        torch.func.vmap(lambda p: tx.update(p, tx.init(p), p, loss=1.0)[0])(params)
