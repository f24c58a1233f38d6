"""The recipes of docs/integrations.md run, and print what the page shows."""

import logging
import re
from pathlib import Path

import pytest
import torch

import funcopt as fo
from funcopt.core.versions import TORCH

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
ALWAYS = re.search(r"```python\n# always\n(.*?)```", PAGE, re.DOTALL).group(1)
RECIPES = {
    tool: (code, shown) for tool, code, shown in re.findall(r"```python\n# tool: ([\w ]+)\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_every_recipe_shows_what_it_prints():
    assert set(RECIPES) == set(re.findall(r"# tool: ([\w ]+)\n", PAGE))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tool", RECIPES)
def test_prints_what_the_page_shows(tool, tmp_path, capsys):
    pytest.importorskip(tool.split()[0])
    if tool == "torch" and TORCH < (2, 3):
        pytest.skip("the scaler works on CPUs from torch 2.3 on")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    code, shown = RECIPES[tool]
    space = {"torch": torch, "fo": fo, "folder": str(tmp_path), "quiet": QUIET}
    exec(ALWAYS, space)
    exec(code, space)
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{'")]  # but the words of the Trainer
    assert "\n".join(printed) == shown.strip()
