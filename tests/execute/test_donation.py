"""Donation: one pass in place in the generated code, and a test for each trap that fails without its guard."""

import re
from contextlib import nullcontext

import pytest
import torch

import funcopt as fo
from funcopt.execute.donation import Late, write_back, write_late
from funcopt.execute.engines import dynamo
from funcopt.execute.engines.dynamo import compiled
from tests.helpers import assert_trees_equal, needs_compiler

SIZE = 40_000  # entries, a number that stands nowhere else in the code


def donated(f, writer=write_back):
    """`f(state) -> state` in place, compiled or not."""

    def step(state):
        return writer(state, f(state))

    return step


def copies(old, new):
    """What one would write: the evidence for the guards."""
    for target, result in zip(fo.tree.leaves(old), fo.tree.leaves(new), strict=True):
        target.copy_(result)
    return Late()


def foreach_copies(old, new):
    torch._foreach_copy_(fo.tree.leaves(old), fo.tree.leaves(new))
    return Late()


def after(f, state, writer=write_back, compile=True, steps=2):
    state = fo.tree.clone(state)
    step = donated(f, writer)
    if compile:
        torch._dynamo.reset()
        step = compiled(step, "a test")
    for _ in range(steps):
        write_late(step(state))
    return state


def pure(f, state, steps=2):
    for _ in range(steps):
        state = f(state)
    return state


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def turned(state):
    """Each result is an old leaf in another place."""
    return {"a": state["b"], "b": state["c"], "c": state["a"]}


def looked_at(state):
    """A result that is a view of an old leaf, which itself moves on."""
    return {"a": 2 * state["a"], "b": state["a"][:2]}


def cloned(state):
    """Copies of old leaves, which a compiler sees through."""
    return {
        "a": 2 * state["a"],
        "b": state["a"][:2].clone(),
        "c": state["a"].clone(),
        "d": state["a"].reshape(3, 1).expand(3, 2).contiguous(),
    }


def picked(state):
    """Numbers out of an old vector."""
    return {"all": state["all"] * 2, "first": state["all"][0], "last": state["all"].sum() - state["all"][:2].sum()}


def shifted(state):
    """A window of the last values."""
    return {"window": torch.cat([state["window"][1:], state["next"]]), "next": state["next"] + 1}


def counted(state):
    """0-dim float64 results, and a leaf worked out from the old ones."""
    return {"count": state["count"] + 1, "size": 0.5 * state["size"], "sum": state["sum"] + state["size"] * (state["count"] + 1)}


TRAPS = {
    "an old leaf in another place": (turned, {"a": vector(1, 2, 3), "b": vector(4, 5, 6), "c": vector(7, 8, 9)}),
    "old numbers in other places": (turned, {"a": number(1.0), "b": number(2.0), "c": number(3.0)}),
    "a view of an old leaf": (looked_at, {"a": vector(1, 2, 3), "b": vector(0, 0)}),
    "copies of an old leaf": (
        cloned,
        {"a": vector(1, 2, 3), "b": vector(0, 0), "c": vector(0, 0, 0), "d": torch.zeros(3, 2, dtype=torch.float64)},
    ),
    "a window that moves on": (shifted, {"window": torch.arange(40.0), "next": torch.ones(1)}),
    "a number out of an old leaf": (picked, {"all": vector(1, 2, 3), "first": number(0.0), "last": number(0.0)}),
    "numbers that a leaf is worked out from": (
        counted,
        {"count": number(0.0), "size": number(1.0), "sum": torch.zeros(64, dtype=torch.float64)},
    ),
}
EVERY_TRAP = pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())


@EVERY_TRAP
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.long)], ids=["eager", "compiled"])
def test_results_arrive(trap, compile):
    f, state = trap
    assert_trees_equal(after(f, state, compile=compile), pure(f, state))


@pytest.mark.long
@EVERY_TRAP
@pytest.mark.parametrize("writer", [copies, foreach_copies])
def test_without_the_guards_some_results_do_not_arrive(trap, writer, monkeypatch):
    """The evidence for the guards: where this stops failing for every trap, they can go."""
    f, state = trap
    monkeypatch.setattr(dynamo, "last_passes", dict)
    monkeypatch.setattr(dynamo, "traced_once", nullcontext)
    if f is shifted or (f is picked and writer is copies):
        pytest.skip("torch 2.13 gets this right by itself")
    right = pure(f, state)
    wrong = after(f, state, writer)
    assert not all(torch.equal(x, y) for x, y in zip(fo.tree.leaves(wrong), fo.tree.leaves(right), strict=True))


@pytest.fixture(scope="module")
def code():
    """What the compiler makes of a donated flat adamw."""
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    step = fo.make_step(lambda p: (p["w"] * p["b"]).sum(), fo.adamw(0.1), compile=True, flat=True, donate=True)
    params, state = step.init({"w": torch.ones(SIZE), "b": torch.ones(SIZE)})
    with torch._inductor.config.patch(force_disable_caches=True):
        _, codes = run_and_get_code(lambda: step(params, state))
    return codes[-1]


@needs_compiler
def test_the_generated_code_holds_no_other_buffer_of_the_size_of_the_params(code):
    call = code[code.index("def call(") :]
    assert "empty_strided_cpu" in call  # for the numbers of the state
    sizes = [int(size) for size in re.findall(r"empty_strided_cpu\(\((\d+),", call)]
    # The gradient, which the loss needs as a whole before the update starts, and nothing else.
    assert sum(size >= SIZE for size in sizes) <= 1


def test_links_stay_pure_when_a_step_is_donated():
    tx, params = fo.adamw(0.1), {"w": torch.ones(3)}
    state = tx.init(params)
    before = fo.tree.clone((params, state))
    tx.update({"w": torch.full((3,), 0.5)}, state, params)
    assert_trees_equal((params, state), before)
    step = fo.make_step(lambda p: p["w"].sum(), tx, donate=True)
    step(*step.init(params, state))
    assert_trees_equal((params, state), before)
