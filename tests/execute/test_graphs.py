"""Compiled graphs: what is looked at again before each call."""

import sys
import types

import torch

import funcopt as fo

t, temperature = fo.sgd(0.1), 1.0  # a transformation, whose name begins another one


def test_what_a_loss_reads_around_it_is_looked_at_whatever_its_name(monkeypatch):
    """Guards on transformations and on libraries are left out, and theirs alone."""
    module = types.ModuleType("funcopt_experiments")
    exec("scale = 1.0\ndef loss(p):\n    return p.square().sum() * scale\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "funcopt_experiments", module)
    losses = [lambda p: p.square().sum() * temperature * (1.0 if t.flattenable else 0.0), module.loss]
    places = [(sys.modules[__name__], "temperature"), (module, "scale")]
    for loss_fn, place in zip(losses, places, strict=True):
        step = fo.make_step(loss_fn, fo.sgd(0.1), compile=True)
        held = step.init(torch.ones(3))
        for number in (1.0, 2.0):
            monkeypatch.setattr(*place, number)
            assert step(*held)[2].item() == 3.0 * number
