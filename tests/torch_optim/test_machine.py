"""A random walk through what people do to an optimizer, ours beside torch's: steps, pauses, rates, saving, copies, groups, scalers."""

import copy
import io

import pytest
import torch
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import funcopt as fo
from tests.torch_optim.runs import assert_close, gradients, model

KINDS = {
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.05}),
    "adam": (torch.optim.Adam, {"lr": 0.02, "weight_decay": 0.05, "amsgrad": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.05}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.05}),
    "radam": (torch.optim.RAdam, {"lr": 0.02, "weight_decay": 0.05}),
}


class Machine(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99), flat=st.sampled_from(["auto", False, True]))
    def start(self, kind, seed, flat):
        self.kind, self.flat = kind, flat
        self.theirs, self.settings = KINDS[kind]
        self.nets = [model(seed=seed), model(seed=seed)]
        self.added, self.clock = [], 0
        self.opts = [self.theirs(self.nets[0].parameters(), **self.settings), self.make(self.nets[1].parameters())]

    def make(self, params):
        return getattr(fo.torch_optim, self.kind)(params, flat=self.flat, **self.settings)

    def grads(self, seed, frozen=()):
        for index, net in enumerate(self.nets):
            gradients(net, seed, frozen)
            for extra in self.added:
                extra[index].grad = (extra[index].detach() - seed % 3).clone()

    @rule(seed=st.integers(0, 99), frozen=st.sets(st.integers(0, 3)))
    def step(self, seed, frozen):
        self.grads(seed, frozen)
        for opt in self.opts:
            opt.step()

    @rule(factor=st.floats(0.1, 2))
    def scale_lr(self, factor):
        for opt in self.opts:
            for group in opt.param_groups:
                group["lr"] *= factor

    @rule()
    def save_load(self):
        fresh = []
        for opt, make in zip(self.opts, (lambda p: self.theirs(p, **self.settings), self.make), strict=True):
            file = io.BytesIO()
            torch.save(opt.state_dict(), file)
            file.seek(0)
            other = make([{"params": list(group["params"])} for group in opt.param_groups])
            other.load_state_dict(torch.load(file, weights_only=True))
            fresh.append(other)
        self.opts = fresh

    @rule()
    def clone(self):
        pairs = [
            copy.deepcopy((net, opt, [extra[i] for extra in self.added]))
            for i, (net, opt) in enumerate(zip(self.nets, self.opts, strict=True))
        ]
        self.nets = [pair[0] for pair in pairs]
        self.opts = [pair[1] for pair in pairs]
        self.added = [list(both) for both in zip(pairs[0][2], pairs[1][2], strict=True)]

    @rule()
    def add_group(self):
        if len(self.added) == 2:
            return
        both = [torch.nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64)) for _ in self.opts]
        for opt, p in zip(self.opts, both, strict=True):
            opt.add_param_group({"params": [p], "lr": 0.01})
        self.added.append(both)

    @rule(seed=st.integers(0, 99), inf=st.booleans())
    def inf_through_scaler(self, seed, inf):
        if not hasattr(torch.amp, "GradScaler"):  # torch 2.1 and 2.2
            return
        self.grads(seed)
        for net, opt in zip(self.nets, self.opts, strict=True):
            scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
            scaler.scale(torch.ones(()))
            for group in opt.param_groups:
                for p in group["params"]:
                    p.grad.mul_(4.0)
            if inf:
                next(net.parameters()).grad.view(-1)[0] = float("inf")
            scaler.step(opt)
            scaler.update()

    @invariant()
    def same(self):
        if hasattr(self, "nets"):
            mine, theirs = ([*net.parameters(), *(extra[i] for extra in self.added)] for i, net in ((1, self.nets[1]), (0, self.nets[0])))
            assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=10, deadline=None)


@pytest.mark.long
class TestLongMachine(Machine.TestCase):
    settings = settings(max_examples=5000, stateful_step_count=20, deadline=None)
