"""multi_steps and apply_every: one step from many gradients, however it is dispatched."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

import funcopt as fo
from tests.helpers import assert_trees_close, assert_trees_equal, gradients_at, small_params

NAN = float("nan")


def drive(tx, gradients, params, losses=None):
    state, history = tx.init(params), []
    for step, gradient in enumerate(gradients):
        extra = {} if losses is None else {"loss": losses[step]}
        updates, state = tx.update(gradient, state, params, **extra)
        params = fo.apply_updates(params, updates)
        history.append(updates)
    return history, params, state


@pytest.mark.parametrize("dispatch", ["auto", "select"])
@pytest.mark.parametrize("mean", [True, False])
def test_is_the_inner_optimizer_on_the_mean_or_the_sum(dispatch, mean):
    params = small_params()
    gradients = [gradients_at(step, params) for step in range(7)]
    history, after, state = drive(fo.multi_steps(fo.adam(0.1), 3, mean, dispatch=dispatch), gradients, params)
    joined = [fo.tree.add(*gradients[start : start + 3]) for start in (0, 3)]
    if mean:
        joined = [fo.tree.scale(1 / 3, total) for total in joined]
    expected, straight, inner = drive(fo.adam(0.1), joined, params)
    assert_trees_close(after, straight)
    assert_trees_close(state.inner_opt_state, inner)
    assert_trees_close([history[2], history[5]], expected)
    for step in (0, 1, 3, 4, 6):
        assert fo.tree.norm(history[step]) == 0
    assert int(state.mini_step) == 1 and int(state.gradient_step) == 2


def test_branch_and_select_agree_bit_for_bit_with_a_schedule():
    params = small_params()
    gradients = [gradients_at(step, params) for step in range(9)]
    every = lambda step: 1 + step % 3  # noqa: E731
    branched = drive(fo.multi_steps(fo.sgd(0.1, momentum=0.9), every), gradients, params)
    selected = drive(fo.multi_steps(fo.sgd(0.1, momentum=0.9), every, dispatch="select"), gradients, params)
    assert_trees_equal(branched[1:], selected[1:])
    assert int(branched[2].gradient_step) == 5  # 1 + 2 + 3 + 1 + 2 calls


@pytest.mark.parametrize("dispatch", ["auto", "select"])
def test_a_controller_inside_hears_the_mean_of_the_losses(dispatch):
    heard = []

    def update(updates, state, params=None, *, loss=None, **extra):
        heard.append(loss)
        return updates, state

    spy = fo.GradientTransformation(lambda params: fo.EmptyState(), update, name="spy")
    tx = fo.multi_steps(spy, 3, dispatch=dispatch)
    drive(tx, [torch.ones(1)] * 6, torch.zeros(1), losses=[1.0, 2.0, 6.0, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(3.0)])
    means = heard if dispatch == "auto" else [heard[2], heard[5]]
    torch.testing.assert_close(torch.stack(means), torch.tensor([3.0, 1.0], dtype=torch.float64))


def test_without_a_loss_none_is_made_up():
    with pytest.raises(ValueError, match="needs the loss of this step"):
        drive(fo.multi_steps(fo.chain(fo.ucb_episodes(episode_length=2, seed=0), fo.sgd(0.1)), 1), [torch.ones(1)], torch.zeros(1))


def test_skipped_gradients_and_their_losses_do_not_count():
    tx = fo.multi_steps(fo.sgd(1.0), 2, should_skip_update_fn=fo.skip_not_finite)
    gradients = [torch.tensor([1.0]), torch.tensor([NAN]), torch.tensor([3.0])]
    history, _, state = drive(tx, gradients, torch.zeros(1), losses=[1.0, NAN, 3.0])
    assert_trees_equal(history, [torch.zeros(1), torch.zeros(1), torch.tensor([-2.0])])
    assert tx.has_updated(state) and not state.skip_state["should_skip"]


def test_each_branch_is_a_graph_of_its_own():
    params = small_params()
    tx = fo.multi_steps(fo.adam(0.1), 2)
    state = tx.init(params)
    assert tx.plan(state) == (False, None)
    waited = tx.update(gradients_at(0, params), state, params, plan=(False, None))
    assert_trees_equal(waited, tx.update(gradients_at(0, params), state, params))
    state = waited[1]
    assert tx.plan(state) == (True, None)
    assert_trees_equal(
        tx.update(gradients_at(1, params), state, params, plan=(True, None)), tx.update(gradients_at(1, params), state, params)
    )


def test_a_compiled_step_has_one_graph_for_waiting_and_one_for_stepping():
    params = {"w": torch.ones(3, dtype=torch.float64)}
    results = []
    for compile in (False, True):
        step = fo.make_step(lambda params, scale: scale * params["w"].square().sum(), fo.multi_steps(fo.adam(0.1), 2), compile=compile)
        held, state = step.init(params)
        for index in range(5):
            held, state, _ = step(held, state, torch.tensor(1.0 + index, dtype=torch.float64))
        results.append(step.params(held))
    assert_trees_close(*results, rtol=1e-9)
    assert len(step._steps) == 2


def test_narrow_params_are_accumulated_in_float32():
    params = torch.zeros(2, dtype=torch.bfloat16)
    assert fo.multi_steps(fo.sgd(0.1), 4).init(params).acc_grads.dtype == torch.float32
    assert fo.multi_steps(fo.sgd(0.1), 4, accumulator_dtype=torch.bfloat16).init(params).acc_grads.dtype == torch.bfloat16
    history, _, _ = drive(fo.multi_steps(fo.sgd(1.0), 4), [torch.full((2,), 2.0**-k, dtype=torch.bfloat16) for k in (0, 8, 8, 8)], params)
    assert history[-1].dtype == torch.bfloat16


@settings(deadline=None, max_examples=20)
@given(k=st.integers(1, 5), calls=st.integers(1, 12))
def test_apply_every_lets_through_all_that_came_in(k, calls):
    gradients = [torch.tensor([float(2**i)], dtype=torch.float64) for i in range(calls)]
    history, _, _ = drive(fo.apply_every(k), gradients, torch.zeros(1, dtype=torch.float64))
    whole = calls // k * k
    assert sum(history) == sum(gradients[:whole], torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: fo.multi_steps(fo.sgd(0.1), 0), "multi_steps: every_k_schedule must be >= 1, got 0"),
        (lambda: fo.multi_steps(fo.sgd(0.1), 2, dispatch="branch"), "multi_steps: dispatch must be one of 'auto', 'select'"),
        (lambda: fo.apply_every(0), "apply_every: k must be >= 1, got 0"),
        (
            lambda: drive(
                fo.multi_steps(fo.sgd(0.1), 2, should_skip_update_fn=lambda u, s, p: (False, ())), [torch.ones(1)], torch.ones(1)
            ),
            "0-dim bool",
        ),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_length_that_cannot_be_read_is_refused_where_it_decides():
    """Taken for 1 it would make a step of every call."""
    tx = fo.multi_steps(fo.sgd(0.1), lambda made: torch.tensor(4, device="meta"))
    state = tx.init(torch.zeros(2))
    with pytest.raises(ValueError, match="multi_steps: needs a tensor on the CPU to read, got one on meta.*; use dispatch='select'"):
        tx.update(torch.ones(2), state)


@pytest.mark.parametrize(
    ("entry", "bound", "skipped"),
    [(1e20, 1e41, False), (1e20, 1e40, True), (4096.0, 4096.0**2 * 4 + 1, False), (4096.0, 4096.0**2 * 4, True)],
)
def test_a_bound_on_the_square_is_compared_where_both_are_held(entry, bound, skipped):
    skip, told = fo.skip_large_updates(torch.full((4,), entry), torch.tensor(0), None, max_squared_norm=bound)
    assert bool(skip) is skipped and bool(told["should_skip"]) is skipped
    assert told["norm_squared"].dtype == torch.float32  # as the states of multi_steps hold it


def test_losses_that_are_numbers_are_averaged_in_float64():
    tx, params = fo.multi_steps(fo.sgd(0.1), 2), torch.ones(1)
    assert tx.update(params, tx.init(params), params, loss=0.1)[1].loss.item() == 0.1
