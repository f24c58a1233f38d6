"""What torch's compiler refuses by mistake compiles, with the right numbers, and its other errors stay what they are."""

import pytest
import torch
from torch._inductor import config

import funcopt as fo
from funcopt.core.versions import TORCH
from funcopt.execute.engines import ahead, dynamo, local_buffers
from tests.helpers import assert_trees_close, needs_compiler

X = torch.linspace(-1.0, 1.0, 16)


def steepness(params):
    return (params["w"] @ X).square().sum()


@needs_compiler
@pytest.mark.parametrize("compile", [True, "ahead"])
def test_a_leaf_that_is_read_in_loops_and_then_donated(compile, monkeypatch):
    asked_again = []
    again = local_buffers.compiling_again
    module = dynamo if compile is True else ahead
    monkeypatch.setattr(module, "compiling_again", lambda error, call: asked_again.append(str(error)) or again(error, call))
    torch._dynamo.reset()
    params = {"w": torch.sin(torch.arange(256.0)).reshape(16, 16)}
    trained = []
    with config.patch(force_disable_caches=True):
        for settings in ({"compile": compile, "donate": True}, {}):
            step = fo.make_step(steepness, fo.adamw(1e-2), **settings)
            held, state = step.init(params)
            for _ in range(3):
                held, state, _ = step(held, state)
            trained.append((held, state))
    assert_trees_close(*trained, rtol=1e-5, atol=1e-6)
    assert all("KeyError: 'buf" in told for told in asked_again)
    assert len(asked_again) == 1 or TORCH != (2, 13)  # a later torch may have mended it


def test_another_error_is_raised_as_it_is():
    error = KeyError("buf21")
    with pytest.raises(KeyError) as raised:
        local_buffers.compiling_again(error, lambda: None)
    assert raised.value is error
