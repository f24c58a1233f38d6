"""Where torch's default device is an accelerator, params on the CPU are stepped, saved and loaded as ever."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at, small_params
from tests.zoo import ROWS

ELSEWHERE = torch.device("meta")  # holds no number: whoever works one out there fails


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_no_state_or_update_lies_on_the_default_device(row):
    params = small_params()
    gradients, extra = gradients_at(0, params), row.extra(0)
    expected, _ = (tx := row.make()).update(gradients, tx.init(params), params, **extra)
    with ELSEWHERE:
        tx = row.make()
        state = tx.init(params)
        updates, state = tx.update(gradients, state, params, **extra)
    assert {x.device.type for x in fo.tree.leaves((updates, state))} == {"cpu"}
    assert_trees_equal(updates, expected)


def test_a_checkpoint_is_saved_and_loaded(tmp_path):
    state = fo.adam(0.1).init(torch.ones(3))
    with ELSEWHERE:
        fo.checkpoint.save(tmp_path / "state.pt", state)
        loaded = fo.checkpoint.load(tmp_path / "state.pt", state)
    assert_trees_equal(loaded, state)


def test_a_pool_and_the_scheduler_of_torch_hold_their_tables_beside_the_params():
    params = torch.ones(3)

    def trained():
        members = {"adam": fo.Member(fo.scale_by_adam(), lr=0.1), "momentum": fo.Member(fo.trace(0.9), lr=0.1)}
        halved = fo.schedules.from_torch_scheduler(lambda opt: torch.optim.lr_scheduler.StepLR(opt, 2), 10, lr=1.0)
        tx = fo.chain(fo.roulette(members, every=1, seed=0), fo.scale_by_schedule(halved), fo.lr_scale())
        state = tx.init(params)
        for _ in range(4):
            updates, state = tx.update(params, state, params)
        return updates

    with ELSEWHERE:
        found = trained()
    assert_trees_equal(found, trained())


def test_torch_optimizers_step_and_hand_their_state_over():
    def trained():
        weight = torch.nn.Parameter(torch.ones(3, device="cpu"))
        ours, theirs = (
            fo.torch_optim.adagrad([weight], lr=0.1),
            fo.torch_optim.Optimizer([weight], fo.torch_optim.from_torch(torch.optim.SGD, lr=0.1)),
        )
        for opt in (ours, theirs):
            weight.grad = torch.ones(3, device="cpu")
            opt.step()
        again = fo.torch_optim.adagrad([weight], lr=0.1)
        again.load_state_dict(ours.to_torch_state_dict())
        again.step()
        return weight.detach()

    with ELSEWHERE:
        found = trained()
    assert_trees_equal(found, trained())
