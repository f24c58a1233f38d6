"""Draws in graphs: one operation until the compiler writes its loops, and the numbers are those of eager, bit for bit."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import funcopt as fo
from funcopt.core import random
from funcopt.core.random import operation
from funcopt.core.versions import compiler_missing
from funcopt.execute.engines.ahead import told_that_it_compiles
from funcopt.execute.engines.dynamo import compiled
from funcopt.execute.engines.philox import tell_the_compiler

pytestmark = pytest.mark.skipif(compiler_missing(torch.device("cpu")) is not None, reason="no compiler")

ENDS = torch.tensor([2**63 - 1, 2**63 - 1])  # of the range: both numbers wrap
KEYS = [random.key(0), random.key(2**40 + 7), torch.tensor([-1, -3]), ENDS, random.advance(random.key(9), 2**64 - 2)]
PLACES = [0, 5, 2**31, 2**63 - 1, -1]


def draws(key: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    folded = random.fold_in(key, place)
    return {
        "folded": folded,
        "folded by an int": random.fold_in(folded, 7),
        "split": random.split(folded, 3),
        "bits": random.bits(folded, 9, start=6),
        "signs": random.rademacher(folded, 20),
        "integers": random.randint(folded, 4, 0, 10),
        "uniform": random.uniform(folded, (), torch.float64),
        "more than a few": random.uniform(folded, 200),
    }


def test_the_numbers_are_those_of_eager_bit_for_bit():
    graph = compiled(draws, "draws")
    for key in KEYS:
        for place in PLACES:
            here, there = draws(key, torch.tensor(place)), graph(key, torch.tensor(place))
            assert all(torch.equal(here[name], there[name]) for name in here), (key, place)
    assert operation.lowered


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiler_that_knows_nothing_of_it_calls_the_formula(backend):
    tell_the_compiler()
    graph = torch.compile(draws, backend=backend, fullgraph=True)
    here, there = draws(KEYS[1], torch.tensor(3)), graph(KEYS[1], torch.tensor(3))
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_who_maps_over_keys_in_a_graph_gets_those_of_each():
    keys = torch.stack(KEYS)
    graph = compiled(lambda keys: torch.func.vmap(lambda key: random.fold_in(key, 3))(keys), "folds")
    assert torch.equal(graph(keys), torch.stack([random.fold_in(key, 3) for key in KEYS]))


def test_a_draw_is_one_operation_where_our_engines_trace_and_written_out_before_they_have_asked(monkeypatch):
    def operations() -> list[str]:
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = mode.from_tensor(KEYS[0])
            with told_that_it_compiles():
                traced = make_fx(lambda key: random.bits(random.fold_in(key, 1), 3), tracing_mode="real")(fake)
        return [str(node.target) for node in traced.graph.nodes]

    tell_the_compiler()
    ours = operations()
    assert ours.count("funcopt.philox.default") == 2 and len(ours) < 60
    monkeypatch.setattr(operation, "lowered", False)
    assert "funcopt.philox.default" not in (written_out := operations()) and len(written_out) > 200


def test_what_is_exported_needs_nothing_of_ours():
    class Draws(torch.nn.Module):
        def forward(self, key):
            return random.bits(random.fold_in(key, 1), 3)

    tell_the_compiler()
    exported = torch.export.export(Draws(), (KEYS[0],))
    assert "funcopt" not in str(exported.graph)
    assert torch.equal(exported.module()(KEYS[1]), Draws()(KEYS[1]))


def test_both_engines_step_a_chain_that_draws_as_eager_does():
    tx = fo.chain(fo.add_noise(0.1, 0.5, 3), fo.sgd(0.1))
    runs = [fo.make_step(lambda p: (p * p).sum(), tx, compile=engine) for engine in (False, True, "ahead")]
    found = []
    for step in runs:
        params, state = step.init(torch.arange(3.0))
        for _ in range(3):
            params, state, _ = step(params, state)
        found.append(params)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
