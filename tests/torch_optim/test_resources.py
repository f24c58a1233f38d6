"""Memory that does not grow, many leaves, threads (R1 to R3)."""

import gc
import threading
import time
import weakref

import pytest
import torch
from torch import nn

import funcopt as fo
from tests.torch_optim.runs import gradients, model, train


@pytest.mark.parametrize("flat", [pytest.param(False, marks=pytest.mark.long), "auto"])
def test_nothing_grows_from_step_to_step(flat):
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=1e-3, flat=flat)
    gradients(net, 0)
    for _ in range(20):
        opt.step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(500):
        opt.step()
    gc.collect()
    assert len(gc.get_objects()) <= before + 10


def test_an_optimizer_dies_with_its_last_name():
    net = model()
    opt = fo.torch_optim.adamw(net.parameters(), lr=1e-3)
    train(net, opt, 2)
    watch = weakref.ref(opt)
    del opt
    assert watch() is None


@pytest.mark.long
def test_a_hundred_thousand_leaves_take_as_long_each_as_a_few_thousand():
    few, many = (steps_of(leaves) for leaves in (5_000, 100_000))
    assert all(later < 3 * 20 * sooner for sooner, later in zip(few, many, strict=True)), (few, many)


def steps_of(leaves):
    """Processor seconds of the first step and of the second."""
    params = [nn.Parameter(torch.zeros(2)) for _ in range(leaves)]
    for p in params:
        p.grad = torch.ones(2)
    opt = fo.torch_optim.adamw(params, lr=1e-3)
    took = []
    for _ in range(2):
        began = time.process_time()
        opt.step()
        took.append(time.process_time() - began)
    return took


def test_optimizers_of_one_transformation_in_many_threads():
    tx = fo.adamw(None)

    def run(results, index):
        params = [nn.Parameter(torch.full((4,), float(index)))]
        opt = fo.torch_optim.Optimizer(params, tx, lr=0.1)
        for step in range(50):
            params[0].grad = torch.cos(params[0].detach() + step)
            opt.step()
        results[index] = params[0].detach().clone()

    together, alone = {}, {}
    threads = [threading.Thread(target=run, args=(together, index)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(8):
        run(alone, index)
        assert torch.equal(alone[index], together[index])
