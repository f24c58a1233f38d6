"""The code of the README runs, from top to bottom, and its error is the one it shows."""

import re
from pathlib import Path

import pytest
import torch

import funcopt as fo

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "run.pt").exists()
    assert isinstance(names["tx"], fo.GradientTransformation)


def test_the_error_is_the_one_shown():
    shown = re.search(r">>> (fo\.chain.*)\n\s+ValueError: (.*)", README)
    with pytest.raises(ValueError) as error:
        eval(shown[1], {"fo": fo, "torch": torch})
    assert str(error.value) == shown[2]


def test_every_name_in_its_tables_exists():
    listed = re.findall(r"^\| (?:links|optimizers|controllers|around them) \| (.*) \|$", README, flags=re.MULTILINE)
    names = {name for row in listed for name in re.findall(r"`(?:fo\.)?([a-z_0-9]+)`", row)}
    missing = sorted(name for name in names if not hasattr(fo, name))
    assert len(names) > 20 and not missing, f"README names what is not public: {', '.join(missing)}"
