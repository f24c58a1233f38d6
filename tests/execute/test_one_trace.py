"""A graph is traced once where its numbers are tensors, and again where it works with Python's numbers, which stay right."""

import pytest
import torch

import funcopt as fo
from funcopt.core.versions import TORCH
from funcopt.execute.engines import one_trace
from funcopt.execute.engines.dynamo import compiled
from tests.helpers import needs_compiler


def traces(monkeypatch) -> list[str]:
    """Grows by one for every second trace."""
    from torch._dynamo import exc

    told: list[str] = []
    begin = exc.TensorifyScalarRestartAnalysis.__init__
    monkeypatch.setattr(exc.TensorifyScalarRestartAnalysis, "__init__", lambda self, *given: told.append("again") or begin(self, *given))
    return told


def steepness(w):
    return (w**2).sum()


@needs_compiler
def test_a_step_is_traced_once(monkeypatch):
    again = traces(monkeypatch)
    torch._dynamo.reset()
    step = fo.make_step(steepness, fo.adamw(0.1), compile=True, donate=True)
    w, state = step.init(torch.tensor([3.0, -2.0]))
    eager = fo.make_step(steepness, fo.adamw(0.1))
    v, other = eager.init(torch.tensor([3.0, -2.0]))
    for _ in range(3):
        w, state, _ = step(w, state)
        v, other, _ = eager(v, other)
    assert torch.allclose(w, v, rtol=1e-6)
    assert any(x.dim() == 0 and x.dtype == torch.float64 for x in fo.tree.leaves(state))  # or there would be nothing to spare
    assert not again


@pytest.mark.skipif(TORCH < (2, 13), reason="the pass stands elsewhere, and is not asked for")
def test_the_compiler_would_trace_it_twice(monkeypatch):
    again = traces(monkeypatch)
    torch._dynamo.reset()
    x = torch.ones((), dtype=torch.float64)
    torch.compile(lambda x: x + 1, backend="aot_eager")(x)
    assert again, "torch has mended it: funcopt/execute/engines/one_trace.py can go"


def test_numbers_of_python_that_change_are_worked_with():
    def stretched(x, factor):
        return x * factor

    with one_trace.traced_once():
        graph = compiled(stretched, "a stretch", dynamic=None)
        for factor in (2.0, 3.0, 5.0, 7.0):  # from the second on a symbol, which the pass turns into a tensor
            assert graph(torch.ones(2), factor).tolist() == [factor, factor]


def test_what_stands_elsewhere_is_left_alone(monkeypatch):
    monkeypatch.setattr(one_trace, "KEEPERS", ("torch.no_such_module", "math"))
    with one_trace.traced_once():
        assert compiled(lambda x: x + 1, "a sum")(torch.ones(2)).tolist() == [2.0, 2.0]
