"""Blocks of code on pages that are no dialogue (`>>>`) run as well: here, or in the tests of the page that is named."""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import funcopt as fo

DOCS = Path(__file__).parents[1] / "docs"
TESTED = {  # whose blocks tests of their own run
    "integrations.md": "tests/integrations/test_recipes.py",
    "logging.md": "tests/integrations/test_logging.py",
    "from-the-sources.md": "tests/torch_optim/test_from_the_sources.py",
}
THEIRS = {"model = Model(net=net, strategy=SamplingStrategy.BOTTOM_UP)"}  # the code of another library, which ours is shown beside
ELSEWHERE = {
    'mesh = dist.init_device_mesh("cuda", (16, 4), mesh_dim_names=("population", "model"))': "tests/es/test_distributed.py",
    "def policy(params, obs):": "tests/integrations/test_gymnasium.py",
}


def blocks(page: Path) -> list[str]:
    """Those of Python without prompts."""
    found = re.findall(r"^ *```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in found if ">>>" not in block]


def bowl() -> dict[str, Any]:
    """What the pages have introduced before."""
    weights = {"w": torch.zeros(3), "v": torch.zeros(2)}
    x, y = torch.ones(4, 3), torch.ones(4)

    def objective(params: dict[str, torch.Tensor], *data: torch.Tensor) -> torch.Tensor:
        return torch.stack([(leaf - 1).square().sum() for leaf in params.values()]).sum()

    names = {"torch": torch, "fo": fo, "os": os, "dist": dist, "params": weights, "x": x, "y": y, "objective": objective, "tx": fo.sgd(0.1)}
    return names | {"loss_fn": objective, "episode_return": objective, "key": 0, "root": fo.random.key(0), "step": 3, "generations": 12}


def as_it_is(block: str) -> str:
    return block


def few_steps(block: str) -> str:
    return block.replace("seeds=5", "seeds=2").replace("steps=600", "steps=4")


def with_grad(block: str) -> str:
    return "grad = fo.es.grad(objective, popsize=4, sigma=0.1)\n" + block


def updated(names: dict[str, Any]) -> None:
    assert int(names["generation"]) == 11 and Path("run.pt").is_file()


def moved(names: dict[str, Any]) -> None:
    assert names["objective"](names["params"]) < 5


RUN: dict[str, tuple[Callable[[str], str], Callable[[dict[str, Any]], Any]]] = {  # first line -> what is run, and what is seen then
    "search = fo.es.snes(sigma=0.5)": (as_it_is, moved),
    'torch.distributed.init_process_group("gloo")': (as_it_is, lambda names: names["info"].fitness.shape == (1024,)),
    'run = {"params": params, "state": tx.init(params), "key": root, "generation": torch.tensor(0)}': (with_grad, updated),
    'grad_fn = fo.es.layerwise(episode_return, strategy="all", popsize=100, sigma=0.1, vectorize="processes", workers=4)': (
        as_it_is,
        lambda names: callable(names["grad_fn"]),
    ),
    "import funcopt as fo": (few_steps, lambda names: Path("runs/mine/results.json").is_file()),
}
ALL = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    if page.relative_to(DOCS).parts[0] not in ("_build", "api") and page.name not in TESTED
    for number, block in enumerate(blocks(page))
]


@pytest.fixture
def one_rank(tmp_path, monkeypatch):
    """What torchrun sets for a job of one rank, and nothing of it afterwards."""
    monkeypatch.chdir(tmp_path)
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in rendezvous.items():
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("block", ALL)
def test_a_block_runs(block, one_rank):
    first = block.split("\n")[0]
    lines = [line for line in block.splitlines() if line.strip()]
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    if first in THEIRS or all(line in readme for line in lines):  # its code runs, too
        ast.parse(block)
        return
    if first in ELSEWHERE:
        assert (DOCS.parent / ELSEWHERE[first]).is_file()
        ast.parse(block)
        return
    assert first in RUN, f"no test runs the block that begins with {first!r}; give it its line in RUN of tests/test_blocks.py"
    prepare, seen = RUN[first]
    if "dist." in block and "process_group" not in block:
        dist.init_process_group("gloo")
    names = bowl()
    exec(compile(prepare(block), "page", "exec"), names)
    assert seen(names) is not False


def test_pages_with_tests_of_their_own_have_them():
    assert not [test for test in TESTED.values() if not (DOCS.parent / test).is_file()]
    assert not [page for page in TESTED if not blocks(DOCS / page)]
