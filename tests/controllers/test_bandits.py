"""Discounted UCB: by hand, and its laws."""

import math

import pytest
import torch
from hypothesis import given, settings as examples, strategies as st

from funcopt.controllers.pulseopt import bandits
from funcopt.controllers.pulseopt.bandits import EARNED, SUM, VISITS, WARMED, WEIGHT, Ucb

ONE = torch.tensor(1.0, dtype=torch.float64)
YES = torch.tensor([True])
FIRST = torch.tensor([[3, 2, 1]])  # ties go to the arm with the lowest index


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def paid(settings: Ucb, history: list[tuple[int, float]], arms: int = 3) -> bandits.Bandits:
    state = bandits.init([arms])
    for arm, reward in history:
        state = bandits.update(state, None, torch.tensor([arm]), YES, number(reward), ONE, settings)
    return state


def test_third_choice_by_hand():
    # Two arms paid 0.5 and 0.25 with discount 1/2: weights 1/2 and 1, sums 1/4 and 1/4.
    settings = Ucb(exploration=2.0, discount=0.5)
    state = paid(settings, [(0, 0.5), (1, 0.25)], arms=2)
    assert state.statistics[[WEIGHT, SUM], 0, 0].tolist() == [[0.5, 1.0], [0.25, 0.25]]
    choice = bandits.choices(state, None, settings)
    bonus = math.log(2.5)
    torch.testing.assert_close(
        choice.scores[0], torch.tensor([0.5 + 2 * math.sqrt(bonus / 0.5), 0.25 + 2 * math.sqrt(bonus)], dtype=torch.float64)
    )
    assert choice.best.tolist() == [[True, False]]


def test_warm_up_visits_every_arm_as_often_as_asked_and_the_least_visited_first():
    settings = Ucb(warmup=2)
    state, visited = bandits.init([3]), []
    for _ in range(6):
        arm = bandits.pick(bandits.choices(state, None, settings).best, FIRST)
        visited.append(arm.item())
        state = bandits.update(state, None, arm, YES, number(0.0), ONE, settings)
    assert visited == [0, 1, 2, 0, 1, 2]
    assert not bandits.choices(state, None, settings).warming


def test_an_arm_that_was_never_tried_wins_without_a_warm_up():
    settings = Ucb(warmup=0)
    assert bandits.choices(paid(settings, [(0, 1.0), (2, 1.0)]), None, settings).best.tolist() == [[False, True, False]]


def test_arms_that_a_bandit_does_not_have_are_never_best():
    state, settings = bandits.init([2, 4]), Ucb(warmup=0)
    exists = bandits.existing([2, 4], torch.device("cpu"))
    for warmup in (0, 1):
        best = bandits.choices(state, None, settings._replace(warmup=warmup), exists).best
        assert best.tolist() == [[True, True, False, False], [True] * 4]


def test_a_row_begins_as_a_copy_of_the_global_one_and_with_no_visits_of_its_own():
    settings, row = Ucb(), torch.tensor(2)
    state = bandits.init([3], rows=4)
    state = bandits.update(state, torch.tensor(1), torch.tensor([1]), YES, number(0.3), ONE, settings)
    torch.testing.assert_close(bandits.in_use(state, row, settings)[: WARMED + 1], state.statistics[: WARMED + 1, :, 0])
    begun = bandits.begin_rows(state, row, YES, settings)
    assert begun.created.tolist() == [[True, False, True, False]]
    assert begun.statistics[: WARMED + 1, 0, 2].tolist() == begun.statistics[: WARMED + 1, 0, 0].tolist()
    assert not begun.statistics[VISITS:, 0, 2].any()
    again = bandits.update(begun, torch.tensor(3), torch.tensor([0]), YES, number(1.0), ONE, settings)
    assert torch.equal(bandits.begin_rows(again, row, YES, settings).statistics, again.statistics)  # it has begun
    without = bandits.begin_rows(state, row, YES, settings._replace(prior=False))
    assert not without.statistics[:, 0, 2].any()


HISTORIES = st.lists(st.tuples(st.integers(0, 2), st.floats(-1, 1)), min_size=0, max_size=25)
SETTINGS = st.builds(
    Ucb, exploration=st.floats(0, 3), discount=st.floats(0.1, 1.0), warmup=st.integers(0, 3), floor=st.just(1e-12), prior=st.just(True)
)


@given(settings=SETTINGS, history=HISTORIES)
def test_a_bandit_pays_the_arm_that_earned(settings, history):
    before = paid(settings, history)
    after = bandits.update(before, None, torch.tensor([1]), YES, number(0.5), ONE, settings)
    old, new = before.statistics[:, 0, 0], after.statistics[:, 0, 0]
    gained = new - torch.stack([settings.discount * old[WEIGHT], settings.discount * old[SUM], *old[WARMED:]])
    expected = torch.zeros(5, 3, dtype=torch.float64)
    expected[:, 1] = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.5])
    torch.testing.assert_close(gained, expected)


@given(settings=SETTINGS, history=HISTORIES)
def test_counts_add_up(settings, history):
    weights, sums, warmed, visits, earned = paid(settings, history).statistics[:, 0, 0]
    assert visits.tolist() == warmed.tolist() == [sum(arm == a for arm, _ in history) for a in range(3)]
    torch.testing.assert_close(earned.sum(), torch.tensor(sum(r for _, r in history), dtype=torch.float64))
    expected = sum(settings.discount**age for age in range(len(history)))
    torch.testing.assert_close(weights.sum(), torch.tensor(float(expected), dtype=torch.float64))
    assert bool((sums.abs() <= weights + 1e-12).all())  # rewards are at most one


@given(settings=SETTINGS, history=HISTORIES, order=st.permutations([0, 1, 2]))
def test_relabelling_the_arms_relabels_everything(settings, history, order):
    plain, renamed = paid(settings, history), paid(settings, [(order[arm], reward) for arm, reward in history])
    torch.testing.assert_close(renamed.statistics[..., order], plain.statistics)
    ours, theirs = bandits.choices(plain, None, settings), bandits.choices(renamed, None, settings)
    torch.testing.assert_close(theirs.scores[:, order], ours.scores)
    assert torch.equal(theirs.best[:, order], ours.best)


@given(settings=SETTINGS, history=HISTORIES)
def test_no_weight_changes_nothing(settings, history):
    state = paid(settings, history)
    after = bandits.update(state, None, torch.tensor([1]), YES, number(0.5), 0 * ONE, settings)
    assert torch.equal(after.statistics, state.statistics)


@examples(max_examples=20)
@given(history=st.lists(st.tuples(st.integers(0, 2), st.floats(-1, 1), st.integers(1, 3)), max_size=15))
def test_every_row_learns_its_own_and_the_global_one_everything(history):
    settings, state = Ucb(), bandits.init([3], rows=4)
    for arm, reward, row in history:
        state = bandits.begin_rows(state, torch.tensor(row), YES, settings)
        state = bandits.update(state, torch.tensor(row), torch.tensor([arm]), YES, number(reward), ONE, settings)
    visits, earned = state.statistics[[VISITS, EARNED], 0]
    torch.testing.assert_close(visits[0], visits[1:].sum(0))
    torch.testing.assert_close(earned[0], earned[1:].sum(0))
    assert state.created[0, 1:].tolist() == [any(row == r for _, _, row in history) for r in (1, 2, 3)]


@given(history=HISTORIES)
def test_vmapped_equals_loop(history):
    settings = Ucb()
    states = [paid(settings, history[:cut]) for cut in range(len(history) + 1)]
    stacked = bandits.Bandits(*(torch.stack(column) for column in zip(*states, strict=True)))
    best = torch.func.vmap(lambda state: bandits.choices(state, None, settings).best)(stacked)
    assert torch.equal(best, torch.stack([bandits.choices(state, None, settings).best for state in states]))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"exploration": -1.0}, r"ucb: exploration must be >= 0, got -1.0"),
        ({"discount": 0.0}, r"ucb: discount must be in \(0, 1\], got 0.0"),
        ({"discount": 1.5}, r"ucb: discount must be in \(0, 1\], got 1.5"),
        ({"warmup": -1}, r"ucb: warmup must be >= 0, got -1"),
        ({"floor": 0.0}, r"ucb: floor must be > 0, got 0.0"),
    ],
)
def test_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        bandits.check_settings("ucb", Ucb(**settings))
    with pytest.raises(ValueError, match="arms must be >= 1, got 0"):
        bandits.init([3, 0])
