"""Choosing between copies: what exploiting and exploring keep, whatever the losses, and what they refuse."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_equal

LOSSES = st.lists(st.one_of(st.floats(-10, 10), st.sampled_from([float("nan"), float("inf")])), min_size=2, max_size=12)


def population(copies):
    pop = fo.population.make_step(
        lambda p: p["w"].square().sum(),
        lambda lr, momentum, seed: fo.sgd(lr, momentum=momentum),
        hyper={
            "lr": torch.linspace(0.01, 0.1, copies, dtype=torch.float64),
            "momentum": torch.linspace(0.5, 0.9, copies),
            "seed": fo.random.split(fo.random.key(5), copies),
        },
    )
    params, state = pop.init({"w": torch.arange(2.0 * copies).reshape(copies, 2)})
    params, state, _ = pop(params, state)
    return params, state


@settings(max_examples=30, deadline=None)
@given(losses=LOSSES, fraction=st.floats(0.05, 0.5), seed=st.integers(0, 2**31))
def test_the_worst_go_on_from_the_best_and_the_others_stay(losses, fraction, seed):
    losses = torch.tensor(losses, dtype=torch.float64)
    copies, few = len(losses), max(1, int(fraction * len(losses)))
    params, state = population(copies)
    after, after_state, source = fo.population.exploit_explore(fo.random.key(seed), params, state, losses, fraction=fraction)

    settled = losses.nan_to_num(torch.inf, posinf=torch.inf)
    replaced = source != torch.arange(copies)
    assert replaced.sum() == few
    best, worst = settled.sort().values[few - 1], settled.sort(descending=True).values[few - 1]
    assert (settled[source[replaced]] <= best).all() and (settled[replaced] >= worst).all()
    # Params, state and seeds are those of the source, bit for bit; the hyperparameters too where nothing was replaced.
    assert_trees_equal(after, fo.tree.map(lambda x: x[source], params))
    assert_trees_equal(after_state.inner, fo.tree.map(lambda x: x[source], state.inner))
    assert torch.equal(after_state.hyper["seed"], state.hyper["seed"][source])
    for name in ("lr", "momentum"):
        ratio = after_state.hyper[name] / state.hyper[name][source]
        assert (ratio[~replaced] == 1).all()
        assert all(min(abs(r - 0.8), abs(r - 1.25)) < 1e-5 for r in ratio[replaced].tolist())
        assert after_state.hyper[name].dtype == state.hyper[name].dtype


@settings(max_examples=15, deadline=None)
@given(losses=LOSSES, seed=st.integers(0, 2**31))
def test_it_is_a_pure_function_of_its_key(losses, seed):
    losses = torch.tensor(losses, dtype=torch.float64)
    params, state = population(len(losses))
    before = fo.tree.clone((params, state, losses))
    first = fo.population.exploit_explore(fo.random.key(seed), params, state, losses)
    assert_trees_equal(first, fo.population.exploit_explore(fo.random.key(seed), params, state, losses))
    assert_trees_equal((params, state, losses), before)


@settings(max_examples=30, deadline=None)
@given(losses=LOSSES)
def test_the_best_has_the_lowest_loss(losses):
    losses = torch.tensor(losses, dtype=torch.float64)
    chosen = fo.population.best({"place": torch.arange(len(losses))}, losses)["place"]
    assert chosen == losses.nan_to_num(torch.inf, posinf=torch.inf).argmin()


def test_donors_and_factors_are_drawn_evenly_and_apart():
    copies = 400
    params, state = population(copies)
    losses = torch.arange(copies, dtype=torch.float64)
    _, after, source = fo.population.exploit_explore(fo.random.key(1), params, state, losses, fraction=0.5)
    donors = source[200:]
    assert len(set(donors.tolist())) > 110  # of 200 drawn with replacement from 200, 126 are expected to differ
    up = {name: (after.hyper[name] / state.hyper[name][source])[200:] > 1 for name in ("lr", "momentum")}
    assert all(70 < drawn.sum() < 130 for drawn in up.values())
    assert 70 < (up["lr"] == up["momentum"]).sum() < 130


def test_names_and_bounds_say_what_is_explored_and_how_far():
    params, state = population(4)
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0])
    _, after, source = fo.population.exploit_explore(
        fo.random.key(0), params, state, losses, factors=(1.25,), explore=["momentum"], bounds={"momentum": (0.0, 0.55)}
    )
    assert source.tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(after.hyper["momentum"], torch.tensor([0.5, 0.5 + 0.4 / 3, 0.5 + 0.8 / 3, 0.55]))
    assert after.hyper["lr"][3] == state.hyper["lr"][0]


def test_a_member_is_chosen_by_number_or_on_the_device():
    params, _ = population(3)
    assert_trees_equal(fo.population.member(params, 2), fo.population.member(params, torch.tensor(2)))
    assert fo.population.member(params, torch.tensor(2))["w"].data_ptr() != params["w"].data_ptr()


def test_copies_are_stacked_and_repeated():
    trees = [{"w": torch.full((2,), float(i)), "s": torch.tensor(float(i))} for i in range(3)]
    stacked = fo.population.stack(trees)
    assert stacked["w"].shape == (3, 2) and stacked["s"].tolist() == [0, 1, 2]
    assert_trees_equal(fo.population.member(stacked, 1), trees[1])
    repeated = fo.population.repeat(trees[1], 3)
    assert repeated["s"].tolist() == [1, 1, 1] and repeated["w"].stride() == (2, 1)


def test_permutations_hold_every_row_once_and_differ_by_copy_and_epoch():
    keys = fo.random.split(fo.random.key(0), 5)
    orders = [fo.population.permutations(keys, 40, epoch) for epoch in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(40).expand(5, -1))
    assert len({tuple(order) for order in torch.cat(orders).tolist()}) == 10


KEY, LOSS = fo.random.key(0), torch.arange(4.0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"fraction": 0.6}, r"population.exploit_explore: fraction must be in \(0, 0.5\], got 0.6"),
        ({"factors": ()}, "population.exploit_explore: factors must hold at least one, got none"),
        ({"factors": (0.0,)}, "population.exploit_explore: each of factors must be > 0, got 0.0"),
        ({"explore": ["rate"]}, "population.exploit_explore: 'rate' is none of the hyperparameters, which are lr, momentum, seed"),
        ({"bounds": {"rate": (0, 1)}}, "population.exploit_explore: 'rate' is none of the hyperparameters"),
        ({"losses": torch.ones(4, 2)}, r"population.exploit_explore: losses must be a tensor with one number per copy, got shape \(4, 2\)"),
        ({"losses": torch.ones(3)}, "population.exploit_explore: params at 'w' must have a leading axis of 3 copies, got 4"),
        ({"losses": torch.ones(1)}, "population.exploit_explore: needs at least two copies, got 1"),
    ],
)
def test_says_what_is_wrong(settings, message):
    params, state = population(4)
    with pytest.raises(ValueError, match=message):
        fo.population.exploit_explore(KEY, params, state, **{"losses": LOSS} | settings)


def test_the_best_of_none_is_refused():
    with pytest.raises(ValueError, match="population.best: losses must be a tensor with one number per copy, got list"):
        fo.population.best({"w": torch.ones(2, 3)}, [1.0, 2.0])
    with pytest.raises(ValueError, match="population.stack: needs at least one tree, got none"):
        fo.population.stack([])
