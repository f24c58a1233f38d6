"""Thousands of steps, a hundred thousand leaves, several threads: nothing grows, nothing gets slow, nobody is disturbed."""

import gc
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

import funcopt as fo
from tests.helpers import assert_trees_equal, gradients_at, rollout, small_params, tiny_params

POOL = {"adam": fo.Member(fo.scale_by_adam(), lr=0.01), "lion": fo.Member(fo.scale_by_lion(), lr=0.001)}
KINDS = {
    "adamw": lambda: fo.adamw(0.01),
    "sentence": lambda: fo.chain(
        fo.agreement_policy(), fo.roulette(POOL, every=7, seed=0), fo.ucb_episodes(episode_length=5, seed=0), fo.lr_scale()
    ),
    "from_torch": lambda: fo.torch_optim.from_torch(torch.optim.AdamW, lr=0.01),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def resident() -> int:
    """Bytes of memory in use by this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
@pytest.mark.long
@EVERY_KIND
def test_memory_does_not_grow_over_2000_steps(kind):
    tx, params = KINDS[kind](), tiny_params()
    gradients = gradients_at(0, params)
    state = tx.init(params)

    def advance(steps):
        nonlocal params, state
        for _ in range(steps):
            updates, state = tx.update(gradients, state, params, loss=1.0)
            params = fo.apply_updates(params, updates)

    advance(2000)  # until the allocator has what it needs
    gc.collect()
    grown = []
    for _ in range(3):  # what leaks grows every time, what an allocator left over from other tests moves does not
        objects, memory = len(gc.get_objects()), resident()
        advance(2000)
        gc.collect()
        assert len(gc.get_objects()) - objects <= 10
        grown.append(resident() - memory)
        if grown[-1] <= 2**20:
            break
    assert min(grown) <= 2**20


@EVERY_KIND
def test_a_state_dies_with_its_last_name(kind):
    tx, params = KINDS[kind](), tiny_params()
    _, params, state = rollout(tx, params, 3, lambda step: {"loss": 1.0})
    watched = [weakref.ref(leaf) for leaf in fo.tree.leaves((params, state))]
    gc.disable()
    try:
        del params, state
        assert [watch() for watch in watched if watch() is not None] == []
    finally:
        gc.enable()


@pytest.mark.long
def test_a_hundred_thousand_leaves_take_as_long_each_as_a_few_thousand():
    few, many = (init_and_update_of(leaves) for leaves in (5_000, 100_000))
    assert all(later < 3 * 20 * sooner for sooner, later in zip(few, many, strict=True)), (few, many)


def init_and_update_of(leaves):
    """Processor seconds of each."""
    params = {f"p{i}": torch.ones(3) for i in range(leaves)}
    tx = fo.adamw(0.01)
    moments = [time.process_time()]
    state = tx.init(params)
    moments.append(time.process_time())
    updates, state = tx.update(params, state, params)
    params = fo.apply_updates(params, updates)
    moments.append(time.process_time())
    return [after - before for before, after in zip(moments, moments[1:], strict=False)]


@EVERY_KIND
def test_threads_do_not_disturb_each_other(kind):
    lanes, steps = 8, 10
    tx = KINDS[kind]()
    starts = [small_params(shift=0.1 * lane) for lane in range(lanes)]
    extra = lambda step: {"loss": 1.0 / (step + 1)}  # noqa: E731
    alone = [rollout(tx, start, steps, extra)[1:] for start in starts]
    together: list = [None] * lanes

    def work(lane):
        together[lane] = rollout(tx, starts[lane], steps, extra)[1:]

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_trees_equal(together, alone)


@pytest.mark.long
def test_threads_over_200_steps():
    """Two updates at once from one state, over and over."""
    tx, params = KINDS["sentence"](), small_params()
    extra = lambda step: {"loss": 1.0 / (step + 1)}  # noqa: E731
    expected = rollout(tx, params, 200, extra)[1:]
    together: list = [None] * 8

    def work(lane):
        together[lane] = rollout(tx, params, 200, extra)[1:]

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in together:
        assert_trees_equal(result, expected)
