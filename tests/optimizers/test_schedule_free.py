"""Schedule-free optimizers by hand, against their own average, and which rate weighs it."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, quartic, small_params


def test_two_steps_by_hand():
    # lr 1/2, b1 1/2, gradients 1 then 1 from 1: z = 1/2, 0; c = 1, 1/2; x = 1/2, 1/4; y = 1/2, 1/8.
    tx = fo.schedule_free_sgd(0.5, b1=0.5)
    params = torch.ones((), dtype=torch.float64)
    state = tx.init(params)
    for z, x, y in ((0.5, 0.5, 0.5), (0.0, 0.25, 0.125)):
        updates, state = tx.update(torch.ones_like(params), state, params)
        params = fo.apply_updates(params, updates)
        assert (state.z.item(), fo.schedule_free_eval_params(state, params).item(), params.item()) == pytest.approx((z, x, y))


def test_evaluates_at_the_mean_of_where_the_base_has_been():
    tx, params = fo.schedule_free_adamw(0.05), small_params()
    state, places = tx.init(params), []
    for _ in range(7):
        updates, state = tx.update(torch.func.grad(quartic)(params), state, params)
        params = fo.apply_updates(params, updates)
        places.append(state.z)
    mean = fo.tree.map(lambda *zs: sum(zs) / len(zs), *places)
    assert_trees_close(fo.schedule_free_eval_params(state, params), mean)
    assert_trees_close(fo.schedule_free_eval_params((fo.EmptyState(), state), params), mean)  # from a chain's state too


def test_a_rate_of_zero_has_no_weight():
    tx = fo.schedule_free_sgd(0.5, warmup_steps=3)
    params = torch.ones(2, dtype=torch.float64)
    updates, state = tx.update(torch.ones_like(params), tx.init(params), params)
    assert not updates.any() and torch.isfinite(state.weight_sum)


def test_the_weight_is_the_rate_of_the_step_unless_told_otherwise():
    def schedule(count):
        return 0.1 * (count.double() + 1)

    params = torch.ones(1, dtype=torch.float64)
    ours, theirs = fo.schedule_free(fo.sgd(schedule)), fo.schedule_free(fo.sgd(schedule), schedule)
    assert ours.update(params, ours.init(params), params)[1].max_lr.item() == pytest.approx(0.1)
    assert theirs.update(params, theirs.init(params), params)[1].max_lr.item() == pytest.approx(0.2)  # optax: one step ahead


def test_z_may_have_another_dtype():
    params = torch.ones(2, dtype=torch.bfloat16)
    tx = fo.schedule_free_sgd(0.1, state_dtype=torch.float32)
    updates, state = tx.update(params, tx.init(params), params)
    assert state.z.dtype == torch.float32 and updates.dtype == torch.bfloat16


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="schedule_free: b1 must be > 0, got 0.0"):
        fo.schedule_free_sgd(0.1, b1=0.0)
    with pytest.raises(ValueError, match="base_optimizer must say its 'lr'"):
        fo.schedule_free(fo.scale(-0.1)).init(torch.ones(1))
    with pytest.raises(ValueError, match="warmup_steps needs a number for lr"):
        fo.schedule_free_adamw(lambda count: 0.1, warmup_steps=3)
    tx = fo.schedule_free_sgd(0.1)
    with pytest.raises(ValueError, match="schedule_free: needs the params"):
        tx.update(torch.ones(1), tx.init(torch.ones(1)))
