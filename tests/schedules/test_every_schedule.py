"""What holds for every schedule: the form of its value, transforms of torch.func, the compiler, hyperparameters that are tensors."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import funcopt as fo

s = fo.schedules
PIECE = {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 5}
ROWS = {
    "constant_schedule": lambda v: s.constant_schedule(v),
    "linear_schedule": lambda v: s.linear_schedule(v, 0.1, 5, 2),
    "polynomial_schedule": lambda v: s.polynomial_schedule(v, 0.1, 0.5, 5),
    "exponential_decay": lambda v: s.exponential_decay(v, 3, 0.5, 1, end_value=0.2),
    "cosine_decay_schedule": lambda v: s.cosine_decay_schedule(v, 7, 0.1, 2.0),
    "warmup_constant_schedule": lambda v: s.warmup_constant_schedule(0.0, v, 4),
    "warmup_cosine_decay_schedule": lambda v: s.warmup_cosine_decay_schedule(0.0, v, 3, 9, 0.1),
    "warmup_exponential_decay_schedule": lambda v: s.warmup_exponential_decay_schedule(0.0, v, 3, 2, 0.5),
    "piecewise_constant_schedule": lambda v: s.piecewise_constant_schedule(v, {2: 0.5, 5: 0.1}),
    "piecewise_interpolate_schedule": lambda v: s.piecewise_interpolate_schedule("cosine", v, {2: 0.5, 5: 0.1}),
    "linear_onecycle_schedule": lambda v: s.linear_onecycle_schedule(10, v),
    "cosine_onecycle_schedule": lambda v: s.cosine_onecycle_schedule(10, v),
    "sgdr_schedule": lambda v: s.sgdr_schedule([PIECE | {"peak_value": v}, PIECE]),
    "warmup_stable_decay_schedule": lambda v: s.warmup_stable_decay_schedule(0.0, v, 2, 10, 5, 0.1),
    "reciprocal_sqrt_schedule": lambda v: s.reciprocal_sqrt_schedule(0.0, v, 3, 5),
    "rex_decay_schedule": lambda v: s.rex_decay_schedule(v, 7, 0.1),
    "infinite_cosine_schedule": lambda v: s.infinite_cosine_schedule(0.0, v, 2, 3, 0.4, 8, 3, 0.1),
    "from_torch_scheduler": lambda v: v * s.from_torch_scheduler(lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3, 0.5), 9, lr=1.0),
    "join_schedules": lambda v: s.join_schedules([s.constant_schedule(v), s.linear_schedule(v, 0.0, 4)], [3]),
}
COUNTS = torch.arange(12)
every_schedule = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)


def curve(schedule):
    return torch.stack([schedule(count) for count in COUNTS])


def test_every_public_schedule_has_a_row():
    assert set(ROWS) == {name for name in s.__all__ if name.islower()}


@every_schedule
def test_gives_a_number_in_float64_for_any_kind_of_count(make):
    schedule = make(1.0)
    for count in (3, torch.tensor(3), torch.tensor(3, dtype=torch.int32), torch.tensor(3.0)):
        value = schedule(count)
        assert value.shape == () and value.dtype == torch.float64
        torch.testing.assert_close(value, schedule(3), rtol=0.0, atol=0.0)


@every_schedule
def test_vmap_over_counts_equals_a_loop(make):
    schedule = make(1.0)
    torch.testing.assert_close(torch.func.vmap(schedule)(COUNTS), curve(schedule), rtol=1e-14, atol=0.0)


@every_schedule
def test_vmap_over_a_hyperparameter_equals_a_loop(make):
    values = torch.tensor([0.5, 2.0], dtype=torch.float64)
    batched = torch.func.vmap(lambda v: curve(make(v)))(values)
    torch.testing.assert_close(batched, torch.stack([curve(make(v.item())) for v in values]), rtol=1e-14, atol=1e-16)


@every_schedule
def test_slope_in_a_hyperparameter_is_finite_and_right(make):
    value = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: curve(make(v)), (value,))


@every_schedule
def test_traces_whole_without_recompiling(make):
    schedule = make(1.0)
    torch._dynamo.reset()
    frames = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(schedule, backend=frames, fullgraph=True)
    torch.testing.assert_close(torch.stack([compiled(count) for count in COUNTS]), curve(schedule), rtol=1e-14, atol=0.0)
    assert frames.frame_count == 1


@every_schedule
def test_keeps_its_last_value(make):
    schedule = make(1.0)
    if make is ROWS["warmup_exponential_decay_schedule"]:
        assert schedule(10**6) == 0.0
    elif make is ROWS["reciprocal_sqrt_schedule"]:
        assert schedule(10**9) / schedule(10**6) == pytest.approx(1000**-0.5, rel=1e-5)
    else:
        assert schedule(10**6) == schedule(10**9)


@every_schedule
def test_sizes_a_step(make):
    tx = fo.sgd(make(1.0))
    params = torch.zeros(2, dtype=torch.float64)
    updates, _ = tx.update(torch.ones_like(params), tx.init(params), params)
    torch.testing.assert_close(updates, -make(1.0)(0).expand(2))
