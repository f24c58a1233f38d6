"""mode="reduce-overhead": a whole donated step replayed as a CUDA graph, for every flattenable row and for controllers that select."""

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_close, quartic, tiny_params
from tests.zoo import ROWS, small_pool, with_loss

pytestmark = [pytest.mark.long, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def sentence():
    roulette = fo.roulette(small_pool(), every=2, seed=0, dispatch="select")
    return fo.chain(fo.agreement_policy(), roulette, fo.ucb_episodes(episode_length=2, seed=0, dispatch="select"), fo.lr_scale())


def bandit():
    return fo.chain(fo.ucb_episodes((0.5, 1.0, 2.0), episode_length=2, seed=0, dispatch="select"), fo.adamw(0.1))


CONTROLLERS = {"the sentence": (sentence, with_loss), "ucb_episodes": (bandit, with_loss)}
CASES = {row.id: (row.make, row.extra) for row in ROWS if row.make().flattenable and row.make().plan is None} | CONTROLLERS


def on_the_gpu(values):
    return fo.tree.map_plain(lambda x: x.to("cuda", torch.float32), values)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_replays_give_the_numbers_of_eager_steps_without_waiting_for_the_device(case):
    make, extra = case
    trained = {}
    for name, form in {"eager": {}, "replayed": {"compile": True, "donate": True, "mode": "reduce-overhead"}}.items():
        torch._dynamo.reset()
        torch.manual_seed(0)
        step = fo.make_step(quartic, make(), flat=True, **form)
        held, state = step.init(on_the_gpu(tiny_params()))
        losses = []
        for index in range(6):
            given = {key: value.to("cuda") if isinstance(value, torch.Tensor) else value for key, value in extra(index).items()}
            if index == 5:
                torch.cuda.set_sync_debug_mode("error" if name == "replayed" else "default")
            try:
                held, state, loss = step(held, state, **given)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            losses.append(loss)
        trained[name] = losses, step.params(held), step.state(state)
    assert_trees_close(trained["replayed"], trained["eager"], rtol=1e-4, atol=1e-5)


def test_a_small_step_is_replayed_and_not_launched():
    torch._dynamo.reset()
    step = fo.make_step(quartic, fo.adamw(0.1), compile=True, donate=True, flat=True, mode="reduce-overhead")
    held, state = step.init(on_the_gpu(tiny_params()))
    for _ in range(4):
        held, state, _ = step(held, state)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step(held, state)
    assert any("cudaGraphLaunch" in event.key for event in profiler.key_averages())
